"""How far apart atoms of two elements are in known crystals, and how large atoms are.

A cheap judge of where the atoms of a crystal are: no energy, no gradient.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd.chemistry import MAX_Z, covalent_radii
from pccd_workflows.generators.pccd.frames import Template

Floats = NDArray[np.float64]
PRIOR = 2.0
"""Crystals that what the covalent radii say counts as, for a pair of elements."""
PRIOR_WIDTH = 0.25
"""Standard deviation of the logarithm of a distance about what the radii say."""
TOO_SHORT = 1.5
"""Distances that are too short count so much more than those that are too long."""
WORST = 16.0
"""Largest penalty of one distance."""
NEIGHBOURS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


@dataclass(frozen=True)
class PairDistances:
    """Distances of nearest atoms and volumes in known crystals, by atomic number.

    Attributes
    ----------
    mean, width
        Shape (Z, Z). Of the logarithm of the distance, in Å, from an atom to the nearest one of
        another element.
    volume
        Shape (Z,). Å³ for each atom.
    """

    mean: NDArray[np.float16]
    width: NDArray[np.float16]
    volume: NDArray[np.float16]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "PairDistances":
        """Return the distances that `state` was called of; KeyError if a column is missing."""
        return cls(**{f.name: state[f.name].cpu().numpy() for f in fields(cls)})

    def state(self) -> dict[str, Tensor]:
        """Return the columns as tensors, by name."""
        return {f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self)}

    def volume_of(self, numbers: NDArray[np.int64]) -> float:
        """Return the volume, Å³, that a cell with these atoms (n,) is expected to have."""
        return float(self.volume[numbers].astype(np.float64).sum())

    def misfit(self, nearest: Floats, numbers: NDArray[np.int64]) -> float:
        """Return how unlike those of known crystals the distances of a crystal are; 0 is like them.

        Parameters
        ----------
        nearest
            Shape (n, n). From `nearest_images`.
        numbers
            Shape (n,). Atomic numbers.
        """
        elements = np.unique(numbers)
        shortest = np.stack([nearest[:, numbers == z].min(1) for z in elements], 1)
        pairs = np.ix_(numbers, elements)
        off = (np.log(shortest) - self.mean[pairs]) / self.width[pairs].astype(np.float64)
        penalties = np.where(off < 0, TOO_SHORT * off, off) ** 2
        return float(np.minimum(penalties, WORST).mean())


def nearest_images(lattice: Floats, frac_coords: Floats) -> Floats:
    """Return the distance (n, n), Å, of each atom to the nearest image of each, not itself.

    Of cells that are not too skewed: one cell in each direction is looked at.
    """
    apart = frac_coords[:, None] - frac_coords
    apart -= np.rint(apart)
    images = (apart[:, :, None] + NEIGHBOURS) @ lattice
    squares = (images**2).sum(-1)
    return np.asarray(np.sqrt(np.where(squares < 1e-6, np.inf, squares).min(2)))


def fit_distances(crystals: Iterable[Template]) -> PairDistances:
    """Return the distances and volumes of known crystals."""
    size = MAX_Z + 1
    radii = np.log(np.maximum(covalent_radii().astype(float), 0.3))
    number, total, squares = (np.zeros((size, size)) for _ in range(3))
    cells, volumes = [], []
    for crystal in crystals:
        numbers = crystal.numbers
        nearest = np.log(nearest_images(crystal.lattice, crystal.frac_coords))
        for a, b in itertools.combinations_with_replacement(np.unique(numbers).tolist(), 2):
            value = nearest[np.ix_(numbers == a, numbers == b)].min(1).mean()
            for pair in {(a, b), (b, a)}:
                number[pair] += 1
                total[pair] += value
                squares[pair] += value**2
        cells.append(np.bincount(numbers, minlength=size))
        volumes.append(abs(np.linalg.det(crystal.lattice)))
    said = np.log(np.exp(radii)[:, None] + np.exp(radii))
    longer = (total - number * said).sum() / max(number.sum(), 1)
    mean = (total + PRIOR * (said + longer)) / (number + PRIOR)
    spread = squares - 2 * mean * total + number * mean**2
    width = np.sqrt((spread + PRIOR * PRIOR_WIDTH**2) / (number + PRIOR))
    volume = _atomic_volumes(np.array(cells, dtype=float), np.array(volumes))
    return PairDistances(*(column.astype(np.float16) for column in (mean, width, volume)))


def _atomic_volumes(cells: Floats, volumes: Floats) -> Floats:
    """Return the volume of an atom of each element (Z,), Å³; those of the radii if unseen."""
    from scipy.optimize import nnls

    fitted, _ = nnls(cells / volumes[:, None], np.ones(len(volumes)))
    spheres = 4 / 3 * np.pi * covalent_radii().astype(float) ** 3
    seen = fitted > 1
    ratio = np.median(fitted[seen] / spheres[seen]) if seen.any() else 2.0
    return np.where(seen, fitted, np.maximum(ratio * spheres, 1.0))
