"""Sites and lattices that obey a space group: which site each operation takes to which, and the
projection of any coordinates on those that have the symmetry exactly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ties:
    """How m operations x -> W x + w permute n sites.

    Attributes
    ----------
    rotations
        Shape (m, 3, 3).
    translations
        Shape (m, 3).
    images
        Shape (m, n). Operation g takes site i to site `images[g, i]` ...
    cells
        Shape (m, n, 3). ... in the cell that is shifted by this lattice vector.
    """

    rotations: NDArray[np.int64]
    translations: Floats
    images: NDArray[np.int64]
    cells: NDArray[np.int64]

    @property
    def orbits(self) -> NDArray[np.int64]:
        """First site (n,) of the orbit of each site."""
        return np.asarray(self.images.min(0))

    def projection(self) -> tuple[Floats, Floats]:
        """Return A (3n, 3n) and b (3n,): A x + b are the nearest coordinates with the symmetry.

        Nearest in the mean over the operations, which is exact for any x as it is idempotent.
        """
        m, n = self.images.shape
        matrix = np.zeros((n, 3, n, 3))
        offset = np.zeros((n, 3))
        moved = (self.translations[:, None] - self.cells) / m
        for g in range(m):
            matrix[self.images[g], :, np.arange(n)] += self.rotations[g] / m
            np.add.at(offset, self.images[g], moved[g])
        return matrix.reshape(3 * n, 3 * n), offset.reshape(3 * n)

    def site_projectors(self) -> Floats:
        """Return the projectors (n, 3, 3) on the directions in which each site may move."""
        stays = self.images == np.arange(self.images.shape[1])
        total = np.einsum("gn,gij->nij", stays.astype(float), self.rotations)
        return np.asarray(total / stays.sum(0)[:, None, None])


def find_ties(
    rotations: NDArray[np.int64],
    translations: Floats,
    lattice: Floats,
    numbers: NDArray[np.int64],
    frac_coords: Floats,
) -> Ties | None:
    """Return how operations permute the sites of a crystal that has them nearly.

    Parameters
    ----------
    rotations, translations
        The operations, (m, 3, 3) and (m, 3).
    lattice
        Shape (3, 3). Lattice vectors in rows, Å.
    numbers
        Shape (n,). Atomic numbers: sites are only taken to sites of the same element.
    frac_coords
        Shape (n, 3).

    Returns
    -------
    None if two sites would be taken to one: it does not have the symmetry.
    """
    moved = np.einsum("gij,nj->gni", rotations, frac_coords) + translations[:, None]
    apart = moved[:, :, None] - frac_coords
    squares = (((apart - np.rint(apart)) @ lattice) ** 2).sum(-1)
    squares = np.where(numbers[:, None] == numbers, squares, np.inf)
    images = squares.argmin(2)
    if not (np.sort(images, axis=1) == np.arange(len(numbers))).all():
        return None
    cells = np.rint(moved - frac_coords[images]).astype(np.int64)
    return Ties(rotations, translations, images, cells)


def symmetric_metric(rotations: NDArray[np.int64], metric: Floats) -> Floats:
    """Return the mean of W^T G W over the operations: the metric (3, 3) that they keep."""
    return np.asarray(np.einsum("gki,kl,glj->ij", rotations, metric, rotations) / len(rotations))


def cell_parameters(metric: Floats) -> tuple[Floats, Floats]:
    """Return lengths (3,), Å, and angles (3,), degrees, of a metric tensor."""
    lengths = np.sqrt(np.diag(metric))
    cosines = metric / np.outer(lengths, lengths)
    chosen = [cosines[1, 2], cosines[0, 2], cosines[0, 1]]
    return lengths, np.degrees(np.arccos(np.clip(chosen, -1, 1)))
