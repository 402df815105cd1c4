"""Shares and box plots of the evaluation."""

import numpy as np
import pytest

from pccd_workflows.evaluation.intervals import share
from pccd_workflows.evaluation.reconstruction import _box_plots


def test_wilson_interval():
    result = share(50, 100)
    assert result["value"] == 0.5
    assert result["interval"] == [pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3)]
    assert share(0, 20)["interval"][0] == 0.0
    assert share(20, 20)["interval"][1] == 1.0
    assert share(0, 0)["value"] is None


def test_efficiency_is_the_share_within_the_whiskers():
    values = np.concatenate([np.linspace(-1, 1, 96), [50.0, 60.0, -70.0, 80.0]])
    result = _box_plots({"a": values})
    assert result["efficiency"]["a"]["value"] == pytest.approx(0.96)
    assert result["limits"]["a"][0] < -1
    assert result["limits"]["a"][1] > 1
