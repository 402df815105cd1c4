"""How the crystals of a campaign are shared out among jobs: whole compositions, or by their places.

No job loads or carries a whole campaign. Equal crystals have one composition, so what compares
crystals takes compositions one by one; what treats each crystal alone takes the next so many.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pccd_workflows.core.storage import Share

T = TypeVar("T")

TOGETHER = 512
"""Crystals compared in one go: whole compositions, so many at least. Bounds the memory."""
BRANCHES = 32
"""Jobs that one job starts, or waits for, at most: bounds its document and its transaction."""


def by_composition(numbers: Iterable[tuple[str, int]]) -> list[Share]:
    """Return shares of whole compositions with about TOGETHER crystals each.

    numbers: of crystals, by reduced formula, sorted.
    """
    found: list[Share] = []
    formulas: list[str] = []
    together = 0
    for formula, number in numbers:
        formulas.append(formula)
        together += number
        if together >= TOGETHER:
            found.append(Share(formulas=(formulas[0], formula)))
            formulas, together = [], 0
    if formulas:
        found.append(Share(formulas=(formulas[0], formulas[-1])))
    return found


def runs(items: Sequence[T]) -> list[list[T]]:
    """Return the items in at most BRANCHES runs of (nearly) the same length, in their order."""
    size = max(1, -(-len(items) // BRANCHES))
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


def joined(shares: Sequence[Share]) -> list[Share]:
    """Return the same compositions in at most BRANCHES shares: what a job takes bit by bit."""
    ends = ((run[0].formulas, run[-1].formulas) for run in runs(shares))
    return [Share(formulas=(one[0], other[1])) for one, other in ends if one and other]


def by_place(first: int, end: int, least: int) -> list[Share]:
    """Return at most BRANCHES shares that make up the places `first` to `end` - 1.

    Each but the last has `least` places, times BRANCHES to some power: so has each of its own
    shares.
    """
    size = least
    while size * BRANCHES < end - first:
        size *= BRANCHES
    return [Share(places=(start, min(start + size, end))) for start in range(first, end, size)]
