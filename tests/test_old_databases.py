"""Nothing stored is lost: databases of earlier versions are listed, shown, judged and resumed."""

import json
from collections import Counter
from pathlib import Path

import pytest
from old_databases import (
    FINISHED,
    HALF_RUN,
    LEDGER_FIELDS,
    expected_ledger,
    judged_today,
    ledger_of,
    load_database,
)

from pccd_workflows.cli import main
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.settings import Settings

CAMPAIGN = "quickstart"
SHIPPED_SET = "prototypes-Mg-Mn-O-chgnet-789388b570"
FEW_PHASES = "file-Mg-Mn-O-chgnet-794edcda5f"
LEDGER = expected_ledger(FINISHED)
ON_HULL = {i: row for i, row in LEDGER.items() if row["energy_above_hull"] is not None}
READ_AGAIN = 1e-9
"""eV/atom; energies that are only read, or follow from stored ones."""
RELAXED_AGAIN = 2e-3
"""eV/atom; another processor ends a single-precision relaxation elsewhere."""


def pccd(capsys, *arguments: str) -> str:
    """Return what a command printed; it must succeed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert not ended.value.code, out + err
    return out


def assert_same_ledger(found, expected, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for candidate_id, row in expected.items():
        energy = pytest.approx(row["energy_above_hull"], abs=tolerance)
        assert found[candidate_id] == row | {"energy_above_hull": energy}, candidate_id


def short(candidate_id: str) -> str:
    """Return an id as tables show it: the first digits of the campaign's hash, and the index."""
    campaign_id, _, index = candidate_id.rpartition("-")
    return f"{campaign_id.rpartition('-')[2][:4]}-{int(index)}"


def energies_above_hull(rescores, references: str) -> dict[str, float]:
    rows = rescores.find({"references": references})
    return {row["_id"]: row["stability"]["energy_above_hull"] for row in rows}


def by_id(collection) -> dict:
    return {row["_id"]: row for row in collection.find()}


