"""Lattice and sites of a crystal as plain numbers: what is asked of thousands, in microseconds.

pymatgen makes an object for each site and each unit; here the dictionary that a structure is stored
as suffices.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Structure

GRAMS_PER_CM3 = 1.66053906660
"""Atomic mass constant over 1 Å^3 (CODATA 2018, as in scipy.constants)."""


@dataclass(frozen=True)
class UnitCell:
    """A crystal as plain numbers.

    Attributes
    ----------
    matrix
        Lattice vectors as rows, Å.
    coords
        Fractional coordinates, one row for each site.
    kinds
        A text for each site, the same for sites with the same species.
    amounts
        Atoms of each element.
    """

    matrix: NDArray[np.float64]
    coords: NDArray[np.float64]
    kinds: tuple[str, ...]
    amounts: Mapping[str, float]

    @property
    def volume(self) -> float:
        """Of the cell, Å^3."""
        return float(abs(np.linalg.det(self.matrix)))

    @property
    def parameters(self) -> tuple[float, ...]:
        """Lengths in Å and angles in degrees: a, b, c, alpha, beta, gamma."""
        lengths = np.sqrt((self.matrix**2).sum(axis=1))
        unit = self.matrix / lengths[:, None]
        cosines = np.clip((unit @ unit.T)[[1, 0, 0], [2, 2, 1]], -1, 1)
        return (*lengths.tolist(), *np.degrees(np.arccos(cosines)).tolist())

    @property
    def density(self) -> float:
        """g/cm^3."""
        grams = sum(number * _mass(symbol) for symbol, number in self.amounts.items())
        return float(grams * GRAMS_PER_CM3 / self.volume)

    @property
    def composition(self) -> "CompositionFacts":
        """What it is made of."""
        return _composition(tuple(sorted(self.amounts.items())))

    def space_group(self, symprec: float) -> str | None:
        """Return the symbol of the space group; None if spglib finds none.

        symprec: how far sites may lie from where symmetry would have them, Å; angles of cells may
        differ by 5 degrees, as everywhere in pymatgen.
        """
        import spglib

        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(self.kinds), start=1)}
        cell = (self.matrix, self.coords, [numbers[kind] for kind in self.kinds])
        try:
            found = spglib.get_symmetry_dataset(cell, symprec=symprec, angle_tolerance=5)
        except spglib.SpglibError:
            return None
        return None if found is None else str(found.international)


@dataclass(frozen=True)
class CompositionFacts:
    """What queries ask of a composition: reduced formula, chemical system, its elements."""

    formula: str
    chemsys: str
    elements: tuple[str, ...]


def unit_cell(crystal: "Structure | Mapping[str, Any]") -> UnitCell:
    """Return a crystal, or the dictionary that one is stored as, as plain numbers.

    Raises
    ------
    KeyError, TypeError, ValueError
        The dictionary is damaged.
    """
    amounts: dict[str, float] = defaultdict(float)
    if isinstance(crystal, Structure):
        for site in crystal:
            for element, number in site.species.items():
                amounts[element.symbol] += number
        kinds = tuple(str(site.species) for site in crystal)
        return UnitCell(crystal.lattice.matrix, crystal.frac_coords, kinds, amounts)
    sites = crystal["sites"]
    for site in sites:
        for species in site["species"]:
            amounts[species["element"]] += species["occu"]
    kinds = tuple(str(site["species"]) for site in sites)
    coords = np.array([site["abc"] for site in sites], dtype=float)
    return UnitCell(np.array(crystal["lattice"]["matrix"], dtype=float), coords, kinds, amounts)


@lru_cache(maxsize=4096)
def _composition(amounts: tuple[tuple[str, float], ...]) -> CompositionFacts:
    composition = Composition(dict(amounts))
    symbols = sorted({element.symbol for element in composition.elements})
    return CompositionFacts(composition.reduced_formula, "-".join(symbols), tuple(symbols))


@lru_cache(maxsize=256)
def _mass(symbol: str) -> float:
    """Return the atomic mass of an element, u."""
    return float(Element(symbol).atomic_mass)
