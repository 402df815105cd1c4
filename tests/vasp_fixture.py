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

from potcars import write_potcars  # noqa: E402

POTCARS = ["Mg_pv", "Mn_pv", "O", "Na_pv", "Cl", "Ni_pv"]


def standin_environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return the environment in which VASP is the stand-in; faults.json is read from `folder`."""
    quick = {
        "vasp_command": STANDIN / "vasp_std",
        "vasp_gamma_command": STANDIN / "vasp_gam",
        "custodian_polling": 0.2,
        "custodian_check": 1.0,
    }
    for functional in ("POT_GGA_PAW_PBE", "POT_GGA_PAW_PBE_54"):
        write_potcars(folder / "potcars", POTCARS, functional)
    return {
        "PMG_VASP_PSP_DIR": str(folder / "potcars"),
        "VASP_STANDIN_PYTHON": sys.executable,
        "VASP_STANDIN_FAULTS": str(folder / "faults.json"),
        "OMP_NUM_THREADS": "1",
        **{f"PCCD_{name.upper()}": str(value) for name, value in (quick | settings).items()},
    }


def use_standin(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: object) -> None:
    """Let this process run the stand-in as VASP."""
    from pymatgen.core import SETTINGS

    environment = standin_environment(folder, **settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", environment["PMG_VASP_PSP_DIR"])
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
