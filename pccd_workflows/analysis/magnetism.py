"""Magnetic order: moments to start a calculation from, and the order that moments amount to."""

from collections.abc import Sequence
from typing import Literal

from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError

MagneticOrdering = Literal["NM", "FM", "AFM", "FiM"]

MAGNETIC = {
    **dict.fromkeys(("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu"), 5.0),
    **dict.fromkeys(("Mo", "Ru", "Rh", "W", "Re", "Os", "Ir"), 5.0),
    **dict.fromkeys(("Ce", "Pr", "Nd", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb"), 7.0),
}
"""μB; what open d and f shells start from, as in the Materials Project's high-spin starts."""
SMALL_MOMENT = 0.6
"""μB; what other elements start from in an ordered crystal (MPRelaxSet's default)."""
SIGNIFICANT = 0.2
"""A moment counts if it exceeds this fraction of the largest one ..."""
NEGLIGIBLE = 0.1
"""... and is not below this many μB."""
COMPENSATED = 0.05
"""An antiferromagnet's net moment is at most this fraction of the sum of the moments' sizes."""


def why_not(structure: Structure, ordering: MagneticOrdering | None) -> str | None:
    """Return why a cell cannot start in `ordering`; None if it can.

    One magnetic site has none to be opposite to. Where there is none at all, nothing is ordered.
    """
    magnetic = [site.specie.symbol for site in structure if site.specie.symbol in MAGNETIC]
    if ordering not in ("AFM", "FiM") or len(magnetic) != 1:
        return None
    return (
        f"{ordering} needs two magnetic sites, and {structure.composition.formula} has one "
        f"({magnetic[0]}): take a supercell, or ask for FM."
    )


def starting_moments(structure: Structure, ordering: MagneticOrdering) -> list[float]:
    """Return a moment in μB for each site that lets a calculation find `ordering`.

    FM: all up. AFM: magnetic sites alternate along the longest axis. FiM: elements alternate where
    there are several magnetic ones, else two up and one down. NM: all zero. A cell without
    magnetic elements starts from small moments, all up.

    Raises
    ------
    InputError
        AFM or FiM is asked of a cell with one magnetic site.
    """
    if (reason := why_not(structure, ordering)) is not None:
        raise InputError(reason)
    if ordering == "NM":
        return [0.0] * len(structure)
    sizes = [MAGNETIC.get(site.specie.symbol, SMALL_MOMENT) for site in structure]
    magnetic = [i for i, site in enumerate(structure) if site.specie.symbol in MAGNETIC]
    if ordering == "FM" or not magnetic:
        return sizes
    axis = max(range(3), key=lambda i: (round(structure.lattice.abc[i], 3), -i))

    def place(i: int) -> tuple[float, ...]:
        frac = structure[i].frac_coords % 1.0
        return (round(float(frac[axis]), 3), *(round(float(x), 3) for x in frac))

    ordered = sorted(magnetic, key=place)
    symbols = sorted({structure[i].specie.symbol for i in magnetic})
    if ordering == "AFM":
        down = set(ordered[1::2])
    elif len(symbols) > 1:
        down = {i for i in magnetic if symbols.index(structure[i].specie.symbol) % 2 == 1}
    else:
        down = set(ordered[2::3]) or set(ordered[1::2])
    return [-size if i in down else size for i, size in enumerate(sizes)]


def ordering_of(moments: Sequence[float]) -> MagneticOrdering:
    """Return the order that site moments (μB) amount to; small induced moments do not count."""
    largest = max((abs(m) for m in moments), default=0.0)
    if largest < NEGLIGIBLE:
        return "NM"
    counted = [m for m in moments if abs(m) >= max(NEGLIGIBLE, SIGNIFICANT * largest)]
    if all(m > 0 for m in counted) or all(m < 0 for m in counted):
        return "FM"
    net = abs(sum(counted)) / sum(abs(m) for m in counted)
    return "AFM" if net <= COMPENSATED else "FiM"
