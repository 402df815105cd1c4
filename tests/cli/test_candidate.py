"""`pccd candidate`, on a real database."""

import json
import math
import re

import ledger_factory as factory
import pytest
from typer.testing import CliRunner

from pccd_workflows.cli.campaign import _write_report
from pccd_workflows.cli.candidate import app
from pccd_workflows.core.errors import DatabaseError, InputError
from pccd_workflows.execution import mongo

ID = factory.campaign().candidate_id


def short(index):
    """Return the id in tables: the hash's first digits and the index."""
    return f"{factory.campaign().hash[:4]}-{index}"


def pccd(*arguments, width=160):
    runner = CliRunner(env={"COLUMNS": str(width)})
    return runner.invoke(app, [str(a) for a in arguments])


def table(output):
    """Return the words of each row of a table."""
    rows = [line.split() for line in output.splitlines()]
    return [row for row in rows if row and re.fullmatch(r"[0-9a-f]{4}-[0-9]+", row[0])]


def store(settings, docs):
    rows = [doc.model_dump(mode="json") | {"_id": doc.candidate_id} for doc in docs]
    mongo.database(settings)["candidates"].insert_many(rows)


@pytest.fixture
def candidates(settings):
    docs = [
        factory.judged(0, "MgMn2O4", above=0.05, kind="substitution", phonons="stable"),
        factory.judged(1, "MgO", above=-0.004, novel=False),
        factory.rejected(2, "too_close"),
    ]
    store(settings, docs)
    return docs


def test_list_is_a_table_sorted_by_energy(candidates):
    result = pccd("list")
    assert result.exit_code == 0, result.output
    rows = table(result.output)
    assert [row[0] for row in rows] == [short(1), short(0), short(2)]
    assert rows[0] == [
        *(short(1), "MgO", "Fm-3m", "2", "-4", "known", "-3.084", "chgnet"),
        *["below", "the", "hull", "of", "its", "references", "passed"],
    ]
    assert rows[1][1:6] == ["MgMn2O4", "Fd-3m", "14", "50", "new"]
    assert rows[1][-3:] == ["chgnet", "stable", "passed"]
    assert rows[2][-3:] == ["rejected:", "too", "close"]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_tables_fit_the_terminal_and_cut_nothing(candidates, width):
    output = pccd("list", width=width).output
    lines = output.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in output
    assert [row[:2] for row in table(output)[:2]] == [[short(1), "MgO"], [short(0), "MgMn2O4"]]
    # the hull's name is a verdict: in the table or below it, in any width
    assert "below the hull of its references" in " ".join(output.split())
    named = {80: "Known crystal, E of formation, Level", 160: ""}.get(width)
    if named is not None:
        assert output.partition("Not shown for want of width: ")[2].strip(".\n") == named


def test_an_ambiguous_verdict_is_shown_and_can_be_asked_for(settings, candidates):
    store(settings, [factory.judged(3, "MgMnO3", above=0.03, phonons="ambiguous")])
    rows = table(pccd("list", "--phonons", "ambiguous").output)
    assert [row[0] for row in rows] == [short(3)]
    assert "ambiguous" in rows[0]
    assert [row[0] for row in table(pccd("list", "--phonons", "stable").output)] == [short(0)]


def test_an_energy_that_was_hardly_meant_is_asked_about(candidates):
    result = pccd("list", "--max-ehull", "5")
    assert "5 meV/atom, that is 0.005?" in result.stderr
    assert len(table(result.stdout)) == 2
    assert pccd("list", "--max-ehull", "0.5").stderr == ""


@pytest.mark.parametrize("reference", ["1", "000001", "mg-mn-o-1", short(1), f"{ID(0)[:14]}-1"])
def test_show_takes_what_lists_show(candidates, reference):
    assert ID(1) in pccd("show", reference).output


def test_list_filters_and_prints_json(candidates):
    result = pccd("list", "--chemsys", "O-Mn-Mg", "--max-ehull", "0.1", "--novel", "--json")
    rows = json.loads(result.output)
    assert [row["candidate_id"] for row in rows] == [ID(0)]
    assert rows[0]["energy_above_hull"] == 0.05
    assert json.loads(pccd("list", "--formula", "LiF", "--json").output) == []


def test_lists_say_of_which_kind_crystals_are(candidates):
    (row,) = json.loads(pccd("list", "--kind", "substitution", "--json").output)
    assert (row["index"], row["kind_of_new"], row["known_id"]) == (0, "substitution", "mp-1")
    assert "substitution" in pccd("list", "--kind", "substitution").output
    nothing = pccd("list", "--kind", "new_structure_type").output
    assert "No candidate matches --kind new_structure_type" in nothing
    assert "Kind" not in pccd("list", "--known").output


def test_a_limit_says_how_many_there_are(candidates):
    assert "1 of 3; --limit shows more." in pccd("list", "--limit", "1").output


def test_an_empty_result_says_what_to_try(settings, candidates):
    result = pccd("list", "--max-ehull", "-0.5", "--campaign", "mg-mn-o")
    assert "No candidate matches --campaign mg-mn-o --max-ehull -0.5" in result.output
    mongo.database(settings)["candidates"].delete_many({})
    assert "pccd campaign run" in pccd("list").output


