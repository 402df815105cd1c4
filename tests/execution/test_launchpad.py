"""The executor under faults: crashes, kills, stops, outages. A real MongoDB, real processes."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread, Timer
from threading import enumerate as threads
from unittest.mock import Mock

import launchpad_jobs as jobs
import psutil
import pytest
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket import Rocket
from jobflow import Flow, JobConfig, OnMissing
from pymongo import MongoClient

from pccd_workflows import operations
from pccd_workflows.execution import launchpad, mongo, mongod
from pccd_workflows.execution import worker as worker_module
from pccd_workflows.execution.stopping import WorkerStopped
from pccd_workflows.execution.stores import job_store
from pccd_workflows.execution.worker import WorkerSummary, run_worker
from pccd_workflows.settings import Settings, get_settings

CAMPAIGN = "mg-mn-o-0123456789"


def submit(settings: Settings, *members, campaign_id: str = CAMPAIGN) -> list[int]:
    flow = Flow(list(members))
    flow.update_metadata({"campaign_id": campaign_id})
    return launchpad.submit(flow, settings)


def run(settings: Settings, **options) -> WorkerSummary:
    return run_worker(settings, campaign_id=CAMPAIGN, poll=0.05, **options)


def states(settings: Settings) -> dict[str, int]:
    return launchpad.campaign_states(settings, CAMPAIGN)


def output(settings: Settings, job):
    store = job_store(settings)
    store.connect()
    return store.get_output(job.uuid, load=True)


def outputs_stored(settings: Settings, job) -> int:
    return mongo.database(settings).job_outputs.count_documents({"uuid": job.uuid})


def wait_until(condition, seconds: float = 40.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
    return value


def test_a_worker_finds_its_next_job_without_sorting_all_that_are_ready(settings):
    fireworks = launchpad.launchpad(settings).db["fireworks"]
    fireworks.insert_many({"fw_id": n, "state": "READY", "spec": {}} for n in range(1000))
    first = fireworks.find({"state": "READY"}, sort=launchpad.NEXT_FIRST, limit=1)
    assert first.explain()["executionStats"]["totalDocsExamined"] == 1


class Process:
    """A worker in a process of its own (a fork, which saves the seconds that imports take)."""

    def __init__(self, prepare: Callable[[], None] = lambda: None) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        try:
            prepare()
            os.write(writer, json.dumps(asdict(run(get_settings()))).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def end(self, signum: int = 0) -> int:
        """Return the signal that ended the process, 0 if none did."""
        os.kill(self.pid, signum)
        return os.waitpid(self.pid, 0)[1]

    def summary(self) -> dict:
        """Wait for the end; return what the worker says it did."""
        self.end()
        return json.loads(os.read(self._reader, 100_000))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The files through which a test follows and steers the job `wait_for`."""
    return tmp_path / "started", tmp_path / "go"


def test_a_flow_that_grows_while_it_runs(settings):
    grow = jobs.fan_out([1, 2, 3])
    submit(settings, grow, jobs.heavy(3))
    assert states(settings) == {"READY": 2}
    summary = run(settings)
    assert states(settings) == {"COMPLETED": 6}  # three sums and their total came into being
    assert len(summary.completed) == 6
    assert summary.failed == []
    assert summary.stopped_by is None
    totals = mongo.database(settings).job_outputs.find_one({"name": "total"})
    assert totals["output"] == 2 + 3 + 4
    assert totals["metadata"]["campaign_id"] == CAMPAIGN
    workflow = mongo.database(settings).workflows.find_one()
    assert workflow["metadata"] == {"campaign_id": CAMPAIGN}


def test_a_flow_that_grows_by_more_than_16_mb(settings):
    submit(settings, jobs.grow_beyond_16_mb())
    run(settings)
    assert states(settings) == {"COMPLETED": 7}


