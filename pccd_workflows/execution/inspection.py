"""Is the database fit and its content consistent? What `pccd db check` asks."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pymongo.database import Database

from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.execution import launchpad
from pccd_workflows.execution.mongo import INDEXED, database, explained
from pccd_workflows.settings import Settings

Document = dict[str, Any]

OLDEST_VERSION = (5, 0)
"""MongoDB release with the snapshots that backups read."""
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """What one check found: `problem` is None if all is well."""

    check: str
    found: str
    problem: str | None = None

    def as_dict(self) -> Document:
        """Return it as plain JSON values."""
        return asdict(self) | {"ok": self.problem is None}


def inspect_database(settings: Settings) -> list[Finding]:
    """Return what every check found.

    Raises
    ------
    DatabaseError
        The server cannot be used at all.
    """
    db = database(settings)
    checks: list[Callable[[Database[Document], Settings], Finding]] = [
        *(check_version, check_writing, check_indexes, check_schema_versions),
        *(check_workflows, check_outputs, check_dead_runs),
    ]
    with explained(settings):
        return [check(db, settings) for check in checks]


def check_version(db: Database[Document], settings: Settings) -> Finding:  # noqa: ARG001
    """Tell the server's version."""
    version = db.command("buildInfo")["version"]
    numbers = tuple(int(part) for part in version.split(".")[:2])
    oldest = ".".join(map(str, OLDEST_VERSION))
    problem = None if numbers >= OLDEST_VERSION else f"MongoDB {oldest} or newer is needed"
    return Finding("server", f"MongoDB {version}, database {db.name!r}", problem)


def check_writing(db: Database[Document], settings: Settings) -> Finding:
    """Write in a transaction and undo it."""
    opened = launchpad.launchpad(settings)

    def write() -> None:
        opened.offline_runs.insert_one({"_id": "pccd-db-check"})
        opened.offline_runs.delete_one({"_id": "pccd-db-check"})

    opened.atomically(write)
    free = db.command("dbStats")
    gigabytes = (free.get("fsTotalSize", 0) - free.get("fsUsedSize", 0)) / 1e9
    return Finding("writing", f"transactions work; {gigabytes:.1f} GB free on the server's disk")


def check_indexes(db: Database[Document], settings: Settings) -> Finding:  # noqa: ARG001
    """Find indexes that are missing."""
    missing = [
        f"{collection}.{'+'.join(fields)}"
        for collection, indexes in INDEXED.items()
        for fields in indexes
        if fields not in _indexed_fields(db, collection)
    ]
    problem = f"missing: {_some(missing)}; `pccd db init` creates them" if missing else None
    return Finding("indexes", f"{len(INDEXED)} collections", problem)


def _indexed_fields(db: Database[Document], collection: str) -> list[tuple[str, ...]]:
    indexes = db[collection].index_information().values()
    return [tuple(field for field, _ in index["key"]) for index in indexes]


def check_schema_versions(db: Database[Document], settings: Settings) -> Finding:  # noqa: ARG001
    """Find documents that a newer version of this package wrote."""
    newer = {
        name: db[name].count_documents({"schema_version": {"$gt": SCHEMA_VERSION}})
        for name in ("campaigns", "candidates", "results", "references", "samples")
    }
    found = ", ".join(f"{number} {name}" for name, number in newer.items() if number)
    problem = f"written by a newer version: {found}; update pccd-workflows" if found else None
    return Finding("schema versions", f"up to {SCHEMA_VERSION}", problem)


def check_workflows(db: Database[Document], settings: Settings) -> Finding:  # noqa: ARG001
    """Find what a kill in the middle of FireWorks' own (not our) steps leaves behind."""
    nodes = {node for row in db.workflows.find({}, {"nodes": 1}) for node in row["nodes"]}
    ids = {row["fw_id"] for row in db.fireworks.find({}, {"fw_id": 1})}
    locked = db.workflows.count_documents({"locked": True})
    wrong = []
    if ids - nodes:
        wrong.append(f"jobs without workflow: {_some(ids - nodes)}")
    if nodes - ids:
        wrong.append(f"workflows name jobs that are gone: {_some(nodes - ids)}")
    if locked:
        wrong.append(f"{locked} locked (passing, unless nothing runs)")
    number = db.workflows.count_documents({})
    return Finding("workflows", f"{number} with {len(ids)} jobs", "; ".join(wrong) or None)


def check_outputs(db: Database[Document], settings: Settings) -> Finding:  # noqa: ARG001
    """Find finished jobs whose output, or outputs whose large objects, are gone."""
    pairs = {
        (row["uuid"], row["index"]) for row in db.job_outputs.find({}, {"uuid": 1, "index": 1})
    }
    lost = [
        row["fw_id"]
        for row in db.fireworks.find(
            {"state": "COMPLETED"},
            {"fw_id": 1, "spec._tasks.job.uuid": 1, "spec._tasks.job.index": 1},
        )
        if (job := row["spec"]["_tasks"][0].get("job")) and (job["uuid"], job["index"]) not in pairs
    ]
    files = {row["_id"] for row in db["job_data.files"].find({}, {"_id": 1})}
    chunked = set(db["job_data.chunks"].distinct("files_id"))
    wrong = []
    if lost:
        wrong.append(f"finished jobs without output: {_some(lost)}")
    if files - chunked:
        wrong.append(f"{len(files - chunked)} large objects without content")
    found = f"{len(pairs)} outputs, {len(files)} large objects"
    return Finding("job outputs", found, "; ".join(wrong) or None)


def check_dead_runs(db: Database[Document], settings: Settings) -> Finding:
    """Find jobs that are said to run but whose worker is gone."""
    dead = launchpad.find_dead(launchpad.launchpad(settings), None)
    problem = (
        f"workers of {len(dead)} jobs died; `pccd campaign resume` goes on with them"
        if dead
        else None
    )
    running = db.fireworks.count_documents({"state": "RUNNING"})
    return Finding("running jobs", str(running), problem)


def _some(ids: Any) -> str:
    ordered = sorted(ids)
    rest = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(map(str, ordered[:SHOWN])) + rest
