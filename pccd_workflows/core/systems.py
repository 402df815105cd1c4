"""Chemical systems: sorted element symbols joined by '-', e.g. Mg-Mn-O."""

from collections.abc import Iterable


def chemical_system(symbols: Iterable[str]) -> str:
    """Return the chemical system of elements given in any order."""
    return "-".join(sorted(symbols))


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
