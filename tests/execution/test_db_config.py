"""The files in db_config work with FireWorks and jobflow as they are."""

import os
from pathlib import Path

import jobflow
import launchpad_jobs as jobs
import pytest
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import launch_rocket
from jobflow import Flow, JobConfig
from jobflow.settings import JobflowSettings

from pccd_workflows.core.resources import resource
from pccd_workflows.execution import launchpad
from pccd_workflows.execution.stores import job_store
from pccd_workflows.settings import Settings

FOLDER = resource("db_config")


@pytest.fixture
def written_out(settings, tmp_path, monkeypatch) -> Path:
    """A folder with the files as README.md says to write them out; jobflow reads its one."""
    for source in FOLDER.glob("*.yaml"):
        (tmp_path / source.name).write_text(os.path.expandvars(source.read_text()))
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "jobflow.yaml"))
    monkeypatch.setattr(jobflow, "SETTINGS", JobflowSettings())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("category", ["cpu", "gpu"])
def test_fireworks_runs_a_job_of_the_category(settings: Settings, written_out, category):
    flow = {"cpu": jobs.heavy(2), "gpu": jobs.heavy(3)}
    for name, job in flow.items():
        job.update_config(JobConfig(manager_config={"_category": name}))
    launchpad.submit(Flow([*flow.values()]), settings)
    plain = LaunchPad.from_file(str(written_out / "my_launchpad.yaml"))
    worker = FWorker.from_file(str(written_out / f"my_fworker_{category}.yaml"))
    assert launch_rocket(plain, worker) is True
    assert launch_rocket(plain, worker) is False
    assert launchpad.campaign_states(settings, None) == {"COMPLETED": 1, "READY": 1}
    store = job_store(settings)
    store.connect()
    output = store.get_output(flow[category].uuid, load=True)
    assert output["payload"] == ["x" * 1000] * output["size"]


def test_no_file_holds_a_secret():
    for path in FOLDER.glob("*.yaml"):
        for line in path.read_text().splitlines():
            if "uri:" in line or "host:" in line:
                assert line.strip().endswith('"${PCCD_MONGODB_URI}"'), f"{path.name}: {line}"


def test_every_variable_that_is_explained_exists():
    text = (FOLDER / "README.md").read_text()
    rows = [line.split("`") for line in text.splitlines() if line.startswith("| `PCCD_")]
    assert len(rows) >= 5
    for row in rows:
        assert row[1] == f"PCCD_{row[3].upper()}"
        assert row[3] in Settings.model_fields
