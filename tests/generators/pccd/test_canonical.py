"""Canonical cells: the same crystal, the same description."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.generators.pccd.canonical import canonical_cell, metric_preserving_axes

SPINEL = Structure.from_spacegroup(
    "Fd-3m",
    Lattice.cubic(8.09),
    ["Mg", "Al", "O"],
    [[0, 0, 0], [0.625, 0.625, 0.625], [0.388, 0.388, 0.388]],
).get_primitive_structure()
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)


def canonical(structure):
    reduced = structure.get_reduced_structure("niggli")
    return canonical_cell(
        reduced.lattice.matrix, np.array(reduced.atomic_numbers), reduced.frac_coords
    )


@pytest.mark.parametrize("structure", [SPINEL, RUTILE], ids=["spinel", "rutile"])
def test_origin_and_order_do_not_matter(structure):
    rng = np.random.default_rng(0)
    expected = canonical(structure)
    for _ in range(5):
        other = structure.copy()
        other.translate_sites(range(len(other)), rng.random(3), to_unit_cell=True)
        other = Structure.from_sites([other[i] for i in rng.permutation(len(other))])
        found = canonical(other)
        assert found.numbers.tolist() == expected.numbers.tolist()
        assert np.allclose(found.frac_coords, expected.frac_coords, atol=1e-3)
        assert np.allclose(found.lengths, expected.lengths, atol=1e-6)


@pytest.mark.parametrize("structure", [SPINEL, RUTILE], ids=["spinel", "rutile"])
def test_it_is_the_same_crystal(structure):
    cell = canonical(structure)
    lattice = Lattice.from_parameters(*cell.lengths, *cell.angles)
    assert StructureMatcher().fit(structure, Structure(lattice, cell.numbers, cell.frac_coords))


def test_electropositive_elements_first_and_rarest_at_origin():
    cell = canonical(SPINEL)
    assert cell.numbers.tolist() == [12] * 2 + [13] * 4 + [8] * 8
    assert cell.frac_coords[0] == pytest.approx([0, 0, 0], abs=1e-9)
    assert (cell.frac_coords >= -1 / 96 - 1e-12).all()
    assert (cell.frac_coords < 95 / 96).all()


@pytest.mark.parametrize(
    ("lattice", "order"),
    [
        (Lattice.cubic(4), 48),
        (Lattice.tetragonal(4, 6), 16),
        (Lattice.orthorhombic(3, 4, 5), 8),
        (Lattice.from_parameters(3, 4, 5, 80, 85, 70), 2),
    ],
)
def test_axis_choices_are_the_lattice_symmetries(lattice, order):
    assert len(metric_preserving_axes(lattice.matrix)) == order
