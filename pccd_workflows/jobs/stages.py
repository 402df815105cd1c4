"""Thin jobs of the stages: take the storage of this process, call the stage's pure function.

Crystals are handed over by reference: a job reads the rows that the stage before it wrote. What it
returns is a count; the arguments called `after` only say what has to be done before.
"""

from collections.abc import Sequence
from typing import Any

from jobflow import Job, Response

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.storage import Formulas
from pccd_workflows.jobs.common import GPU, assign, gathered, job_storage, named, plain_job
from pccd_workflows.stages import deduplicate as deduplicate_stage
from pccd_workflows.stages import generate as generate_stage
from pccd_workflows.stages import hull as hull_stage
from pccd_workflows.stages import screen as screen_stage
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.rung import Rung
from pccd_workflows.stages.sharing import branches, subranges


@plain_job
def generate(campaign: Campaign, start: int, stop: int, versions: list[str]) -> int:
    """Sample crystals `start` to `stop` - 1 of a campaign and screen them; return how many pass.

    Raises
    ------
    StaleResultError
        A source is not what it was when the campaign was submitted.
    """
    with job_storage() as storage:
        generate_stage.run(campaign, start, stop, storage, versions=versions)
        return screen_stage.run(campaign, start, stop, storage)


@plain_job
def generate_range(campaign: Campaign, start: int, stop: int, versions: list[str]) -> Response[int]:
    """Start the jobs that sample shards `start` to `stop` - 1 of a campaign."""
    return gathered(generate_jobs(campaign, start, stop, versions), f"generated {start + 1}-{stop}")


def generate_jobs(campaign: Campaign, start: int, stop: int, versions: Sequence[str]) -> list[Job]:
    """Return the jobs that sample shards `start` to `stop` - 1, or that start those that do."""
    shards, jobs = campaign.shards, []
    for first, end in subranges(start, stop, 1):
        if end - first == 1:
            job = generate(campaign, *shards[first], list(versions))
            name = f"generate {end}/{len(shards)}"
        else:
            job = generate_range(campaign, first, end, list(versions))
            name = f"generate {first + 1}-{end}/{len(shards)}"
        jobs.append(named(assign(job, GPU), name))
    return jobs


@plain_job
def deduplicate(
    campaign: Campaign,
    systems: list[str],
    formulas: list[str] | None = None,
    after: Any = None,  # noqa: ARG001
) -> Response[int] | int:
    """Keep one crystal of each group of equal ones and say which are known.

    Many are shared out by composition between jobs; formulas: the first and the last to take.
    """
    within = _range(formulas)
    with job_storage() as storage:
        shares = deduplicate_stage.shares(campaign, storage, within)
        if len(shares) <= 1:
            return deduplicate_stage.run(campaign, systems, storage, within)
    jobs = [deduplicate(campaign, systems, part) for part in _parts(shares)]
    return gathered(_numbered(jobs, "deduplicate"), "deduplicate")


@plain_job
def hull(
    campaign: Campaign,
    rung: Rung,
    systems: list[str],
    formulas: list[str] | None = None,
    after: Any = None,  # noqa: ARG001
) -> Response[int] | int:
    """Place relaxed crystals on the hull of their chemical system; keep those near it.

    Many are shared out by composition between jobs; formulas: the first and the last to take.
    """
    within = _range(formulas)
    with job_storage() as storage:
        if within is None:
            hull_stage.refuse(campaign, rung, storage)
        shares = hull_stage.shares(campaign, rung, storage, within)
        if len(shares) <= 1:
            return hull_stage.run(campaign, rung, systems, storage, within)
    jobs = [hull(campaign, rung, systems, part) for part in _parts(shares)]
    return gathered(_numbered(jobs, f"hull {rung.level}"), f"hull {rung.level}")


def _range(formulas: Sequence[str] | None) -> Formulas | None:
    return None if formulas is None else (formulas[0], formulas[1])


def _parts(shares: Sequence[Formulas]) -> list[list[str]]:
    return [[part[0][0], part[-1][1]] for part in branches(shares)]


def _numbered(jobs: list[Job], name: str) -> list[Job]:
    return [named(job, f"{name} {n}/{len(jobs)}") for n, job in enumerate(jobs, start=1)]


@plain_job
def run_stage(campaign: Campaign, name: str, after: Any = None) -> None:  # noqa: ARG001
    """Run a stage that has no jobs of its own for every candidate that reached it."""
    stage = stage_of(name)
    if stage.run is None:
        raise TypeError(f"Stage {name} has jobs of its own.")
    with job_storage() as storage:
        stage.run(campaign, name.partition(":")[2], storage)
