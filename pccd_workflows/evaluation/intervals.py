"""Shares with their uncertainty."""

import math

Z_95 = 1.959963984540054
"""Half-width of the central 95 % of a normal distribution, in standard deviations."""


def share(successes: int, trials: int) -> dict[str, object]:
    """Return a share with its 95 % Wilson interval.

    Returns
    -------
    dict
        value (None without trials), interval [low, high], n.
    """
    if trials == 0:
        return {"value": None, "interval": None, "n": 0}
    p = successes / trials
    scale = 1 + Z_95**2 / trials
    centre = (p + Z_95**2 / (2 * trials)) / scale
    half = Z_95 * math.sqrt(p * (1 - p) / trials + Z_95**2 / (4 * trials**2)) / scale
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return {"value": p, "interval": [round(low, 4), round(high, 4)], "n": trials}
