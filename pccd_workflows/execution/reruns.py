"""Failed jobs as a table, put back with changes, and the way back: one atomic step each."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.failures import BY_NAME, MAX_ATTEMPTS, diagnose
from pccd_workflows.execution.atomic_launchpad import AtomicLaunchPad
from pccd_workflows.execution.launchpad import launchpad, of_campaign
from pccd_workflows.execution.mongo import explained
from pccd_workflows.settings import Settings

Document = dict[str, Any]

CANDIDATES = "spec.candidates"
JOB = "spec._tasks.0.job"
RESTART = f"{JOB}.function_kwargs.restart"
"""Argument of a job that says how its next run differs from a plain one."""
RESTARTABLE = "spec.restartable"
"""True of the jobs that take it (see jobs.compute)."""
NOT_STARTED = ("READY", "WAITING")
NOT_FAILED = "it is not failed any more"


@dataclass(frozen=True)
class Failure:
    """One failed job.

    attempts: how often it failed (not: how often it was put back because a worker ended).
    folder: its last run folder.
    """

    fw_id: int
    name: str
    campaign_id: str | None
    candidates: list[str]
    error_class: str
    evidence: str
    cure: str
    attempts: int
    folder: str | None
    worker: str | None

    def as_dict(self) -> Document:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What `rerun` did: `rerun` jobs are ready again; `refused` says why others are not."""

    rerun: list[int]
    refused: dict[int, str]


def ensure_indexes(opened: AtomicLaunchPad) -> None:
    """Create the indexes that the tables of jobs rest on."""
    opened.fireworks.create_index([("state", 1), ("spec.campaign_id", 1)])
    opened.fireworks.create_index([("spec.candidates", 1)], sparse=True)
    opened.db["reruns"].create_index([("fw_id", 1), ("at", -1)])


def query_of(campaign_id: str | None, candidate: str | None, state: str | None = None) -> Document:
    """Return the query for jobs of a campaign, of a candidate and in a state (None: any)."""
    query = of_campaign(campaign_id)
    if candidate is not None:
        query |= {CANDIDATES: candidate}
    return query | ({"state": state} if state else {})


def job_failures(
    settings: Settings,
    *,
    campaign_id: str | None = None,
    candidate: str | None = None,
    error_class: str | None = None,
) -> list[Failure]:
    """Return the failed jobs, by fw_id; what is new among them is diagnosed once and kept."""
    opened = launchpad(settings)
    with explained(settings):
        fields = {
            **dict.fromkeys(("fw_id", "name", "launches", "archived_launches"), 1),
            **dict.fromkeys(("spec.campaign_id", CANDIDATES), 1),
            "_id": 0,
        }
        query = query_of(campaign_id, candidate, "FIZZLED")
        rows = list(opened.fireworks.find(query, fields))
        last = [row["launches"][-1] for row in rows if row["launches"]]
        launches = _launches(opened, last)
        earlier = _failed_before(opened, rows)
    found = [_failure(row, launches, earlier) for row in sorted(rows, key=lambda r: r["fw_id"])]
    return [f for f in found if error_class in (None, f.error_class)]


def _launches(opened: AtomicLaunchPad, launch_ids: list[int]) -> dict[int, Document]:
    fields = {"launch_id": 1, "failure": 1, "launch_dir": 1, "fworker.name": 1, "_id": 0}
    query = {"launch_id": {"$in": launch_ids}}
    found = {row["launch_id"]: row for row in opened.launches.find(query, fields)}
    new = [launch_id for launch_id, row in found.items() if "failure" not in row]
    for launch_id in new:
        found[launch_id]["failure"] = note_failure(opened, launch_id)
    return found


def _failed_before(opened: AtomicLaunchPad, rows: Iterable[Document]) -> set[int]:
    """Return which of the earlier launches of jobs failed."""
    earlier = [i for row in rows for i in row.get("archived_launches", [])]
    query = {"launch_id": {"$in": earlier}, "failure": {"$exists": True}}
    fields = {"launch_id": 1, "_id": 0}
    return {row["launch_id"] for row in opened.launches.find(query, fields)} if earlier else set()


