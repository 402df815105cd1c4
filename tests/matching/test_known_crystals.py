"""Known crystals: identity across many compositions at once, structure types, the kept file."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.matching.cells import reduce_structure
from pccd_workflows.matching.known_crystals import KnownCrystals, relabelled
from pccd_workflows.matching.settings import MatcherSettings

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0] * 3, [0.5] * 3]
)
FLUORITE = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]]
)
PEROVSKITE = Structure(
    Lattice.cubic(3.9),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
CAESIUM_CHLORIDE = Structure(Lattice.cubic(2.7), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SALTS = {"r": ROCK_SALT, "f": FLUORITE, "p": PEROVSKITE, "t": RUTILE, "c": CAESIUM_CHLORIDE}


def other(structure: Structure, **species: str) -> Structure:
    """Return the crystal with other species, some distortion, permuted and shifted."""
    copy = structure.copy()
    copy.replace_species(species)
    copy.perturb(0.03)
    return Structure.from_sites(copy[::-1]).translate_sites(range(len(copy)), [0.2, 0.3, 0.7])


def test_crystals_of_many_compositions_are_looked_up_at_once() -> None:
    """Cells of 1, 2, 3, 5 and 6 sites in one batch, each with its own partners."""
    known = KnownCrystals(SALTS.items())
    asked = [other(structure) for structure in SALTS.values()]
    asked += [other(ROCK_SALT, O="S"), Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]])]
    known.add("po", asked[-1])
    assert known.find_all(asked) == ["r", "f", "p", "t", "c", None, "po"]
    assert known.find_all([]) == []


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (other(ROCK_SALT, Mg="Fe"), "r"),
        (other(ROCK_SALT, Mg="O", O="Mg"), "r"),  # which of the two is which does not matter
        (other(FLUORITE, Ca="O", F="Li"), "f"),  # the antitype is the same type
        (other(PEROVSKITE, Sr="Ti", Ti="Sr"), "p"),  # nor which cation sits in the octahedra
        (other(PEROVSKITE, Sr="Cs", Ti="Pb", O="I"), "p"),
        (other(RUTILE, Ti="Sn"), "t"),
        (Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]]), None),
    ],
)
def test_a_new_composition_of_a_known_type_is_noticed(
    structure: Structure, expected: str | None
) -> None:
    """The verdict is that of StructureMatcher.fit_anonymous in either direction."""
    matcher = StructureMatcher()
    exact = [
        name
        for name, known in sorted(SALTS.items())
        if matcher.fit_anonymous(known, structure) or matcher.fit_anonymous(structure, known)
    ]
    assert exact[:1] == ([expected] if expected else [])
    assert KnownCrystals(SALTS.items()).find_frameworks([structure]) == [expected]


def test_the_type_named_is_the_one_of_the_smallest_id() -> None:
    """Whatever the order in which the crystals became known."""
    crystals = [(name, other(ROCK_SALT, Mg=name)) for name in ("Ca", "K", "V")]
    for order in (crystals, crystals[::-1]):
        assert KnownCrystals(order).find_frameworks([ROCK_SALT]) == ["Ca"]


def test_relabelling_keeps_sites_and_sorts_of_sites() -> None:
    """Two ways for a perovskite; the anchor stays the atom it was."""
    cell = reduce_structure(PEROVSKITE)
    ways = relabelled(cell)
    assert len(ways) == 2
    for way in ways:
        assert [count for _, count in way.species] == [1, 1, 3]
        assert np.array_equal(way.coords[way.anchor], cell.coords[cell.anchor])
        rows = {tuple(row) for row in way.coords.tolist()}
        assert rows == {tuple(row) for row in cell.coords.tolist()}


def test_an_index_is_kept_in_a_file(tmp_path) -> None:
    """Bit for bit: verdicts at the tolerance's edge are the same after a reload."""
    path = tmp_path / "index.npz"
    known = KnownCrystals(SALTS.items())
    known.save(path)
    tight = MatcherSettings(stol=0.001)
    again, strict = KnownCrystals.load(path), KnownCrystals.load(path, settings=tight)
    asked = [other(structure) for structure in SALTS.values()]
    assert again.find_all(asked) == known.find_all(asked) == list(SALTS)
    assert strict.find_all(asked)[2:4] == [None, None]
    again.add("zz", other(ROCK_SALT, Mg="Ni"))
    assert again.find(other(ROCK_SALT, Mg="Ni")) == "zz"
    first = path.read_bytes()
    known.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["index.npz"]
    assert len(path.read_bytes()) == len(first)
    KnownCrystals().save(path)
    assert len(KnownCrystals.load(path)) == 0


def test_a_damaged_index_is_refused(tmp_path) -> None:
    """Cut off, altered, pickled or not there."""
    path = tmp_path / "index.npz"
    KnownCrystals(SALTS.items()).save(path)
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    for damage in (
        lambda: path.write_bytes(whole[:-40]),
        lambda: path.write_bytes(b""),
        lambda: np.savez(path, **{**arrays, "anchors": arrays["anchors"] + 1}),
        lambda: np.savez(path, digest=np.array([{}], dtype=object)),
        path.unlink,
    ):
        damage()
        with pytest.raises(InputError, match="damaged"):
            KnownCrystals.load(path)


def test_flat_crystals_are_left_out() -> None:
    """One unusable entry of an old database does not stop a campaign."""
    flat = Structure(Lattice([[1, 0, 0], [0, 1, 0], [1, 1, 0]]), ["Mg"], [[0, 0, 0]])
    assert len(KnownCrystals([("a", flat), ("b", ROCK_SALT)])) == 1
