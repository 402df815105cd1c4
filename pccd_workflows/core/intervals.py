"""Shares and means with their uncertainty: every measured number is {value, interval, n}."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""Half-width of the central 95 % of a normal distribution, in standard deviations."""
RESAMPLINGS = 1000


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


def bootstrapped(
    values: NDArray[np.float64],
    statistic: Callable[..., NDArray[np.float64]] = np.mean,
) -> dict[str, object]:
    """Return a statistic of a sample with its 95 % percentile bootstrap interval.

    Parameters
    ----------
    values : float array (n,)
        NaN values are left out.
    statistic : callable
        Takes `axis`, like np.mean or np.median.

    Returns
    -------
    dict
        value (None without values), interval [low, high], n; resampled with a fixed seed.
    """
    known = values[np.isfinite(values)]
    n = len(known)
    if n == 0:
        return {"value": None, "interval": None, "n": 0}
    rows = np.random.default_rng(0).integers(n, size=(RESAMPLINGS, n))
    low, high = np.percentile(statistic(known[rows], axis=1), [2.5, 97.5])
    return {
        "value": float(statistic(known, axis=0)),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "n": n,
    }