@pytest.fixture
def finished(settings, tmp_path, monkeypatch) -> Settings:
    """Settings of a database that holds a finished campaign, as it was stored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    load_database(FINISHED, settings)
    return settings


def test_a_finished_campaign_is_listed(capsys, finished):
    (row,) = json.loads(pccd(capsys, "campaign", "list", "--json"))
    assert row["name"] == CAMPAIGN
    assert {row["campaign_id"]} == {i.rpartition("-")[0] for i in LEDGER}
    assert (row["jobs"], row["completed"], row["failed"]) == (23, 23, 0)


def test_a_finished_campaign_has_its_status(capsys, finished):
    status = json.loads(pccd(capsys, "campaign", "status", CAMPAIGN, "--json"))
    assert status["jobs"] == {"COMPLETED": 23}
    assert status["failures"] == []
    reasons = Counter(row["reason_class"] for row in LEDGER.values())
    screened = len(LEDGER) - reasons["too_close"]
    phonon_stable = sum(row["phonon_stable"] is True for row in LEDGER.values())
    assert list(status["funnel"].values()) == [
        len(LEDGER),  # generated
        len(LEDGER),  # decoded
        screened,
        screened - reasons["duplicate"],
        len(ON_HULL),  # relaxed
        len(ON_HULL) - reasons["above_threshold"],
        sum(row["stage"].startswith("phonons:") for row in LEDGER.values()),
        phonon_stable,
    ]
    assert_same_ledger(ledger_of(finished), LEDGER, READ_AGAIN)


def test_a_migrated_campaign_is_folded_from_its_rows(capsys, finished):
    said = json.loads(pccd(capsys, "db", "migrate", "--dry-run", "--json"))
    (step,) = said["steps"]
    assert (step["candidates"], step["unfinished"], said["backup"]) == (len(LEDGER), 0, None)
    assert mongo.database(finished)["stage_records"].count_documents({}) == 0
    said = json.loads(pccd(capsys, "db", "migrate", "--json"))
    assert said["steps"] == [step]
    assert (Path(said["backup"]) / "manifest.json").is_file()
    assert "nothing to migrate" in pccd(capsys, "db", "migrate")
    mongo.database(finished)["candidates"].delete_many({})
    status = json.loads(pccd(capsys, "campaign", "status", CAMPAIGN, "--json"))
    assert status["jobs"] == {"COMPLETED": 23}
    assert_same_ledger(ledger_of(finished), judged_today(LEDGER, finished), READ_AGAIN)


def test_a_campaign_under_living_workers_is_not_migrated(capsys, settings, monkeypatch):
    load_database(HALF_RUN, settings)
    launches = mongo.database(settings)["launches"]
    alive = {"$set": {"fworker.name": launchpad.worker_name()}}
    launches.update_many({"state": "RUNNING"}, alive)
    with pytest.raises(SystemExit) as ended:
        main(["db", "migrate"])
    assert ended.value.code == 2
    assert "relax chgnet 2/3" in capsys.readouterr().err
    (campaign,) = mongo.database(settings)["campaigns"].find()
    assert campaign["schema_version"] == 1


@pytest.mark.parametrize(
    "arguments", [("campaign", "resume", CAMPAIGN), ("worker",)], ids=lambda words: words[0]
)
def test_a_campaign_of_an_older_version_is_not_run_before(capsys, settings, arguments):
    load_database(HALF_RUN, settings)
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 2
    assert "pccd db migrate" in capsys.readouterr().err
    (campaign,) = mongo.database(settings)["campaigns"].find()
    states = launchpad.campaign_states(settings, campaign["_id"])
    assert states == {"COMPLETED": 10, "RUNNING": 1, "READY": 1, "WAITING": 3}


def test_finished_candidates_are_listed(capsys, finished):
    rows = json.loads(pccd(capsys, "candidate", "list", "--campaign", CAMPAIGN, "--json"))
    found = {row["candidate_id"]: {name: row[name] for name in LEDGER_FIELDS} for row in rows}
    assert_same_ledger(found, LEDGER, READ_AGAIN)
    words = pccd(capsys, "candidate", "list", "--status", "passed").split()
    passed = {i for i, row in LEDGER.items() if row["status"] == "passed"}
    assert {i for i in LEDGER if short(i) in words} == passed


def test_finished_candidates_are_shown(capsys, finished):
    found = {}
    for candidate_id, expected in LEDGER.items():
        shown = json.loads(pccd(capsys, "candidate", "show", candidate_id, "--json"))
        found[candidate_id] = {name: shown[name] for name in LEDGER_FIELDS}
        text = pccd(capsys, "candidate", "show", candidate_id)
        assert text.startswith(expected["formula_pretty"])
        assert expected["status"] in text
        if expected["energy_above_hull"] is not None:
            assert f"{expected['energy_above_hull'] * 1000:.0f} meV/atom above the hull" in text
            assert FEW_PHASES in text  # the later verdict
    assert_same_ledger(found, LEDGER, READ_AGAIN)


def test_a_finished_campaign_is_reported(capsys, finished, tmp_path):
    pccd(capsys, "campaign", "report", CAMPAIGN, "--out", "report.html")
    html = Path(tmp_path / "report.html").read_text()
    passed = [i for i, row in LEDGER.items() if row["status"] == "passed"]
    assert [i for i in passed if i not in html] == []
    assert SHIPPED_SET in html


@pytest.mark.parametrize(
    ("references", "flips"),
    [(SHIPPED_SET, set()), (FEW_PHASES, {"MgMn2O4", "Mg2Mn2O5"})],
)
def test_a_finished_campaign_is_rescored(capsys, finished, references, flips):
    rescores = mongo.database(finished)["rescores"]
    # what the version that wrote the database said
    energies = {f"{i}/{references}": row["energy_above_hull"] for i, row in ON_HULL.items()}
    energies |= energies_above_hull(rescores, references)
    rescores.delete_many({})
    arguments = ("campaign", "rescore", CAMPAIGN, "--references", references, "--json")
    (said,) = json.loads(pccd(capsys, *arguments))
    assert said["references"] == references
    assert (said["rejudged"], said["not_covered"]) == (len(ON_HULL), 0)
    assert {flip["formula"] for flip in said["flips"]} == flips
    for flip in said["flips"]:
        above = LEDGER[flip["candidate_id"]]["energy_above_hull"]
        assert flip["energy_above_hull_before"] == pytest.approx(above, abs=READ_AGAIN)
    again = energies_above_hull(rescores, references)
    assert again == pytest.approx(energies, abs=READ_AGAIN)


@pytest.mark.slow
def test_a_half_run_campaign_is_resumed(capsys, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_database(HALF_RUN, settings)
    database = mongo.database(settings)
    before = {name: by_id(database[name]) for name in ("results", "costs")}
    assert {name: len(rows) for name, rows in before.items()} == {"results": 3, "costs": 3}
    (campaign,) = database["campaigns"].find()
    states = launchpad.campaign_states(settings, campaign["_id"])
    assert states == {"COMPLETED": 10, "RUNNING": 1, "READY": 1, "WAITING": 3}

    said = json.loads(pccd(capsys, "db", "migrate", "--json"))
    assert [step["unfinished"] for step in said["steps"]] == [5]
    pccd(capsys, "campaign", "resume", CAMPAIGN, "--workers", "1")

    assert set(launchpad.campaign_states(settings, campaign["_id"])) == {"COMPLETED"}
    # what is left is judged by today's novelty: geometry and the library, no hash of training data
    ends, expected = ledger_of(settings), expected_ledger(HALF_RUN)
    for row in (*ends.values(), *expected.values()):
        del row["novel"]
    assert_same_ledger(ends, expected, RELAXED_AGAIN)
    # three relaxations were stored and stay as they are; three more follow, two of the phonons
    for name, rows in before.items():
        now = by_id(database[name])
        assert {key: now[key] for key in rows} == rows
    kinds = Counter(row["kind"] for row in database["results"].find())
    assert (kinds["relaxation"], kinds["phonons"]) == (8, 1)
    relaxed = {"run": "relax", "plan": "relax"}
    assert database["costs"].count_documents(relaxed) == 6
    assert list(tmp_path.glob("*.html"))
