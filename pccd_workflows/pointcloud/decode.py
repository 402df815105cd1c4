"""Point cloud -> Structure, or the reason why the cloud is no crystal.

The sites are found by asking which assignment of the 128 points to atoms describes the cloud in
the fewest bits (minimum description length): for each candidate assignment the scatter around
its sites' centres is measured, in units the noise itself sets, and sites and unexplained labels
are charged for. The candidates use what is known of the representation: point i belongs to atom
``site_of_point(n)[i]``, for n = 1, 2, ... and both spreads. Average-linkage clusterings compete
with them, so that clouds whose points lie in any order decode too. All distances are minimum
image distances in fractional coordinates, all means circular: 0.99 and 0.01 are one site.

Measured in benchmarks/round_trip.py; plain DBSCAN, as published, is kept as ``method="dbscan"``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from pccd_workflows.errors import PccdError
from pccd_workflows.pointcloud.encode import (
    ANGLE_SCALE,
    LENGTH_SCALE,
    N_COLUMNS,
    N_POINTS,
    PointCloud,
    Spread,
    site_of_point,
    wrap,
)

MAX_SCATTER = 0.1
"""Largest rms scatter of points around their site, fractional, of a cloud that has clustered."""
MIN_SCATTER = 1e-3
"""Scatter below this, fractional, tells nothing: a clean cloud fits n and 2n sites alike."""
MIN_LIKELIHOOD = 0.2
"""A site needs this mean likelihood for its element; undecided between three is 1/3."""
MERGE_DISTANCE = 0.4
"""Sites of one element nearer than this, Å, are one site (H2, the shortest bond, has 0.74 Å)."""
LENGTHS = (0.5, 150.0)
"""Shortest and longest lattice vector, Å."""
VOLUMES = (2.0, 1000.0)
"""Smallest and largest volume per atom, Å^3 (known crystals: 4 to 130)."""
DBSCAN_EPS = 0.05
"""Neighbourhood radius of ``method="dbscan"``, fractional."""
DBSCAN_MIN_SAMPLES = 3

ErrorClass = Literal[
    "shape", "not_finite", "angles", "lengths", "volume", "no_cluster", "empty_species"
]
Method = Literal["auto", "dbscan"]


class DecodeError(PccdError):
    """A cloud is no crystal; `error_class` says in which way, the message in one sentence."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(error_class, message)
        self.error_class: ErrorClass = error_class

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True)
class _Sites:
    """One assignment of points to sites: labels (n_points,), centres (n_sites, 3) fractional.

    `columns` and `likelihoods` (n_sites,) are the element of each site and its mean likelihood,
    `scatter` the rms distance of the points to their centres per axis, fractional, and `score`
    the description length of the cloud (twice the nats; lower is better).
    """

    labels: NDArray[np.intp]
    centres: NDArray[np.floating]
    columns: NDArray[np.intp]
    likelihoods: NDArray[np.floating]
    scatter: float
    score: float


