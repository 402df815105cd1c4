"""Shares and means with their uncertainty: every measured number is {value, interval, n}."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

Z_95 = 1.959963984540054
"""Half-width of the central 95 % of a normal distribution, in standard deviations."""
RESAMPLINGS = 1000


class Estimate(TypedDict):
    """A measured number: value, interval [low, high] of 95 % (None without data), n."""

    value: float | None
    interval: list[float] | None
    n: int


@dataclass(frozen=True)
class Share:
    """A part of a whole with its 95 % Wilson interval; all None for an empty whole."""

    count: int
    total: int
    value: float | None
    low: float | None
    high: float | None


def wilson_share(count: int, total: int) -> Share:
    """Return count/total with its 95 % Wilson score interval, which holds near 0 and 1 as well.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi:10.1080/01621459.1927.10502953.

    Raises
    ------
    ValueError
        `count` is not between 0 and `total`.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count=} must be between 0 and {total=}")
    if total == 0:
        return Share(0, 0, None, None, None)
    p = count / total
    scale = 1 + Z_95**2 / total
    centre = (p + Z_95**2 / (2 * total)) / scale
    half = Z_95 / scale * math.sqrt(p * (1 - p) / total + Z_95**2 / (4 * total**2))
    # at the ends the interval touches them exactly; rounding must not leave 1e-17
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return Share(count, total, p, low, high)


def show_share(found: Share) -> str:
    """Return a share in words: 12 of 27 (44 %, 28-63 %); no more digits than its total carries."""
    if found.low is None or found.high is None:
        return "0 of 0"
    digits = share_digits(found.total)
    interval = f"{100 * found.low:.{digits}f}-{100 * found.high:.{digits}f} %"
    return f"{found.count} of {found.total} ({percent(found.count, found.total)}, {interval})"


def percent(count: int, total: int) -> str:
    """Return a share in percent, with no more digits than its total carries."""
    return f"{100 * count / total:.{share_digits(total)}f} %" if total else ""


def share_digits(total: int) -> int:
    """Return the decimals of a share in percent: one of 1,000 is 0.1 %, finer ones are noise."""
    return 0 if total < 1000 else 1 if total < 10_000 else 2


def share(count: int, total: int) -> Estimate:
    """Return `wilson_share` as documents hold it, the interval to four digits."""
    found = wilson_share(count, total)
    if found.low is None or found.high is None:
        return {"value": None, "interval": None, "n": 0}
    interval = [round(found.low, 4), round(found.high, 4)]
    return {"value": found.value, "interval": interval, "n": total}


def bootstrapped(
    values: NDArray[np.float64],
    statistic: Callable[..., NDArray[np.float64]] = np.mean,
) -> Estimate:
    """Return a statistic of a sample with its 95 % percentile bootstrap interval.

    Parameters
    ----------
    values
        Shape (n,); NaN values are left out.
    statistic
        Takes `axis`, like np.mean or np.median. Resampled with a fixed seed.
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
