"""Point cloud -> Structure, or the reason why the cloud is no crystal.

The cell comes from the trimmed means of the two halves of channel 2, the sites from `sites`: of
all assignments of the 128 points to atoms that the representation allows (and of average-linkage
clusterings, for points in any order) the one with the shortest description. Chosen by measurement
(benchmarks/round_trip.py): it restores every crystal of up to 16 sites with Gaussian noise of 0.02
on the cloud, where DBSCAN as published, kept as ``method="dbscan"``, merges or splits sites.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Lattice, Structure

from pccd_workflows.core.errors import PccdError
from pccd_workflows.generators.pccd.pointcloud.encode import (
    ANGLE_SCALE,
    LENGTH_SCALE,
    N_COLUMNS,
    N_POINTS,
    PointCloud,
    Spread,
    wrap,
)
from pccd_workflows.generators.pccd.pointcloud.sites import (
    Sites,
    dbscan_labels,
    find_sites,
    fit_sites,
)

MAX_SCATTER = 0.1
"""Largest scatter of points around their site, fractional, of a cloud that has clustered."""
MAX_STRAYS = 0.5
"""Largest share of points that belong to no site."""
MIN_LIKELIHOOD = 0.2
"""A site needs this mean likelihood for its element; undecided between three is 1/3."""
LENGTHS = (0.5, 150.0)
"""Shortest and longest lattice vector, Å."""
VOLUMES = (2.0, 5000.0)
"""Smallest and largest volume per atom, Å^3 (known crystals: 4 to 130)."""

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


def decode(
    cloud: PointCloud,
    *,
    spread: Spread | None = None,
    method: Method = "auto",
    max_sites: int = 32,
) -> Structure:
    """Return the crystal that a point cloud describes; sites in the order of their first points.

    Nothing is repaired: sites on top of each other stay two sites, for the screening to judge.

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
        sites = _dbscan_sites(coordinates, likelihoods)
    else:
        sites = find_sites(coordinates, likelihoods, spread=spread, max_sites=max_sites)
    if sites.scatter > MAX_SCATTER or sites.strays > MAX_STRAYS:
        raise DecodeError(
            "no_cluster",
            f"The points do not gather in sites: at best they scatter by {sites.scatter:.2f} "
            f"(fractional) around {len(sites.centres)} centres, {sites.strays:.0%} not at all.",
        )
    _check_likelihoods(sites)
    species = [cloud.elements[column] for column in sites.columns]
    return structure_of(lattice, species, sites.centres)


def structure_of(
    lattice: Lattice, species: Sequence[str | int], frac_coords: NDArray[np.floating]
) -> Structure:
    """Return the crystal of sites (n, 3) in a cell.

    Raises
    ------
    DecodeError
        "volume" if the cell is impossibly small or large.
    """
    volume = lattice.volume / len(species)
    if not VOLUMES[0] < volume < VOLUMES[1]:
        raise DecodeError(
            "volume",
            f"{volume:.2f} Å^3 per atom is outside {VOLUMES[0]:g} to {VOLUMES[1]:g} Å^3.",
        )
    elements = [one if isinstance(one, str) else Element.from_Z(int(one)) for one in species]
    return Structure(lattice, elements, wrap(frac_coords))


def lattice_of(lengths: NDArray[np.floating], angles: NDArray[np.floating]) -> Lattice:
    """Return the cell of lengths and angles (3,), Å and degrees.

    Raises
    ------
    DecodeError
        "angles" or "lengths" if no cell has them.
    """
    shown = ", ".join(f"{angle:.1f}" for angle in angles)
    if not ((angles > 0) & (angles < 180)).all() or _volume_factor(angles) <= 0:
        raise DecodeError("angles", f"No cell has the angles {shown} degrees.")
    if not ((lengths > LENGTHS[0]) & (lengths < LENGTHS[1])).all():
        shown = ", ".join(f"{length:.2f}" for length in lengths)
        raise DecodeError("lengths", f"No cell has the lengths {shown} Å.")
    return Lattice.from_parameters(*lengths, *angles)


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
    return lattice_of(lengths, angles)


def _middle(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean of the middle 80 % of each column: means that outliers cannot move."""
    cut = len(rows) // 10
    return np.asarray(np.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0))


def _volume_factor(angles: NDArray[np.floating]) -> float:
    """Return (V / abc)^2 of a cell with these angles in degrees; not positive if impossible."""
    cosines = np.cos(np.radians(angles))
    return float(1 + 2 * cosines.prod() - (cosines**2).sum())


def _dbscan_sites(coordinates: NDArray[np.floating], likelihoods: NDArray[np.floating]) -> Sites:
    """Return the sites of DBSCAN."""
    labels = dbscan_labels(coordinates, likelihoods)
    if not len(labels):
        raise DecodeError("no_cluster", "DBSCAN finds no points near each other.")
    return fit_sites(coordinates, likelihoods, labels[None])


def _check_likelihoods(sites: Sites) -> None:
    """Raise DecodeError for a site without an element."""
    best = sites.likelihoods.max(axis=1)
    weakest = int(best.argmin())
    if best[weakest] < MIN_LIKELIHOOD:
        raise DecodeError(
            "empty_species",
            f"Site {weakest + 1} of {len(best)} is none of the elements: its best likelihood "
            f"is {best[weakest]:.2f}, at least {MIN_LIKELIHOOD} is needed.",
        )
