"""One job as FireWorks' collections hold it, with its attempts; reads and nothing more.

Unlike a LaunchPad it creates no index and no counter: the explorer only reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pccd_workflows.core.failures import BY_NAME, MAX_ATTEMPTS, Diagnosis, ErrorClass, diagnose
from pccd_workflows.core.storage import Document

if TYPE_CHECKING:
    from pymongo.database import Database

LONGEST_TRACE = 20_000
"""Characters of a traceback that are kept, the last ones."""
NEIGHBOURS = 12
"""Jobs before and after it that are named, at most."""


@dataclass(frozen=True)
class Attempt:
    """One start of a job.

    state: FireWorks', ARCHIVED for one that was put back. released: why it was put back, if so.
    worker, host, folder: empty where no worker took it. seconds: None if it has not ended.
    failure: what ended it; None if nothing failed.
    """

    state: str
    worker: str
    host: str
    folder: str
    began: str
    ended: str
    seconds: float | None
    released: str
    failure: Diagnosis | None
    traceback: str


@dataclass(frozen=True)
class Neighbour:
    """A job before or after another."""

    fw_id: int
    name: str
    state: str


@dataclass(frozen=True)
class Job:
    """One job.

    attempts: first to last. before, after: some of the jobs that it waits for, that wait for it;
    n_before, n_after: how many there are.
    """

    fw_id: int
    name: str
    state: str
    campaign_id: str
    candidates: list[str]
    updated: str
    attempts: list[Attempt]
    before: list[Neighbour]
    after: list[Neighbour]
    n_before: int
    n_after: int

    @property
    def failure(self) -> Diagnosis | None:
        """What its last attempt failed of, as long as it is failed."""
        last = self.attempts[-1].failure if self.attempts else None
        return (last or diagnose("")) if self.state == "FIZZLED" else None

    @property
    def error_class(self) -> ErrorClass | None:
        """The class of its failure."""
        return BY_NAME[self.failure.error_class] if self.failure else None

    @property
    def command(self) -> str:
        """What runs a failed job again; empty for others."""
        if self.error_class is None:
            return ""
        failed = sum(attempt.failure is not None for attempt in self.attempts)
        more = f" --max-attempts {failed + 1}" if failed >= MAX_ATTEMPTS else ""
        return f"pccd job rerun --job {self.fw_id}{self.error_class.options}{more}"


def read_job(database: "Database[Document]", fw_id: int) -> Job | None:
    """Return a job; None if there is none of this number."""
    fields = ["name", "state", "updated_on", "launches", "archived_launches"]
    fields += ["spec.campaign_id", "spec.candidates"]
    row = database["fireworks"].find_one({"fw_id": fw_id}, fields)
    if row is None:
        return None
    before, after = _links(database, fw_id)
    spec = row.get("spec", {})
    return Job(
        fw_id,
        row["name"],
        row["state"],
        spec.get("campaign_id") or "",
        list(spec.get("candidates") or []),
        _time(row.get("updated_on")),
        _attempts(database, row),
        _neighbours(database, before),
        _neighbours(database, after),
        len(before),
        len(after),
    )


def _links(database: "Database[Document]", fw_id: int) -> tuple[list[int], list[int]]:
    """Return the jobs that a job waits for, and those that wait for it."""
    fields = [f"links.{fw_id}", f"parent_links.{fw_id}"]
    row = database["workflows"].find_one({"nodes": fw_id}, fields) or {}
    before, after = (row.get(name, {}).get(str(fw_id), []) for name in ("parent_links", "links"))
    return sorted(before), sorted(after)


def _neighbours(database: "Database[Document]", fw_ids: list[int]) -> list[Neighbour]:
    query = {"fw_id": {"$in": fw_ids[:NEIGHBOURS]}}
    fields = {"_id": 0, "fw_id": 1, "name": 1, "state": 1}
    rows = database["fireworks"].find(query, fields).sort("fw_id", 1)
    return [Neighbour(row["fw_id"], row["name"], row["state"]) for row in rows]


def _attempts(database: "Database[Document]", row: Mapping[str, Any]) -> list[Attempt]:
    # FireWorks keeps those that were put back in no order; their numbers rise
    ids = [*sorted(row.get("archived_launches") or []), *(row.get("launches") or [])]
    query = {"launch_id": {"$in": ids}}
    found = {launch["launch_id"]: launch for launch in database["launches"].find(query)}
    return [_attempt(found[number]) for number in ids if number in found]


def launch_failure(launch: Mapping[str, Any]) -> Diagnosis | None:
    """Return what a launch failed of: as noted with it, else by its traceback; None if nothing."""
    known = launch.get("failure")
    if known is not None:
        cure = BY_NAME[known["error_class"]].cure
        return Diagnosis(known["error_class"], known["evidence"], cure)
    trace = _trace(launch)
    return diagnose(trace) if trace else None


def _trace(launch: Mapping[str, Any]) -> str:
    stored = (launch.get("action") or {}).get("stored_data") or {}
    exception = stored.get("_exception") or {}
    return str(exception.get("_stacktrace") or stored.get("_message") or "")


def _attempt(launch: Mapping[str, Any]) -> Attempt:
    began, ended = _moment(launch, "RUNNING"), _moment(launch, "COMPLETED", "FIZZLED", "ARCHIVED")
    return Attempt(
        launch.get("state", ""),
        (launch.get("fworker") or {}).get("name") or "",
        launch.get("host") or "",
        launch.get("launch_dir") or "",
        _time(began),
        _time(ended),
        (ended - began).total_seconds() if began and ended else None,
        launch.get("released", ""),
        launch_failure(launch),
        _trace(launch)[-LONGEST_TRACE:],
    )


def _moment(launch: Mapping[str, Any], *states: str) -> datetime | None:
    """Return when a launch came into one of some states; None if it never did."""
    for step in launch.get("state_history") or []:
        if step.get("state") in states:
            told = step.get("created_on")
            return datetime.fromisoformat(told) if isinstance(told, str) else told
    return None


def _time(moment: datetime | str | None) -> str:
    """Return a stored time (UTC) to the second; empty if there is none."""
    return str(moment or "").partition(".")[0].replace("T", " ")
