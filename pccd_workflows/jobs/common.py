"""What every job shares: which workers run it, what it tolerates, where it reads and writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from jobflow import CURRENT_JOB, Flow, Job, JobConfig, OnMissing, Response, job

from pccd_workflows.core.storage import WRITER, Share, Storage
from pccd_workflows.execution.storage import current_storage
from pccd_workflows.jobs.metadata import SHARE, WRITES

plain_job: Callable[..., Any] = partial(job, config=JobConfig(expose_store=True))
"""Decorator of a job that finds its storage beside the job store that runs it."""

task_job: Callable[..., Any] = partial(plain_job, data=["vasp_objects", "calcs_reversed"])
"""Decorator of jobs that may return atomate2's TaskDoc, whose large parts go to GridFS."""


def assign(assigned: Job, category: str) -> Job:
    """Return the job, to be run (and what it branches into) by workers of a category."""
    assigned.update_config({"manager_config": {"_category": category}}, dynamic=False)
    return assigned


def tolerant(gathering: Job) -> Job:
    """Return a job that goes on without those parents that were lost.

    For jobs that gather many others: one lost job must not hold back its siblings' results. What
    they start is not tolerant by itself.
    """
    gathering.update_config({"on_missing_references": OnMissing.NONE}, dynamic=False)
    return gathering


def named(unnamed: Job, name: str) -> Job:
    """Return the job with a name."""
    unnamed.name = name
    return unnamed


def taking(sharing: Job, stage: str, share: Share, writes: str) -> Job:
    """Return a job that tells whose crystals wait for it: a share of those after a stage.

    writes: the stage whose rows it, or what it starts, writes.
    """
    asked = {"stage": stage, **asdict(share)}
    sharing.update_metadata({SHARE: asked, WRITES: writes}, dynamic=False)
    return sharing


@plain_job
def count(outputs: list[Any]) -> int:
    """Return the sum of what jobs counted; what is lost, or no number, counts nothing."""
    return counted(outputs)


def counted(output: Any) -> int:
    """Return the sum of the numbers in the output of a job, or of those that took its place."""
    if isinstance(output, list):
        return sum(counted(one) for one in output)
    return output if isinstance(output, int) else 0


def gathered(jobs: Sequence[Job], name: str) -> Response[int]:
    """Return jobs that take the place of the one that starts them; lost ones hold none back.

    name: of the job that waits for them.
    """
    total = named(tolerant(count([one.output for one in jobs])), name)
    return Response(replace=Flow([*jobs, total], output=total.output))


@contextmanager
def job_storage() -> Iterator[Storage]:
    """Yield the storage of the running job; rows that are written name the job."""
    job = CURRENT_JOB.job
    token = WRITER.set(None if job is None else job.uuid)
    try:
        yield current_storage()
    finally:
        WRITER.reset(token)
