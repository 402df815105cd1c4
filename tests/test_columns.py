"""Columns, and the worked example: a stage that only this file knows shows up everywhere."""

import csv
import json

import ledger_factory as factory
import pytest
from markupsafe import Markup
from typer.testing import CliRunner

from pccd_workflows import collect, columns, operations, stages
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli.candidate import app
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import Record
from pccd_workflows.execution import mongo
from pccd_workflows.explorer.pages import answer
from pccd_workflows.export import export_candidates
from pccd_workflows.query import CandidateFilter
from pccd_workflows.report import write_report
from pccd_workflows.report.panels import Panel
from pccd_workflows.stages.stage import Column, Description, FunnelStep, Outcome, Stage


class Hardness(Record):
    """What the made-up stage finds out."""

    gigapascal: float
    curve: tuple[float, ...] = ()


def is_hard(record):
    return record.gigapascal > 10


HARDNESS = Stage(
    kind="hardness",
    record=Hardness,
    levels=lambda _campaign: ("",),
    outcome=lambda r, _campaign: None if is_hard(r) else Outcome("rejected", "soft", "Too soft."),
    describe=lambda r, _records: Description(
        "hard" if is_hard(r) else "soft",
        "good" if is_hard(r) else "bad",
        (f"indented at {r.gigapascal:g} GPa",),
    ),
    steps=lambda _campaign, _level: (
        FunnelStep("hard", "hard enough", lambda r: "hardness" in r and is_hard(r["hardness"])),
    ),
    columns=(
        Column("hardness", "GPa", lambda r: r.gigapascal, show=True),
        Column("scratches", "", lambda r: "no" if is_hard(r) else "yes", show=True, badge=True),
        Column("points", "", lambda r: len(r.curve)),
    ),
    figure=lambda records: [
        Panel("Indentation", f"{records['hardness'].gigapascal:g} GPa", Markup("<svg></svg>"))
    ],
)
CAMPAIGN = factory.campaign(phonons=None)


@pytest.fixture
def docs(monkeypatch) -> list[CandidateDoc]:
    """Candidates of a campaign that has the made-up stage."""
    monkeypatch.setattr(stages, "STAGES", (*stages.STAGES, HARDNESS))
    found = []
    for index, hardness in enumerate((20.0, 5.0, None)):
        doc = factory.judged(index, "MgMn2O4", above=0.01 * index, which=CAMPAIGN)
        records = {} if hardness is None else {"hardness": Hardness(gigapascal=hardness)}
        outcome = collect.judge(CAMPAIGN, doc.records | records, None)
        update = {
            "further": records,
            "reached": collect.reached(CAMPAIGN, doc.records | records),
            "status": outcome.status,
            "reason_class": outcome.reason_class,
            "reason": outcome.reason,
        }
        found.append(doc.model_copy(update=update))
    return found


@pytest.fixture
def database(docs, settings):
    found = mongo.database(settings)
    rows = [doc.model_dump(mode="json") | {"_id": doc.candidate_id} for doc in docs]
    found["candidates"].insert_many(rows)
    found["campaigns"].insert_one(factory.campaign_document(CAMPAIGN))
    return found


def pccd(*arguments: str, width: int = 160) -> str:
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_is_a_step_of_the_funnel(database, settings):
    step = operations.funnel(CAMPAIGN, settings)[-1]
    assert (step.name, step.reached, step.out_of) == ("hard enough", 1, 3)


def test_lists_show_its_columns(database):
    head, *lines = pccd("list").split("Id ", 1)[1].splitlines()
    assert "GPa" in head
    assert "Scratches" in head
    cells = {line.split()[0].rpartition("-")[2]: line.split() for line in lines}
    assert {"20.000", "no"} <= set(cells["0"])
    assert cells["1"][-2:] == ["rejected:", "soft"]
    rows = json.loads(pccd("list", "--json"))
    assert [row["hardness_gpa"] for row in rows] == [20.0, 5.0, None]
    assert all("further" not in row for row in rows)


def test_a_crystal_is_shown_with_it(database, docs):
    shown = pccd("show", "1")
    assert docs[1].candidate_id in shown
    assert "indented at 5 GPa" in shown
    assert "rejected: soft: Too soft." in shown


def test_exports_have_its_columns(docs, tmp_path):
    path = export_candidates(docs, tmp_path, "csv").files[0]
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["hardness_gpa"] for row in rows] == ["20.0", "5.0", ""]
    assert [row["points"] for row in rows] == ["0", "0", ""]
    text = export_candidates(docs[:1], tmp_path / "one.extxyz", "extxyz").files[0].read_text()
    assert "hardness_gpa=20.0" in text


