"""`pccd db`: against the suite's server, and with an embedded one."""

import gzip
import json
from pathlib import Path

import launchpad_jobs as jobs
import pytest
from jobflow import Flow
from pymongo import MongoClient
from typer.testing import CliRunner, Result

from pccd_workflows.cli.db import app
from pccd_workflows.core.errors import DatabaseError, InputError, PccdError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.execution import backup, launchpad, mongo, mongod
from pccd_workflows.execution.inspection import inspect_database
from pccd_workflows.settings import get_settings


def pccd_db(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def filled(settings):
    """A database in which a flow with large objects has run."""
    flow = Flow([jobs.heavy(3), jobs.fan_out([1, 2])])
    flow.update_metadata({"campaign_id": "c"})
    launchpad.submit(flow, settings)
    launchpad.run_worker(settings)
    db = mongo.database(settings)
    mongo.ensure_indexes(db)
    mongo.put_result(db, "key", "relaxation", {"energy": -1.25})
    return db


@pytest.fixture
def small(settings):
    """A database with a few documents."""
    db = mongo.database(settings)
    for key in ("one", "two"):
        mongo.put_result(db, key, "relaxation", {"energy": -1.25})
    db.campaigns.insert_one({"_id": "c", "schema_version": SCHEMA_VERSION})
    return db


def problems(settings) -> dict[str, str]:
    return {row.check: row.problem for row in inspect_database(settings) if row.problem}


def test_start_status_stop(tmp_path, monkeypatch, free_tcp_port):
    monkeypatch.setenv("PCCD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PCCD_MONGOD_PORT", str(free_tcp_port))
    get_settings.cache_clear()
    before = json.loads(pccd_db("status", "--json", code=1).output)
    assert before["server"] == "not running"
    assert "pccd db start" in before["problem"]
    try:
        assert f"127.0.0.1:{free_tcp_port}" in pccd_db("start").output
        pccd_db("start")
        now = json.loads(pccd_db("status", "--json").output)
        assert now["ok"]
        assert now["server"] == f"127.0.0.1:{free_tcp_port}"
        assert now["documents"]["campaigns"] == 0
        password = (mongod.folder(get_settings()) / "password").read_text()
        assert password not in pccd_db("status").output
    finally:
        assert "Stopped" in pccd_db("stop").output
    assert "was not running" in pccd_db("stop").output


def test_start_with_a_configured_server(settings):
    assert "PCCD_MONGODB_URI is set" in pccd_db("start").output
    assert "server of your own" in pccd_db("stop").output


def test_init_creates_indexes_and_keeps_everything(settings, filled):
    filled.candidates.drop_indexes()
    assert "candidates.campaign_id+index" in problems(settings)["indexes"]
    pccd_db("init")
    pccd_db("init")
    assert problems(settings) == {}
    assert mongo.get_result(filled, "key") == {"energy": -1.25}
    assert launchpad.campaign_states(settings, "c") == {"COMPLETED": 5}


def test_check_finds_nothing_after_a_clean_run(settings, filled):
    pccd_db("check")
    rows = json.loads(pccd_db("check", "--json").output)
    assert all(row["ok"] for row in rows)
    assert {"server", "writing", "workflows", "job outputs"} <= {row["check"] for row in rows}


def test_the_role_that_the_documentation_names_is_enough(
    settings, mongod_uri, monkeypatch, tmp_path
):
    host = mongod_uri.rpartition("@")[2].partition("/")[0]
    name = settings.database
    with MongoClient(mongod_uri) as root:
        root[name].command("createUser", "pccd", pwd="pä/ß", roles=["readWrite"])
        uri = f"mongodb://pccd:p%C3%A4%2F%C3%9F@{host}/?replicaSet=rs0&authSource={name}"
        monkeypatch.setenv("PCCD_MONGODB_URI", uri)
        get_settings.cache_clear()
        try:
            pccd_db("init")
            launchpad.submit(Flow([jobs.heavy(1)]), get_settings())
            assert len(launchpad.run_worker(get_settings()).completed) == 1
            pccd_db("check")
            pccd_db("backup", "--out", str(tmp_path / "copy"))
        finally:
            root[name].command("dropUser", "pccd")


def test_check_finds_what_is_wrong(settings, filled):
    filled.workflows.update_one({}, {"$set": {"locked": True}})
    filled.fireworks.insert_one({"fw_id": 99, "state": "READY", "spec": {}})
    filled.job_outputs.delete_one({"name": "total"})
    filled["job_data.chunks"].delete_many({})
    filled.results.update_one({"_id": "key"}, {"$set": {"schema_version": SCHEMA_VERSION + 1}})
    found = problems(settings)
    assert found["workflows"].startswith("jobs without workflow: 99; 1 locked")
    assert "finished jobs without output" in found["job outputs"]
    assert "1 large objects without content" in found["job outputs"]
    assert "1 results" in found["schema versions"]
    assert "PROBLEM" in pccd_db("check", code=1).output


def test_check_finds_dead_runs(settings, filled):
    filled.fireworks.update_one({"fw_id": 1}, {"$set": {"state": "RUNNING"}})
    filled.launches.update_one(
        {"fw_id": 1}, {"$set": {"state": "RUNNING", "fworker.name": "x:1:1.00"}}
    )
    filled.launches.update_one({"fw_id": 1}, {"$set": {"state_history": []}})
    assert problems(settings)["running jobs"].startswith("workers of 1 jobs died")


def test_backup_and_restore(settings, filled, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    told = json.loads(pccd_db("backup", "--out", str(out), "--json").output)
    assert told["collections"]["job_outputs"]["documents"] == 5
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with gzip.open(out / "results.jsonl.gz", "rt") as stream:
        assert json.loads(stream.read())["_id"] == "key"
    assert "Is whole" in pccd_db("restore", str(out), "--dry-run").output

    with pytest.raises(InputError, match="is not empty"):
        pccd_db("restore", str(out))
    other = settings.database + "_restored"
    monkeypatch.setenv("PCCD_DATABASE", other)
    get_settings.cache_clear()
    try:
        pccd_db("restore", str(out))
        copy = mongo.database(get_settings())
        for name in filled.list_collection_names():
            key = [("_id", 1)]
            assert list(copy[name].find(sort=key)) == list(filled[name].find(sort=key)), name
        store = mongo.job_store(get_settings())
        store.connect()
        heavy = store.query_one({"name": "heavy"}, load=True)
        assert heavy["output"]["payload"] == ["x" * 1000] * 3
        assert problems(get_settings()) == {}
    finally:
        with MongoClient(settings.mongodb_uri.get_secret_value()) as client:
            client.drop_database(other)


def test_a_default_place_for_backups(settings, small):
    assert str(settings.data_dir / "backups") in pccd_db("backup").output.replace("\n", "")
    (folder,) = (settings.data_dir / "backups").iterdir()
    assert (folder / backup.MANIFEST).is_file()


def test_a_backup_onto_something(settings, small, tmp_path):
    with pytest.raises(InputError, match="exists: name a new folder"):
        pccd_db("backup", "--out", str(tmp_path))


def test_a_backup_that_cannot_be_written_leaves_nothing(settings, small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup.os, "fsync", full)
    with pytest.raises(PccdError, match=r"cannot be written to .*: No space left on device"):
        pccd_db("backup", "--out", str(tmp_path / "copy"))
    assert [path for path in tmp_path.iterdir() if "copy" in path.name] == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "results.jsonl.gz").unlink(), "is missing, truncated"),
        (lambda folder: (folder / "results.jsonl.gz").write_bytes(b"x"), "is missing, truncated"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is no backup"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is no backup"),
    ],
)
def test_a_damaged_backup_is_refused(settings, small, tmp_path, damage, message):
    backup.back_up(small, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(InputError, match=message):
        pccd_db("restore", str(tmp_path / "copy"), "--dry-run")


def test_a_backup_of_a_newer_version_is_refused(settings, small, tmp_path):
    backup.back_up(small, tmp_path / "copy")
    manifest = tmp_path / "copy" / "manifest.json"
    newer = json.loads(manifest.read_text()) | {"schema_version": SCHEMA_VERSION + 1}
    manifest.write_text(json.dumps(newer))
    with pytest.raises(DatabaseError, match="update pccd-workflows"):
        pccd_db("restore", str(tmp_path / "copy"), "--dry-run")


def test_a_restore_that_fails_leaves_an_empty_database(settings, small, tmp_path, monkeypatch):
    backup.back_up(small, tmp_path / "copy")
    for name in small.list_collection_names():
        small.drop_collection(name)
    load = backup._load

    def fail_late(db, name, folder):
        if name == "results":
            raise mongo.AutoReconnect("gone")
        load(db, name, folder)

    monkeypatch.setattr(backup, "_load", fail_late)
    with pytest.raises(DatabaseError, match="does not answer"):
        pccd_db("restore", str(tmp_path / "copy"))
    assert [name for name in small.list_collection_names() if small[name].find_one()] == []


def test_help_needs_no_database():
    import subprocess
    import sys

    code = "import sys, pccd_workflows.cli.db; print('pymongo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert "backup" in pccd_db("--help").output
    assert Path(backup.__file__).is_file()
