"""Decoding: what was encoded comes back, and what is no crystal says why."""

import gzip
import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.generators.pccd.pointcloud.decode import DecodeError, decode
from pccd_workflows.generators.pccd.pointcloud.encode import PointCloud, Spread, encode

NOISE = 0.02
ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
spreads = st.sampled_from(["seed", "even"])
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=15, deadline=None, derandomize=True)


def noisy(cloud: PointCloud, width: float, seed: int) -> PointCloud:
    """Return the cloud with Gaussian noise on every value."""
    noise = np.random.default_rng(seed).standard_normal(cloud.values.shape)
    return PointCloud(cloud.values + width * noise, cloud.elements)


def offsets(one: Structure, other: Structure) -> NDArray[np.floating]:
    """Return minimum image offsets of the sites, fractional."""
    difference = one.frac_coords - other.frac_coords
    return np.asarray(difference - np.round(difference))


@st.composite
def crystals(draw: st.DrawFn) -> Structure:
    """Any cell of 1 to 16 sites of up to three elements, on a grid: often on faces and edges."""
    angles = draw(st.lists(st.floats(60, 110), min_size=3, max_size=3))
    lengths = draw(st.lists(st.floats(3, 14.9), min_size=3, max_size=3))
    grid = [np.array(point) / 4 for point in itertools.product(range(4), repeat=3)]
    points = draw(st.lists(st.sampled_from(range(64)), min_size=1, max_size=16, unique=True))
    elements = draw(st.lists(st.sampled_from(["H", "O", "Mn"]), min_size=1, max_size=3))
    species = [elements[i % len(elements)] for i in range(len(points))]
    origin = draw(st.sampled_from([0.0, 0.003, 0.37, -0.001]))
    lattice = Lattice.from_parameters(*lengths, *angles)
    return Structure(lattice, species, np.array([grid[i] for i in points]) + origin)


@quick
@given(crystals(), spreads)
def test_clean_clouds_come_back_exactly(crystal: Structure, spread: Spread) -> None:
    decoded = decode(encode(crystal, spread=spread))
    assert decoded.species == crystal.species
    np.testing.assert_allclose(offsets(decoded, crystal), 0, atol=1e-9)
    np.testing.assert_allclose(decoded.lattice.parameters, crystal.lattice.parameters)
    assert (decoded.frac_coords >= 0).all()
    assert (decoded.frac_coords < 1).all()


@quick
@given(crystals(), spreads, seeds)
def test_noisy_clouds_come_back_within_the_noise(
    crystal: Structure, spread: Spread, seed: int
) -> None:
    decoded = decode(noisy(encode(crystal, spread=spread), NOISE, seed))
    assert decoded.species == crystal.species
    # At least 8 points a site, 64 rows a cell parameter; five standard deviations.
    assert np.abs(offsets(decoded, crystal)).max() < 5 * NOISE / np.sqrt(8)
    parameters = np.subtract(decoded.lattice.parameters, crystal.lattice.parameters)
    assert np.abs(parameters[:3]).max() < 5 * NOISE / 8 * 15
    assert np.abs(parameters[3:]).max() < 5 * NOISE / 8 * 360


@quick
@given(crystals(), st.lists(st.floats(-3, 3), min_size=3, max_size=3), seeds)
def test_the_origin_and_the_period_do_not_matter(
    crystal: Structure, shift: list[float], seed: int
) -> None:
    cloud = encode(crystal)
    values = cloud.values.copy()
    values[0] += shift
    values[0] += np.random.default_rng(seed).integers(-2, 3, values[0].shape)
    moved = crystal.copy().translate_sites(range(len(crystal)), shift)
    decoded = decode(PointCloud(values, cloud.elements))
    assert decoded.species == moved.species
    np.testing.assert_allclose(offsets(decoded, moved), 0, atol=1e-9)


@quick
@given(crystals(), seeds)
def test_points_may_come_in_any_order(crystal: Structure, seed: int) -> None:
    assume(crystal.volume > 5 * len(crystal))  # Å^3; no crystal is denser than diamond's 5.7
    cloud = noisy(encode(crystal), 0.01, seed)
    order = np.random.default_rng(seed).permutation(128)
    values = cloud.values.copy()
    values[:2] = values[:2, order]
    decoded = decode(PointCloud(values, cloud.elements))
    assert decoded.composition == crystal.composition
    distances = crystal.lattice.get_all_distances(crystal.frac_coords, decoded.frac_coords)
    partner = distances.argmin(axis=1)
    assert sorted(partner) == list(range(len(crystal)))
    assert [decoded[int(i)].specie for i in partner] == crystal.species


