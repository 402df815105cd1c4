"""Funnel and shares against numbers worked out by hand."""

import itertools

import ledger_factory as factory
import pytest

from pccd_workflows import collect, stages
from pccd_workflows.core.intervals import percent, show_share, wilson_share
from pccd_workflows.discovery import Candidates
from pccd_workflows.kinds import count_kinds, kinds_of
from pccd_workflows.report.statistics import (
    MAX_BEST,
    MAX_EXAMPLES,
    Point,
    share_below,
    summarize,
)


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [(1, 26, "4 %"), (1, 3, "33 %"), (0, 7, "0 %"), (1, 1500, "0.1 %"), (1, 20_000, "0.01 %")],
)
def test_percentages_have_the_digits_of_their_denominator(count, total, text):
    assert percent(count, total) == text


def test_a_share_of_nothing_is_empty():
    assert percent(0, 0) == ""
    assert show_share(wilson_share(0, 0)) == "0 of 0"


def test_shares_in_words_have_count_total_and_interval():
    assert show_share(wilson_share(12, 27)) == "12 of 27 (44 %, 28-63 %)"
    assert show_share(wilson_share(2, 2)) == "2 of 2 (100 %, 34-100 %)"
    assert show_share(wilson_share(15, 1500)) == "15 of 1500 (1.0 %, 0.6-1.6 %)"


def kept():
    kinds = [(i, True, "substitution") for i in range(9)]
    kinds += [(i, True, "new_structure_type") for i in range(9, 12)]
    kinds += [(i, False, "duplicate") for i in range(12, 27)]
    docs = [factory.judged(i, above=0.02, novel=novel, kind=kind) for i, novel, kind in kinds]
    return [*docs, factory.judged(27, above=0.3, kind="substitution"), factory.undecoded(28)]


def test_kept_crystals_are_counted_by_kind():
    """With the same words in terminal, report and notebook; what was not kept does not count."""
    campaign, text = factory.campaign(), "new 12 of 27 (44 %, 28-63 %): 9 substitutions, 3 new"
    counts = summarize(kept(), campaign).kinds
    assert counts.sentence() == f"{text} structure types; 15 known"
    stored = [
        doc.model_copy(update={"reached": collect.reached(campaign, doc.records)}) for doc in kept()
    ]
    assert kinds_of(campaign, stored) == Candidates(campaign, stored).kinds() == counts
    assert [(name, share.count) for name, share in counts.shares()] == [
        ("new", 12),
        ("substitutions", 9),
        ("new structure types", 3),
        ("known", 15),
    ]
    one = count_kinds([(True, "substitution"), (True, None), (False, None), (None, None)])
    assert one.sentence() == "new 2 of 4 (50 %, 15-85 %): 1 substitution; 2 known"
    assert count_kinds([]).sentence() == "No crystal was kept near the hull."


def point(energy, *, novel=True):
    return Point("x", "MgO", energy, -1.0, "set", novel, "Fm-3m", "")


def test_shares_state_every_denominator():
    points = [point(-0.01), point(0.0), point(0.08, novel=False), point(0.081), point(0.3)]
    row = share_below(points, 0.08, unique=8, screened=10, raw=20)
    assert (row.count, row.new) == (3, 2)
    assert (row.of_unique.value, row.of_screened.value, row.of_raw.value) == (0.375, 0.3, 0.15)


def demo_like():
    return [
        factory.undecoded(0),
        factory.undecoded(1, "volume"),
        factory.rejected(2, "too_close"),
        factory.rejected(3, "too_close"),
        factory.duplicate(4, of=6),
        factory.generated(5),
        factory.judged(6, "MgO", above=0.0, novel=False),
        factory.judged(7, "MgMn2O4", above=0.3),
        factory.judged(8, "MgMnO3", above=0.05, phonons="unstable"),
        factory.judged(9, "MgMnO2", above=0.02, phonons="stable"),
        factory.judged(10, "MgMnO2", above=0.2),
    ]


def test_the_funnel_counts_every_crystal_once():
    summary = summarize(demo_like(), factory.campaign())
    assert [(step.key, step.count) for step in summary.steps] == [
        ("generated", 11),
        ("decoded", 9),
        ("screened", 6),
        ("unique", 5),
        ("relaxed:chgnet", 5),
        ("within:chgnet", 4),
        ("phonons", 2),
        ("stable", 1),
    ]
    counts = [step.count for step in summary.steps]
    assert [step.n_lost for step in summary.steps] == [
        0,
        *(before - after for before, after in itertools.pairwise(counts)),
    ]


def test_steps_are_those_of_the_terminal():
    campaign = factory.campaign()
    summary = summarize(demo_like(), campaign)
    assert [step.label for step in summary.steps] == [one.label for one in stages.funnel(campaign)]


def test_what_a_document_reached_is_read_or_computed():
    """Documents of schema version 1 do not say what they reached."""
    campaign = factory.campaign()
    stored = [
        doc.model_copy(update={"reached": collect.reached(campaign, doc.records)})
        for doc in demo_like()
    ]
    assert all(
        doc.reached and not old.reached for doc, old in zip(stored, demo_like(), strict=True)
    )
    read, computed = summarize(stored, campaign), summarize(demo_like(), campaign)
    assert [step.count for step in read.steps] == [step.count for step in computed.steps]


