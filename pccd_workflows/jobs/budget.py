"""What a job costs, and whether its rung may spend it."""

from typing import Any

from jobflow import CURRENT_JOB

from pccd_workflows.candidate import Bands, Relaxation
from pccd_workflows.jobs.common import stage_database


def note_cost(level: str, plan: str, *, seconds: float, **facts: Any) -> None:
    """Add a run of the present job to the ledger of costs.

    Parameters
    ----------
    plan
        See `dft_job`; ``relax`` and ``bands`` count against the rung's budget.
    seconds
        Wall time, s.
    facts
        ``run`` (its name), ``cores`` (those of the queue if left out), ``gpus``, ``outcome`` and
        what a model of the cost needs.
    """
    from pccd_workflows.external import costs

    cost = {"outcome": "done", **facts, "level": level, "plan": plan, "seconds": seconds}
    cost["cores"] = facts.get("cores") or costs.allocated_cores()
    costs.note_cost(stage_database(), _metadata(), cost)


def skipped(level: str, plan: str) -> Relaxation | Bands | None:
    """Return the verdict of a candidate for which the rung's budget is spent; None if it is not."""
    from pccd_workflows.external import costs

    if plan not in costs.BUDGETED:
        return None
    metadata, database = _metadata(), stage_database()
    reason = costs.overspent(database, metadata.get("campaign_id"), level)
    if reason is None:
        return None
    costs.note_skipped(database, metadata, CURRENT_JOB.job.uuid, level)
    if plan == "bands":
        return Bands(level=level, reason=reason)
    return Relaxation(level=level, key="", verdict="budget", reason=reason)


def _metadata() -> dict[str, Any]:
    job = CURRENT_JOB.job
    return {} if job is None else dict(job.metadata)