@pytest.mark.parametrize("spread", ["seed", "even"])
@pytest.mark.parametrize("n_sites", [1, 2, 15, 16, 17, 24, 32])
def test_monoatomic_cells(n_sites: int, spread: Spread) -> None:
    """One element: nothing but the positions separates the sites."""
    grid = np.array(list(itertools.product(range(4), repeat=3)))[:: 64 // n_sites][:n_sites]
    crystal = Structure(Lattice.cubic(12), ["Fe"] * n_sites, grid / 4)
    decoded = decode(noisy(encode(crystal, spread=spread), NOISE, n_sites))
    assert decoded.species == crystal.species
    assert np.abs(offsets(decoded, crystal)).max() < 5 * NOISE / np.sqrt(4)


def test_points_around_a_face_are_one_site() -> None:
    cloud = encode(Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]]))
    values = cloud.values.copy()
    values[0] = np.random.default_rng(0).normal(0, NOISE, (128, 3)) % 1.0
    decoded = decode(PointCloud(values, cloud.elements))
    assert len(decoded) == 1
    assert np.abs(offsets(decoded, Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]]))).max() < 0.01


def test_close_sites_of_a_long_cell_stay_apart() -> None:
    """Two H atoms 0.74 Å apart along 14.9 Å: 2.5 times the noise, 8 points each."""
    crystal = Structure(
        Lattice.orthorhombic(5, 5, 14.9),
        ["H"] * 16,
        [
            [x, y, z / 4 + d]
            for z in range(4)
            for d in (0, 0.74 / 14.9)
            for x, y in ((0, 0), (0.5, 0.5))
        ],
    )
    decoded = decode(noisy(encode(crystal), NOISE, 3))
    assert len(decoded) == 16
    assert StructureMatcher().fit(crystal, decoded)


@pytest.mark.parametrize("elements", [["Mg", "O"], ["O", "O"]])
def test_sites_on_top_of_each_other_stay_two(elements: list[str]) -> None:
    """The composition asked of the model is kept; too close is the screening's verdict."""
    crystal = Structure(Lattice.cubic(4), elements, [[0, 0, 0], [0.06, 0, 0]])
    assert decode(noisy(encode(crystal), NOISE, 0)).composition == crystal.composition


@pytest.mark.parametrize("seed", range(5))
def test_elements_tell_points_of_one_place_apart(seed: int) -> None:
    """In any order, only the likelihoods say that two sites are there, and which point is whose."""
    crystal = Structure(Lattice.cubic(4), ["Mg", "O"], [[0.2, 0.2, 0.2], [0.22, 0.2, 0.2]])
    cloud = noisy(encode(crystal), NOISE, seed)
    order = np.random.default_rng(seed).permutation(cloud.values.shape[1])
    values = cloud.values.copy()
    values[:2] = values[:2, order]
    decoded = decode(PointCloud(values, cloud.elements))
    assert sorted(site.specie.symbol for site in decoded) == ["Mg", "O"]
    (mg,) = decoded.indices_from_symbol("Mg")
    difference = decoded[1 - mg].frac_coords - decoded[mg].frac_coords
    assert difference[0] == pytest.approx(0.02, abs=0.015)


def test_dbscan_tells_elements_of_one_place_apart() -> None:
    crystal = Structure(Lattice.cubic(4), ["Mg", "O"], [[0.3, 0.3, 0.3]] * 2)
    decoded = decode(noisy(encode(crystal), 0.01, 1), method="dbscan")
    assert decoded.composition == crystal.composition


def test_strays_and_soft_likelihoods_change_nothing() -> None:
    """A tenth of the points anywhere, likelihoods of 0.5 against 0.25, as weak models give them."""
    rng = np.random.default_rng(5)
    cloud = encode(ROCK_SALT)
    values = noisy(cloud, NOISE, 5).values
    strays = rng.choice(128, 13, replace=False)
    values[0, strays] = rng.random((13, 3))
    values[1] = 0.25 + values[1] / 4
    values[2, [0, 40, 63, 64, 127]] = 0.9
    decoded = decode(PointCloud(values, cloud.elements))
    assert decoded.species == ROCK_SALT.species
    assert StructureMatcher().fit(ROCK_SALT, decoded)