def test_show_tells_every_stage_with_its_job(candidates):
    result = pccd("show", ID(0))
    assert result.exit_code == 0, result.output
    for text in (
        "MgMn2O4, Fd-3m",
        "passed",
        "hull:chgnet",
        "50 meV/atom above the hull",
        "stable",
        f"job {candidates[0].jobs['relax:chgnet']}",
        "references: not in it",
        "α β γ",
    ):
        assert text in result.output
    assert len(re.findall(r"job (?:0000|not recorded)", result.output)) == 6


def test_show_takes_a_unique_beginning_and_prints_json(settings, candidates):
    mongo.database(settings)["candidates"].delete_many({"_id": {"$ne": ID(1)}})
    document = json.loads(pccd("show", "mg-mn-o", "--json").output)
    assert document["candidate_id"] == ID(1)
    assert document["structure"]["@class"] == "Structure"


def test_export_writes_what_the_filters_find(candidates, tmp_path):
    result = pccd("export", "--format", "cif", "--out", tmp_path, "--max-ehull", "0.1", "--json")
    files = json.loads(result.output)["files"]
    assert files == [f"{tmp_path}/{ID(1)}_MgO.cif", f"{tmp_path}/{ID(0)}_MgMn2O4.cif"]
    assert (
        "Wrote 1 crystals"
        in pccd("export", ID(0), "--format", "extxyz", "--out", tmp_path / "one.extxyz").output
    )
    assert "left out" in pccd("export", "--format", "poscar", "--out", tmp_path).output


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--chemsys", "Mg-Q"),
        ("list", "--campaign", "$where"),
        ("list", "--max-ehull", "80"),
        ("list", "--limit", "0"),
        ("list", "--sort", "$natural"),
        ("show", "nobody"),
        ("export", "--format", "pdb", "--out", "x"),
        ("export", "mg", "--format", "cif", "--out", "x", "--novel"),
    ],
)
def test_wrong_input_is_one_sentence(candidates, arguments):
    result = pccd(*arguments)
    assert isinstance(result.exception, InputError), result.output
    assert len(str(result.exception).splitlines()) == 1


@pytest.fixture
def nan_energy(settings):
    """A ledger one of whose energies is not a number, as an earlier version stored it."""
    whole = factory.judged(0, "MgMn2O4", above=0.05, phonons="stable")
    store(settings, [whole, factory.judged(1, "MgO", above=0.02, novel=False)])
    changes = {"energy_above_hull": math.nan, "stabilities.0.energy_above_hull": math.nan}
    changes |= {"relaxations.0.energy": math.nan, "relaxations.0.energy_per_atom": math.nan}
    mongo.database(settings)["candidates"].update_one({"_id": ID(1)}, {"$set": changes})


def strict(text):
    """Read JSON as other programs do: NaN is none."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.usefixtures("nan_energy")
@pytest.mark.parametrize("sort", ["energy_above_hull", "-energy_above_hull", "index"])
def test_an_energy_that_is_not_a_number_breaks_no_list(sort):
    result = pccd("list", "--sort", sort)
    assert result.exit_code == 0, result.output
    assert {row[0] for row in table(result.output)} == {short(0), short(1)}
    assert "nan" not in result.output.lower()
    rows = strict(pccd("list", "--sort", sort, "--json").output)
    found = {row["candidate_id"]: row["energy_above_hull"] for row in rows}
    assert found == {ID(0): 0.05, ID(1): None}
    if sort != "index":
        assert rows[-1]["candidate_id"] == ID(1)  # without a value: last


@pytest.mark.usefixtures("nan_energy")
@pytest.mark.parametrize("form", ["csv", "json", "cif", "extxyz", "poscar"])
def test_an_energy_that_is_not_a_number_breaks_no_export(form, tmp_path):
    result = pccd("export", "--format", form, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert "nan" not in written.lower()


@pytest.mark.usefixtures("nan_energy")
def test_an_energy_that_is_not_a_number_breaks_no_page(settings, tmp_path):
    assert pccd("show", ID(1)).exit_code == 0
    campaign = factory.campaign()
    document = {"_id": campaign.campaign_id, "campaign": campaign.resolved(), "name": campaign.name}
    _write_report(document, settings, tmp_path / "report.html")
    assert ">nan" not in (tmp_path / "report.html").read_text().lower()


def test_a_damaged_document_is_one_sentence(settings, candidates):
    change = {"$set": {"generation": 7}}
    mongo.database(settings)["candidates"].update_one({"_id": ID(0)}, change)
    result = pccd("show", ID(0))
    assert isinstance(result.exception, DatabaseError)
    assert f"Candidate {ID(0)} is damaged (generation: " in str(result.exception)
    assert len(str(result.exception).splitlines()) == 1


@pytest.mark.parametrize("command", [("list",), ("export", "--format", "csv", "--out", "x.csv")])
def test_a_campaign_that_is_not_there_is_wrong_input(candidates, command):
    result = pccd(*command, "--campaign", "nope")
    assert isinstance(result.exception, InputError)
    assert "There is no campaign 'nope'" in str(result.exception)
