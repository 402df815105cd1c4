"""Space groups, standard cells and frames: one description per crystal, symmetry that holds."""

import numpy as np
import pytest
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.generators.pccd.frames import Template, batch_frames, frame_of
from pccd_workflows.generators.pccd.space_groups import descriptions, space_group
from pccd_workflows.generators.pccd.standard import StandardCell, standard_cell
from pccd_workflows.generators.pccd.templates import exchange
from pccd_workflows.generators.pccd.ties import find_ties

CRYSTALS = {
    "rock salt": ("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]),
    "rutile": (
        "P4_2/mnm",
        Lattice.tetragonal(4.59, 2.96),
        ["Ti", "O"],
        [[0] * 3, [0.305] * 2 + [0]],
    ),
    "spinel": (
        "Fd-3m",
        Lattice.cubic(8.09),
        ["Mg", "Al", "O"],
        [[0, 0, 0], [0.625] * 3, [0.388] * 3],
    ),
    "wurtzite": (
        "P6_3mc",
        Lattice.hexagonal(3.82, 6.26),
        ["Zn", "S"],
        [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]],
    ),
    "corundum": (
        "R-3c",
        Lattice.hexagonal(4.76, 12.99),
        ["Al", "O"],
        [[0, 0, 0.352], [0.306, 0, 0.25]],
    ),
    "anatase": ("I4_1/amd", Lattice.tetragonal(3.78, 9.51), ["Ti", "O"], [[0] * 3, [0, 0, 0.208]]),
    "GdFeO3": (
        "Pnma",
        Lattice.orthorhombic(5.6, 7.67, 5.35),
        ["Gd", "Fe", "O", "O"],
        [[0.06, 0.25, 0.98], [0, 0, 0.5], [0.47, 0.25, 0.1], [0.3, 0.05, 0.7]],
    ),
    "zirconia": (
        "P2_1/c",
        Lattice.monoclinic(5.15, 5.2, 5.32, 99.2),
        ["Zr", "O", "O"],
        [[0.275, 0.04, 0.208], [0.07, 0.33, 0.345], [0.45, 0.76, 0.48]],
    ),
}


def crystal(name: str) -> Structure:
    group, lattice, species, coords = CRYSTALS[name]
    return Structure.from_spacegroup(group, lattice, species, coords).get_primitive_structure()


def standard(structure: Structure) -> StandardCell:
    return standard_cell(
        structure.lattice.matrix, np.array(structure.atomic_numbers), structure.frac_coords
    )


def structure_of(cell: StandardCell) -> Structure:
    lattice = Lattice.from_parameters(*cell.lengths, *cell.angles)
    return Structure(lattice, cell.numbers, cell.frac_coords)


def template_of(cell: StandardCell) -> Template:
    lattice = Lattice.from_parameters(*cell.lengths, *cell.angles).matrix
    return Template(cell.space_group, cell.numbers, cell.frac_coords, lattice)


def described_otherwise(structure: Structure, seed: int) -> Structure:
    """Return the crystal with other axes, another origin and another order of sites."""
    rng = np.random.default_rng(seed)
    other = structure.copy()
    other.translate_sites(range(len(other)), rng.random(3), to_unit_cell=True)
    other = Structure.from_sites([other[i] for i in rng.permutation(len(other))])
    other.make_supercell(np.eye(3, dtype=int)[rng.permutation(3)])
    other.make_supercell([[1, 0, 0], [0, 1, 0], [int(rng.integers(2)), 0, 1]])
    return other


