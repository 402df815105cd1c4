"""What every job shares: which workers run it, what it tolerates, where it reads and writes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from jobflow import CURRENT_JOB, Job, JobConfig, OnMissing, job

from pccd_workflows.core.storage import WRITER, Storage
from pccd_workflows.execution.storage import current_storage

plain_job: Callable[..., Any] = job
"""Decorator of a job, typed."""

task_job: Callable[..., Any] = partial(job, data=["vasp_objects", "calcs_reversed"])
"""Decorator of jobs that may return atomate2's TaskDoc, whose large parts go to GridFS."""

GPU = "gpu"
"""Category of jobs that a GPU speeds up: sampling, ML potentials."""
CPU = "cpu"
"""Category of jobs for CPU nodes: DFT. Jobs without category run on any worker."""

OPTIONAL = "optional"
"""Name in the metadata of jobs whose loss holds no candidate back."""

TOLERATE_LOST_PARENTS = JobConfig(on_missing_references=OnMissing.NONE)
"""For jobs that gather many others: one lost job must not hold back its siblings' results."""


def assign(assigned: Job, category: str) -> Job:
    """Return the job, to be run (and what it branches into) by workers of a category."""
    assigned.update_config({"manager_config": {"_category": category}}, dynamic=False)
    return assigned


def named(job: Job, name: str) -> Job:
    """Return the job with a name."""
    job.name = name
    return job


@contextmanager
def job_storage() -> Iterator[Storage]:
    """Yield the storage of the running job; rows that are written name the job."""
    job = CURRENT_JOB.job
    token = WRITER.set(None if job is None else job.uuid)
    try:
        yield current_storage()
    finally:
        WRITER.reset(token)