def test_an_ambiguous_verdict_is_a_loss_of_its_own():
    docs = [factory.judged(0, phonons="ambiguous"), factory.judged(1)]
    last, stable = summarize(docs, factory.campaign()).steps[-2:]
    assert [(loss.status, loss.reason_class) for loss in stable.lost] == [("passed", "ambiguous")]
    assert [loss.reason_class for loss in last.lost] == ["not_selected"]


def test_losses_keep_class_reason_and_status():
    summary = summarize(demo_like(), factory.campaign())
    lost = {
        step.key: [(loss.status, loss.reason_class, loss.count) for loss in step.lost]
        for step in summary.steps
    }
    assert lost["decoded"] == [("rejected", "no_cluster", 1), ("rejected", "volume", 1)]
    assert lost["screened"] == [("rejected", "too_close", 2), ("pending", "waiting", 1)]
    assert lost["unique"] == [("rejected", "duplicate", 1)]
    assert lost["within:chgnet"] == [("rejected", "unstable", 1)]
    assert lost["phonons"] == [("passed", "not_selected", 2)]
    assert lost["stable"] == [("rejected", "phonons", 1)]
    example = summary.steps[2].lost[0].examples[0]
    assert example.candidate_id == factory.campaign().candidate_id(2)
    assert example.reason == "It was rejected: too close."


def test_examples_are_capped_and_counts_are_not():
    docs = [factory.undecoded(i) for i in range(MAX_EXAMPLES + 5)]
    loss = summarize(docs, factory.campaign()).steps[1].lost[0]
    assert (loss.count, len(loss.examples)) == (MAX_EXAMPLES + 5, MAX_EXAMPLES)


def test_best_are_new_then_phonon_stable_then_lowest():
    summary = summarize(demo_like(), factory.campaign())
    assert [doc.index for doc in summary.best] == [9, 10, 7, 8, 6]


def test_best_keeps_only_the_best_of_many():
    template = factory.judged(0)
    docs = [
        template.model_copy(update={"index": i, "energy_above_hull": ((i * 37) % 150) / 1000})
        for i in range(150)
    ]
    best = summarize(iter(docs), factory.campaign()).best
    assert [doc.energy_above_hull for doc in best] == [i / 1000 for i in range(MAX_BEST)]


def test_thresholds_of_a_level():
    rows = summarize(demo_like(), factory.campaign()).thresholds("chgnet")
    assert [(row.count, row.new) for row in rows] == [(1, 0), (3, 2), (4, 3)]
    assert rows[1].of_raw.value == pytest.approx(3 / 11)
    assert rows[1].of_screened.value == pytest.approx(3 / 6)
    assert rows[1].of_unique.value == pytest.approx(3 / 5)


@pytest.mark.parametrize("what", ["duplicate", "known"])
def test_a_crystal_that_relaxed_to_another_one_counts_in_no_table(what):
    """The funnel left it out; the table beside it counted it (27 and 28 of the quickstart)."""
    docs = [factory.judged(0, "MgMn2O4", above=0.05), factory.judged(1, "MgO", above=0.25)]
    twin = factory.judged(2, "MgO", above=0.05)
    update = {"passed": False, "reason_class": what, "reason": "The same."}
    record = twin.stabilities[0].model_copy(update=update)
    ended = {"stabilities": [record], "status": "rejected", "reason_class": what, "reached": []}
    edge = factory.judged(3, "MgO", above=0.25005)
    summary = summarize([*docs, twin.model_copy(update=ended), edge], factory.campaign())
    assert summary.count("within:chgnet") == 2
    assert summary.thresholds("chgnet")[-1].count == 2
    assert summary.n_ranked == 3
    assert twin.candidate_id not in [doc.candidate_id for doc in summary.best]


def test_the_hull_has_the_name_of_what_the_crystals_on_it_lack():
    def with_missing(number, above, n_missing):
        doc = factory.judged(number, "MgO", above=above)
        record = doc.stabilities[0].model_copy(update={"n_missing": n_missing})
        return doc.model_copy(update={"stabilities": [record]})

    def named(*pairs):
        docs = [with_missing(number, *pair) for number, pair in enumerate(pairs)]
        return summarize(docs, factory.campaign()).n_missing("chgnet")

    assert named((0.1, 5), (-0.01, 0)) == 0
    assert named((0.0, 2), (-0.01, 3), (0.0, 0)) == 3
    assert named((0.0, 2), (-0.01, None)) is None
    assert named((0.2, 4)) == 0


def test_levels_are_never_mixed():
    which = factory.campaign(rungs=[{"level": "chgnet"}, {"level": "7net-0"}], phonons=None)
    doc = factory.judged(0, "MgMn2O4", above=0.2)
    second = doc.stabilities[0].model_copy(update={"level": "7net-0", "energy_above_hull": 0.01})
    doc = doc.model_copy(update={"stabilities": [*doc.stabilities, second]})
    summary = summarize([doc, factory.judged(1, "MgO", above=0.0)], which)
    assert [p.energy_above_hull for p in summary.points["chgnet"]] == [0.2, 0.0]
    assert [p.energy_above_hull for p in summary.points["7net-0"]] == [0.01]
    assert [step.key for step in summary.steps][-2:] == ["relaxed:7net-0", "within:7net-0"]
