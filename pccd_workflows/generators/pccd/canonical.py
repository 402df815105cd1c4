"""One description per crystal: which of its equivalent axes, origins and site orders to learn from.

A cell may be written down with any of the axis choices that its metric allows, any origin and any
order of sites. A small network learns much faster when isostructural crystals always look alike,
so every crystal is written in the way that sorts first.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.generators.pccd.chemistry import electronegativity_rank

GRID = 48
"""Coordinates are compared on a grid that has the fractions 1/2, 1/3, 1/4, 1/6 and 1/8."""
METRIC_TOLERANCE = 0.03
"""Relative difference up to which two axis choices have the same metric."""


@dataclass(frozen=True)
class CanonicalCell:
    """A primitive reduced cell in canonical form.

    Attributes
    ----------
    numbers
        Shape (n,). Atomic numbers: electropositive elements first, equal elements together.
    frac_coords
        Shape (n, 3). In [-1/96, 95/96), so that noise around 0 does not jump to 1.
    lengths
        Shape (3,). Å
    angles
        Shape (3,). Degrees
    axes
        Shape (3, 3). Integers: the axes in rows, in units of those of the cell that was given.
    order
        Shape (n,). Place of each site in the cell that was given.
    anchor
        Place, in this cell, of the site that is the origin.
    """

    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]
    axes: NDArray[np.float64]
    order: NDArray[np.int64]
    anchor: int


@lru_cache(maxsize=1)
def _integer_rows() -> NDArray[np.float64]:
    """Return the 26 axis vectors with components -1, 0 and 1."""
    rows = [v for v in itertools.product((0.0, 1.0, -1.0), repeat=3) if any(v)]
    return np.array(rows)


def metric_preserving_axes(
    lattice: NDArray[np.float64], tolerance: float = METRIC_TOLERANCE
) -> NDArray[np.float64]:
    """Return the axis changes that leave the metric of a reduced cell as it is.

    Parameters
    ----------
    lattice
        Shape (3, 3). Lattice vectors in rows, Å.
    tolerance
        Largest change of an element of the metric, relative to the axis lengths.

    Returns
    -------
    Shape (m, 3, 3). Integer matrices W with determinant ±1: the new axes are ``W @ lattice``.
    """
    metric = lattice @ lattice.T
    scale = np.sqrt(np.diag(metric))
    rows = _integer_rows()
    products = rows @ metric @ rows.T
    squares = np.diag(products)
    fits = [np.flatnonzero(np.abs(squares - s * s) <= tolerance * s * s) for s in scale]
    i, j, k = (grid.ravel() for grid in np.meshgrid(*fits, indexing="ij"))
    same = (
        (np.abs(products[i, j] - metric[0, 1]) <= tolerance * scale[0] * scale[1])
        & (np.abs(products[i, k] - metric[0, 2]) <= tolerance * scale[0] * scale[2])
        & (np.abs(products[j, k] - metric[1, 2]) <= tolerance * scale[1] * scale[2])
    )
    axes = np.stack([rows[i[same]], rows[j[same]], rows[k[same]]], axis=1)
    unimodular = np.abs(np.abs(np.linalg.det(axes)) - 1) < 1e-6
    return np.asarray(axes[unimodular])


def canonical_cell(
    lattice: NDArray[np.float64],
    numbers: NDArray[np.int64],
    frac_coords: NDArray[np.float64],
) -> CanonicalCell:
    """Write a reduced primitive cell in canonical form.

    The origin is put on a site of the rarest element; among these origins and all axis choices of
    equal metric (mirror images too) the one whose sorted coordinates come first is taken.

    Parameters
    ----------
    lattice
        Shape (3, 3). Niggli-reduced lattice vectors in rows, Å.
    numbers
        Shape (n,). Atomic numbers.
    frac_coords
        Shape (n, 3).
    """
    present, counts = np.unique(numbers, return_counts=True)
    rank = electronegativity_rank()
    anchor = min(zip(counts, rank[present], present, strict=True))[2]
    axes = metric_preserving_axes(lattice)
    inverse = np.linalg.inv(axes)
    origins = frac_coords[numbers == anchor]
    shifted = frac_coords[None] - origins[:, None]  # (origins, n, 3)
    choices = np.einsum("oni,mij->monj", shifted, inverse).reshape(-1, len(numbers), 3)
    cells = np.rint(choices * GRID).astype(np.int64) % GRID
    keys = (
        (rank[numbers].astype(np.int64)[None] * GRID + cells[..., 0]) * GRID + cells[..., 1]
    ) * GRID + cells[..., 2]
    best = np.lexsort(np.sort(keys, axis=1).T[::-1])[0]
    order = np.argsort(keys[best], kind="stable")
    margin = 0.5 / GRID
    frac = (choices[best][order] + margin) % 1.0 - margin
    new_lattice = axes[best // len(origins)] @ lattice
    lengths = np.linalg.norm(new_lattice, axis=1)
    cosines = new_lattice @ new_lattice.T / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos(np.clip([cosines[1, 2], cosines[0, 2], cosines[0, 1]], -1, 1)))
    origin = np.flatnonzero(numbers == anchor)[best % len(origins)]
    return CanonicalCell(
        numbers[order],
        frac,
        lengths,
        angles,
        axes[best // len(origins)],
        order,
        int(np.flatnonzero(order == origin)[0]),
    )
