"""How the crystals of a campaign are shared out: by composition, or by their place in the order.

Equal crystals have one composition, so what compares crystals may take compositions one by one.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pccd_workflows.core.storage import Formulas

TOGETHER = 512
"""Crystals compared in one go: whole compositions, so many at least. Bounds the memory."""
BRANCHES = 64
"""Jobs that one job starts, or waits for, at most: bounds its document and its transaction."""

T = TypeVar("T")


def by_composition(numbers: Iterable[tuple[str, int]]) -> list[Formulas]:
    """Return ranges of whole compositions with about TOGETHER crystals each.

    numbers: of crystals, by reduced formula, sorted.
    """
    found: list[Formulas] = []
    first, together = None, 0
    last = ""
    for formula, number in numbers:
        first = formula if first is None else first
        last = formula
        together += number
        if together >= TOGETHER:
            found.append((first, last))
            first, together = None, 0
    if first is not None:
        found.append((first, last))
    return found


def branches(items: Sequence[T]) -> list[Sequence[T]]:
    """Return the items in at most BRANCHES runs of (nearly) the same length, in their order."""
    size = max(1, -(-len(items) // BRANCHES))
    return [items[first : first + size] for first in range(0, len(items), size)]


def subranges(first: int, stop: int, least: int) -> list[tuple[int, int]]:
    """Return at most BRANCHES ranges that make up `first` to `stop` - 1.

    Each but the last has a length that is BRANCHES to some power, times `least`: so does each of
    its own subranges.
    """
    size = least
    while size * BRANCHES < stop - first:
        size *= BRANCHES
    return [(start, min(start + size, stop)) for start in range(first, stop, size)]
