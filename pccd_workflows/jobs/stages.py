"""Thin jobs of the stages: take the storage of this process, call the stage's pure function.

Crystals are handed over by reference: a job reads the rows that the stage before it wrote, and
finds the competing phases that are there when it runs. What it returns is a count; the arguments
called `after` and `references` only say what has to be done before.
"""

from collections.abc import Sequence
from typing import Any

from jobflow import Job, Response

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.storage import Share
from pccd_workflows.jobs.common import gathered, job_storage, named, plain_job, taking
from pccd_workflows.stages import deduplicate as deduplicate_stage
from pccd_workflows.stages import generate as generate_stage
from pccd_workflows.stages import hull as hull_stage
from pccd_workflows.stages import screen as screen_stage
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.references import systems_of
from pccd_workflows.stages.rung import Rung
from pccd_workflows.stages.sharing import joined


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
    references: Any,  # noqa: ARG001
    after: Any = None,  # noqa: ARG001
) -> Response[int] | int:
    """Keep one crystal of each group of equal ones and say which are known.

    Many crystals are shared out among jobs.
    """
    with job_storage() as storage:
        shares = joined(deduplicate_stage.shares(campaign, storage))
        if len(shares) < 2:
            systems = systems_of(campaign, campaign.rungs[0], storage)
            return deduplicate_stage.run(campaign, systems, storage)
    jobs = [deduplicate_share(campaign, None, share) for share in shares]
    between = (deduplicate_stage.STAGE_BEFORE, "deduplicate")
    return _shared_out(jobs, shares, between, "deduplicate")


@plain_job
def deduplicate_share(
    campaign: Campaign,
    references: Any,  # noqa: ARG001
    share: Share,
) -> int:
    """Judge a share of the screened crystals."""
    with job_storage() as storage:
        systems = systems_of(campaign, campaign.rungs[0], storage)
        return deduplicate_stage.run(campaign, systems, storage, share)


@plain_job
def hull(
    campaign: Campaign,
    rung: Rung,
    references: Any,  # noqa: ARG001
    after: Any = None,  # noqa: ARG001
) -> Response[int] | int:
    """Place relaxed crystals on the hull of their chemical system; keep those near it.

    Many crystals are shared out among jobs.
    """
    with job_storage() as storage:
        hull_stage.refuse(campaign, rung, storage)
        shares = joined(hull_stage.shares(campaign, rung, storage))
        if len(shares) < 2:
            return hull_stage.run(campaign, rung, systems_of(campaign, rung, storage), storage)
    jobs = [hull_share(campaign, rung, None, share) for share in shares]
    between = (f"relax:{rung.level}", f"hull:{rung.level}")
    return _shared_out(jobs, shares, between, f"hull {rung.level}")


@plain_job
def hull_share(
    campaign: Campaign,
    rung: Rung,
    references: Any,  # noqa: ARG001
    share: Share,
) -> int:
    """Judge a share of the relaxed crystals."""
    with job_storage() as storage:
        systems = systems_of(campaign, rung, storage)
        return hull_stage.run(campaign, rung, systems, storage, share)


def _shared_out(
    jobs: Sequence[Job], shares: Sequence[Share], between: tuple[str, str], name: str
) -> Response[int]:
    """Return the jobs of shares in place of the one that starts them.

    between: the stage whose crystals are shared out, and the one that the jobs are.
    """
    before, after = between
    for number, (job, share) in enumerate(zip(jobs, shares, strict=True), start=1):
        named(taking(job, before, share, after), f"{name} {number}/{len(jobs)}")
    return gathered(jobs, f"{name} done")


@plain_job
def run_stage(campaign: Campaign, name: str, after: Any = None) -> None:  # noqa: ARG001
    """Run a stage that has no jobs of its own for every candidate that reached it."""
    stage = stage_of(name)
    if stage.run is None:
        raise TypeError(f"Stage {name} has jobs of its own.")
    with job_storage() as storage:
        stage.run(campaign, name.partition(":")[2], storage)
