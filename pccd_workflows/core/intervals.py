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
    low, high = wilson_interval(successes, trials)
    interval = [round(low, 4), round(high, 4)]
    return {"value": successes / trials, "interval": interval, "n": trials}


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share; it holds near 0 and 1 as well.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi:10.1080/01621459.1927.10502953.
    """
    p = successes / trials
    scale = 1 + Z_95**2 / trials
    centre = (p + Z_95**2 / (2 * trials)) / scale
    half = Z_95 * math.sqrt(p * (1 - p) / trials + Z_95**2 / (4 * trials**2)) / scale
    # at the ends the interval touches them exactly; rounding must not leave 1e-17
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


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