def test_a_failing_job_fails_alone_and_can_be_mended(settings, tmp_path):
    marker = tmp_path / "mended"
    bad = jobs.broken(str(marker))
    child, other = jobs.add(bad.output, "!"), jobs.add(1, 2)
    submit(settings, bad, child, other)
    assert len(run(settings).failed) == 1
    assert states(settings) == {"FIZZLED": 1, "WAITING": 1, "COMPLETED": 1}
    (failure,) = launchpad.failures(settings, CAMPAIGN)
    assert failure["uuid"] == bad.uuid
    assert failure["name"] == "broken"
    assert failure["error"] == "ValueError: no such crystal"
    assert "launchpad_jobs.py" in failure["traceback"]
    assert failure["metadata"] == {"campaign_id": CAMPAIGN}
    assert "ValueError" in (Path(failure["launch_dir"]) / "job.out").read_text()

    marker.touch()
    assert operations.restart(CAMPAIGN, settings, 5).rerun == [failure["fw_id"]]
    run(settings)
    assert states(settings) == {"COMPLETED": 3}
    assert output(settings, child) == "mended!"
    assert launchpad.failures(settings, CAMPAIGN) == []


def test_exit_in_a_job_does_not_end_the_worker(settings):
    bad = jobs.call_exit()
    submit(settings, bad, jobs.add(1, 1))
    summary = run(settings)
    assert (len(summary.failed), len(summary.completed)) == (1, 1)


def test_jobs_run_in_folders_of_their_own_and_print_there(settings, capsys):
    submit(settings, jobs.add(20, 22))
    here = Path.cwd()
    run(settings)
    assert Path.cwd() == here
    (folder,) = (settings.data_dir / "runs" / CAMPAIGN).iterdir()
    assert "adding 20 22" in (folder / "job.out").read_text()
    assert capsys.readouterr().out == ""


def test_what_jobs_leave_is_their_owner_s_alone_under_a_umask_of_000(settings):
    submit(settings, jobs.add(20, 22))
    before = os.umask(0)
    try:
        run(settings)
    finally:
        os.umask(before)
    folders = [settings.data_dir, *filter(Path.is_dir, settings.data_dir.rglob("*"))]
    assert len(folders) == 4  # data, runs, the campaign's, the job's
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def test_a_worker_takes_only_its_campaign_and_category(settings):
    mine, gpu, foreign = jobs.add(1, 1), jobs.add(2, 2), jobs.add(3, 3)
    mine.update_config(JobConfig(manager_config={"_category": "cpu"}))
    gpu.update_config(JobConfig(manager_config={"_category": "gpu"}))
    submit(settings, mine, gpu)
    submit(settings, foreign, campaign_id="another")
    assert len(run(settings, category="gpu").completed) == 1
    assert outputs_stored(settings, gpu) == 1
    assert states(settings) == {"COMPLETED": 1, "READY": 1}
    run(settings)
    assert states(settings) == {"COMPLETED": 2}
    assert outputs_stored(settings, foreign) == 0


def test_a_job_without_category_runs_anywhere(settings):
    anywhere, cpu = jobs.add(1, 1), jobs.add(2, 2)
    cpu.update_config(JobConfig(manager_config={"_category": "cpu"}))
    submit(settings, anywhere, cpu)
    assert len(run(settings, category="gpu").completed) == 1
    assert outputs_stored(settings, anywhere) == 1


def test_a_job_goes_on_without_lost_parents_if_it_may(settings):
    lost, kept = jobs.broken(), jobs.add(1, 2)
    gather = jobs.total_of_what_is_there([lost.output, kept.output])
    gather.update_config(JobConfig(on_missing_references=OnMissing.NONE))
    submit(settings, lost, kept, gather)
    run(settings)
    assert output(settings, gather) == 3
    stored = mongo.database(settings).fireworks.find_one({"name": gather.name})
    assert [parent["name"] for parent in stored["spec"]["_fizzled_parents"]] == ["broken"]
    assert "spec" not in stored["spec"]["_fizzled_parents"][0]  # would grow beyond 16 MB


def test_what_a_job_stores_as_data_is_kept_once(settings):
    big = jobs.heavy(5)
    submit(settings, big)
    run(settings)
    assert output(settings, big)["payload"] == ["x" * 1000] * 5
    db = mongo.database(settings)
    (fw,) = [row["fw_id"] for row in db.fireworks.find()]
    launchpad.launchpad(settings).rerun_fw(fw)
    run(settings)
    assert outputs_stored(settings, big) == 1
    assert db["job_data.files"].count_documents({}) == 1
    assert output(settings, big)["payload"] == ["x" * 1000] * 5


