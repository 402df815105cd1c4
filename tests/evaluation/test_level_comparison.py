"""Two potentials on the same crystals."""

import json

import pytest

from pccd_workflows.evaluation.level_comparison import compare_levels, disagreement
from pccd_workflows.generators.pccd.sampler import Sampler


def test_levels_are_compared_on_the_same_crystals(drawn, make_judge, cu3au, cuau3):
    drawn(cu3au, cuau3, None)
    judges = (make_judge("emt"), make_judge("emt-too"))
    found = compare_levels(None, judges, batch="seed-batch-3", samples=3, sampler=Sampler())
    assert found.levels == ("emt", "emt-too")
    assert found.disagreement.judged_by_both == 2
    assert found.disagreement.rate["stable_80"]["value"] == 0.0
    assert found.disagreement.mean_absolute_difference == pytest.approx(0.0, abs=1e-9)
    shown = json.loads(json.dumps(found.as_json()))
    assert shown["judged_by_both"] == 2
    assert set(shown["crystals_by_level"][0]) == {"formula", "emt", "emt-too"}
    assert [card["potential"]["level"] for card in shown["protocol"]] == ["emt", "emt-too"]


def test_disagreement_counts_verdicts_not_energies():
    found = disagreement([0.05, 0.09, 0.30, None, -0.1], [0.07, 0.07, 0.20, 0.0, 0.02])
    assert (found.crystals, found.judged_by_both) == (5, 4)
    assert found.rate["stable_80"]["value"] == pytest.approx(1 / 4)
    assert found.rate["stable_250"]["value"] == pytest.approx(1 / 4)
    assert found.rate["stable_0"]["value"] == pytest.approx(1 / 4)
    assert found.mean_absolute_difference == pytest.approx((0.02 + 0.02 + 0.1 + 0.12) / 4)
    assert disagreement([None], [0.1]).rate["stable_0"]["value"] is None
