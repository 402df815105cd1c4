"""What a job that is lost costs the ledger: its own candidates, said with the reason, no others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import faulty_parts
import pytest

from pccd_workflows import operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import DeviceFault
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.worker import run_worker

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


def ledger(campaign: Campaign, settings) -> dict:
    document = operations.campaign_document(campaign.campaign_id, settings)
    progress = operations.progress(campaign.campaign_id, settings)
    operations.collect(document, progress, settings)
    return {row["index"]: row for row in mongo.database(settings)["candidates"].find()}


def statuses(campaign: Campaign, settings) -> dict[int, str]:
    return {index: row["status"] for index, row in sorted(ledger(campaign, settings).items())}


def work(campaign: Campaign, settings) -> dict[str, int]:
    run_worker(settings, campaign_id=campaign.campaign_id, poll=0.05)
    return operations.progress(campaign.campaign_id, settings).states


def die(campaign: Campaign) -> None:
    """Run a worker in a process of its own, which a job kills."""
    command = [sys.executable, "-m", "pccd_workflows", "worker", "--campaign", campaign.campaign_id]
    paths = os.pathsep.join([str(HERE), *sys.path])
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_worker_whose_device_broke_ends_and_another_takes_its_job(settings, faults, campaign):
    operations.submit(campaign, settings)
    (faults / "poison").touch()
    with pytest.raises(DeviceFault, match=r"its device failed .*CUDA error.*another worker"):
        work(campaign, settings)
    (faults / "poison").unlink()
    states = operations.progress(campaign.campaign_id, settings).states
    assert "FIZZLED" not in states
    assert states["READY"] >= 1
    faulty_parts.Device.broken = False  # another process, another device
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert "failed" not in statuses(campaign, settings).values()
    launches = mongo.database(settings)["launches"]
    assert launches.distinct("released") == [launchpad.RETIRED]


def test_a_job_that_breaks_every_device_fails_in_the_end(settings, faults, campaign, monkeypatch):
    monkeypatch.setattr(launchpad, "MAX_DEATHS", 2)
    operations.submit(campaign, settings)
    (faults / "poison").touch()
    for _ in range(2):
        with pytest.raises(DeviceFault):
            work(campaign, settings)
        faulty_parts.Device.broken = False
    found = ledger(campaign, settings)
    lost = {row["status"] for row in found.values() if row["stage"] == "deduplicate"}
    assert lost == {"failed"}
    assert "2 workers died" in found[0]["reason"]
    assert mongo.database(settings)["stage_records"].count_documents({"stage": RELAXED}) == 0


def test_a_lost_shard_is_in_the_ledger_and_holds_nobody_back(settings, faults, campaign):
    operations.submit(campaign, settings)
    (faults / "lose-3").touch()
    states = work(campaign, settings)
    assert states.pop("FIZZLED") == 1
    assert set(states) == {"COMPLETED"}
    found = ledger(campaign, settings)
    assert sorted(found) == list(range(6))
    lost = {i for i, row in found.items() if row["reason_class"] == "job_failed"}
    assert lost == {2, 3}
    for index in lost:
        assert found[index]["status"] == "failed"
        assert found[index]["reason"].startswith("Job 'generate 2/3' failed: ")
        assert "no crystal today" in found[index]["reason"]
    assert all(row["stabilities"] for i, row in found.items() if i not in lost)

    (faults / "lose-3").unlink()
    operations.restart(campaign.campaign_id, settings, 5)
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert set(statuses(campaign, settings).values()) <= {"passed", "rejected"}


def test_a_shard_that_kills_its_workers_is_lost_alone(settings, faults, campaign, monkeypatch):
    monkeypatch.setattr(launchpad, "MAX_DEATHS", 2)
    operations.submit(campaign, settings)
    (faults / "kill-5").touch()
    for _ in range(2):
        die(campaign)
        launchpad.release_dead_runs(settings, campaign.campaign_id)
    assert work(campaign, settings).pop("FIZZLED") == 1
    found = ledger(campaign, settings)
    lost = {i: row["reason"] for i, row in found.items() if row["status"] == "failed"}
    assert set(lost) == {4, 5}
    assert "2 workers died while they ran this job" in lost[5]
    assert all(row["stabilities"] for i, row in found.items() if i not in lost)