@pytest.mark.parametrize("number", range(1, 231))
def test_the_operations_are_a_group(number):
    group = space_group(number)
    found = {w.tobytes(): t for w, t in zip(group.rotations, group.translations, strict=True)}
    assert len(found) == len(group.rotations)
    generators = [1 % len(group.rotations), len(group.rotations) // 2, len(group.rotations) - 1]
    for g in generators:
        products = group.rotations @ group.rotations[g]
        shifts = group.rotations @ group.translations[g] + group.translations
        for product, shift in zip(products, shifts, strict=True):
            apart = shift - found[product.tobytes()]
            assert np.abs(apart - np.rint(apart)).max() < 1e-5


@pytest.mark.parametrize(
    ("number", "origins"),
    [(2, 8), (16, 8), (47, 8), (62, 8), (194, 2), (216, 4), (221, 2), (225, 2)],
)
def test_descriptions_keep_the_operations(number, origins):
    group, ways = space_group(number), descriptions(number)
    assert len(np.unique(ways.shifts[: origins + 1], axis=0)) >= origins
    found = {w.tobytes(): t for w, t in zip(group.rotations, group.translations, strict=True)}
    for m, t in list(zip(ways.rotations, ways.shifts, strict=True))[:60]:
        back = np.rint(np.linalg.inv(m)).astype(int)
        for w, shift in zip(group.rotations, group.translations, strict=True):
            turned = m @ w @ back
            apart = t + m @ shift - turned @ t - found[turned.tobytes()]
            assert np.abs(apart - np.rint(apart)).max() < 1e-4


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_crystal_has_one_description(name):
    structure = crystal(name)
    first = standard(structure)
    assert StructureMatcher(scale=False).fit(structure, structure_of(first))
    for seed in range(6):
        other = standard(described_otherwise(structure, seed))
        assert other.structure_type == first.structure_type
        assert other.numbers.tolist() == first.numbers.tolist()
        assert np.allclose(other.lengths, first.lengths, atol=1e-4)
        apart = other.frac_coords - first.frac_coords
        assert np.abs(apart - np.rint(apart)).max() < 1e-3


def test_a_type_is_the_same_for_other_elements_and_sizes_and_others_differ():
    def of_type(name, species, scale=1.0):
        group, lattice, _, coords = CRYSTALS[name]
        lattice = Lattice(lattice.matrix * scale)
        structure = Structure.from_spacegroup(group, lattice, species, coords)
        return standard(structure.get_primitive_structure()).structure_type

    assert of_type("rock salt", ["Na", "Cl"]) == of_type("rock salt", ["O", "Mg"], 0.8)
    assert of_type("GdFeO3", ["Gd", "Fe", "O", "O"]) == of_type("GdFeO3", ["Ca", "Ti", "O", "O"])
    types = [standard(crystal(name)).structure_type for name in CRYSTALS]
    assert len(set(types)) == len(CRYSTALS)


def test_fluorite_and_antifluorite_are_one_type():
    def fluorite(species):
        cubic = Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(5.4), species, [[0] * 3, [0.25] * 3]
        )
        return standard(cubic.get_primitive_structure()).structure_type

    assert fluorite(["Ca", "F"]) == fluorite(["O", "Li"])


def test_a_crystal_without_symmetry_stays_in_p1():
    lattice = Lattice.from_parameters(4, 5, 6.3, 81, 97, 103)
    structure = Structure(lattice, ["Li", "O", "F"], [[0] * 3, [0.31, 0.44, 0.27], [0.7, 0.1, 0.6]])
    cell = standard(structure)
    assert cell.space_group == 1
    assert StructureMatcher(scale=False).fit(structure, structure_of(cell))


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("setting", ["reduced", "standard"])
def test_whatever_goes_through_a_frame_has_its_symmetry(name, setting):
    cell = standard(crystal(name))
    frame = frame_of(template_of(cell), setting)
    n = len(frame.numbers)
    assert np.allclose(frame.matrix @ frame.matrix, frame.matrix, atol=1e-8)
    lattice = Lattice.from_parameters(*frame.lengths, *frame.angles)
    same = Structure(lattice, frame.numbers, frame.frac_coords)
    assert StructureMatcher(scale=False).fit(same, structure_of(cell))

    rng = np.random.default_rng(1)
    batch = batch_frames([frame], n + 1).double()
    frac = frame.frac_coords + 0.03 * rng.standard_normal((n, 3))
    import torch

    padded = np.concatenate([frac, np.zeros((1, 3))])
    placed = batch.place(torch.from_numpy(padded)[None])[0, :n].numpy()
    lengths = frame.lengths * (1 + 0.03 * rng.standard_normal(3))
    angles = frame.angles + rng.standard_normal(3)
    lengths, angles = batch.shape_cell(
        torch.from_numpy(lengths)[None], torch.from_numpy(angles)[None]
    )
    made = Lattice.from_parameters(*lengths[0].tolist(), *angles[0].tolist()).matrix
    found = spglib.get_symmetry_dataset((made, placed, frame.numbers), symprec=1e-4)
    assert found.number == cell.space_group
    assert np.abs(placed - frame.frac_coords).max() < 0.15  # moved as the noise says, not away


def test_noise_in_a_frame_is_as_strong_as_it_was():
    import torch

    frame = frame_of(template_of(standard(crystal("corundum"))), "standard")
    batch = batch_frames([frame] * 500, 10)
    noise = torch.randn((500, 10, 3), generator=torch.Generator().manual_seed(0))
    tied = batch.tie(noise)
    free = tied.square().sum(-1).mean(0)
    assert torch.allclose(free, torch.ones(10), atol=0.25)  # one free coordinate per site


def test_elements_are_exchanged_by_their_number_of_atoms():
    template = template_of(standard(crystal("spinel")))
    other = exchange(template, {12: 4, 32: 2, 8: 8})  # Mg2GeO4: Ge on the site of Mg
    assert sorted(other.numbers.tolist()) == [8] * 8 + [12] * 4 + [32] * 2
    assert other.frac_coords[other.numbers == 32].tolist() == (
        template.frac_coords[template.numbers == 12].tolist()
    )
    with pytest.raises(KeyError):
        exchange(template, {12: 3, 32: 3, 8: 8})


def test_sites_that_an_operation_would_merge_have_no_ties():
    group = space_group(2)
    frac = np.array([[0.1, 0.1, 0.1], [0.3, 0.3, 0.3]])
    assert find_ties(group.rotations, group.translations, np.eye(3), np.array([1, 1]), frac) is None