def test_the_report_shows_funnel_column_figure_and_losses(docs, tmp_path):
    text = write_report(
        tmp_path / "report.html",
        campaign=factory.campaign_document(CAMPAIGN),
        candidates=docs,
        reference_sets=[],
    ).read_text()
    for piece in (
        '<span class="name">hard enough</span>',
        "<span>hard enough</span>",  # its key figure
        "<th class=n>Hardness (GPa)</th>",
        '<td class=n data-sort="20.0">20.000</td>',
        '<span class="badge bad">yes</span>',
        "<h4>Indentation</h4>",
        "indented at 20 GPa",
        '<span class="chip rejected">soft <b>1</b></span>',
        '<span class="chip passed">not selected <b>1</b></span>',
    ):
        assert piece in text, piece


def test_the_explorer_shows_it(database, docs):
    page = answer(database, "/", "").body
    assert ">Hardness (GPa)</a></th>" in page
    assert "sort=values.hardness_gpa" in page
    assert "<td class=n>20.000</td>" in page
    rows = json.loads(answer(database, "/api/candidates", "").body)["candidates"]
    assert rows[0]["hardness_gpa"] == 20.0
    card = answer(database, f"/candidate/{docs[0].candidate_id}", "").body
    assert "<h2>Indentation</h2>" in card
    assert '<span class="badge good">hardness hard</span>' in card


def test_filters_know_it(database):
    assert CandidateFilter(stage="hardness").stage == "hardness"


def test_without_it_nobody_knows_it():
    with pytest.raises(InputError, match="There is no stage 'hardness'"):
        CandidateFilter(stage="hardness")
    assert "hardness_gpa" not in columns.values({})


def test_a_level_may_hold_a_colon():
    name = "relax:my_package.levels:r2scan"
    assert CandidateFilter(stage=name).stage == name


@pytest.mark.parametrize(
    ("name", "unit", "key"),
    [
        ("band_gap", "eV", "band_gap_ev"),
        ("energy_above_hull", "eV/atom", "energy_above_hull_ev_per_atom"),
        ("volume", "Å³/atom", "volume_a3_per_atom"),
        ("model", "", "model"),
    ],
)
def test_exports_name_the_unit(name, unit, key):
    assert Column(name, unit, lambda record: record).key == key


def test_tables_are_read_without_the_heavy_fields():
    fields = columns.row_fields()
    assert "phonons.verdict" in fields
    assert not {"phonons.bands", "band_structures.bands", "stabilities.decomposition"} & {*fields}


def test_what_tables_read_is_enough_for_their_columns():
    doc = factory.judged(0, above=0.1, phonons="ambiguous")
    doc = factory.with_bands(doc, factory.bands_record(0.0))
    kept = {name.partition(".")[0] for name in columns.row_fields()}
    row = doc.model_dump(mode="json", include=kept)
    for record in row["phonons"] + row["band_structures"]:
        record["bands"] = None
    read = columns.values(columns.row_records(row), shown=True)
    assert read == columns.values(doc.records, shown=True)
    assert read["phonon_verdict"] == "ambiguous"
    assert read["band_gap_ev"] == 0.0


def test_the_latest_record_that_has_values_counts():
    first = factory.judged(0, above=0.1)
    lost = first.stabilities[0].model_copy(update={"level": "7net-0", "energy_above_hull": None})
    doc = first.model_copy(update={"stabilities": [*first.stabilities, lost]})
    assert columns.values(doc.records)["hull_level"] == "chgnet"


def test_a_record_of_a_newer_form_leaves_its_cells_empty():
    row = factory.judged(0, phonons="stable").model_dump(mode="json")
    row["phonons"][0]["new_field"] = 1
    table = columns.make_table([(row, columns.row_records(row))])
    assert "phonon_verdict" not in [heading.key for heading in table.headings]
    assert table.rows[0][0].text == "MgMn2O4"


@pytest.mark.parametrize("stage", stages.STAGES, ids=lambda stage: stage.kind)
def test_records_can_be_read_without_their_heavy_fields(stage):
    fields = stage.record.model_fields
    assert set(stage.heavy) <= set(fields)
    assert not [name for name in stage.heavy if fields[name].is_required()]


def test_names_of_columns_are_unique():
    keys = [column.key for _, column in columns.stage_columns()]
    assert len({*keys, *columns.EXPORTED}) == len(keys) + len(columns.EXPORTED)
