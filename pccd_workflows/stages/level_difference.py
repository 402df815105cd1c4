"""Where the levels of a campaign disagree about one crystal's energy above hull."""

from collections.abc import Mapping
from typing import Any

from pccd_workflows.core.units import EV_TO_MEV

DIFFERENCE = 0.03
"""eV/atom; potentials err by as much themselves (CHGNet on its test set: 30 meV/atom,
10.1038/s42256-023-00716-3), so less says nothing."""


def heights(records: Mapping[str, Any]) -> dict[str, float]:
    """Return the energy above hull at each level that has one, eV/atom, in the order of rungs."""
    found = {name: record for name, record in records.items() if name.startswith("hull:")}
    return {
        record.level: record.energy_above_hull
        for record in found.values()
        if record.energy_above_hull is not None
    }


def difference(records: Mapping[str, Any]) -> float | None:
    """Return how far the levels lie apart, eV/atom; None if there are not two."""
    found = heights(records).values()
    return round(max(found) - min(found), 6) if len(found) > 1 else None


def note(records: Mapping[str, Any]) -> str:
    """Return ``levels differ by 45 meV/atom`` where they differ by more than DIFFERENCE."""
    apart = difference(records)
    if apart is None or apart <= DIFFERENCE:
        return ""
    return f"levels differ by {apart * EV_TO_MEV:.0f} meV/atom"


def side_by_side(records: Mapping[str, Any]) -> str:
    """Return ``chgnet 12, 7net-l3i5 57: levels differ by 45 meV/atom``; empty for one level."""
    found = heights(records)
    if len(found) < 2:
        return ""
    both = ", ".join(f"{level} {above * EV_TO_MEV + 0.0:.0f}" for level, above in found.items())
    said = note(records)
    return f"{both}: {said}" if said else both
