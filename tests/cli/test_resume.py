"""`pccd campaign resume`: lost runs are found, failed ones rerun, within bounds and on record."""

import os
from datetime import UTC, datetime
from pathlib import Path

import launchpad_jobs as jobs
import pytest
from fireworks import FWorker
from jobflow import Flow

from pccd_workflows.campaign import Campaign
from pccd_workflows.cli import main
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.execution import launchpad, mongo, reruns
from pccd_workflows.execution.worker import run_worker

CAMPAIGN = Campaign.model_validate(
    {
        "name": "resumed",
        "generate": {"elements": ["Mg", "O"], "samples": 1},
        "rungs": [{"level": "chgnet"}],
    }
)


def submit(settings, *members) -> None:
    flow = Flow([*members])
    flow.update_metadata({"campaign_id": CAMPAIGN.campaign_id})
    launchpad.submit(flow, settings)


@pytest.fixture
def marker(settings, tmp_path, monkeypatch) -> Path:
    """A campaign with a job that failed, and will until the file that is returned is there."""
    monkeypatch.chdir(tmp_path)
    # the workers that resume starts import the jobs by name
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(jobs.__file__).parent)]))
    marker = tmp_path / "mended"
    bad = jobs.broken(str(marker))
    submit(settings, bad, jobs.add(bad.output, "!"))
    run_worker(settings)
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    database["campaigns"].insert_one(
        {
            "_id": CAMPAIGN.campaign_id,
            "name": CAMPAIGN.name,
            "schema_version": SCHEMA_VERSION,
            "campaign": CAMPAIGN.resolved(),
            "submitted_at": datetime.now(UTC),
            "state": "submitted",
        }
    )
    return marker


def resume(capsys, *options: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["campaign", "resume", CAMPAIGN.name, "--workers", "1", *options])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_resume_finds_what_was_lost_and_reruns_what_failed(capsys, settings, marker):
    submit(settings, jobs.add(1, 2))
    far = FWorker("node7:4711:1000.00")
    _, launch_id = launchpad.launchpad(settings).checkout_fw(far, str(marker.parent))
    states = {"FIZZLED": 1, "WAITING": 1, "RUNNING": 1}
    assert launchpad.campaign_states(settings, CAMPAIGN.campaign_id) == states
    assert "0 lost and 1 failed jobs would be" in resume(capsys, "--dry-run")[1]
    run_out = [{"$set": {"lease": {"$subtract": ["$$NOW", 5000]}}}]
    mongo.database(settings)["launches"].update_one({"launch_id": launch_id}, run_out)
    assert "1 lost and 1 failed jobs would be" in resume(capsys, "--dry-run")[1]
    assert launchpad.campaign_states(settings, CAMPAIGN.campaign_id) == states

    # the fault is not mended: it fails again, and once is enough
    code, out = resume(capsys)
    assert code == 1
    assert "1 lost and 1 failed jobs are ready again" in out
    (failure,) = reruns.job_failures(settings)
    assert failure.attempts == 2
    code, out = resume(capsys, "--max-attempts", "2")
    assert code == 1
    assert f"Job {failure.fw_id} was left: it failed 2 times already." in out
    assert reruns.job_failures(settings) == [failure]

    marker.touch()
    assert resume(capsys)[0] == 1  # all jobs end, but these made-up ones leave no crystal
    assert launchpad.campaign_states(settings, CAMPAIGN.campaign_id) == {"COMPLETED": 3}
    records = list(mongo.database(settings)["reruns"].find({}, {"fw_id": 1, "attempt": 1}))
    assert [(r["fw_id"], r["attempt"]) for r in records] == [(failure.fw_id, n) for n in (1, 2)]


def test_a_job_that_was_put_back_has_not_failed(settings, marker):
    (failure,) = reruns.job_failures(settings)
    opened = launchpad.launchpad(settings)
    for why in (launchpad.STOPPED, launchpad.DIED, launchpad.STOPPED):
        reruns.rerun(settings, reruns.job_failures(settings), max_attempts=99)
        _, launch_id = opened.checkout_fw(FWorker("node7:1:1.00"), ".", fw_id=failure.fw_id)
        assert launchpad.release(opened, launch_id, why) == failure.fw_id
        run_worker(settings)
    (again,) = reruns.job_failures(settings)
    assert again.attempts == 4  # three put back, not counted; four failed
