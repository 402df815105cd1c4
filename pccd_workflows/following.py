"""What those who follow a campaign are told besides its funnel: long jobs, and what hulls lack."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pccd_workflows.core.reference_set import MissingPhase
from pccd_workflows.execution import mongo
from pccd_workflows.settings import Settings

SILENT_SECONDS = 120
"""A job that has told nothing for so long is dead, or busy with one large crystal."""


@dataclass(frozen=True)
class LongJob:
    """How far a piece of work is.

    seconds_left: s; None while it cannot be said.
    """

    what: str
    done: int
    total: int
    seconds_left: float | None


def long_jobs(campaign_id: str, settings: Settings) -> list[LongJob]:
    """Return what jobs of a campaign said last of how far they are."""
    now = datetime.now(UTC)
    query = {"campaign_id": campaign_id, "at": {"$gt": now - timedelta(seconds=SILENT_SECONDS)}}
    found = []
    for row in mongo.database(settings)["progress"].find(query).sort("began", 1):
        spent = (row["at"] - row["began"]).total_seconds()
        left = spent / (row["done"] - 1) * (row["total"] - row["done"]) if row["done"] > 1 else None
        found.append(LongJob(row["what"], row["done"], row["total"], left))
    return found


def missing_phases(campaign_id: str, settings: Settings) -> dict[str, list[MissingPhase]]:
    """Return the known phases that a campaign's hulls lack, by chemical system."""
    database, which = mongo.database(settings), {"campaign_id": campaign_id}
    ids = database["candidates"].distinct("stabilities.references", which)
    headers = database["references"].find({"_id": {"$in": ids}}, ["chemsys", "missing"])
    return {
        row["chemsys"]: [MissingPhase.model_validate(phase) for phase in row.get("missing") or ()]
        for row in headers
    }
