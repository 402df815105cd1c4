"""Element symbols and atomic numbers, one to one: one table, pymatgen's, without isotopes."""

from collections.abc import Iterable

from pymatgen.core import Element

from pccd_workflows.core.errors import InputError

MAX_ATOMIC_NUMBER = 118


def atomic_number(symbol: str) -> int:
    """Return the atomic number (1 to 118) of an element symbol.

    Raises
    ------
    InputError
        If `symbol` is not an element; the isotopes D and T are not.
    """
    number = _NUMBERS.get(symbol)
    if number is None:
        raise InputError(f"{symbol!r} is not a chemical element symbol such as 'Mg'.")
    return number


def symbol(number: int) -> str:
    """Return the element symbol of an atomic number.

    Raises
    ------
    InputError
        If `number` is not between 1 and 118.
    """
    if not 1 <= number <= MAX_ATOMIC_NUMBER:
        raise InputError(f"Atomic number {number} is not between 1 and {MAX_ATOMIC_NUMBER}.")
    return _SYMBOLS[number - 1]


def canonical_elements(symbols: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct symbols in order of atomic number.

    Raises
    ------
    InputError
        If one of them is not an element.
    """
    return tuple(sorted(set(symbols), key=atomic_number))


_SYMBOLS: tuple[str, ...] = tuple(
    Element.from_Z(number).symbol for number in range(1, MAX_ATOMIC_NUMBER + 1)
)
_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(_SYMBOLS, start=1)}
