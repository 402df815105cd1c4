"""FireWorks, the only executor: submit flows, see where they stand, put lost jobs back."""

import hashlib
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pymongo.errors import DuplicateKeyError

from pccd_workflows.core.optional import optional_imports
from pccd_workflows.execution.atomic_launchpad import LEASE_SECONDS, AtomicLaunchPad
from pccd_workflows.execution.mongo import database, explained, mongodb_uri
from pccd_workflows.settings import Settings

with optional_imports("A campaign on MongoDB"):
    from fireworks.core.firework import FWAction
    from fireworks.fw_config import RUN_EXPIRATION_SECS

if TYPE_CHECKING:
    from jobflow import Flow
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    Claim = Callable[[Database[dict[str, Any]], ClientSession | None], bool]

Document = dict[str, Any]

MAX_DEATHS = 5
"""A job in which so many workers died is failed, not run again: it would kill the next one too."""
NEXT_FIRST = (("spec._priority", -1), ("fw_id", 1))
"""The order in which workers take ready jobs."""
ACTIVE = ("RESERVED", "RUNNING")
DIED = "died"
STOPPED = "stopped"
RETIRED = "retired"
"""Of a worker whose device broke in the job."""
DEATHS = (DIED, RETIRED)


def launchpad(settings: Settings) -> AtomicLaunchPad:
    """Return this process's LaunchPad, ready for use: ids and indexes exist.

    Raises
    ------
    DatabaseError
        See `mongo.database`.
    """
    database(settings)
    with explained(settings):
        return _launchpad(os.getpid(), mongodb_uri(settings), settings)


@lru_cache(maxsize=4)
def _launchpad(
    pid: int,  # noqa: ARG001
    uri: str,  # noqa: ARG001
    settings: Settings,
) -> AtomicLaunchPad:
    opened = AtomicLaunchPad(settings)
    prepare(opened)
    return opened


def prepare(opened: AtomicLaunchPad) -> None:
    """Create the counters and indexes that a new database lacks (FireWorks' reset, minus reset)."""
    with suppress(DuplicateKeyError):  # another process does the same at the same time
        opened.db.fw_id_assigner.update_one(
            {}, {"$setOnInsert": {"_id": -1, "next_fw_id": 1, "next_launch_id": 1}}, upsert=True
        )
    opened.tuneup()
    opened.fireworks.create_index([("spec.campaign_id", 1), ("state", 1)])
    # without it every look for a job would sort all that are ready: 50 ms where 10,000 are
    opened.fireworks.create_index([("state", 1), *NEXT_FIRST])


def submit(
    flow: "Flow",
    settings: Settings,
    *,
    claim: Callable[["Database[Document]", "ClientSession | None"], bool] | None = None,
) -> list[int]:
    """Add a flow to the LaunchPad; return the ids of its fireworks.

    The flow's jobs carry ``campaign_id`` in their metadata (``flow.update_metadata``), which
    jobflow hands on to jobs that come into being later.

    claim: asked in the same transaction whether the flow is still wanted; if it is not, nothing is
    added. Of several processes that submit the same flow, one gets a yes.
    """
    from jobflow.managers.fireworks import flow_to_workflow

    workflow = flow_to_workflow(flow)
    for firework in workflow.fws:
        if "campaign_id" in firework.spec:
            workflow.metadata["campaign_id"] = firework.spec["campaign_id"]
    opened = launchpad(settings)

    def add() -> list[int]:
        if claim is not None and not claim(opened.db, opened.session):
            return []
        return sorted(opened.add_wf(workflow).values())

    with explained(settings):
        return opened.atomically(add)


def of_campaign(campaign_id: str | None) -> Document:
    """Return the query for a campaign's fireworks; all fireworks for None."""
    return {} if campaign_id is None else {"spec.campaign_id": campaign_id}


def campaign_states(settings: Settings, campaign_id: str | None) -> dict[str, int]:
    """Return the number of a campaign's fireworks in each FireWorks state."""
    return count_states(launchpad(settings), campaign_id)


def count_states(opened: AtomicLaunchPad, campaign_id: str | None) -> dict[str, int]:
    """Return the number of fireworks in each state."""
    steps = [
        {"$match": of_campaign(campaign_id)},
        {"$group": {"_id": "$state", "number": {"$sum": 1}}},
    ]
    return {row["_id"]: row["number"] for row in opened.fireworks.aggregate(steps)}


