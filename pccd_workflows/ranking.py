"""Which crystals are best: one order for the terminal and the report."""

import heapq
import math
from collections.abc import Mapping
from typing import Any

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.columns import row_fields, row_records
from pccd_workflows.query import NOTHING, SUMMARY_FIELDS, without_nan
from pccd_workflows.stages import phonons
from pccd_workflows.stages.stage import Records

ORDER = {"stable": 0, "ambiguous": 1, None: 2, "error": 2, "unstable": 3}
"""Phonon verdicts, best first; None: not asked for."""

Rank = tuple[int, int, float]


def rank(novel: bool | None, phonon_verdict: str | None, energy_above_hull: float | None) -> Rank:
    """Return the sort key of "best": new, then phonon-stable, then lowest above the hull.

    energy_above_hull: eV/atom.
    """
    energy = math.inf if energy_above_hull is None else energy_above_hull
    return 0 if novel else 1, ORDER[phonon_verdict], energy


def rank_candidate(doc: CandidateDoc) -> Rank:
    """Return the sort key of a candidate."""
    return rank(doc.novel, phonons.verdict(doc.records), doc.energy_above_hull)


def best_rows(
    collection: Any, campaign_id: str, limit: int
) -> list[tuple[Mapping[str, Any], Records]]:
    """Return what a table needs of the crystals that passed a campaign, best first.

    collection: a pymongo collection of candidates.
    """
    query = {"campaign_id": campaign_id, "status": "passed", "energy_above_hull": {"$nin": NOTHING}}
    found = collection.find(query, [*SUMMARY_FIELDS, *row_fields()])
    rows = ((row, row_records(row)) for row in map(without_nan, found))
    return heapq.nsmallest(limit, rows, key=_rank_row)


def _rank_row(found: tuple[Mapping[str, Any], Records]) -> tuple[Rank, int]:
    row, records = found
    return rank(row["novel"], phonons.verdict(records), row["energy_above_hull"]), row["index"]