def test_kill_9_in_a_job(settings, files):
    started, go = files
    slow = jobs.wait_for(str(started), str(go), 41)
    child = jobs.add(slow.output, 1)
    (_, slow_id) = sorted(submit(settings, slow, child))
    here = str(Path(jobs.__file__).parent)
    command = [sys.executable, "-m", "pccd_workflows", "worker", "--campaign", CAMPAIGN]
    first = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": here})
    wait_until(started.exists)
    assert launchpad.release_dead_runs(settings, CAMPAIGN) == []  # it is alive
    first.kill()
    first.wait()
    assert states(settings) == {"RUNNING": 1, "WAITING": 1}  # nobody has noticed yet

    assert launchpad.release_dead_runs(settings, CAMPAIGN) == [slow_id]
    assert launchpad.release_dead_runs(settings, CAMPAIGN) == []
    assert states(settings) == {"READY": 1, "WAITING": 1}
    go.touch()
    assert len(run(settings).completed) == 2
    assert states(settings) == {"COMPLETED": 2}
    assert output(settings, child) == 42
    assert outputs_stored(settings, slow) == 1
    assert len(started.read_text().splitlines()) == 2


def test_a_living_worker_takes_over_from_a_dead_one(settings, files, monkeypatch):
    started, go = files
    submit(settings, jobs.wait_for(str(started), str(go), 1))
    first = Process()
    wait_until(started.exists)
    monkeypatch.setattr(worker_module, "RELEASE_SECONDS", 0.1)
    killer = Thread(target=lambda: (time.sleep(0.5), first.end(signal.SIGKILL), go.touch()))
    killer.start()
    summary = run(settings)  # waits for the running job, sees its worker die
    killer.join()
    assert len(summary.completed) == 1
    assert states(settings) == {"COMPLETED": 1}


@pytest.fixture
def short_transactions(mongod_uri: str) -> Iterator[None]:
    """MongoDB gives up the open transaction of a killed process after a second, not after 30."""
    parameter = "transactionLifetimeLimitSeconds"
    with MongoClient(mongod_uri) as client:
        client.admin.command("setParameter", 1, **{parameter: 1})
        yield
        client.admin.command("setParameter", 1, **{parameter: 30})


@pytest.mark.parametrize(
    "death",
    [
        pytest.param(("_upsert_fws", 1, "before"), id="claimed, not stored"),
        pytest.param(("complete_launch", 1, "before"), id="output stored, state not"),
        pytest.param(("_refresh_wf", 2, "before"), id="launch stored, workflow not"),
        pytest.param(("_upsert_fws", 3, "after"), id="children stored, workflow not"),
    ],
)
def test_kill_9_while_fireworks_stores(settings, short_transactions, death):
    """FireWorks alone would leave a lock, orphans or a job that runs for ever here."""
    grow = jobs.fan_out([1, 2])
    submit(settings, grow)
    method, call, when = death
    dying = Process(lambda: jobs.die_in(LaunchPad, method, call, after=when == "after"))
    assert dying.end() == signal.SIGKILL

    launchpad.release_dead_runs(settings, CAMPAIGN)
    run(settings)
    assert states(settings) == {"COMPLETED": 4}
    db = mongo.database(settings)
    (workflow,) = db.workflows.find()
    assert "locked" not in workflow
    assert sorted(workflow["nodes"]) == sorted(row["fw_id"] for row in db.fireworks.find())
    assert db.job_outputs.find_one({"name": "total"})["output"] == 5


