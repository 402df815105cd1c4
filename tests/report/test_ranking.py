"""One order of "best" for the closing table and the report."""

import itertools

import ledger_factory as factory
import pytest
from rich.console import Console

from pccd_workflows import operations
from pccd_workflows.cli import live
from pccd_workflows.execution import mongo
from pccd_workflows.ranking import best_rows, rank
from pccd_workflows.report.statistics import summarize

DOCS = [
    factory.judged(0, "MgO", above=-0.01, novel=False),
    factory.judged(1, "MgMn2O4", above=0.05),
    factory.judged(2, "MgMnO3", above=0.03, phonons="ambiguous"),
    factory.judged(3, "MgMnO2", above=0.07, phonons="stable"),
    factory.judged(4, "MgMnO2", above=0.01),
    factory.judged(5, "MgMnO2", above=0.02, phonons="unstable"),
    factory.judged(6, "MgMn2O4", above=0.9),
]
BEST_FIRST = [3, 2, 4, 1, 0]


@pytest.fixture
def candidates(settings):
    collection = mongo.database(settings)["candidates"]
    rows = [doc.model_dump(mode="json") | {"_id": doc.candidate_id} for doc in DOCS]
    collection.insert_many(rows)
    return collection


def test_new_comes_before_stable_before_low():
    in_order = [
        rank(True, "stable", 0.2),
        rank(True, "ambiguous", 0.0),
        rank(True, None, -0.1),
        rank(True, None, None),
        rank(True, "unstable", -0.1),
        rank(False, "stable", -0.2),
        rank(None, None, -0.2),
    ]
    assert all(one < other for one, other in itertools.pairwise(in_order))


def test_the_closing_table_ranks_as_the_report(candidates):
    campaign = factory.campaign()
    rows = best_rows(candidates, campaign.campaign_id, 10)
    assert [row["index"] for row, _ in rows] == BEST_FIRST
    best = summarize(DOCS, campaign).best
    assert [doc.index for doc in best if doc.status == "passed"] == BEST_FIRST
    assert [row["index"] for row, _ in best_rows(candidates, campaign.campaign_id, 2)] == [3, 2]


def test_the_closing_table_fits_80_columns(candidates, settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    campaign = factory.campaign()
    candidates.database["campaigns"].insert_one(factory.campaign_document())
    progress = operations.Progress({"COMPLETED": 8}, [])
    live.print_outcome(campaign, settings, tmp_path / "report.html", progress)
    printed = capsys.readouterr().out
    table, _, rest = printed.partition("Report:")
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "…" not in table
    first = f"{campaign.hash[:4]}-3"
    assert table.index(first) < table.index(f"{campaign.hash[:4]}-2 ")
    assert f"pccd candidate show {first}" in rest
    assert Console().width == 80
