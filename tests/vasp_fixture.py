"""Puts the stand-in for VASP and synthetic POTCARs where the product looks for the real ones."""

import json
import sys
from pathlib import Path

import pytest
from jobflow import Job
from pymatgen.core import Structure

from pccd_workflows.core.storage import store_crystals
from pccd_workflows.engines.engine import Task
from pccd_workflows.execution import mongo
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.jobs.compute import compute_jobs
from pccd_workflows.settings import Settings, get_settings

STANDIN = Path(__file__).parent / "vasp_standin"
sys.path.insert(0, str(STANDIN))  # the stand-in's modules import each other by plain names

from environment import environment as standin_environment  # noqa: E402


def use_standin(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: object) -> None:
    """Let this process run the stand-in as VASP."""
    from pymatgen.core import SETTINGS

    variables = standin_environment(folder, **settings)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", variables["PMG_VASP_PSP_DIR"])
    get_settings.cache_clear()


def inject(folder: Path, *rules: dict[str, object]) -> None:
    """Have runs fail: rules as in vasp_standin/README.md."""
    (folder / "faults.json").write_text(json.dumps(rules))


def engine_jobs(
    settings: Settings,
    structures: dict[str, Structure],
    level: str,
    task: Task,
    campaign_id: str | None = None,
) -> list[Job]:
    """Store crystals by candidate_id and return the jobs that compute a task of each."""
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    refs = store_crystals(MongoStorage(database), structures.items())
    return compute_jobs(refs, level, task, campaign_id=campaign_id)
