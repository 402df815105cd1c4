"""Intervals against numbers worked out by hand and by scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pccd_workflows.core.intervals import bootstrapped, share, wilson_share


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.959964
        (5, 10, 0.236593, 0.763407),
        (0, 20, 0.0, 0.161125),
        (20, 20, 0.838875, 1.0),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson_interval_matches_hand_calculation(count, total, low, high):
    share = wilson_share(count, total)
    assert share.value == count / total
    assert share.low == pytest.approx(low, abs=2e-6)
    assert share.high == pytest.approx(high, abs=2e-6)


@pytest.mark.parametrize(("count", "total"), [(160, 1809), (41, 120), (1, 1000), (999, 1000)])
def test_wilson_interval_matches_scipy(count, total):
    share = wilson_share(count, total)
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_of_nothing_has_no_share():
    share = wilson_share(0, 0)
    assert (share.value, share.low, share.high) == (None, None, None)


@pytest.mark.parametrize(("count", "total"), [(3, 2), (-1, 2)])
def test_impossible_shares_are_refused(count, total):
    with pytest.raises(ValueError, match="must be between"):
        wilson_share(count, total)


def test_a_share_in_a_document():
    result = share(50, 100)
    assert result["value"] == 0.5
    assert result["interval"] == [pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3)]
    assert share(0, 20)["interval"][0] == 0.0
    assert share(20, 20)["interval"][1] == 1.0
    assert share(0, 0)["value"] is None


def test_bootstrap_interval_covers_the_mean_and_leaves_out_nan():
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    result = bootstrapped(np.append(values, np.nan))
    assert result["n"] == 400
    assert result["value"] == pytest.approx(values.mean())
    low, high = result["interval"]
    # 95 % of a mean of 400 values of width 1: 2 x 1.96 / 20
    assert high - low == pytest.approx(0.196, rel=0.15)
    assert low < values.mean() < high
    assert bootstrapped(np.array([np.nan]))["value"] is None
