"""Verdicts of two levels side by side: terminal, report, explorer, exports."""

import json

import ledger_factory as factory
import pytest
from typer.testing import CliRunner

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli.candidate import app
from pccd_workflows.execution import mongo
from pccd_workflows.explorer.pages import answer
from pccd_workflows.export import export_candidates
from pccd_workflows.report import write_report
from pccd_workflows.stages.level_difference import difference, note, side_by_side

TWO = factory.campaign(rungs=[{"level": "chgnet"}, {"level": "7net-l3i5"}], phonons=None)
SAID = "chgnet 12, 7net-l3i5 57: levels differ by 45 meV/atom"


def doc(index: int, *heights: float | None) -> CandidateDoc:
    """Return a candidate so far above the hull of each level."""
    one = factory.judged(index, "MgMn2O4", above=heights[0] or 0.0, which=TWO)
    (first,) = one.stabilities
    levels = ("chgnet", "7net-l3i5")
    stabilities = [
        first.model_copy(update={"level": level, "energy_above_hull": height})
        for level, height in zip(levels, heights, strict=False)
    ]
    return one.model_copy(update={"stabilities": stabilities})


@pytest.mark.parametrize(
    ("heights", "apart", "beside", "said"),
    [
        ((0.012,), None, "", ""),
        ((0.012, None), None, "", ""),
        ((0.012, 0.042), 0.03, "chgnet 12, 7net-l3i5 42", ""),
        ((0.012, 0.057), 0.045, SAID, "levels differ by 45 meV/atom"),
        ((0.02, -0.02), 0.04, None, "levels differ by 40 meV/atom"),
    ],
)
def test_levels_are_compared(heights, apart, beside, said):
    records = doc(0, *heights).records
    assert difference(records) == (None if apart is None else pytest.approx(apart))
    assert note(records) == said
    if beside is not None:
        assert side_by_side(records) == beside


@pytest.fixture
def database(settings):
    docs = [doc(0, 0.012, 0.057), doc(1, 0.012, 0.02), doc(2, 0.012)]
    found = mongo.database(settings)
    rows = [one.model_dump(mode="json") | {"_id": one.candidate_id} for one in docs]
    found["candidates"].insert_many(rows)
    found["campaigns"].insert_one(factory.campaign_document(TWO))
    return found


def pccd(*arguments: str, width: int) -> str:
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_terminal_says_so(database):
    wide = pccd("list", width=240)
    assert wide.count(SAID) == 1
    assert "chgnet 12, 7net-l3i5 20" in wide
    narrow = pccd("list", width=80)
    assert narrow.count("levels differ") == 1
    assert f"0: {SAID}" in narrow
    shown = " ".join(pccd("show", "0", width=240).split())
    assert shown.count(SAID) == 1  # with the last level, not with each
    assert "differ" not in pccd("show", "1", width=240)
    rows = json.loads(pccd("list", "--json", width=80))
    found = {row["index"]: row["level_difference_ev_per_atom"] for row in rows}
    assert found == {0: pytest.approx(0.045), 1: pytest.approx(0.008), 2: None}


def test_report_explorer_and_exports_say_so(database, tmp_path):
    docs = [doc(0, 0.012, 0.057), doc(1, 0.012, 0.02)]
    report = write_report(
        tmp_path / "report.html",
        campaign=factory.campaign_document(TWO),
        candidates=docs,
        reference_sets=[factory.reference_set("chgnet"), factory.reference_set("7net-l3i5")],
    ).read_text()
    assert SAID in report
    page = answer(database, "/", "").body
    assert page.count(SAID) == 1
    card = answer(database, f"/candidate/{docs[0].candidate_id}", "").body
    assert "levels differ by 45 meV/atom" in card
    export_candidates(docs, tmp_path / "all.csv", "csv")
    assert "level_difference_ev_per_atom" in (tmp_path / "all.csv").read_text()
