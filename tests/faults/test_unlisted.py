"""Faults that nobody had listed, each tried for real: a right ledger, or a sentence."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import faulty_parts
import launchpad_jobs as jobs
import psutil
import pytest
from jobflow import Flow
from pymatgen.core import Lattice, Structure

from pccd_workflows import operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.cli import main
from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.execution import launchpad, mongo, mongod, reruns
from pccd_workflows.execution.atomic_launchpad import AtomicLaunchPad
from pccd_workflows.execution.redaction import LONGEST
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.settings import get_settings
from pccd_workflows.stages import phonons
from pccd_workflows.stages.relax import read_relaxation

HERE = Path(faulty_parts.__file__).parent
RELAXED = f"relax:{faulty_parts.NAME}:emt"


@pytest.fixture
def faults(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv(faulty_parts.FOLDER, str(folder))
    monkeypatch.setattr(faulty_parts.Device, "broken", False)
    return folder


@pytest.fixture
def campaign(tmp_path) -> Campaign:
    known = faulty_parts.write_metals(tmp_path / "known")
    return Campaign.model_validate(faulty_parts.campaign(known))


def work(campaign: Campaign, settings) -> dict[str, int]:
    run_worker(settings, campaign_id=campaign.campaign_id, poll=0.05)
    return operations.progress(campaign.campaign_id, settings).states


def ledger(campaign: Campaign, settings) -> dict[int, dict]:
    document = operations.campaign_document(campaign.campaign_id, settings)
    operations.collect(document, operations.progress(campaign.campaign_id, settings), settings)
    return {row["index"]: row for row in mongo.database(settings)["candidates"].find()}


def statuses(campaign: Campaign, settings) -> list[str]:
    return [row["status"] for _, row in sorted(ledger(campaign, settings).items())]


def test_a_worker_that_is_killed_between_a_result_and_its_row(settings, faults, campaign):
    operations.submit(campaign, settings)
    (faults / "kill-before-row").touch()
    command = [sys.executable, "-m", "pccd_workflows", "worker", "--campaign", campaign.campaign_id]
    paths = os.pathsep.join([str(HERE), *sys.path])
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert ended.returncode == -signal.SIGKILL
    database = mongo.database(settings)
    of_alloys = {"campaign_id": campaign.campaign_id, "plan": "relax"}
    before = database["costs"].count_documents(of_alloys)
    assert before > database["stage_records"].count_documents({"stage": RELAXED})
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert statuses(campaign, settings) == ["passed"] * 6
    # what was stored without its row is not computed again
    assert database["costs"].count_documents(of_alloys) == 6


def test_mongod_that_is_killed_during_a_submission(
    tmp_path, faults, campaign, monkeypatch, free_tcp_port
):
    monkeypatch.setenv("PCCD_DATA_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("PCCD_MONGOD_PORT", str(free_tcp_port))
    monkeypatch.setenv("PCCD_DATABASE_TIMEOUT", "1")
    monkeypatch.setattr(mongo, "BRIEF_OUTAGE_SECONDS", 1.0)
    # pymongo tries for two minutes to learn whether a transaction was committed
    limit = "pymongo.synchronous.client_session._WITH_TRANSACTION_RETRY_TIME_LIMIT"
    monkeypatch.setattr(limit, 2)
    get_settings.cache_clear()
    own = get_settings()
    mongod.start(own)
    add = AtomicLaunchPad.add_wf

    def dies(self, *args, **kwargs):
        found = add(self, *args, **kwargs)  # inside the transaction, not committed
        process = psutil.Process(mongod.status(own).pid)
        process.kill()
        process.wait(20)
        return found

    try:
        with monkeypatch.context() as broken:
            broken.setattr(AtomicLaunchPad, "add_wf", dies)
            with pytest.raises(DatabaseError, match="database died"):
                operations.submit(campaign, own)
        mongod.start(own)
        assert operations.submit(campaign, own)["state"] == "submitted"
        assert operations.submit(campaign, own)["state"] == "submitted"
        database = mongo.database(own)
        assert database["workflows"].count_documents({}) == 1
        assert database["fireworks"].count_documents({"name": "generate 1/3"}) == 1
    finally:
        mongod.stop(own)


def test_two_resumes_at_once_after_a_lost_shard(settings, faults, campaign):
    operations.submit(campaign, settings)
    (faults / "lose-3").touch()
    assert work(campaign, settings)["FIZZLED"] == 1
    (faults / "lose-3").unlink()
    arguments = campaign.campaign_id, settings, 5
    threads = [threading.Thread(target=operations.restart, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert mongo.database(settings)["reruns"].count_documents({}) == 1
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert statuses(campaign, settings) == ["passed"] * 6
    of_alloys = {"campaign_id": campaign.campaign_id, "plan": "relax"}
    assert mongo.database(settings)["costs"].count_documents(of_alloys) == 6


def test_the_clock_of_the_database_s_host_goes_back(settings, faults, campaign):
    operations.submit(campaign, settings)
    run_worker(settings, campaign_id=campaign.campaign_id, poll=0.05)
    database = mongo.database(settings)
    now = database.command("hello")["localTime"]
    earlier = {"$set": {"collected_until": now + timedelta(hours=1)}}  # as it was an hour ago
    database["campaigns"].update_one({"_id": campaign.campaign_id}, earlier)
    assert statuses(campaign, settings) == ["passed"] * 6


def test_a_last_stage_that_raises(settings, faults, campaign, monkeypatch):
    """Crystals that it should have judged are not called passed until it is run again."""
    whole = Campaign.model_validate(
        campaign.resolved() | {"name": "phonons", "phonons": {"level": f"{faulty_parts.NAME}:emt"}}
    )
    operations.submit(whole, settings)

    def raises(*_args, **_kwargs):
        raise RuntimeError("a fault of the program")

    with monkeypatch.context() as broken:
        broken.setattr(phonons, "choose", raises)
        assert work(whole, settings)["FIZZLED"] == 1
    found = ledger(whole, settings)
    assert {(row["status"], row["reason_class"]) for row in found.values()} == {
        ("failed", "job_failed")
    }
    assert "Job 'start_phonons' failed: RuntimeError: a fault of the program" in found[0]["reason"]


@pytest.mark.parametrize("where", ["energy", "lattice", "site"])
def test_a_maker_that_leaves_what_is_not_a_number_is_a_verdict(where):
    nan = float("nan")
    lattice = Lattice([[3, 0, 0], [0, 3, 0], [0, 0, nan if where == "lattice" else 3]])
    start = Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]])
    end = Structure(lattice, ["Cu"], [[0, 0, nan if where == "site" else 0]])
    energy = nan if where == "energy" else -3.0
    document = {"structure": end, "output": {"energy": energy}, "is_force_converged": True}
    found = read_relaxation(document, start, "chgnet")
    assert (found.verdict, found.usable, found.structure) == ("not_a_number", False, None)


def test_a_damaged_row_is_one_sentence(settings, faults, campaign, capsys):
    operations.submit(campaign, settings)
    work(campaign, settings)
    rows = mongo.database(settings)["stage_records"]
    name = campaign.candidate_id(2)
    rows.update_one({"_id": f"{name}/{RELAXED}"}, {"$set": {"record": {"energies": 7}}})
    with pytest.raises(SystemExit) as ended:
        main(["campaign", "status", "faulty"])
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"pccd: What stage {RELAXED} says of {name} is damaged (" in printed
    assert "Traceback" not in printed


def test_a_source_that_leaves_samples_out(settings, faults, campaign):
    """No sample is lost without a word."""
    operations.submit(campaign, settings)
    (faults / "skip-3").touch()
    assert work(campaign, settings)["FIZZLED"] == 1
    found = ledger(campaign, settings)
    assert sorted(found) == list(range(6))
    assert {i for i, row in found.items() if row["status"] == "failed"} == {2, 3}
    assert found[3]["reason"].endswith(
        "made 1 of 2 samples that it was asked for: sample 3 is missing."
    )
    (faults / "skip-3").unlink()
    operations.restart(campaign.campaign_id, settings, 5)
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert statuses(campaign, settings) == ["passed"] * 6


@pytest.mark.parametrize(
    ("character", "number", "shown"),
    [(ord("x"), 20_000_000, "ValueError: xx"), (0xDCFF, 1, "ValueError: \\udcff")],
    ids=["of 20 MB", "with half of a character"],
)
def test_a_failure_whose_message_no_document_holds(settings, character, number, shown):
    job = jobs.broken_with(character, number)
    flow = Flow([job, jobs.add(1, 2)])
    launchpad.submit(flow, settings)
    run_worker(settings, poll=0.05)
    assert launchpad.campaign_states(settings, None) == {"FIZZLED": 1, "COMPLETED": 1}
    (failure,) = reruns.job_failures(settings)
    assert failure.error_class == "python"
    (launch,) = mongo.database(settings)["launches"].find({"state": "FIZZLED"})
    stored = launch["action"]["stored_data"]["_exception"]["_stacktrace"]
    assert shown in stored
    assert len(stored) < LONGEST + 100


def test_a_job_that_prints_more_than_the_memory_holds(settings, tmp_path):
    launchpad.submit(Flow([jobs.print_much(600_000_000)]), settings)
    code = (
        "import resource; from pccd_workflows.settings import get_settings; "
        "from pccd_workflows.execution.worker import run_worker; run_worker(get_settings()); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    paths = os.pathsep.join([str(HERE), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert launchpad.campaign_states(settings, None) == {"COMPLETED": 1}
    assert int(ran.stdout.split()[-1]) < 1_200_000  # kB; mapped pages count, and are given back


def test_a_run_folder_that_somebody_removes_meanwhile(settings, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    launchpad.submit(Flow([jobs.wait_for(str(started), str(go), 1)]), settings)
    worker = threading.Thread(target=_remove_when, args=(started, settings.data_dir / "runs", go))
    worker.start()
    run_worker(settings, poll=0.05)
    worker.join(30)
    assert launchpad.campaign_states(settings, None) == {"COMPLETED": 1}


def _remove_when(started: Path, runs: Path, go: Path) -> None:
    import shutil

    while not started.exists():
        time.sleep(0.05)
    shutil.rmtree(runs)
    go.touch()


@pytest.fixture
def read_only(tmp_path):
    """A folder that nobody may write into, root neither."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


@pytest.mark.usefixtures("settings", "faults")
def test_a_data_folder_that_may_not_be_written(campaign, read_only, monkeypatch, capsys):
    monkeypatch.setenv("PCCD_DATA_DIR", str(read_only / "data"))
    get_settings.cache_clear()
    operations.submit(campaign, get_settings())
    with pytest.raises(SystemExit) as ended:
        main(["campaign", "resume", "faulty", "--workers", "1"])
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Read-only file system" in printed
    assert str(read_only) in printed
    assert len(printed.strip().splitlines()) == 1
