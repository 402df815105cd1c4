"""Thin jobs of the stages: take the storage of this process, call the stage's pure function.

Crystals are handed over by reference: a job reads the rows that the stage before it wrote. What it
returns is a count; the arguments called `after` only say what has to be done before.
"""

from typing import Any

from pccd_workflows.campaign import Campaign
from pccd_workflows.jobs.common import job_storage, plain_job
from pccd_workflows.stages import deduplicate as deduplicate_stage
from pccd_workflows.stages import generate as generate_stage
from pccd_workflows.stages import hull as hull_stage
from pccd_workflows.stages import screen as screen_stage
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.rung import Rung


@plain_job
def generate_and_screen(campaign: Campaign, start: int, stop: int, versions: list[str]) -> int:
    """Sample crystals `start` to `stop` - 1 of a campaign and screen them; return how many pass.

    Raises
    ------
    StaleResultError
        A source is not what it was when the campaign was submitted.
    """
    # jobflow looks for an attribute of the job's name in the first argument, so that the job cannot
    # be called `generate`: that one is an error in campaigns of other sources than one model
    with job_storage() as storage:
        generate_stage.run(campaign, start, stop, storage, versions=versions)
        return screen_stage.run(campaign, start, stop, storage)


@plain_job
def deduplicate(
    campaign: Campaign,
    systems: list[str] | None,
    after: Any = None,  # noqa: ARG001
) -> int:
    """Keep one crystal of each group of equal ones and say which are known.

    systems: whose competing phases are there; None if the job that sees to it was lost.
    """
    with job_storage() as storage:
        return deduplicate_stage.run(campaign, systems or [], storage)


@plain_job
def hull(
    campaign: Campaign,
    rung: Rung,
    systems: list[str] | None,
    after: Any = None,  # noqa: ARG001
) -> int:
    """Place relaxed crystals on the hull of their chemical system; keep those near it.

    systems: as in `deduplicate`.
    """
    with job_storage() as storage:
        return hull_stage.run(campaign, rung, systems or [], storage)


@plain_job
def run_stage(campaign: Campaign, name: str, after: Any = None) -> None:  # noqa: ARG001
    """Run a stage that has no jobs of its own for every candidate that reached it."""
    stage = stage_of(name)
    if stage.run is None:
        raise TypeError(f"Stage {name} has jobs of its own.")
    with job_storage() as storage:
        stage.run(campaign, name.partition(":")[2], storage)
