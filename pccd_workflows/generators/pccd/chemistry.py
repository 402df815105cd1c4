"""What the networks are told about an element: a few tabulated numbers per atomic number."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MAX_Z = 103
"""Highest atomic number of the tables (Lr)."""


@lru_cache(maxsize=1)
def electronegativity() -> NDArray[np.float64]:
    """Return Pauling electronegativities by atomic number, (MAX_Z + 1,); 0 where unknown."""
    from pymatgen.core import Element

    values = np.zeros(MAX_Z + 1)
    for z in range(1, MAX_Z + 1):
        values[z] = _number(Element.from_Z(z).data.get("X"), 0.0)
    return values


@lru_cache(maxsize=1)
def electronegativity_rank() -> NDArray[np.int64]:
    """Return the place of each atomic number when sorted by (electronegativity, number)."""
    order = np.lexsort((np.arange(MAX_Z + 1), electronegativity()))
    rank = np.empty(MAX_Z + 1, dtype=np.int64)
    rank[order] = np.arange(MAX_Z + 1)
    return rank


@lru_cache(maxsize=1)
def atomic_radii() -> NDArray[np.float32]:
    """Return atomic radii by atomic number, (MAX_Z + 1,), Å; 1.5 for number 0 (hidden)."""
    from pymatgen.core import Element

    radii = [1.5]
    for z in range(1, MAX_Z + 1):
        data = Element.from_Z(z).data
        calculated = _number(data.get("Atomic radius calculated"), 1.75)
        radii.append(_number(data.get("Atomic radius"), calculated))
    return np.array(radii, dtype=np.float32)


@lru_cache(maxsize=1)
def covalent_radii() -> NDArray[np.float32]:
    """Return covalent radii (10.1039/b801115j) by atomic number, (MAX_Z + 1,), Å; row 0 is 0."""
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
    from pymatgen.core import Element

    radii = [0.0]
    radii += [CovalentRadius.radius.get(Element.from_Z(z).symbol, 1.5) for z in range(1, MAX_Z + 1)]
    return np.array(radii, dtype=np.float32)


@lru_cache(maxsize=1)
def element_features() -> NDArray[np.float32]:
    """Return the features of each atomic number, (MAX_Z + 1, F), standardised; row 0 is zero.

    Electronegativity, atomic radius, molar-volume-like cube of the radius, row, one-hot group,
    one-hot block, common oxidation states (share of -4..+7).
    """
    from pymatgen.core import Element

    continuous = np.zeros((MAX_Z + 1, 5))
    classes = np.zeros((MAX_Z + 1, 18 + 4 + 12))
    for z in range(1, MAX_Z + 1):
        element = Element.from_Z(z)
        radius = float(atomic_radii()[z])
        continuous[z] = (
            electronegativity()[z] or 1.5,
            radius,
            radius**3,
            element.row,
            _number(element.data.get("Mendeleev no"), 50.0),
        )
        classes[z, element.group - 1] = 1.0
        classes[z, 18 + "spdf".index(element.block)] = 1.0
        states = [s for s in element.common_oxidation_states if -4 <= s <= 7]
        for state in states:
            classes[z, 22 + state + 4] = 1.0
    known = continuous[1:]
    continuous[1:] = (known - known.mean(0)) / known.std(0)
    return np.concatenate([continuous, classes], axis=1).astype(np.float32)


def _number(value: object, default: float) -> float:
    """Return a tabulated value, or the default where the table has none (None, text, NaN)."""
    number = float(value) if isinstance(value, int | float) else math.nan
    return default if math.isnan(number) else number
