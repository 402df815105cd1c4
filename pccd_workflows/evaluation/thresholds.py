"""Energies above the hull at which crystals are counted."""

THRESHOLDS = {"stable_0": 0.0, "stable_80": 0.08, "stable_100": 0.1, "stable_250": 0.25}
"""eV/atom above the hull, at most; the seed paper's Table 2 counts at 80 and 250 meV/atom,
LeMat-GenBench's SUN and MetaSUN at 0 and 100."""
SUN_LIMIT = THRESHOLDS["stable_0"]
METASUN_LIMIT = THRESHOLDS["stable_100"]
SAME_ENERGY = 1e-6
"""eV/atom; a crystal on the hull is not above it for rounding."""


def is_within(energy_above_hull: float | None, limit: float) -> bool:
    """Return whether a crystal is at most `limit` eV/atom above the hull."""
    return energy_above_hull is not None and energy_above_hull <= limit + SAME_ENERGY
