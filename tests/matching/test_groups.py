"""Matching: invariances, order independence, and StructureMatcher's own verdicts."""

import random
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.matching.cells import ReductionError, reduce_structure
from pccd_workflows.matching.copies import find_families
from pccd_workflows.matching.fitting import fits, may_fit, no_blur, stack
from pccd_workflows.matching.groups import group, label_cells
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings

SETTINGS = MatcherSettings()
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
ANATASE = Structure.from_spacegroup(
    "I4_1/amd", Lattice.tetragonal(3.784, 9.515), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]
).get_primitive_structure()
FCC = Lattice([[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]])
CALCIUM_TITANATE = Structure.from_spacegroup(
    "Pbnm",
    Lattice.orthorhombic(5.388, 5.447, 7.654),
    ["Ca", "Ti", "O", "O"],
    [[0.993, 0.035, 0.25], [0, 0.5, 0], [0.071, 0.484, 0.25], [0.711, 0.288, 0.037]],
)
CUBIC_PEROVSKITE = Structure(
    Lattice.cubic(3.83),
    ["Ca", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)


def in_basis(structure: Structure, basis: list[list[int]]) -> Structure:
    """Return the same crystal in another cell."""
    new = np.array(basis)
    return Structure(
        new @ structure.lattice.matrix,
        structure.species,
        structure.frac_coords @ np.linalg.inv(new),
    )


def permuted(structure: Structure) -> Structure:
    """Return the same crystal with its sites in another order and to another origin."""
    other = Structure.from_sites(structure[::-1])
    return other.translate_sites(range(len(other)), [0.13, 0.57, 0.91])


def mirrored(structure: Structure) -> Structure:
    """Return the mirror image."""
    flip = np.diag([1, 1, -1])
    return Structure(structure.lattice.matrix @ flip, structure.species, structure.frac_coords)


def distorted(structure: Structure, strain: float, noise: float, seed: int) -> Structure:
    """Return a copy with normally distributed strain and shifts (Å)."""
    rng = np.random.default_rng(seed)
    matrix = structure.lattice.matrix @ (np.eye(3) + rng.normal(0, strain, (3, 3)))
    coords = structure.frac_coords @ matrix + rng.normal(0, noise, (len(structure), 3))
    return Structure(matrix, structure.species, coords, coords_are_cartesian=True)


VARIANTS: dict[str, Callable[[Structure], Structure]] = {
    "left-handed": lambda s: in_basis(s, [[1, 0, 0], [0, 1, 0], [0, 0, -1]]),
    "skewed": lambda s: in_basis(s, [[1, 7, 0], [0, 1, -12], [0, 0, 1]]),
    "supercell": lambda s: s.make_supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 2]], in_place=False),
    "permuted and shifted": permuted,
    "scaled": lambda s: Structure(s.lattice.matrix * 1.3, s.species, s.frac_coords),
    "mirrored": mirrored,
    "oxidation states": lambda s: s.copy().add_oxidation_state_by_guess(),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("structure", [RUTILE, ANATASE], ids=["rutile", "anatase"])
def test_the_same_crystal_described_otherwise(structure: Structure, variant: str) -> None:
    """One group, and known."""
    other = VARIANTS[variant](structure)
    assert group([structure, other], settings=SETTINGS) == [[0, 1]]
    assert KnownCrystals([("a", structure)]).find(other) == "a"


def test_polymorphs_and_elements_are_told_apart() -> None:
    """Anatase is not rutile; one-atom elements of one lattice are the same only if alike."""
    iron, copper = (Structure(Lattice.cubic(3), [s], [[0, 0, 0]]) for s in ("Fe", "Cu"))
    fcc = Structure(FCC, ["Fe"], [[0, 0, 0]])
    crystals = [RUTILE, ANATASE, iron, copper, fcc, iron]
    assert group(crystals, settings=SETTINGS) == [[0], [1], [2, 5], [3], [4]]


