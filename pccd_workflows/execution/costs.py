"""What runs cost, by campaign and level: the ledger that estimates and budgets rest on."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pccd_workflows.execution.mongo import survive_outage

if TYPE_CHECKING:
    from pymongo.database import Database

    from pccd_workflows.settings import Settings

Document = dict[str, Any]
BUDGETED = ("relax", "bands")
"""Plans (see jobs.dft.dft_job) that a spent budget stops: those of candidates.

Competing phases and phonons count, too, but go on: without them, verdicts would be wrong."""
CORES = (
    # what the queue gave: number of tasks, times cores of each
    (("SLURM_NTASKS",), ("SLURM_CPUS_PER_TASK",)),
    (("PBS_NP", "NCPUS"), ()),
    (("NSLOTS",), ()),
)


def allocated_cores() -> int:
    """Return how many cores the queue gave this job; 1 where there is no queue."""
    for tasks, each in CORES:
        number = _first(tasks)
        if number is not None:
            return number * (_first(each) or 1)
    return 1


def _first(names: tuple[str, ...]) -> int | None:
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit() and int(value) > 0), None)


def note_cost(db: "Database[Document]", job: Document, cost: Document) -> None:
    """Add one run to the ledger.

    Parameters
    ----------
    job
        Metadata of the job: ``campaign_id``.
    cost
        ``level``, ``run``, ``seconds``, ``cores``, ``gpus``, ``outcome``, and what a model of the
        cost needs (see pccd_workflows.cost).
    """
    row = {
        **cost,
        "campaign_id": job.get("campaign_id"),
        "core_hours": cost["seconds"] * cost["cores"] / 3600,
        "gpu_hours": cost["seconds"] * cost.get("gpus", 0) / 3600,
        "at": datetime.now(UTC),
    }
    survive_outage(lambda: db["costs"].insert_one(dict(row)))


def spent(db: "Database[Document]", campaign_id: str, level: str) -> float:
    """Return the core-hours a campaign has spent at a level, failed and killed runs included."""
    match = {"campaign_id": campaign_id, "level": level}
    group = {"_id": None, "core_hours": {"$sum": "$core_hours"}}
    rows = survive_outage(
        lambda: list(db["costs"].aggregate([{"$match": match}, {"$group": group}]))
    )
    return float(rows[0]["core_hours"]) if rows else 0.0


def finished_runs(db: "Database[Document]", level: str, limit: int = 1000) -> list[Document]:
    """Return the latest finished runs of a level, of all campaigns."""
    query = {"level": level, "outcome": "done"}
    return survive_outage(lambda: list(db["costs"].find(query).sort("at", -1).limit(limit)))


def budget(db: "Database[Document]", campaign_id: str, level: str) -> float | None:
    """Return the core-hours a campaign may spend on a rung; None: as many as it takes."""
    fields = {"campaign.rungs": 1, "budgets": 1}
    document = survive_outage(lambda: db["campaigns"].find_one({"_id": campaign_id}, fields)) or {}
    raised = {row["level"]: row["core_hours"] for row in document.get("budgets", [])}
    if level in raised:
        return float(raised[level])
    rungs = document.get("campaign", {}).get("rungs", [])
    limits = [rung["budget"]["core_hours"] for rung in rungs if rung["level"] == level]
    return limits[0] if limits else None


def overspent(db: "Database[Document]", campaign_id: str | None, level: str) -> str | None:
    """Say that a rung's budget is spent; None if it is not, or there is none."""
    limit = None if campaign_id is None else budget(db, campaign_id, level)
    if limit is None or campaign_id is None:
        return None
    used = spent(db, campaign_id, level)
    if used < limit:
        return None
    return f"The rung's budget of {limit:g} core-hours is spent ({used:.3g} were used)."


def note_skipped(db: "Database[Document]", job: Document, uuid: str, level: str) -> None:
    """Remember a job that did nothing for want of budget."""
    row = {"campaign_id": job.get("campaign_id"), "level": level, "at": datetime.now(UTC)}
    survive_outage(lambda: db["skipped"].replace_one({"_id": uuid}, row, upsert=True))


def raise_budget(settings: "Settings", campaign_id: str, level: str, core_hours: float) -> int:
    """Set a rung's budget and make the jobs ready again that lacked it; return their number."""
    from pccd_workflows.execution.launchpad import launchpad
    from pccd_workflows.execution.mongo import database

    db = database(settings)
    campaigns, query = db["campaigns"], {"_id": campaign_id}
    campaigns.update_one(query, {"$pull": {"budgets": {"level": level}}})
    campaigns.update_one(query, {"$push": {"budgets": {"level": level, "core_hours": core_hours}}})
    opened, count = launchpad(settings), 0
    for row in list(db["skipped"].find({"campaign_id": campaign_id, "level": level})):
        count += bool(opened.atomically(_run_again(opened, row["_id"])))
        db["skipped"].delete_one({"_id": row["_id"]})
    return count


def _run_again(opened: Any, uuid: str) -> Callable[[], bool]:
    """Return the step that reruns a completed job and all that depends on it."""

    def put_back() -> bool:
        query = {"spec._tasks.job.uuid": uuid, "state": "COMPLETED"}
        # a job that was replaced keeps its uuid: the latest of that name is the one that skipped
        firework = opened.fireworks.find_one(query, {"fw_id": 1}, sort=[("fw_id", -1)])
        if firework is None:
            return False
        opened.rerun_fw(firework["fw_id"])
        return True

    return put_back
