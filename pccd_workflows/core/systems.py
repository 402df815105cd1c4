"""Chemical systems (sorted element symbols joined by '-', e.g. Mg-Mn-O) and formulas."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations
from math import gcd

from pccd_workflows.core.errors import InputError


def chemical_system(symbols: Iterable[str]) -> str:
    """Return the chemical system of elements given in any order."""
    return "-".join(sorted(symbols))


def subsystems(symbols: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the element sets within some elements, these included, the smallest first."""
    elements = sorted(set(symbols))
    sizes = range(1, len(elements) + 1)
    return [part for size in sizes for part in combinations(elements, size)]


def maximal_systems(systems: Iterable[str]) -> list[str]:
    """Return the systems that are not contained in another one of `systems`, sorted."""
    sets = sorted({frozenset(s.split("-")) for s in systems}, key=lambda s: (-len(s), sorted(s)))
    kept: list[frozenset[str]] = []
    for elements in sets:
        if not any(elements < other for other in kept):
            kept.append(elements)
    return sorted(map(chemical_system, kept))


def covering_system(chemsys: str, systems: Iterable[str]) -> str | None:
    """Return the first of `systems` that contains `chemsys`, or None."""
    elements = set(chemsys.split("-"))
    return next((s for s in sorted(systems) if elements <= set(s.split("-"))), None)


def split_chemsys(chemsys: str) -> list[str]:
    """Return the symbols of a chemical system, alphabetically; InputError if one is no element."""
    symbols = sorted(set(chemsys.split("-")))
    for symbol in symbols:
        atomic_number(symbol)
    return symbols


@lru_cache(maxsize=256)
def atomic_number(symbol: str) -> int:
    """Return the atomic number of a symbol; InputError if it is no element.

    Raises
    ------
    InputError
        The symbol is no element.
    """
    from pymatgen.core import Element

    if symbol not in Element.__members__ or symbol in ("D", "T"):
        raise InputError(f"{symbol!r} is not a chemical element symbol such as 'Mg'.")
    return int(Element[symbol].Z)


@lru_cache(maxsize=256)
def symbol(number: int) -> str:
    """Return the symbol of an atomic number."""
    from pymatgen.core import Element

    return str(Element.from_Z(number).symbol)


def parse_formula(formula: str) -> dict[str, int]:
    """Return the atoms of a formula in lowest terms; InputError if it is none.

    Raises
    ------
    InputError
        The text is no formula.
    """
    from pymatgen.core import Composition

    try:
        amounts = Composition(formula).element_composition.get_el_amt_dict()
    except (ValueError, KeyError):
        amounts = {}
    whole = {symbol: round(amount) for symbol, amount in amounts.items()}
    if not whole or any(abs(whole[s] - amounts[s]) > 1e-6 or whole[s] < 1 for s in whole):
        raise InputError(f"{formula!r} is not a chemical formula such as 'Li2TiO3'.")
    unit = gcd(*whole.values())
    return {symbol: count // unit for symbol, count in whole.items()}