def decode(
    cloud: PointCloud,
    *,
    spread: Spread | None = None,
    method: Method = "auto",
    max_sites: int = 32,
) -> Structure:
    """Return the crystal that a point cloud describes; sites in the order of their first points.

    Parameters
    ----------
    cloud
        May be noisy: coordinates outside [0, 1), soft likelihoods, scattered lattice rows.
    spread
        How the points were shared among the atoms; None tries both ways.
    method
        "auto": shortest description, see the module. "dbscan": periodic DBSCAN of the points,
        elements apart, as in the seed paper; misses crowded sites and noisy clouds.
    max_sites
        Most atoms to look for.

    Raises
    ------
    DecodeError
        With its `error_class`: "shape" or "not_finite" for malformed input, "angles", "lengths"
        or "volume" for an impossible cell, "no_cluster" if the points do not gather in sites,
        "empty_species" if a site is none of the elements.
    """
    values = _checked(cloud)
    lattice = _lattice(values[2, :, :3])
    coordinates = values[0, :, :3]
    likelihoods = values[1, :, : len(cloud.elements)]
    if method == "dbscan":
        candidates = _dbscan(coordinates, likelihoods)
    else:
        candidates = _candidates(coordinates, likelihoods, spread, max_sites)
    fits = (_fit(coordinates, likelihoods, *candidate) for candidate in candidates)
    best = min(fits, key=lambda fit: fit.score)
    if best.scatter > MAX_SCATTER:
        raise DecodeError(
            "no_cluster",
            f"The points do not gather in sites: they scatter by {best.scatter:.2f} "
            f"(fractional, at most {MAX_SCATTER}) around the best {len(best.centres)} centres.",
        )
    best = _merged(best, lattice, coordinates, likelihoods)
    _check_sites(best, lattice)
    species = [cloud.elements[column] for column in best.columns]
    return Structure(lattice, species, wrap(best.centres))


def _checked(cloud: PointCloud) -> NDArray[np.floating]:
    """Return the cloud's values as floats after checking shape and finiteness."""
    values = np.asarray(cloud.values, dtype=float)
    n_elements = len(cloud.elements)
    width = max(N_COLUMNS, n_elements)
    if n_elements == 0 or values.shape != (3, N_POINTS, width):
        raise DecodeError(
            "shape",
            f"A cloud of {n_elements} elements must have the shape (3, {N_POINTS}, {width}) "
            f"and at least one element, not {values.shape}.",
        )
    if not np.isfinite(values).all():
        raise DecodeError("not_finite", "The cloud holds values that are not finite numbers.")
    return values


def _lattice(rows: NDArray[np.floating]) -> Lattice:
    """Return the cell of channel 2, rows (n_points, 3): angles / 2 pi, then lengths / 15 Å."""
    half = len(rows) // 2
    angles = np.degrees(_middle(rows[:half]) * ANGLE_SCALE)
    lengths = _middle(rows[half:]) * LENGTH_SCALE
    shown = ", ".join(f"{angle:.1f}" for angle in angles)
    if not ((angles > 0) & (angles < 180)).all() or _volume_factor(angles) <= 0:
        raise DecodeError("angles", f"No cell has the angles {shown} degrees.")
    if not ((lengths > LENGTHS[0]) & (lengths < LENGTHS[1])).all():
        shown = ", ".join(f"{length:.2f}" for length in lengths)
        raise DecodeError("lengths", f"No cell has the lengths {shown} Å.")
    return Lattice.from_parameters(*lengths, *angles)


