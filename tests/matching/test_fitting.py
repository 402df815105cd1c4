"""The bounds by which fits are refused: never below what they bound, and near it."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from pccd_workflows.matching.cells import niggli, reduce_structure
from pccd_workflows.matching.fitting import (
    Blur,
    _relative_changes,
    _stretches,
    fits,
    may_fit,
    no_blur,
    stack,
)
from pccd_workflows.matching.lattices import FloatArray, make_lattices, metrics
from pccd_workflows.matching.settings import MatcherSettings

STRAIN = 0.01
SETTINGS = MatcherSettings()


def strained(matrices: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return lattices with principal stretches of 1 - STRAIN, 1 or 1 + STRAIN in any direction."""
    axes = np.linalg.qr(rng.normal(size=matrices.shape))[0]
    stretches = 1 + STRAIN * rng.integers(-1, 2, size=(len(matrices), 1, 3))
    return np.asarray(matrices @ (axes * stretches) @ axes.transpose(0, 2, 1))


def mean_metrics(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the metric tensors of mean lattices as StructureMatcher forms them."""
    a, b = make_lattices(one), make_lattices(other)
    return metrics((a.lengths + b.lengths) / 2, (a.angles + b.angles) / 2)


def test_strains_change_distances_on_the_mean_lattice_less_than_the_bound() -> None:
    """For reduced cells, cubic ones among them, and others within the tolerances of those."""
    rng = np.random.default_rng(0)
    cells = np.array([niggli(m) for m in rng.normal(size=(400, 3, 3)) + 2 * np.eye(3)])
    cells[:50] = np.eye(3)
    others = cells @ (np.eye(3) + rng.normal(0, 0.03, cells.shape))
    metric = mean_metrics(cells, others)
    e = np.full(len(cells), STRAIN)
    bound = _relative_changes(metric, e, e)
    largest = np.zeros(len(cells))
    for _ in range(60):
        changed = mean_metrics(strained(cells, rng), strained(others, rng))
        relative = np.linalg.eigvals(np.linalg.solve(metric, changed)).real
        largest = np.maximum(largest, np.abs(relative - 1).max(axis=1))
    assert (largest <= bound).all()
    assert (largest[:50] > bound[:50] / 4).all(), "the bound is far too wide"


def test_lengths_on_another_lattice_are_bounded() -> None:
    """The longest relative to the lattice's own, of the eigenvalues."""
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(100, 3, 3)) + 2 * np.eye(3)
    other = matrices @ (np.eye(3) + rng.normal(0, 0.1, matrices.shape))
    metric = other @ other.transpose(0, 2, 1)
    own = matrices @ matrices.transpose(0, 2, 1)
    exact = np.sqrt(np.linalg.eigvals(np.linalg.solve(own, metric)).real.max(axis=1))
    bound = _stretches(make_lattices(matrices), np.arange(100), metric)
    assert (exact <= bound + 1e-12).all()


def moved(distance: float) -> Structure:
    """Return a crystal of cubic lattice of which one of two halves is moved by a distance.

    In units of (volume per site)^(1/3). Relative to the mean, each half is moved by half of it.
    """
    coords = [[0, 0, 0], [0.5, 0.13, 0], [0.1, 0.5, 0.5 + 0.04], [0.47, 0.5, 0.5]]
    lattice = Lattice.cubic(4 ** (1 / 3))
    shifts = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]) * distance
    fractional = np.array(coords) + shifts @ np.linalg.inv(lattice.matrix)
    return Structure(lattice, ["Li", "F", "Na", "Cl"], fractional)


@pytest.mark.parametrize(("distance", "expected"), [(0.5998, True), (0.6002, False)])
def test_a_fit_just_inside_the_tolerance_is_not_refused(distance: float, expected: bool) -> None:
    """Displacements of 0.2999 and 0.3001: the bounds of stage 3 are sharp, and on the right side.

    What is refused by itself is not refused for crystals that may differ by more.
    """
    crystals = [moved(0.0), moved(distance)]
    assert bool(StructureMatcher(primitive_cell=False).fit(*crystals)) == expected
    cells = stack([reduce_structure(crystal) for crystal in crystals])
    one, other = np.array([0]), np.array([1])
    sharp = no_blur(1)
    assert fits(cells, one, other, SETTINGS).tolist() == [expected]
    assert may_fit(cells, one, other, SETTINGS, (sharp, sharp)).tolist() == [expected]
    blur = Blur(np.zeros(1), np.full(1, 0.001))
    assert may_fit(cells, one, other, SETTINGS, (sharp, blur)).tolist() == [True]
    assert may_fit(cells, one, other, SETTINGS, (blur, sharp)).tolist() == [True]
