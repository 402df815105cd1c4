"""Where a campaign's jobs stand, read from FireWorks' collections and nothing more.

Unlike a LaunchPad it creates no index and no counter: the explorer only reads.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pccd_workflows.core.failures import diagnose
from pccd_workflows.core.storage import Document
from pccd_workflows.execution.one_job import launch_failure

if TYPE_CHECKING:
    from pymongo.database import Database

WORD = re.compile(r"[a-z][a-z_-]*")
"""What names of one kind of job share; ids, numbers and chemical systems tell them apart."""
SHOWN_FAILURES = 50


@dataclass
class JobKind:
    """Jobs that do the same for different crystals.

    states: number of jobs by FireWorks state. first: fw_id of one of them. depth: how many kinds
    come before it at most.
    """

    name: str
    first: int = 0
    states: Counter[str] = field(default_factory=Counter)
    after: set[str] = field(default_factory=set)
    depth: int = 0


def _of(campaign_id: str) -> Document:
    return {"spec.campaign_id": campaign_id}


def job_states(database: "Database[Document]", campaign_id: str) -> dict[str, int]:
    """Return the number of a campaign's jobs in each FireWorks state."""
    steps = [
        {"$match": _of(campaign_id)},
        {"$group": {"_id": "$state", "number": {"$sum": 1}}},
    ]
    return {row["_id"]: row["number"] for row in database["fireworks"].aggregate(steps)}


def failed_jobs(database: "Database[Document]", campaign_id: str) -> list[Document]:
    """Return a campaign's failed jobs, the latest first: fw_id, name, error_class, evidence."""
    query = _of(campaign_id) | {"state": "FIZZLED"}
    fields = {"fw_id": 1, "name": 1, "launches": 1}
    rows = list(database["fireworks"].find(query, fields).sort("fw_id", -1).limit(SHOWN_FAILURES))
    last = [row["launches"][-1] for row in rows if row.get("launches")]
    told = [f"action.stored_data.{name}" for name in ("_exception", "_message")]
    launches = database["launches"].find(
        {"launch_id": {"$in": last}}, ["launch_id", "failure", *told]
    )
    failures = {launch["launch_id"]: launch_failure(launch) for launch in launches}
    return [
        {
            "fw_id": row["fw_id"],
            "name": row["name"],
            "error_class": found.error_class,
            "evidence": found.evidence,
        }
        for row in rows
        for found in [failures.get((row.get("launches") or [None])[-1]) or diagnose("")]
    ]


def jobs_of_kind(
    database: "Database[Document]",
    campaign_id: str,
    kind: str,
    state: str,
    levels: Collection[str] = (),
) -> list[Document]:
    """Return a campaign's jobs of one kind and state (empty: any), the first first.

    Each has fw_id, name and state. levels: of theory; their names are parts of kinds.
    """
    query = _of(campaign_id) | ({"state": state} if state else {})
    fields = {"_id": 0, "fw_id": 1, "name": 1, "state": 1}
    rows = database["fireworks"].find(query, fields).sort("fw_id", 1)
    return [row for row in rows if not kind or kind_of_job(row["name"], levels) == kind]


def kind_of_job(name: str, levels: Collection[str]) -> str:
    """Return what a job does, without for which crystals."""
    words = [word for word in name.split() if WORD.fullmatch(word) or word in levels]
    return " ".join(words).removesuffix(" and more") or name


def job_kinds(
    database: "Database[Document]", campaign_id: str, levels: Collection[str] = ()
) -> list[JobKind]:
    """Return the kinds of a campaign's jobs, each with those that it comes after.

    levels: of theory; their names are parts of kinds.
    """
    fields = {"_id": 0, "fw_id": 1, "name": 1, "state": 1}
    kinds: dict[str, JobKind] = {}
    kind_of: dict[int, str] = {}
    for row in database["fireworks"].find(_of(campaign_id), fields):
        name = kind_of_job(row["name"], levels)
        kinds.setdefault(name, JobKind(name, row["fw_id"])).states[row["state"]] += 1
        kind_of[row["fw_id"]] = name
    nodes = {"nodes": {"$in": list(kind_of)}}
    for workflow in database["workflows"].find(nodes, {"links": 1}):
        for parent, children in workflow["links"].items():
            before = kind_of.get(int(parent))
            for child in children:
                after = kind_of.get(child)
                if before and after and before != after:
                    kinds[after].after.add(before)
    _set_depths(kinds)
    return sorted(kinds.values(), key=lambda kind: (kind.depth, kind.name))


def _set_depths(kinds: Mapping[str, JobKind]) -> None:
    """Number the kinds by the longest way to them; a way back (a job that adds jobs) is none."""
    followers = defaultdict(list)
    for kind in kinds.values():
        for before in kind.after:
            followers[before].append(kind.name)

    def visit(name: str, depth: int, path: frozenset[str]) -> None:
        kinds[name].depth = max(kinds[name].depth, depth)
        for follower in followers[name]:
            if follower not in path and kinds[follower].depth <= depth:
                visit(follower, depth + 1, path | {follower})

    for name, kind in kinds.items():
        if not kind.after:
            visit(name, 0, frozenset({name}))
