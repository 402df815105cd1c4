"""`pccd known`, `pccd snapshot`, `pccd campaign rescore`: a real database, a local server."""

import json
from datetime import UTC, datetime
from pathlib import Path

import ledger_factory as factory
import pytest
from mp_server import ProjectServer, rock_salt, serve

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli import main
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.execution import mongo
from pccd_workflows.known.reference_files import write_reference_set


def pccd(capsys, *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


# --- known -------------------------------------------------------------------------------------


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "private-folder" / "mine.jsonl"
    path.parent.mkdir()
    rows = [{"id": "x-1", "structure": rock_salt("Mg", "O", 4.2).as_dict()}, {"id": "x-2"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_set_is_imported_listed_and_removed(settings, lines, capsys):
    assert "No set was imported yet" in pccd(capsys, "known", "list")[1]
    code, out, _ = pccd(capsys, "known", "import", "mine", lines, "--dry-run")
    assert (code, out) == (0, "mine.jsonl: 1 crystals, 1 unreadable.\n")
    assert pccd(capsys, "known", "list", "--json")[1].strip() == "[]"
    whose = ("--attribution", "Us, CC-BY-4.0")
    code, out, _ = pccd(capsys, "known", "import", "mine", lines, *whose)
    assert code == 0
    assert "mine: 1 x it holds no structure" in out
    assert "mine: Us, CC-BY-4.0" in out
    assert "novelty: {sets: [mine]}" in out
    assert "Us, CC-BY-4.0" in pccd(capsys, "known", "list")[1]
    (row,) = json.loads(pccd(capsys, "known", "list", "--json")[1])
    assert row["attribution"] == "Us, CC-BY-4.0"
    assert (row["name"], row["n_structures"], row["source"]) == ("mine", 1, "mine.jsonl")
    assert "would be deleted" in pccd(capsys, "known", "remove", "mine", "--dry-run")[1]
    assert "Deleted mine: 1 crystals" in pccd(capsys, "known", "remove", "mine")[1]
    code, _, err = pccd(capsys, "known", "remove", "mine")
    assert (code, err.count("\n")) == (2, 1)


def test_wrong_sources_are_one_sentence(settings, tmp_path, capsys):
    for source, message in (
        (tmp_path / "absent.json", "no file or folder"),
        ("collection:nothing", "no usable crystal"),
        ("ftp://127.0.0.1/file.json", "no file or folder"),
    ):
        code, _, err = pccd(capsys, "known", "import", "mine", source)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


# --- snapshots ---------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    with serve(ProjectServer()) as running:
        monkeypatch.setenv("MP_API_KEY", running.key)
        place = "mp_api.client.core.settings.MAPI_CLIENT_SETTINGS.ENDPOINT"
        monkeypatch.setattr(place, running.endpoint)
        yield running


def test_fetch_list_export_and_import(server, settings, tmp_path, capsys):
    assert "Nothing was fetched yet" in pccd(capsys, "snapshot", "list")[1]
    _, out, _ = pccd(capsys, "snapshot", "fetch", "Mg-O", "--dry-run")
    assert out == "3 of 3 systems of version 2025.9.25 are missing.\n"
    code, out, err = pccd(capsys, "snapshot", "fetch", "Mg-O", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert (row["chemsys"], row["phases"], row["version"]) == ("Mg-O", 5, "2025.9.25")
    stored = mongo.get_reference_set(mongo.database(settings), row["reference"])
    assert len(stored.entries) == 5
    assert "2025.9.25: 3 chemical systems" in pccd(capsys, "snapshot", "list")[1]
    path = tmp_path / "mp.jsonl.gz"
    assert pccd(capsys, "snapshot", "export", "2025.9.25", path)[0] == 0
    assert "--force replaces" in pccd(capsys, "snapshot", "export", "2025.9.25", path)[2]
    assert "Imported version 2025.9.25" in pccd(capsys, "snapshot", "import", path)[1]
    _, out, _ = pccd(capsys, "snapshot", "fetch", "--all", "--json")
    assert json.loads(out) == [{"chemsys": "all", "version": "2025.9.25"}]
    assert "2025.9.25: all of MP" in pccd(capsys, "snapshot", "list")[1]
    # and as a named set that campaigns can be compared with
    command = ("known", "import", "mp", "collection:mp_entries", "--field", "entry.structure")
    (known,) = json.loads(pccd(capsys, *command, "--json")[1])
    entries = mongo.database(settings)["mp_entries"]
    assert known["n_structures"] == entries.count_documents({}) > 5
    assert known["unreadable"] == {}


@pytest.mark.parametrize("arguments", [(), ("Mg-O", "--all"), ("Mg-Qq",)])
def test_fetch_needs_systems_or_all(settings, capsys, arguments):
    code, _, err = pccd(capsys, "snapshot", "fetch", *arguments)
    assert (code, err.count("\n")) == (2, 1)


def test_a_reference_set_is_built_from_mp(server, settings, tmp_path, capsys):
    command = ("reference", "build", "Mg-O", "--source", "materials_project", "--json")
    code, out, err = pccd(capsys, *command, "--level", "vasp/mp-gga")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert (summary["source"], summary["phases"], summary["on_hull"]) == ("materials_project", 5, 3)
    code, out, err = pccd(capsys, *command)
    assert code == 0, err
    assert json.loads(out)["phases"] == 4  # CHGNet relaxes those within 0.1 eV/atom of MP's hull
    assert server.asked_for() == ["Mg,O,Mg-O"]
    stored = mongo.find_reference_set(
        mongo.database(settings), "materials_project", "Mg-O", "chgnet"
    )
    assert {e.entry_id for e in stored.entries} == {"mp-110", "mp-12957", "mp-153", "mp-1265"}
    assert stored.source_version == "2025.9.25"


# --- rescore -----------------------------------------------------------------------------------


def repeatable(doc: CandidateDoc, references: ReferenceSet) -> CandidateDoc:
    """Return the document with the relaxed energy that its place on the hull stands for."""
    lowest = next(
        e for e in references.entries if e.composition.reduced_formula == doc.formula_pretty
    )
    above = doc.stabilities[0].energy_above_hull
    per_atom = lowest.energy_per_atom + above
    relaxation = doc.relaxations[0]
    energy = per_atom * len(relaxation.structure)
    fitting = relaxation.model_copy(update={"energy": energy, "energy_per_atom": per_atom})
    return doc.model_copy(update={"relaxations": [fitting]})


@pytest.fixture
def judged(settings):
    """A campaign in the database, judged against the factory's phases."""
    campaign, old = factory.campaign(), factory.reference_set()
    database = mongo.database(settings)
    mongo.put_reference_set(database, old)
    database["campaigns"].insert_one(
        {**factory.campaign_document(campaign), "submitted_at": datetime.now(UTC)}
    )
    docs = [
        repeatable(factory.judged(n, f, above=0.05), old) for n, f in enumerate(("MgMn2O4", "MnO2"))
    ]
    rows = [{**doc.model_dump(mode="json"), "_id": doc.candidate_id} for doc in docs]
    database["candidates"].insert_many(rows)
    return old


def deeper(old: ReferenceSet, formula: str, shift: float) -> ReferenceSet:
    """Return the set with one phase moved by `shift` eV/atom."""
    entries = [
        e.model_copy(update={"energy": e.energy + shift * e.composition.num_atoms})
        if e.composition.reduced_formula == formula
        else e
        for e in old.entries
    ]
    return ReferenceSet.model_validate({**old.model_dump(), "entries": entries})


def test_rescore_lists_flips_and_keeps_what_was(settings, judged, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    new = deeper(judged, "MgMn2O4", -0.3)
    path = tmp_path / "new.json.gz"
    write_reference_set(path, new)
    name = factory.campaign().name
    command = ("campaign", "rescore", name, "--references", path)
    code, out, err = pccd(capsys, *command, "--dry-run", "--json")
    assert code == 0, err
    (outcome,) = json.loads(out)
    (flip,) = outcome["flips"]
    assert outcome["rejudged"] == 2
    assert (flip["formula"], flip["before"], flip["after"]) == ("MgMn2O4", "kept", "rejected")
    assert flip["energy_above_hull_after"] == pytest.approx(0.35, abs=1e-6)
    assert "MgMn2O4" in flip["reason"]
    assert "moved down by 300.0 meV/atom" in flip["reason"]
    database = mongo.database(settings)
    assert database["rescores"].count_documents({}) == 0

    code, out, _ = pccd(capsys, *command)
    assert code == 0
    assert "1 of 2 verdicts flip, stored beside the old ones" in out
    assert database["rescores"].count_documents({}) == 2
    # shown with the candidate, and in the campaign's report
    shown = pccd(capsys, "candidate", "show", flip["candidate_id"])[1]
    assert "rescore:chgnet" in shown
    assert "rejected: unstable (flipped)" in shown
    assert f"references {new.reference_id}" in shown
    assert f"before: {judged.reference_id}" in shown
    report = tmp_path / "report.html"
    code, _, err = pccd(capsys, "campaign", "report", name, "--out", report)
    assert code == 0, err
    page = " ".join(report.read_text().split())
    assert f"Judged again by {new.reference_id}: 1 of 2 verdicts flip" in page
    assert "rejected: unstable (flipped)" in page
    # by its id, now that it is stored
    assert pccd(capsys, *command[:-1], new.reference_id, "--dry-run")[0] == 0


def test_rescore_refuses_what_cannot_be_compared(settings, judged, tmp_path, capsys):
    other = ReferenceSet.model_validate({**judged.model_dump(), "level": "7net-0"})
    path = tmp_path / "other.json.gz"
    write_reference_set(path, other)
    name = factory.campaign().name
    for references, message in (
        (path, "was judged at level '7net-0'"),
        ("nowhere.json", "neither a file nor a stored reference set"),
    ):
        code, _, err = pccd(capsys, "campaign", "rescore", name, "--references", references)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