def _middle(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean of the middle 80 % of each column: means that outliers cannot move."""
    cut = len(rows) // 10
    return np.asarray(np.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0))


def _volume_factor(angles: NDArray[np.floating]) -> float:
    """Return (V / abc)^2 of a cell with these angles in degrees; not positive if impossible."""
    cosines = np.cos(np.radians(angles))
    return float(1 + 2 * cosines.prod() - (cosines**2).sum())


def _candidates(
    coordinates: NDArray[np.floating],
    likelihoods: NDArray[np.floating],
    spread: Spread | None,
    max_sites: int,
) -> Iterator[tuple[NDArray[np.intp], float]]:
    """Yield assignments of points to sites, each with the nats it takes to name it."""
    spreads: tuple[Spread, ...] = ("even", "seed") if spread is None else (spread,)
    for n_sites in range(1, max_sites + 1):
        for way in spreads:
            yield site_of_point(n_sites, spread=way), 0.0
    tree = linkage(squareform(_distances(coordinates, likelihoods), checks=False), "average")
    for n_sites in range(1, max_sites + 1):
        labels = fcluster(tree, n_sites, "maxclust")
        yield _ordered(labels), N_POINTS * np.log(n_sites)


def _dbscan(
    coordinates: NDArray[np.floating], likelihoods: NDArray[np.floating]
) -> Iterator[tuple[NDArray[np.intp], float]]:
    """Yield DBSCAN's assignment; points it calls noise go to the nearest clustered point."""
    from sklearn.cluster import DBSCAN

    distances = _distances(coordinates, likelihoods)
    model = DBSCAN(eps=DBSCAN_EPS, min_samples=DBSCAN_MIN_SAMPLES, metric="precomputed")
    labels = model.fit_predict(distances)
    clustered = np.flatnonzero(labels >= 0)
    if not len(clustered):
        raise DecodeError("no_cluster", "DBSCAN finds no two points near each other.")
    nearest = clustered[distances[:, clustered].argmin(axis=1)]
    yield _ordered(labels[nearest]), 0.0


def _distances(
    coordinates: NDArray[np.floating], likelihoods: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return distances of points, (n_points, n_points) fractional, + 1 between elements."""
    difference = coordinates[:, None] - coordinates[None]
    columns = likelihoods.argmax(axis=1)
    distances = np.linalg.norm(difference - np.round(difference), axis=2)
    return np.asarray(distances + (columns[:, None] != columns[None]))


def _ordered(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the labels renumbered from 0 in order of their first points."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _fit(
    coordinates: NDArray[np.floating],
    likelihoods: NDArray[np.floating],
    labels: NDArray[np.intp],
    label_nats: float,
) -> _Sites:
    """Return centres, elements and description length of one assignment of points to sites.

    The length is that of BIC: Gaussian scatter of unknown width in each of the two channels, one
    logarithm per parameter, plus the nats of the labels themselves.
    """
    members = labels == np.arange(labels.max() + 1)[:, None]
    share = members / members.sum(axis=1, keepdims=True)
    centres = np.angle(share @ np.exp(2j * np.pi * coordinates)) / (2 * np.pi)
    offsets = coordinates - centres[labels]
    offsets -= np.round(offsets)

    means = share @ likelihoods
    columns = means.argmax(axis=1)
    misfit = likelihoods - np.eye(likelihoods.shape[1])[columns[labels]]

    scatter = float(np.sqrt((offsets**2).mean()))
    score = 2 * label_nats + 4 * len(centres) * np.log(offsets.size)
    for channel in (offsets, misfit):
        score += channel.size * np.log((channel**2).mean() + MIN_SCATTER**2)
    return _Sites(
        labels, centres, columns, means[np.arange(len(columns)), columns], scatter, float(score)
    )


def _merged(
    sites: _Sites,
    lattice: Lattice,
    coordinates: NDArray[np.floating],
    likelihoods: NDArray[np.floating],
) -> _Sites:
    """Return the sites with coinciding ones of the same element made one."""
    near = lattice.get_all_distances(sites.centres, sites.centres) < MERGE_DISTANCE
    same = sites.columns[:, None] == sites.columns[None]
    n_groups, group = connected_components(near & same, directed=False)
    if n_groups == len(sites.centres):
        return sites
    return _fit(coordinates, likelihoods, _ordered(group[sites.labels]), 0.0)


def _check_sites(sites: _Sites, lattice: Lattice) -> None:
    """Raise DecodeError for sites without an element or a cell of impossible volume."""
    weakest = int(sites.likelihoods.argmin())
    if sites.likelihoods[weakest] < MIN_LIKELIHOOD:
        raise DecodeError(
            "empty_species",
            f"Site {weakest + 1} of {len(sites.centres)} is none of the elements: its best "
            f"likelihood is {sites.likelihoods[weakest]:.2f}, at least {MIN_LIKELIHOOD} is needed.",
        )
    volume = lattice.volume / len(sites.centres)
    if not VOLUMES[0] < volume < VOLUMES[1]:
        raise DecodeError(
            "volume",
            f"{volume:.2f} Å^3 per atom is outside {VOLUMES[0]:g} to {VOLUMES[1]:g} Å^3.",
        )