def test_enantiomorphs_are_one_crystal() -> None:
    """Quartz of either hand; StructureMatcher allows improper maps, and so do we."""
    right = Structure.from_spacegroup(
        "P3_221",
        Lattice.hexagonal(4.916, 5.405),
        ["Si", "O"],
        [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
    )
    assert len(right) == 9
    assert group([right, mirrored(right)], settings=SETTINGS) == [[0, 1]]
    assert StructureMatcher().fit(right, mirrored(right))


def test_perovskite_tilts_are_another_structure_than_the_cubic_one() -> None:
    """The tilted cell has four times as many sites: no match, as with StructureMatcher."""
    assert group([CALCIUM_TITANATE, CUBIC_PEROVSKITE], settings=SETTINGS) == [[0], [1]]
    small = CALCIUM_TITANATE.copy().perturb(0.05)
    assert group([CALCIUM_TITANATE, small], settings=SETTINGS) == [[0, 1]]


def campaign() -> list[Structure]:
    """Return rutile and anatase, distorted up to and beyond the tolerances."""
    steps = [(0.0, 0.02), (0.01, 0.05), (0.04, 0.3), (0.08, 0.5)] * 3
    return [
        distorted(structure, strain, noise, seed)
        for seed, (strain, noise) in enumerate(steps)
        for structure in (RUTILE, ANATASE)
    ]


def test_groups_do_not_depend_on_order() -> None:
    """Any shuffle gives the same partition."""
    crystals = campaign()
    expected = {frozenset(members) for members in group(crystals, settings=SETTINGS)}
    for seed in range(3):
        order = list(range(len(crystals)))
        random.Random(seed).shuffle(order)  # noqa: S311
        shuffled = group([crystals[i] for i in order], settings=SETTINGS)
        assert {frozenset(order[i] for i in members) for members in shuffled} == expected


def test_verdicts_are_those_of_structure_matcher() -> None:
    """Both directions of all pairs at and around the edge of the tolerances."""
    crystals = campaign()[:14]
    matcher = StructureMatcher()
    expected, pairs = [], []
    for i, j in combinations(range(len(crystals)), 2):
        for one, other in ((i, j), (j, i)):
            pairs.append((one, other))
            expected.append(bool(matcher.fit(crystals[one], crystals[other])))
    cells = stack([reduce_structure(crystal) for crystal in crystals])
    sources, targets = np.array(pairs).T
    verdicts = fits(cells, sources, targets, SETTINGS).tolist()
    assert 10 < sum(expected) < len(expected) - 10, "one-sided test"
    assert verdicts == expected


def test_a_pair_at_the_edge_of_the_tolerances_gets_one_verdict() -> None:
    """StructureMatcher fits these one way only; ours is the same from either side."""
    matcher = StructureMatcher()
    for seeds in ((0, 30), (3, 13)):
        one, other = (distorted(RUTILE, 0.1, 0.2, seed) for seed in seeds)
        assert matcher.fit(one, other)
        assert not matcher.fit(other, one)
        assert group([one, other]) == group([other, one]) == [[0, 1]]
        assert KnownCrystals([("a", one)]).find(other) == "a"
        assert KnownCrystals([("a", other)]).find(one) == "a"


def test_families_never_hide_a_match() -> None:
    """Members that fit belong to families that may fit, and groups are the exhaustive ones."""
    crystals = [distorted(RUTILE, 0.005, 0.02, seed) for seed in range(6)]
    crystals += [distorted(crystals[0], 0.05, 0.35, seed) for seed in range(12)]
    reduced = [reduce_structure(crystal) for crystal in crystals]
    cells = stack(reduced)
    families = find_families(cells)
    assert len(set(families.leader.tolist())) < len(crystals)
    i, j = (index.ravel() for index in np.indices((len(crystals), len(crystals))))
    fit = fits(cells, i, j, SETTINGS)
    blurs = families.blur.of(families.leader[i]), families.blur.of(families.leader[j])
    blurred = may_fit(cells, families.leader[i], families.leader[j], SETTINGS, blurs)
    assert not (fit & ~blurred & (families.leader[i] != families.leader[j])).any()
    by_member = may_fit(cells, i, families.leader[j], SETTINGS, (no_blur(len(i)), blurs[1]))
    assert not (fit & ~by_member & (families.leader[i] != families.leader[j])).any()
    linked = (fit | fit.reshape(len(crystals), -1).T.ravel()).reshape(len(crystals), -1)
    itself = np.eye(len(crystals), dtype=bool)
    reachable = np.linalg.matrix_power((linked | itself).astype(float), 20) > 0
    labels = label_cells(reduced, SETTINGS)
    assert ((labels[:, None] == labels) == reachable).all()


def test_known_crystals_grow_and_name_the_smallest_id() -> None:
    """The answer does not depend on the order in which crystals became known."""
    known = KnownCrystals([("b", RUTILE), ("c", ANATASE)])
    assert known.find_all([permuted(RUTILE), CUBIC_PEROVSKITE]) == ["b", None]
    known.add("a", distorted(RUTILE, 0.0, 0.01, 0))
    assert known.find(RUTILE) == "a"
    assert len(known) == 3


def test_tight_settings_tell_more_apart() -> None:
    """The tolerances are those of the settings."""
    other = distorted(RUTILE, 0.0, 0.1, 1)
    assert group([RUTILE, other], settings=SETTINGS) == [[0, 1]]
    assert group([RUTILE, other], settings=MatcherSettings(stol=0.02)) == [[0], [1]]


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.0, 0.0, 6.358805], [-4.005095, 6.937041, 7e-06], [-8.010204, 0.0, 5e-06]],
        [[5.754168, 0.0, -3e-06], [4e-06, -7.407142, -4.276495], [0.0, 0.0, -8.553048]],
        [
            [-1.710153, -4.836999, -2.962025],
            [-3.420284, 4.836999, -4.7e-05],
            [5.130437, 0.0, -2.96204],
        ],
    ],
    ids=["mp-985302", "mp-1212526", "mp-1522340"],
)
def test_cells_between_two_reduced_forms(matrix: list[list[float]]) -> None:
    """Rounding swaps the forms of these lattices for ever; they still have a cell."""
    crystal = Structure(matrix, ["Mg", "O"], [[0, 0, 0], [0.4, 0.5, 0.6]])
    turned = in_basis(crystal, [[1, 2, 0], [0, 1, 1], [0, 0, 1]])
    assert group([crystal, turned, permuted(crystal)], settings=SETTINGS) == [[0, 1, 2]]
    assert StructureMatcher().fit(crystal, turned)


def test_a_flat_cell_is_refused() -> None:
    """It has no reduced form."""
    flat = Structure(Lattice([[1, 0, 0], [0, 1, 0], [1, 1, 0]]), ["Mg"], [[0, 0, 0]])
    with pytest.raises(ReductionError, match="flat"):
        reduce_structure(flat)