def failures(settings: Settings, campaign_id: str) -> list[Document]:
    """Return a campaign's failed jobs: fw_id, name, uuid, index, metadata, error, traceback, ..."""
    opened = launchpad(settings)
    query = of_campaign(campaign_id) | {"state": "FIZZLED"}
    fields = {
        "fw_id": 1,
        "name": 1,
        "launches": 1,
        "updated_on": 1,
        "spec._exception_details": 1,
    } | {f"spec._tasks.job.{name}": 1 for name in ("uuid", "index", "metadata")}
    rows = list(opened.fireworks.find(query, fields).sort("fw_id", 1))
    last = [row["launches"][-1] for row in rows if row["launches"]]
    fields = {"launch_id": 1, "launch_dir": 1, "fworker.name": 1, "action": 1}
    launches = {
        launch["launch_id"]: launch
        for launch in opened.launches.find({"launch_id": {"$in": last}}, fields)
    }
    return [_failure(opened, row, launches.get((row["launches"] or [None])[-1])) for row in rows]


def _failure(opened: AtomicLaunchPad, firework: Document, launch: Document | None) -> Document:
    job = (firework["spec"].get("_tasks") or [{}])[0].get("job", {})
    traceback = _traceback(opened, launch, firework)
    lines = [line for line in traceback.splitlines() if line.strip()]
    return {
        "fw_id": firework["fw_id"],
        "name": firework["name"],
        "uuid": job.get("uuid"),
        "index": job.get("index"),
        "metadata": job.get("metadata", {}),
        "error": lines[-1].strip() if lines else "no message",
        "traceback": traceback,
        "launch_dir": launch["launch_dir"] if launch else None,
        "worker": launch["fworker"]["name"] if launch else None,
    }


def _traceback(opened: AtomicLaunchPad, launch: Document | None, firework: Document) -> str:
    action = (launch or {}).get("action") or {}
    stored = action.get("stored_data") or {}
    if launch and "gridfs_id" in action:  # FireWorks' place for what exceeds 16 MB
        stored = opened.get_launch_by_id(launch["launch_id"]).action.stored_data
    details = stored.get("_exception") or firework["spec"].get("_exception_details") or {}
    return str(details.get("_stacktrace") or stored.get("_message") or "")


# --- workers, dead and alive -----------------------------------------------------------------


def worker_name() -> str:
    """Return this process's name as a worker: ``<host>:<process id>:<machine>-<start>``."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_machine()}-{_start(pid)}"


def is_dead(worker: str, *, expired: bool, local: bool = False) -> bool:
    """Return whether a worker is gone: a process of this machine is looked up, no clock asked.

    Parameters
    ----------
    worker
        Its name, see `worker_name`.
    expired
        Whether its lease has run out: what counts for workers of other machines.
    local
        Whether all workers are of this machine, so that one from before a reboot is gone.
    """
    host, _, rest = worker.partition(":")
    pid, _, identity = rest.partition(":")
    machine, dash, start = identity.partition("-")
    if host != socket.gethostname() or not dash or not pid.isdigit():
        return expired
    if machine != _machine():  # rebooted since, or another machine (a container) of this name
        return local or expired
    return _start(int(pid)) != start


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return what tells this machine, since it was booted, from others with its name."""
    told = [str(psutil.LINUX)]
    with suppress(OSError):  # only Linux has these
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("".join(told).encode()).hexdigest()[:8]


def _start(pid: int) -> str | None:
    """Return when a process started, in ticks since boot, which no clock moves; None: it is gone.

    (psutil's start time is that plus the time of the boot, which moves with the clock.)
    """
    if not psutil.LINUX:
        return "0" if psutil.pid_exists(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]  # proc(5): fields 3 and 22
    return None if state in ("Z", "X") else ticks


def release_dead_runs(settings: Settings, campaign_id: str | None = None) -> list[int]:
    """Make the fireworks of dead workers ready again, each exactly once; return their ids."""
    with explained(settings):
        return release_dead(launchpad(settings), campaign_id)


def release_dead(
    opened: AtomicLaunchPad, campaign_id: str | None, *, also: str | None = None
) -> list[int]:
    """Do what `release_dead_runs` does; the worker `also` counts as dead.

    (A worker between two jobs runs nothing: what the database says it runs was lost.)
    """
    released: list[int] = []
    for launch_id in find_dead(opened, campaign_id, also=also):
        released += filter(None, [release(opened, launch_id, DIED)])
    return released


