"""Who is it: by geometry, symmetric, in any order; duplicates, substitutions and new types."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.known.identify import Identifier, find_known, kinds_of_new
from pccd_workflows.known.library import KnownLibrary, library
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
    """Return a supercell-free copy whose sites moved by `distance` Å."""
    copy = structure.copy()
    copy.perturb(distance)
    return copy


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
