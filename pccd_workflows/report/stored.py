"""The report of a stored campaign: what it counts is streamed, what it shows is read whole."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pccd_workflows import stages
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import FIELDS, CandidateDoc
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.query import to_candidate
from pccd_workflows.report.render import write_summary
from pccd_workflows.report.statistics import Summary, summarize
from pccd_workflows.rescore import find_rescores

Document = dict[str, Any]


def write_stored_report(path: Path, campaign: Document, database: Any) -> Path:
    """Write the report of a stored campaign and return its path.

    Parameters
    ----------
    campaign
        Its document in the campaigns collection.
    database
        The campaign database (of pymongo).
    """
    summary, sets = read_stored(campaign, database)
    rescores = find_rescores(database, campaign_id=campaign["_id"])
    return write_summary(path, campaign, summary, sets, rescores)


def read_stored(campaign: Document, database: Any) -> tuple[Summary, list[ReferenceSet]]:
    """Return what a campaign found, its best crystals whole, and the competing phases it used."""
    from pccd_workflows.execution.mongo import get_reference_set

    which = {"campaign_id": campaign["_id"]}
    candidates = database["candidates"]
    summary = summarize(
        light_candidates(candidates, which), Campaign.model_validate(campaign["campaign"])
    )
    summary.best = whole_candidates(candidates, [doc.candidate_id for doc in summary.best])
    used = candidates.distinct("stabilities.references", which)
    sets = (get_reference_set(database, name) for name in sorted(filter(None, used)))
    return summary, [found for found in sets if isinstance(found, ReferenceSet)]


def light_candidates(collection: Any, which: Document) -> Iterator[CandidateDoc]:
    """Yield candidates by index, without what makes their documents large: crystals, spectra.

    collection: a pymongo collection of candidates.
    """
    for row in collection.find(which, heavy_fields()).sort("index", 1):
        # documents of version 1 do not say what they reached; their records do, if they are whole
        yield to_candidate(row if row.get("reached") else collection.find_one({"_id": row["_id"]}))


def heavy_fields() -> dict[str, int]:
    """Return a projection that leaves out structures and what stages call heavy.

    The values that lists sort by are left out, too: they are those of the records.
    """
    heavy = [
        f"{FIELDS[stage.kind]}.{name}"
        for stage in stages.all_stages()
        if stage.kind in FIELDS
        for name in {*stage.heavy, "structure"}
    ]
    return dict.fromkeys(["structure", "values", *heavy], 0)


def whole_candidates(collection: Any, ids: Sequence[str]) -> list[CandidateDoc]:
    """Return candidates, in the order of their ids."""
    rows = {row["_id"]: row for row in collection.find({"_id": {"$in": list(ids)}})}
    return [to_candidate(rows[name]) for name in ids]