def test_a_dead_run_is_released_once_by_many(settings, files):
    started, go = files
    submit(settings, jobs.wait_for(str(started), str(go), 1))
    first = Process()
    wait_until(started.exists)
    first.end(signal.SIGKILL)
    released: list[int] = []
    threads = [
        Thread(target=lambda: released.extend(launchpad.release_dead_runs(settings, CAMPAIGN)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(released) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_puts_its_job_back(settings, tmp_path, signum):
    slow = jobs.stop_own_worker(str(tmp_path / "marker"), int(signum))
    submit(settings, slow, jobs.add(slow.output, 1))
    before = signal.getsignal(signum)
    summary = run(settings)
    assert signal.getsignal(signum) == before
    assert summary.stopped_by == signum.name
    assert (len(summary.released), summary.failed) == (1, [])
    assert states(settings) == {"READY": 1, "WAITING": 1}
    run(settings)
    assert states(settings) == {"COMPLETED": 2}


def test_an_idle_worker_stops_at_once(settings):
    launchpad.launchpad(settings)
    timer = Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    summary = run_worker(settings, until_done=False, poll=60)
    assert summary.stopped_by == "SIGTERM"
    assert time.monotonic() - began < 20


def test_two_workers_share_the_work_and_run_nothing_twice(settings, tmp_path):
    log = tmp_path / "log"
    submit(settings, *[jobs.note(str(log), n) for n in range(8)])
    workers = [Process(), Process()]
    done = [process.summary()["completed"] for process in workers]
    assert sorted(done[0] + done[1]) == list(range(1, 9))
    assert sorted(map(int, log.read_text().split())) == list(range(8))
    assert states(settings) == {"COMPLETED": 8}


def test_no_two_workers_start_with_the_same_job(settings):
    ids = submit(settings, *(jobs.add(n, 1) for n in range(4)))
    opened = launchpad.launchpad(settings)
    first, second = (worker_module._Worker(opened, settings, CAMPAIGN, None) for _ in range(2))
    picked = [one._pick()["fw_id"] for one in (first, second, first)]
    assert picked == ids[:3]
    # a worker that dies between picking a job and starting it holds it back for seconds
    opened.fireworks.update_one({"fw_id": ids[1]}, {"$unset": {"picked_until": 1}})
    assert [first._pick()["fw_id"] for _ in range(2)] == [ids[1], ids[3]]
    assert second._pick() is None
    assert second.work_is_left()
    opened.fireworks.update_many({}, {"$unset": {"picked_until": 1}})
    assert run(settings).completed == ids


def test_a_job_that_kills_every_worker_fails_in_the_end(settings, monkeypatch):
    monkeypatch.setattr(launchpad, "MAX_DEATHS", 2)
    submit(settings, jobs.kill_own_worker(), jobs.add(1, 1))
    assert Process().end() == signal.SIGKILL
    assert len(launchpad.release_dead_runs(settings, CAMPAIGN)) == 1
    assert states(settings)["READY"] >= 1
    assert Process().end() == signal.SIGKILL
    summary = run(settings)
    assert states(settings) == {"FIZZLED": 1, "COMPLETED": 1}
    assert summary.failed
    (failure,) = launchpad.failures(settings, CAMPAIGN)
    assert failure["error"].startswith("WorkerDied: 2 workers died")


@pytest.fixture
def own_server(tmp_path, free_tcp_port, monkeypatch) -> Iterator[Settings]:
    """Settings of an embedded server that a test may kill and restart."""
    monkeypatch.setenv("PCCD_DATA_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("PCCD_MONGOD_PORT", str(free_tcp_port))
    monkeypatch.delenv("PCCD_MONGODB_URI", raising=False)
    get_settings.cache_clear()
    own = get_settings()
    mongod.start(own)
    yield own
    mongod.stop(own)


def test_a_result_survives_the_crash_of_the_database(own_server, files):
    started, go = files
    slow = jobs.wait_for(str(started), str(go), 7)
    child = jobs.add(slow.output, 1)
    submit(own_server, slow, child)
    process = Process()
    wait_until(started.exists)
    os.kill(mongod.status(own_server).pid, signal.SIGKILL)
    go.touch()  # the job ends while there is no database
    time.sleep(2)
    assert psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE  # it waits
    mongod.start(own_server)
    summary = process.summary()
    assert (len(summary["completed"]), summary["failed"]) == (2, [])
    assert len(started.read_text().splitlines()) == 1  # computed once
    assert output(own_server, child) == 8


def test_no_password_is_stored_anywhere(settings, mongod_uri):
    password = mongod_uri.partition("://pccd:")[2].partition("@")[0]
    assert len(password) == 64
    submit(settings, jobs.leak_store_and_settings(), jobs.heavy(2), jobs.fan_out([1]))
    run(settings)
    store = job_store(settings)
    assert password not in repr(store) + store.name + repr(store.docs_store)
    with pytest.raises(TypeError, match="holds credentials"):
        store.as_dict()
    (failure,) = launchpad.failures(settings, CAMPAIGN)
    assert "***" in failure["traceback"]
    db = mongo.database(settings)
    names = db.list_collection_names()
    assert {"fireworks", "launches", "workflows", "job_outputs", "job_data.chunks"} <= {*names}
    for name in names:
        for doc in db[name].find():
            assert password not in str(doc), name
            assert password.encode() not in doc.get("data", b""), name
    for path in (settings.data_dir / "runs").rglob("*"):
        if path.is_file():
            assert password not in path.read_text(errors="replace"), path


HOST, PID, IDENTITY = launchpad.worker_name().split(":")


@pytest.mark.parametrize(
    ("name", "expired", "local", "dead"),
    [
        (launchpad.worker_name(), True, False, False),  # this process, however long it was silent
        (f"{HOST}:{PID}:{IDENTITY.partition('-')[0]}-1", False, False, True),  # its id reused
        (f"{HOST}:{PID}:0badcafe-1", False, False, False),  # another machine of this name
        (f"{HOST}:{PID}:0badcafe-1", True, False, True),
        (f"{HOST}:{PID}:0badcafe-1", False, True, True),  # this machine before it was rebooted
        ("elsewhere:1:0badcafe-1", False, False, False),
        ("elsewhere:1:0badcafe-1", True, False, True),
        ("Automatically generated Worker", False, False, False),
    ],
)
def test_which_workers_are_dead(name, expired, local, dead):
    assert launchpad.is_dead(name, expired=expired, local=local) is dead


def test_a_clock_that_jumps_changes_no_worker_s_name(monkeypatch):
    before, boot = launchpad.worker_name(), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 60)
    monkeypatch.setattr("psutil.boot_time", lambda: boot + 60)
    assert launchpad.worker_name() == before
    assert not launchpad.is_dead(before, expired=False)


@pytest.mark.timeout(240)
def test_a_looker_whose_clock_is_ahead_takes_no_job(settings, files, monkeypatch):
    started, go = files
    submit(settings, jobs.wait_for(str(started), str(go), 1))
    process = Process()
    wait_until(started.exists)
    _elsewhere(mongo.database(settings))

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=16)

    monkeypatch.setattr(launchpad, "datetime", Ahead)
    assert launchpad.release_dead_runs(settings) == []
    process.end(signal.SIGKILL)


@pytest.mark.parametrize("deaths", [5, 1])
def test_a_worker_that_lost_its_job_writes_nothing(settings, files, monkeypatch, deaths):
    """deaths: that fail the job instead of putting it back."""
    monkeypatch.setattr(launchpad, "MAX_DEATHS", deaths)
    started, go = files
    slow = jobs.wait_for(str(started), str(go), 1)
    submit(settings, slow)
    late = Process()
    wait_until(started.exists)
    db = mongo.database(settings)
    _elsewhere(db)
    _expire(db)
    assert len(launchpad.release_dead_runs(settings)) == 1
    before = states(settings)
    assert before == ({"READY": 1} if deaths > 1 else {"FIZZLED": 1})
    db.fireworks.update_many({}, {"$set": {"spec._hold": True, "spec.campaign_id": "held"}})
    go.touch()
    assert late.summary()["completed"] == []
    (launch,) = db.launches.find()
    assert launch["released"] == launchpad.DIED  # counted, should it kill more of them
    assert outputs_stored(settings, slow) == 0


@pytest.mark.parametrize("lost", [True, False])
def test_a_worker_that_lost_its_job_writes_no_row_of_a_stage(settings, files, lost):
    started, go = files
    submit(settings, jobs.wait_and_write_row(str(started), str(go)))
    late = Process()
    wait_until(started.exists)
    db = mongo.database(settings)
    _elsewhere(db)
    if lost:
        _expire(db)
        assert len(launchpad.release_dead_runs(settings)) == 1
        db.fireworks.update_many({}, {"$set": {"spec._hold": True, "spec.campaign_id": "held"}})
        db.stage_records.insert_one({"_id": "c-000000/generate", "record": {"said": "first"}})
    go.touch()
    summary = late.summary()
    assert len(summary["completed"]) == (0 if lost else 1), launchpad.failures(settings, CAMPAIGN)
    (row,) = db.stage_records.find()
    assert row["record"] == {"said": "first" if lost else "late"}


def test_rows_and_the_loss_of_their_job_are_one_after_the_other(settings, files):
    """A release in the middle of the writing transaction waits, or undoes what was written."""
    started, go = files
    submit(settings, jobs.wait_and_write_row(str(started), str(go)))
    late = Process()
    wait_until(started.exists)
    db = mongo.database(settings)
    (launch,) = db.launches.find()
    with db.client.start_session() as session, session.start_transaction():
        query = {"launch_id": launch["launch_id"]}
        mark = {"$set": {"released": launchpad.DIED, "state": "ARCHIVED"}}
        db.launches.update_one(query, mark, session=session)
        go.touch()
        time.sleep(1.0)  # the worker meets the open transaction, and tries again
    db.fireworks.update_many({}, {"$set": {"state": "ARCHIVED"}})
    assert late.summary()["completed"] == []
    assert db.stage_records.count_documents({}) == 0


def _elsewhere(db) -> None:
    """Let the worker of the running job be one of another machine."""
    (launch,) = db.launches.find({"state": "RUNNING"})
    host, _, rest = launch["fworker"]["name"].partition(":")
    db.launches.update_one(
        {"launch_id": launch["launch_id"]}, {"$set": {"fworker.name": f"not-{host}:{rest}"}}
    )


def _expire(db) -> None:
    """Let every lease have run out."""
    db.launches.update_many({}, [{"$set": {"lease": {"$subtract": ["$$NOW", 5000]}}}])


def test_a_sign_of_life_renews_the_lease(settings):
    submit(settings, jobs.add(1, 2))
    opened = launchpad.launchpad(settings)
    _, launch_id = opened.checkout_fw(FWorker("node7:1:1.00"), ".")
    db = mongo.database(settings)
    _expire(db)
    opened.ping_launch(launch_id)
    assert launchpad.release_dead_runs(settings) == []
    _expire(db)
    assert len(launchpad.release_dead_runs(settings)) == 1


def test_no_sign_of_life_keeps_a_stopped_worker_s_process_alive(settings, monkeypatch):
    """FireWorks forgets its pinging thread where it is interrupted outside a task."""
    before = set(threads())
    monkeypatch.setattr(Rocket, "update_checkpoint", Mock(side_effect=WorkerStopped))
    submit(settings, jobs.add(1, 2))
    run(settings, seconds=1)
    pinging = [thread for thread in set(threads()) - before if "ping_launch" in thread.name]
    assert pinging
    assert all(thread.daemon for thread in pinging)


@pytest.mark.timeout(240)
def test_a_silent_worker_of_another_machine_is_given_up(settings, files):
    started, go = files
    submit(settings, jobs.wait_for(str(started), str(go), 1))
    process = Process()
    wait_until(started.exists)
    db = mongo.database(settings)
    _elsewhere(db)
    assert launchpad.release_dead_runs(settings) == []
    _expire(db)
    assert len(launchpad.release_dead_runs(settings)) == 1
    process.end(signal.SIGKILL)


def test_a_worker_without_database_says_so(settings, monkeypatch, free_tcp_port):
    monkeypatch.setenv("PCCD_MONGODB_URI", f"mongodb://127.0.0.1:{free_tcp_port}/")
    monkeypatch.setenv("PCCD_DATABASE_TIMEOUT", "0.5")
    get_settings.cache_clear()
    with pytest.raises(mongo.DatabaseError, match=r"does not answer within 0\.5 s"):
        run_worker(get_settings())
