"""What a job that is lost costs the ledger: its own candidates, said with the reason, no others."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import faulty_parts
import pytest

from pccd_workflows import operations, pipeline
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import DeviceFault, PccdError
from pccd_workflows.discovery import LostJobs, discover
from pccd_workflows.execution import launchpad, mongo, reruns
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.pipeline import DiscoveryMaker, RungMaker

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
    rows = mongo.database(settings)["candidates"].find({"campaign_id": campaign.campaign_id})
    return {row["index"]: row for row in rows}


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


def own_maker(monkeypatch) -> None:
    """Let campaigns that are submitted relax with a Maker of somebody's own."""
    maker = DiscoveryMaker(rung_maker=RungMaker(relax_maker=faulty_parts.TwoStepMaker()))
    monkeypatch.setattr(pipeline, "DiscoveryMaker", lambda: maker)


def verdicts(campaign: Campaign, settings) -> dict[int, tuple]:
    told = ("status", "reason_class", "energy_above_hull", "stage")
    return {i: tuple(row[t] for t in told) for i, row in ledger(campaign, settings).items()}


def test_a_lost_job_of_a_maker_of_ones_own_holds_back_its_crystal_alone(
    settings, faults, campaign, monkeypatch
):
    own_maker(monkeypatch)
    operations.submit(campaign, settings)
    (faults / "no-maker-Cu3Au").touch()  # sample 1
    states = work(campaign, settings)
    assert set(states) == {"COMPLETED", "FIZZLED"}  # nobody waits
    found = ledger(campaign, settings)
    assert {i for i, row in found.items() if row["status"] == "failed"} == {1}
    assert found[1]["reason_class"] == "job_failed"
    assert found[1]["reason"].endswith("failed: RuntimeError: no relaxation today")
    assert all(row["stabilities"] for i, row in found.items() if i != 1)
    classes = {f.error_class for f in reruns.job_failures(settings)}
    assert classes == {"python", "lost_input"}

    (faults / "no-maker-Cu3Au").unlink()
    restarted = operations.restart(campaign.campaign_id, settings, 5)
    assert restarted.refused == {}
    assert set(work(campaign, settings)) == {"COMPLETED"}
    after = verdicts(campaign, settings)
    undisturbed = Campaign.model_validate(campaign.resolved() | {"name": "undisturbed"})
    operations.submit(undisturbed, settings)
    work(undisturbed, settings)
    assert verdicts(undisturbed, settings) == after


def test_lost_competing_phases_fail_the_crystals_that_need_them(settings, faults, campaign):
    operations.submit(campaign, settings)
    (faults / "no-metals").touch()
    states = work(campaign, settings)
    assert states.pop("FIZZLED") == 1
    assert set(states) == {"COMPLETED"}
    found = ledger(campaign, settings)
    assert {(row["status"], row["reason_class"]) for row in found.values()} == {
        ("failed", "no_references")
    }
    assert "There are no competing phases of Au-Cu" in found[0]["reason"]

    (faults / "no-metals").unlink()
    operations.restart(campaign.campaign_id, settings, 5)
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert set(statuses(campaign, settings).values()) == {"passed"}


@pytest.mark.parametrize(("lost", "reached"), [("deduplicate", "screen"), ("hull", "relax")])
def test_a_stage_that_raises_fails_the_crystals_that_reached_it(
    settings, faults, campaign, monkeypatch, lost, reached
):
    operations.submit(campaign, settings)
    stage = importlib.import_module(f"pccd_workflows.stages.{lost}")

    def raises(*_args, **_kwargs):
        raise RuntimeError("a fault of the program")

    with monkeypatch.context() as broken:
        broken.setattr(stage, "run", raises)
        assert work(campaign, settings)["FIZZLED"] == 1
    found = ledger(campaign, settings)
    assert {(row["status"], row["reason_class"]) for row in found.values()} == {
        ("failed", "job_failed")
    }
    assert {row["stage"].partition(":")[0] for row in found.values()} == {reached}
    assert f"Job '{lost}" in found[0]["reason"]
    assert found[0]["reason"].endswith("failed: RuntimeError: a fault of the program")
    operations.restart(campaign.campaign_id, settings, 5)
    assert set(work(campaign, settings)) == {"COMPLETED"}
    assert set(statuses(campaign, settings).values()) == {"passed"}


def test_discover_says_what_failed_and_which_crystals_wait_for_it(faults, campaign, tmp_path):
    (faults / "no-metals").touch()
    (faults / "lose-3").touch()
    with pytest.raises(LostJobs) as raised:
        discover(campaign, folder=tmp_path / "results", progress=False)
    said = str(raised.value)
    assert said.startswith(
        "Job 'generate 2/3' failed: RuntimeError: no crystal today, and 1 more. "
    )
    assert "This holds back 6 of 6 crystals" in said
    assert "call discover again with the same folder" in said
    found = {document.index: document for document in raised.value.candidates}
    assert sorted(found) == list(range(6))
    assert {i: (d.status, d.reason_class) for i, d in found.items()} == {
        i: ("failed", "job_failed" if i in (2, 3) else "no_references") for i in range(6)
    }
    assert "no crystal today" in found[3].reason

    for fault in ("no-metals", "lose-3"):
        (faults / fault).unlink()
    again = discover(campaign, folder=tmp_path / "results", progress=False)
    assert [document.status for document in again] == ["passed"] * 6
    whole = discover(campaign, progress=False)
    assert {d.index: d.energy_above_hull for d in again} == {
        d.index: d.energy_above_hull for d in whole
    }


def test_discover_without_a_folder_says_how_to_keep_what_is_computed(faults, campaign):
    (faults / "lose-0").touch()
    with pytest.raises(PccdError, match=r"holds back 2 of 6 .*again with folder=\.\.\., so that"):
        discover(campaign, progress=False)
