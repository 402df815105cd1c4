"""The command that follows a campaign: what it shows, and that it waits for its database."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import faulty_parts
import psutil
import pytest
import yaml
from pymongo.errors import AutoReconnect
from rich.console import Console

from pccd_workflows import following
from pccd_workflows.cli import live, main
from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.execution import mongo, mongod
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.following import LongJob, RunningJob
from pccd_workflows.operations import FunnelCount, Progress
from pccd_workflows.settings import Settings

HERE = Path(faulty_parts.__file__).parent


@pytest.fixture
def own(tmp_path, free_tcp_port, monkeypatch):
    """Settings of an embedded server that a test may kill."""
    monkeypatch.setattr(live, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(mongo, "BRIEF_OUTAGE_SECONDS", 1.0)
    settings = Settings(
        data_dir=tmp_path / "own", mongod_port=free_tcp_port, mongodb_uri=None, database_timeout=1
    )
    mongod.start(settings)
    yield settings
    mongod.stop(settings)


def count(settings: Settings) -> int:
    return mongo.database(settings)["things"].count_documents({})


def test_an_embedded_server_that_died_is_started_again(own):
    mongo.database(own)["things"].insert_one({})
    process = psutil.Process(mongod.status(own).pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert mongod.died(own)
    with pytest.raises((DatabaseError, AutoReconnect)):
        count(own)
    assert live.waiting_out(lambda: count(own), own) == 1


def test_a_server_that_restarts_is_waited_for(own):
    mongo.database(own)["things"].insert_one({})
    mongod.stop(own)
    assert not mongod.died(own)  # somebody stopped it: it is not started behind their back
    threading.Thread(target=lambda: (time.sleep(2), mongod.start(own))).start()
    assert live.waiting_out(lambda: count(own), own) == 1


def test_patience_ends(own):
    mongod.stop(own)
    with pytest.raises(DatabaseError, match="pccd db start"):
        live.waiting_out(lambda: count(own), own, patience=0.5)


def view(reached: int, seconds: float, *jobs: LongJob) -> live.View:
    steps = [FunnelCount("generated", reached, 96)]
    return live.View(steps, Progress({}, []), seconds, None, [*jobs], [RunningJob("rung", 61)])


def test_a_log_says_what_changed_at_once_and_mere_progress_now_and_then(capsys):
    with live._screen(Console(width=80)) as show:
        for second, done in enumerate(range(1, 100)):
            show(view(48, float(second), LongJob("displacements", done, 108, 200.0)))
        show(view(96, 99.0))
    first, *progress, last = capsys.readouterr().out.splitlines()
    assert first == "[    0 s] 48 generated; now rung; displacements: 1 of 108, about 3:20 min left"
    assert len(progress) == 3
    assert all("generated" not in line for line in progress)
    assert last == "[   99 s] 96 generated; now rung"


def test_what_runs_now_is_named(settings):
    database = mongo.database(settings)
    rows = [
        {"name": "dormant", "state": "READY", "spec": {"campaign_id": "c"}},
        {"name": "phonons 7", "state": "RUNNING", "spec": {"campaign_id": "c"}},
        {"name": "elsewhere", "state": "RUNNING", "spec": {"campaign_id": "d"}},
    ]
    stored = [row | {"fw_id": n, "updated_on": "2026-11-28T21:00:00"} for n, row in enumerate(rows)]
    database["fireworks"].insert_many(stored)
    MongoStorage(database).note_progress("c", "displacements of MgO at chgnet", 30, 108)
    running = following.running_jobs("c", settings)
    assert [job.name for job in running] == ["phonons 7"]
    assert running[0].seconds > 0
    (job,) = following.long_jobs("c", settings)
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(
        live.status_view(
            "c",
            live.View(
                [FunnelCount("generated", 1, 1)],
                Progress({"RUNNING": 1}, []),
                0.0,
                None,
                [job],
                running,
            ),
        )
    )
    shown = console.export_text()
    assert "now: phonons 7 (" in shown
    assert "displacements of MgO at chgnet: 30 of 108" in shown


def test_a_worker_that_retires_is_replaced_while_jobs_wait(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(faulty_parts.FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poison-once").touch()
    (tmp_path / "kill-once").touch()
    known = faulty_parts.write_metals(tmp_path / "known")
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(faulty_parts.campaign(known)))
    with pytest.raises(SystemExit, match="0"):
        main(["campaign", "run", str(path), "--workers", "1"])
    printed = capsys.readouterr().out
    assert printed.count("A worker takes the place of one that ended: ") == 2
    assert "ended: SIGKILL (often for want of memory)." in printed
    assert "ended: its device failed (MachineFault: RuntimeError: CUDA error" in printed
    candidates = mongo.database(settings)["candidates"]
    assert candidates.count_documents({"status": "passed"}) == 6


def test_workers_are_not_replaced_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "WORKER_COMMAND", (sys.executable, "-c", "raise SystemExit('no')"))
    workers = live.Workers("c", tmp_path / "logs")
    workers.start(1)
    waiting, told = Progress({"READY": 2, "COMPLETED": 1}, []), []

    def until_given_up(progress: Progress) -> int:
        before = len(told)
        while True:
            workers.processes[0].wait(60)
            if not (new := workers.replace(progress)):
                return len(told) - before
            told.extend(new)

    assert until_given_up(Progress({"COMPLETED": 1}, [])) == 0  # nothing waits
    assert until_given_up(waiting) == live.MOST_IN_VAIN
    assert told[0] == "A worker takes the place of one that ended: no"
    # as long as jobs are done in between it goes on
    assert until_given_up(Progress({"READY": 1, "COMPLETED": 2}, [])) == live.MOST_IN_VAIN
    for status in live.WANTED:  # of its own accord, or because somebody wants it
        workers.processes[0].returncode = status
        assert workers.replace(Progress({"READY": 1, "COMPLETED": 3}, [])) == []
