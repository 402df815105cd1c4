"""What every stage job shares: how it is stored, and where its database is."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jobflow import Job, JobConfig, OnMissing, job

from pccd_workflows.candidate import StageOutput
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from pymongo.database import Database

plain_job: Callable[..., Any] = job
"""Decorator for functions that return anything else."""

LARGE = ["records", "survivors"]
"""Fields of a StageOutput that go to the additional store: together they may exceed 16 MB."""

stage_job: Callable[..., Any] = partial(job, data=LARGE, output_schema=StageOutput)
"""Decorator for functions that return a StageOutput."""

branching_job: Callable[..., Any] = partial(job, data=LARGE)
"""Decorator for functions that may return a Response whose flow ends in a StageOutput.

No schema: jobflow would check it against the reference to the flow's output.
"""

task_job: Callable[..., Any] = partial(job, data=[*LARGE, "vasp_objects", "calcs_reversed"])
"""Decorator for functions that return atomate2's TaskDoc or, in the end, a StageOutput."""

GPU = "gpu"
"""Category of jobs that a GPU speeds up: sampling, ML potentials."""
CPU = "cpu"
"""Category of jobs for CPU nodes: DFT. Jobs without category run on any worker."""

OPTIONAL = "optional"
"""Name in the metadata of jobs whose loss holds no candidate back."""


def assign(assigned: Job, category: str) -> Job:
    """Return the job, to be run (and what it branches into) by workers of a category."""
    assigned.update_config({"manager_config": {"_category": category}}, dynamic=False)
    return assigned


TOLERATE_LOST_PARENTS = JobConfig(on_missing_references=OnMissing.NONE)
"""For jobs that gather many others: one lost job must not hold back its siblings' results."""


def stage_database() -> "Database[dict[str, Any]]":
    """Return the campaign database of the machine this job runs on."""
    from pccd_workflows.execution.mongo import database

    return database(get_settings())
