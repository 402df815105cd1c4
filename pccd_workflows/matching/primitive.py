"""Smaller cells of crystals that repeat within their cell.

The search is that of pymatgen's Structure.get_primitive_structure, on arrays.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

TOLERANCE = 0.25
"""Å along each lattice vector: pymatgen's default for a translation that carries sites onto like
sites. They are then averaged."""


def find_smaller_cell(
    matrix: FloatArray, coords: FloatArray, labels: Sequence[str]
) -> tuple[FloatArray, FloatArray, list[str]] | None:
    """Return a cell that holds an integer fraction of a crystal's sites, None if there is none.

    Parameters
    ----------
    matrix
        Lattice vectors as rows, shape (3, 3), Å.
    coords
        Fractional coordinates, shape (n, 3).
    labels
        Species of the sites.

    Returns
    -------
    matrix, coords, labels
        Of the smaller cell, sites sorted by species. It may repeat in itself again.
    """
    names = np.array(labels)
    groups = [coords[names == name] for name in sorted(set(labels))]
    n_units = math.gcd(*(len(group) for group in groups))
    if n_units == 1:
        return None
    tolerance = TOLERANCE / np.sqrt((matrix**2).sum(axis=1))
    shifts = _approximate_translations(groups, 2 * tolerance)
    if len(shifts) == 1:
        return None
    for size, cells, inverses in _sublattices(n_units):
        offsets = inverses[:, :, None, :] - shifts
        close = (np.abs(offsets - np.round(offsets)) < tolerance).all(axis=-1)
        for index in np.flatnonzero(close.any(axis=-1).all(axis=-1)):
            smaller = inverses[index] @ matrix
            folded = [_fold(g, cells[index], smaller, size, tolerance) for g in groups]
            if all(sites is not None for sites in folded):
                kept = [sites for sites in folded if sites is not None]
                counts = zip(sorted(set(labels)), kept, strict=True)
                return (
                    smaller,
                    np.concatenate(kept),
                    [name for name, sites in counts for _ in sites],
                )
    return None


def _approximate_translations(groups: Sequence[FloatArray], tolerance: FloatArray) -> FloatArray:
    """Return the translations that carry every site near a like site, the null one among them.

    They start as the vectors from the first site of the rarest species to all of its sites.
    """
    rarest = min(groups, key=len)
    shifts = rarest - rarest[0]
    for group in sorted(groups, key=len):
        gaps = (group[:, None] - group) - shifts[:, None, None]
        near = (np.abs(gaps - np.round(gaps)) < tolerance).all(axis=-1)
        shifts = shifts[near.any(axis=1).all(axis=1)]
        if len(shifts) == 1:
            break
    return np.asarray(shifts)


@lru_cache(maxsize=256)
def _sublattices(n_units: int) -> list[tuple[int, FloatArray, FloatArray]]:
    """Return size, matrices and inverses of all supercells of up to n_units units.

    In Hermite normal form, batched by their diagonal; sizes are divisors of n_units.
    """
    batches = []
    for size in _divisors(n_units)[1:]:
        for a in _divisors(size):
            for e in _divisors(size // a):
                g = size // a // e
                cells = np.array(
                    [
                        [[a, b, c], [0, e, f], [0, 0, g]]
                        for b, c, f in product(range(a), range(a), range(e))
                    ],
                    dtype=float,
                )
                batches.append((size, cells, np.linalg.inv(cells)))
    return batches


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


def _fold(
    sites: FloatArray, cell: FloatArray, smaller: FloatArray, size: int, tolerance: FloatArray
) -> FloatArray | None:
    """Return the mean sites of one species in a smaller cell, None if they do not coincide.

    Parameters
    ----------
    sites
        Fractional coordinates in the large cell, shape (k, 3).
    cell, smaller
        Large cell in units of the small one; lattice vectors of the small one, Å.
    size
        Sites that have to coincide.
    tolerance
        In fractions of the large cell.
    """
    gaps = sites[None] - sites[:, None]
    apart = np.asarray((np.abs(gaps - np.round(gaps)) > 2 * tolerance).any(axis=-1))
    np.fill_diagonal(apart, val=True)
    inside = sites @ cell
    gaps = inside[None] - inside[:, None]
    gaps -= np.round(gaps)
    near = (np.abs(gaps) < TOLERANCE / np.sqrt((smaller**2).sum(axis=1))).all(axis=-1)
    same: BoolArray = near & apart
    if not (same.sum(axis=0) == size).all() or (same.astype(int) @ same != same * size).any():
        return None
    first = np.flatnonzero(same.argmax(axis=0) == np.arange(len(sites)))
    return np.array([inside[i] + gaps[i][same[i]].mean(axis=0) for i in first])