def find_dead(
    opened: AtomicLaunchPad, campaign_id: str | None, *, also: str | None = None
) -> list[int]:
    """Return the launches of jobs that are said to run, but whose workers are dead."""
    query = of_campaign(campaign_id) | {"state": {"$in": ACTIVE}}
    latest = [
        launch_id
        for row in opened.fireworks.find(query, {"launches": 1})
        for launch_id in row["launches"][-1:]
    ]
    # RESERVED launches wait in the queue of a cluster and have no worker yet.
    running = opened.launches.aggregate(
        [
            {"$match": {"launch_id": {"$in": latest}, "state": "RUNNING"}},
            {"$project": dict.fromkeys(("launch_id", "fworker.name", "state_history", "lease"), 1)},
            {"$addFields": {"now": "$$NOW"}},
        ]
    )
    return [
        launch["launch_id"]
        for launch in running
        if (name := launch["fworker"]["name"]) == also
        or is_dead(name, expired=_expired(launch), local=opened.embedded)
    ]


def _expired(launch: Document) -> bool:
    """Return whether a launch's lease has run out by the database's clock."""
    now = _parse(launch["now"])
    if launch.get("lease") is not None:
        return _parse(launch["lease"]) < now
    # versions without leases, and FireWorks' own rlaunch, which pings once an hour
    signs = [entry.get("updated_on") or entry["created_on"] for entry in launch["state_history"]]
    last = max(map(_parse, signs), default=datetime.min.replace(tzinfo=UTC))
    ours = launch["fworker"]["name"].count(":") >= 2
    return (now - last).total_seconds() > (LEASE_SECONDS if ours else float(RUN_EXPIRATION_SECS))


def _parse(value: str | datetime) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def is_lost(opened: AtomicLaunchPad, launch_id: int) -> bool:
    """Return whether a launch was taken from its worker, which may write nothing any more."""
    launch = opened.launches.find_one({"launch_id": launch_id}, {"state": 1, "released": 1})
    if launch is None or launch["state"] == "ARCHIVED":
        return True
    return launch["state"] == "FIZZLED" and "released" in launch


def release(opened: AtomicLaunchPad, launch_id: int, why: str) -> int | None:
    """Make the firework of a running launch ready again; None if somebody did so already.

    A job that keeps killing its workers is failed instead.
    """

    def put_back() -> int | None:
        firework = opened.fireworks.find_one(
            {"launches": launch_id, "state": {"$in": ACTIVE}},
            {"fw_id": 1, "archived_launches": 1},
        )
        mark = {"$set": {"released": why}}
        query = {"launch_id": launch_id, "state": {"$in": ACTIVE}}
        if firework is None or opened.launches.find_one_and_update(query, mark) is None:
            return None
        earlier = {"$in": firework["archived_launches"]}
        deaths = {"launch_id": earlier, "released": {"$in": DEATHS}}
        if why in DEATHS and opened.launches.count_documents(deaths) + 1 >= MAX_DEATHS:
            opened.complete_launch(launch_id, FWAction(stored_data=_worker_killer()), "FIZZLED")
            opened.launches.update_one({"launch_id": launch_id}, mark)  # FireWorks wrote it anew
        else:
            opened.rerun_fw(firework["fw_id"])
            opened.launches.update_one({"launch_id": launch_id}, {"$set": {"state": "ARCHIVED"}})
        return int(firework["fw_id"])

    return opened.atomically(put_back)


def running_jobs(settings: Settings) -> list[str]:
    """Return the names of the jobs that living workers run."""
    opened = launchpad(settings)
    dead = set(find_dead(opened, None))
    running = opened.fireworks.find({"state": "RUNNING"}, {"name": 1, "launches": 1})
    return [row["name"] for row in running if not dead.intersection(row["launches"][-1:])]


def delete_workflows(settings: Settings, campaign_id: str) -> None:
    """Delete the workflows of a campaign, with their fireworks and launches."""
    opened = launchpad(settings)
    rows = opened.fireworks.find(of_campaign(campaign_id), {"fw_id": 1, "launches": 1})
    fireworks = [(row["fw_id"], row["launches"]) for row in rows]
    ids = [fw_id for fw_id, _ in fireworks]

    def delete() -> None:
        opened.workflows.delete_many({"nodes": {"$in": ids}})
        opened.launches.delete_many({"fw_id": {"$in": ids}})
        opened.fireworks.delete_many({"fw_id": {"$in": ids}})

    opened.atomically(delete)


def _worker_killer() -> Document:
    text = (
        f"WorkerDied: {MAX_DEATHS} workers died while they ran this job "
        "(killed, out of memory, a crash below Python, or a broken device)."
    )
    return {"_message": text, "_exception": {"_stacktrace": text, "_details": None}}