def note_failure(opened: AtomicLaunchPad, launch_id: int) -> Document:
    """Diagnose a failed launch, keep the diagnosis with it and return it."""
    launch = opened.get_launch_by_id(launch_id)
    stored = launch.action.stored_data if launch.action else {}
    exception = stored.get("_exception") or {}
    found = diagnose(str(exception.get("_stacktrace") or stored.get("_message") or ""))
    failure = {"error_class": found.error_class, "evidence": found.evidence}
    opened.launches.update_one({"launch_id": launch_id}, {"$set": {"failure": failure}})
    return failure


def _failure(row: Document, launches: Mapping[int, Document], earlier: set[int]) -> Failure:
    launch = launches.get(row["launches"][-1], {}) if row["launches"] else {}
    known = launch.get("failure", {"error_class": "python", "evidence": "no message"})
    return Failure(
        fw_id=row["fw_id"],
        name=row["name"],
        campaign_id=row["spec"].get("campaign_id"),
        candidates=row["spec"].get("candidates", []),
        error_class=known["error_class"],
        evidence=known["evidence"],
        cure=BY_NAME[known["error_class"]].cure,
        attempts=1 + len(earlier & {*row.get("archived_launches", [])}),
        folder=launch.get("launch_dir"),
        worker=launch.get("fworker", {}).get("name"),
    )


def job_list(
    settings: Settings,
    *,
    campaign_id: str | None = None,
    candidate: str | None = None,
    state: str | None = None,
    limit: int = 100,
) -> list[Document]:
    """Return fw_id, name, state, campaign_id, candidates and updated_on of jobs, latest first."""
    opened = launchpad(settings)
    fields = dict.fromkeys(
        ("fw_id", "name", "state", "updated_on", "spec.campaign_id", CANDIDATES), 1
    )
    with explained(settings):
        rows = opened.fireworks.find(query_of(campaign_id, candidate, state), fields)
        return [
            {
                "fw_id": row["fw_id"],
                "name": row["name"],
                "state": row["state"],
                "updated_on": str(row.get("updated_on", "")),
                "campaign_id": row["spec"].get("campaign_id"),
                "candidates": row["spec"].get("candidates", []),
            }
            for row in rows.sort("fw_id", -1).limit(limit)
        ]


def rerun(
    settings: Settings,
    failures: Iterable[Failure],
    *,
    from_contcar: bool = False,
    incar: Mapping[str, Any] | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    dry_run: bool = False,
) -> Outcome:
    """Make failed jobs, and what ran after them, ready again, each at most once.

    Parameters
    ----------
    from_contcar
        VASP runs start from the geometry that the failed attempt left, if it is sane.
    incar
        INCAR tags for the next attempt (VASP runs only).
    max_attempts
        Jobs that failed so often are refused.
    dry_run
        Change nothing; only say what would be.
    """
    opened = launchpad(settings)
    restart = {"from_contcar": from_contcar, "incar": dict(incar or {})}
    changed = from_contcar or bool(incar)
    done: list[int] = []
    refused: dict[int, str] = {}
    with explained(settings):
        if not dry_run:
            ensure_indexes(opened)
        for failure in failures:
            if failure.attempts >= max_attempts:
                refused[failure.fw_id] = f"it failed {failure.attempts} times already"
                continue
            reason = _rerun(opened, failure, restart if changed else None, dry_run=dry_run)
            if reason is None or (reason == NOT_FAILED and done):  # it went with one before it
                done.append(failure.fw_id)
            else:
                refused[failure.fw_id] = reason
    return Outcome(done, refused)


