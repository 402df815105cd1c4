"""What a job costs, and whether its rung may spend it."""

from datetime import UTC
from pathlib import Path
from typing import Any

from jobflow import CURRENT_JOB

from pccd_workflows.engines.records import Bands, Relaxation
from pccd_workflows.jobs.common import stage_database


def note_cost(level: str, plan: str, *, seconds: float, **facts: Any) -> None:
    """Add a run of the present job to the ledger of costs.

    Parameters
    ----------
    plan
        See `dft_job`.
    seconds
        Wall time, s.
    facts
        ``run`` (its name), ``cores`` (those of the queue if left out), ``gpus``, ``outcome`` and
        what a model of the cost needs.
    """
    from pccd_workflows.execution import costs

    cost = {"outcome": "done", **facts, "level": level, "plan": plan, "seconds": seconds}
    cost["cores"] = facts.get("cores") or costs.allocated_cores()
    costs.note_cost(stage_database(), _metadata(), cost)


def note_killed(level: str, plan: str, run: str, attempt: dict[str, Any]) -> None:
    """Add an attempt that was ended from outside: from its start to the last sign of its folder.

    attempt: its checkpoint. One whose folder cannot be seen from here counts as nothing.
    """
    folder = Path(attempt["folder"].rpartition(":")[2])
    began = attempt["started_at"].replace(tzinfo=UTC).timestamp()
    signs = [path.stat().st_mtime for path in folder.glob("*") if path.is_file()]
    seconds = max([began, *signs]) - began
    note_cost(level, plan, seconds=seconds, run=run, cores=attempt["cores"], outcome="killed")


def skipped(level: str, plan: str) -> Relaxation | Bands | None:
    """Return the verdict of a candidate for which the rung's budget is spent; None if it is not."""
    from pccd_workflows.execution import costs

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
