"""What runs cost, by campaign and level, in MongoDB: what estimates and budgets rest on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pccd_workflows.execution.mongo import survive_outage

if TYPE_CHECKING:
    from pymongo.database import Database

    from pccd_workflows.settings import Settings

Document = dict[str, Any]


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
