"""About how much a crystal would gain by a relaxation, from its forces and stress as it is."""

import math

import numpy as np
from numpy.typing import NDArray

SPRING = 4.0
"""eV/Å^2: how stiff sites are taken to be."""
BULK = 2.0
"""Bulk modulus over the energy per volume: about 1 for molecular crystals, 2 to 3 for salts, oxides
and metals."""
SHEAR = 0.4
"""Shear modulus over bulk modulus."""


def expected_gain(
    energy: float, volume: float, forces: NDArray[np.float64], stress: NDArray[np.float64]
) -> float:
    """Return what a relaxation to the nearest minimum would gain, eV/atom, good to a factor of two.

    Sites are springs; the cell is as stiff as its energy per volume says. A potential whose
    energies are not negative has no such scale: then the gain is infinite.

    Parameters
    ----------
    energy, volume
        Of the cell, eV and Å^3.
    forces
        Shape (n, 3), float.
        eV/Å.
    stress
        Shape (6,), float.
        eV/Å^3, in Voigt order.
    """
    if energy >= 0:
        return math.inf
    n_sites = len(forces)
    bulk = -BULK * energy / volume
    pressure = stress[:3].mean()
    shear = ((stress[:3] - pressure) ** 2).sum() + 2 * (stress[3:] ** 2).sum()
    cell = volume * (pressure**2 / (2 * bulk) + shear / (4 * SHEAR * bulk))
    sites = (forces**2).sum() / (2 * SPRING)
    return float(cell + sites) / n_sites