def test_single_precision_and_four_elements() -> None:
    crystal = Structure(Lattice.cubic(5), ["H", "Li", "B", "O"], np.arange(12).reshape(4, 3) / 12)
    cloud = encode(crystal)
    decoded = decode(PointCloud(cloud.values.astype(np.float32), cloud.elements))
    assert decoded.species == crystal.species


def test_dbscan_restores_clean_clouds_and_joins_the_faces() -> None:
    decoded = decode(encode(ROCK_SALT, spread="seed"), method="dbscan")
    assert decoded.species == ROCK_SALT.species
    assert len(decode(noisy(encode(ROCK_SALT), 0.005, 0), method="dbscan")) == 8


def broken(channel: int, rows: slice, value: float | NDArray[np.floating]) -> PointCloud:
    """Return rock salt's cloud with some rows of a channel replaced."""
    cloud = encode(ROCK_SALT)
    values = cloud.values.copy()
    values[channel, rows] = value
    return PointCloud(values, cloud.elements)


ANGLES, LENGTHS, ALL = slice(0, 64), slice(64, 128), slice(0, 128)


@pytest.mark.parametrize(
    ("error_class", "cloud"),
    [
        ("shape", PointCloud(np.zeros((3, 64, 3)), ("O",))),
        ("shape", PointCloud(np.zeros((3, 128, 3)), ())),
        ("shape", PointCloud(np.zeros((3, 128, 3)), ("H", "Li", "B", "O"))),
        ("not_finite", broken(0, slice(0, 1), np.nan)),
        ("not_finite", broken(2, ALL, np.inf)),
        ("angles", broken(2, ANGLES, 0.4)),  # 3 x 144 degrees exceed the full turn
        ("angles", broken(2, ANGLES, np.array([0.1, 0.1, 0.3]))),  # gamma > alpha + beta
        ("angles", broken(2, ANGLES, -0.25)),
        ("lengths", broken(2, LENGTHS, 0.0)),
        ("lengths", broken(2, LENGTHS, -0.3)),
        ("lengths", broken(2, LENGTHS, 20.0)),
        ("volume", broken(2, LENGTHS, 0.1)),
        ("volume", broken(2, LENGTHS, 3.0)),
        ("empty_species", broken(1, ALL, 0.0)),
        ("empty_species", broken(1, slice(0, 16), np.array([0.0, 0.0, 1.0]))),
    ],
)
def test_what_is_no_crystal_says_why(error_class: str, cloud: PointCloud) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(cloud)
    assert raised.value.error_class == error_class
    assert str(raised.value).endswith(".")
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("method", ["auto", "dbscan"])
def test_noise_is_no_crystal(method: str) -> None:
    lattice = encode(ROCK_SALT).values[2]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        coordinates = rng.random((128, 3)) if seed % 2 else rng.standard_normal((128, 3))
        cloud = PointCloud(
            np.stack([coordinates, rng.random((128, 3)), lattice]), ("O", "Mg", "Mn")
        )
        with pytest.raises(DecodeError) as raised:
            decode(cloud, method=method)  # type: ignore[arg-type]
        assert raised.value.error_class in (
            {"no_cluster"} if method == "auto" else {"no_cluster", "volume"}
        )


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("angles", "No cell.")))  # noqa: S301
    assert (error.error_class, str(error)) == ("angles", "No cell.")


def real_crystals(path: Path, n: int) -> Iterator[Structure]:
    """Yield the first n crystals of the test split within the seed's limits."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        small = (
            Structure(row["lattice"], row["species"], row["frac_coords"])
            for row in rows
            if row["split"] == "test" and row["n_elements"] <= 3 and row["n_sites"] <= 16
        )
        yield from itertools.islice((s for s in small if max(s.lattice.abc) < 15), n)


@pytest.mark.shared_data
def test_no_real_crystal_is_missed(shared_data: Path) -> None:
    """The whole splits, clean and noisy, are counted by benchmarks/round_trip.py."""
    matcher = StructureMatcher()
    missed = []
    for number, crystal in enumerate(real_crystals(shared_data / "structures.jsonl.gz", 120)):
        spread: Spread = "seed" if number % 2 else "even"
        cloud = noisy(encode(crystal, spread=spread, strict=True), NOISE, number)
        if not matcher.fit(crystal, decode(cloud)):
            missed.append(crystal.formula)
    assert missed == []