def _rerun(
    opened: AtomicLaunchPad, failure: Failure, restart: Document | None, *, dry_run: bool
) -> str | None:
    """Put one job back; return why not."""

    def put_back() -> str | None:
        query = {"fw_id": failure.fw_id, "state": "FIZZLED"}
        fields = {RESTART.replace(".0", ""): 1, RESTARTABLE: 1}
        firework = opened.fireworks.find_one(query, fields)
        if firework is None:
            return NOT_FAILED
        spec = firework["spec"]
        if restart is not None and not spec.get("restartable"):
            return "it is no VASP run: rerun it without --set and --from-contcar"
        if dry_run:
            return None
        before = _state(opened, failure.fw_id)
        kept = spec["_tasks"][0]["job"].get("function_kwargs", {}).get("restart")
        if restart is not None:
            opened.fireworks.update_one({"fw_id": failure.fw_id}, {"$set": {RESTART: restart}})
        opened.rerun_fw(failure.fw_id)
        after = _state(opened, failure.fw_id)
        opened.db["reruns"].insert_one(
            {
                "fw_id": failure.fw_id,
                "campaign_id": failure.campaign_id,
                "candidates": failure.candidates,
                "error_class": failure.error_class,
                "attempt": failure.attempts,
                "restart": restart,
                "restart_before": kept,
                "at": datetime.now(UTC),
                "before": [row for row in before["fireworks"] if row not in after["fireworks"]],
                "workflow_state": before["workflow_state"],
                "undone": False,
            },
            session=opened.session,
        )
        return None

    reason: str | None = opened.atomically(put_back)
    return reason


def _state(opened: AtomicLaunchPad, fw_id: int) -> Document:
    """Return the state and launches of a job and of all that depends on it."""
    workflow = opened.workflows.find_one({"nodes": fw_id}, {"links": 1, "state": 1})
    found, todo = set(), [fw_id]
    while todo:
        if (current := todo.pop()) not in found:
            found.add(current)
            todo += workflow["links"].get(str(current), [])
    fields = {"_id": 0, "fw_id": 1, "state": 1, "launches": 1, "archived_launches": 1}
    rows = list(opened.fireworks.find({"fw_id": {"$in": sorted(found)}}, fields))
    return {"fireworks": rows, "workflow_state": workflow["state"]}


def undo(settings: Settings, fw_id: int) -> list[int]:
    """Take back the last rerun of a job, as long as nothing of it has started.

    Returns the ids of the jobs that are again as they were.

    Raises
    ------
    InputError
        There is nothing to take back, or it runs already.
    """
    opened = launchpad(settings)
    with explained(settings):
        found: list[int] = opened.atomically(lambda: _undo(opened, fw_id))
    return found


def _undo(opened: AtomicLaunchPad, fw_id: int) -> list[int]:
    reruns = opened.db["reruns"]
    last = reruns.find_one({"fw_id": fw_id, "undone": False}, sort=[("at", -1)])
    if last is None:
        raise InputError(f"Job {fw_id} was not rerun, so there is nothing to undo.")
    ids = [row["fw_id"] for row in last["before"]]
    started = [
        row["fw_id"]
        for row in opened.fireworks.find({"fw_id": {"$in": ids}}, {"fw_id": 1, "state": 1})
        if row["state"] not in NOT_STARTED
    ]
    if started:
        raise InputError(f"The rerun of job {fw_id} has started already (job {started[0]}).")
    for row in last["before"]:
        restored = {name: row[name] for name in ("state", "launches", "archived_launches")}
        opened.fireworks.update_one({"fw_id": row["fw_id"]}, {"$set": restored})
    if last["restart"] is not None:
        kept = last["restart_before"]
        change = {"$unset": {RESTART: ""}} if kept is None else {"$set": {RESTART: kept}}
        opened.fireworks.update_one({"fw_id": fw_id}, change)
    states = {f"fw_states.{row['fw_id']}": row["state"] for row in last["before"]}
    opened.workflows.update_one(
        {"nodes": fw_id}, {"$set": states | {"state": last["workflow_state"]}}
    )
    reruns.update_one({"_id": last["_id"]}, {"$set": {"undone": True}}, session=opened.session)
    return ids
