"""Who is it: by geometry, symmetric, in any order; duplicates, substitutions and new types."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.known.identify import Identifier, find_known, kinds_of_new
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.matching.cells import reduce_structure
from tests.known.made_up import (
    RECORDS,
    bcc,
    caesium_chloride,
    fluorite,
    make_library,
    record,
    rocksalt,
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownLibrary:
    twin = record("mp-9", rocksalt("Mg", "O", 4.25))
    return make_library(tmp_path_factory.mktemp("known"), [*RECORDS, twin])


def displaced(structure: Structure, distance: float) -> Structure:
    """Return a copy whose sites moved by `distance` Å, always in the same directions."""
    directions = np.random.default_rng(1).normal(size=(len(structure), 3))
    moves = distance * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    coords = structure.cart_coords + moves
    return Structure(structure.lattice, structure.species, coords, coords_are_cartesian=True)


CRYSTALS = [
    (rocksalt("Mg", "O", 4.2), "mp-10"),  # mp-9 is the same: "mp-10" < "mp-9"
    (caesium_chloride("O", "Mg", 2.8), "mp-11"),
    (rocksalt("Mg", "S", 5.2), None),
    (bcc("Mg", 3.1), "mp-1"),
    (fluorite("Mg", "O"), "wbm-1"),
    (rocksalt("Na", "Cl", 5.5) * (2, 1, 1), "mp-20"),
    (Structure(Lattice.cubic(4), ["Mg", "O"], [[0, 0, 0], [0.5, 0, 0]]), None),
]


def test_the_same_crystal_is_found(known: KnownLibrary) -> None:
    """Whatever its cell and size, in any order, also displaced by 0.1 Å."""
    expected = [identifier for _, identifier in CRYSTALS]
    assert find_known([crystal for crystal, _ in CRYSTALS], known) == expected
    identifier = Identifier(known)
    order = np.random.default_rng(0).permutation(len(CRYSTALS)).tolist()
    assert identifier.find_known([CRYSTALS[i][0] for i in order]) == [expected[i] for i in order]
    moved = [displaced(crystal, 0.1) for crystal, found in CRYSTALS if found is not None]
    assert None not in identifier.find_known(moved)
    assert identifier.find_known([]) == []


def test_kinds_of_new(known: KnownLibrary) -> None:
    chain = Structure(Lattice.orthorhombic(3, 5, 9), ["Mg", "O"], [[0, 0, 0], [0.5, 0, 0.1]])
    found = kinds_of_new(
        [rocksalt("Mg", "O"), rocksalt("Ca", "S"), fluorite("O", "Li"), chain, bcc("Li")], known
    )
    assert [(k.kind, k.known_id) for k in found] == [
        ("duplicate", "mp-10"),
        ("substitution", "mp-10"),
        ("substitution", "wbm-1"),  # antifluorite: the other way round
        ("new_structure_type", None),
        ("substitution", "mp-1"),
    ]


def layered(a: str, b: str, z: float) -> Structure:
    """Return AB in the PbO type; how far the layers reach depends on z."""
    cell = Lattice.tetragonal(4.0, 5.04)
    return Structure.from_spacegroup("P4/nmm", cell, [a, b], [[0, 0, 0], [0, 0.5, z]])


def test_the_same_positions_are_the_same_type_whatever_their_free_coordinates(tmp_path) -> None:
    """Where geometry does not match: space group and Wyckoff positions, but in triclinic cells."""
    triclinic = Lattice.from_parameters(4, 5, 6, 70, 80, 85)
    one, other = np.random.default_rng(1).random((2, 6, 3))
    records = [
        record("mp-1", layered("Ge", "Te", 0.23), spacegroup=129),
        record("mp-2", Structure(triclinic, ["Ge"] * 2 + ["S"] * 4, one), spacegroup=1),
    ]
    known = make_library(tmp_path, records)
    crystals = [
        layered("Sn", "S", 0.23),
        layered("Sn", "S", 0.4),
        Structure(triclinic, ["Sn"] * 2 + ["Te"] * 4, other),
    ]
    assert not StructureMatcher().fit_anonymous(crystals[1], known.structure(0))
    assert crystals[2].get_space_group_info()[1] == 1
    assert [(k.kind, k.known_id) for k in kinds_of_new(crystals, known)] == [
        ("substitution", "mp-1"),
        ("substitution", "mp-1"),
        ("new_structure_type", None),
    ]


def test_reduced_cells_of_the_library_are_those_of_its_structures(known: KnownLibrary) -> None:
    for row in range(len(known)):
        found, expected = known.cell(row), reduce_structure(known.structure(row))
        assert found.species == expected.species
        assert found.matrix == pytest.approx(expected.matrix, abs=1e-9)
        assert found.coords == pytest.approx(expected.coords, abs=1e-9)


def test_more_crystals_than_are_kept(known: KnownLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are the same where reduced cells have to make room for others."""
    monkeypatch.setattr("pccd_workflows.known.identify.MAX_CRYSTALS", 1)
    identifier = Identifier(known)
    for crystal, expected in CRYSTALS * 2:
        assert identifier.find_known([crystal]) == [expected]
    kinds = [identifier.kinds_of_new([c])[0].kind for c in (rocksalt("K", "F"), bcc("K")) * 2]
    assert kinds == ["substitution"] * 4


def test_the_library_that_ships() -> None:
    """Every crystal knows itself, displaced ones too."""
    known = library()
    rows = np.random.default_rng(7).permutation(np.flatnonzero(known.n_sites <= 12))[:60]
    crystals = [known.structure(int(row)) for row in rows]
    found = Identifier(known).find_known(crystals + [displaced(c, 0.05) for c in crystals])
    assert None not in found
    same = [known.crystal(int(row)).id >= hit for row, hit in zip(rows, found, strict=False)]
    assert all(same)
