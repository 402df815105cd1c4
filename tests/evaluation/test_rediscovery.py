"""Named crystals, asked for by their elements."""

import json

import pytest

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.records import Phonons
from pccd_workflows.evaluation.known_file import known_file
from pccd_workflows.evaluation.rediscovery import Sampling, checked_formula, rediscover
from pccd_workflows.evaluation.samples import Yardstick, among
from pccd_workflows.generators.pccd.sampler import Sampler


def test_named_crystals_are_counted_and_the_best_is_shown(drawn, judge, data, cu3au, cuau3):
    drawn(cu3au, cu3au, cuau3, None)
    seen = []

    def phonons(structure):
        seen.append(structure)
        return Phonons(level="emt", verdict="stable", tolerance=0.1)

    known = Yardstick({"references": among(known_file(data).with_formulas)}, judge)
    sampling = Sampling(4, 0, Sampler())
    found = rediscover(None, known, sampling=sampling, formulas=["Cu3Au", "AuCu"], phonons=phonons)
    come, missing = found["Cu3Au"], found["AuCu"]
    assert come.appeared["value"] == 0.5
    assert come.distinct == 1
    assert come.best.energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert (come.best.reference, come.best.space_group) == ("mp-2", "Pm-3m")
    assert come.phonons.verdict == "stable"
    assert come.hull.systems == 1
    assert missing.appeared["value"] == 0.0
    assert (missing.best, missing.phonons, missing.hull) == (None, None, None)
    assert len(seen) == 1
    assert json.loads(json.dumps(come.as_json()))["best"]["structure"]["@class"] == "Structure"


def test_without_a_judge_named_crystals_are_only_counted(drawn, data, cu3au):
    drawn(cu3au, None)
    known = Yardstick({"references": among(known_file(data).with_formulas)})
    sampling = Sampling(2, 0, Sampler())
    found = rediscover(None, known, sampling=sampling, formulas=["Cu3Au"])["Cu3Au"]
    assert found.matches_reference["value"] == 1.0
    assert found.best is None


@pytest.mark.parametrize("text", ["", "Xx2O", "hello", "Mg2Mn3O8)"])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(InputError, match="not a chemical formula"):
        checked_formula(text)


def test_a_wrong_formula_is_refused_before_anything_is_drawn():
    sampling = Sampling(1, 0, Sampler())
    with pytest.raises(InputError, match="Qq2"):
        rediscover(None, Yardstick(), sampling=sampling, formulas=["Cu3Au", "Qq2"])
