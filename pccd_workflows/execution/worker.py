"""The loop of a worker process: take a job, run it in a folder of its own, store, next."""

import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect, PyMongoError

from pccd_workflows.core.errors import DeviceFault, MachineFault, PccdError
from pccd_workflows.core.faults import machine_fault
from pccd_workflows.core.optional import optional_imports
from pccd_workflows.execution.atomic_launchpad import LEASED, PING_SECONDS, AtomicLaunchPad
from pccd_workflows.execution.launchpad import (
    ACTIVE,
    NEXT_FIRST,
    RETIRED,
    STOPPED,
    count_states,
    is_lost,
    of_campaign,
    prepare,
    release,
    release_dead,
    worker_name,
)
from pccd_workflows.execution.mongo import (
    database,
    explain_error,
    explained,
    mongodb_uri,
    patient,
    survive_outage,
)
from pccd_workflows.execution.mongo_storage import FENCE
from pccd_workflows.execution.redaction import secrets_of, storable
from pccd_workflows.execution.reruns import note_failure
from pccd_workflows.execution.run_folders import run_folder
from pccd_workflows.execution.stopping import Stop, WorkerStopped, handling_signals
from pccd_workflows.execution.stores import PatientJobStore, job_store
from pccd_workflows.settings import Settings

with optional_imports("A campaign on MongoDB"):
    from fireworks.core import rocket
    from fireworks.core.firework import FWAction
    from fireworks.core.fworker import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

RELEASE_SECONDS = 5.0
"""How often an idle worker looks for jobs whose workers died."""
PICKED_SECONDS = 5.0
"""How long a ready job that a worker picked is left to it: it starts it at once, unless it dies."""
UNPICKED = {"$expr": {"$lt": ["$picked_until", "$$NOW"]}}
"""Jobs that no worker is about to start; a field that is missing is less than any time."""
PICK = [{"$set": {"picked_until": {"$add": ["$$NOW", 1000 * PICKED_SECONDS]}}}]
"""Update of a job; milliseconds."""

logger = logging.getLogger(__name__)


class JobTakenError(Exception):
    """The job was given to another worker while this one was silent: nothing may be written."""


@dataclass(frozen=True)
class WorkerSummary:
    """What a worker did.

    completed, failed: fw_ids of the jobs it finished.
    released: fw_ids that it put back because it was stopped.
    stopped_by: SIGTERM or SIGINT; None if nothing was left to run.
    """

    completed: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    stopped_by: str | None = None


class _WorkerLaunchPad(AtomicLaunchPad):
    """The LaunchPad of one worker: knows what runs, and what a stop makes of it."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        super().__init__(settings)
        self._settings = settings
        self._stop = stop
        self.secrets = secrets_of(mongodb_uri(settings))
        self.outcomes: dict[str, list[int]] = {"COMPLETED": [], "FIZZLED": [], STOPPED: []}
        self._launch_id: int | None = None

    def checkout_fw(self, *args: Any, **kwargs: Any) -> tuple[Any, int | None]:
        """Take a ready firework and remember which launch it is."""
        firework, self._launch_id = super().checkout_fw(*args, **kwargs)
        return firework, self._launch_id

    def check_ownership(self) -> None:
        """Raise `JobTakenError` if the running job is not this worker's any more."""
        launch_id = self._launch_id
        if launch_id is not None and survive_outage(lambda: is_lost(self, launch_id)):
            raise JobTakenError(f"launch {launch_id} was given to another worker")

    def hold(self, session: ClientSession) -> None:
        """Renew the lease of the running job in a transaction; raise `JobTakenError` if it is lost.

        The launch is written, not only read: a transaction that takes the job away at the same
        time conflicts with this one, so that no row is written after it.
        """
        own = {"launch_id": self._launch_id, "state": "RUNNING", "released": {"$exists": False}}
        launches = session.client[self.db.name]["launches"]  # a session stays with its client
        if launches.find_one_and_update(own, LEASED, session=session) is None:
            raise JobTakenError(f"launch {self._launch_id} was given to another worker")

    def ping_launch(self, launch_id: int, *args: Any, **kwargs: Any) -> None:
        """Tell that the job is alive; FireWorks adds a checkpoint right before it begins."""
        super().ping_launch(launch_id, *args, **kwargs)
        if threading.current_thread() is not threading.main_thread():
            return
        if kwargs.get("checkpoint") is None:
            self._stop.in_job = False
        else:
            self._stop.enter_job()

    def complete_launch(self, launch_id: int, action: Any = None, state: str = "COMPLETED") -> Any:
        """Note the end of a job; one that was stopped goes back instead of failing."""
        self._stop.in_job = False
        if state == "FIZZLED" and self._stop.requested is not None:
            fw_id = release(self, launch_id, STOPPED)
            self.outcomes[STOPPED] += filter(None, [fw_id])
            return {}
        error = sys.exception() if state == "FIZZLED" else None
        fault = None if error is None else machine_fault(error)
        if isinstance(fault, DeviceFault) and self._stop.device_fault is None:
            self._stop.device_fault = str(fault)
            fw_id = release(self, launch_id, RETIRED)
            self.outcomes[STOPPED] += filter(None, [fw_id])
            return {}
        if action is not None and "_exception" in action.stored_data:
            exception = action.stored_data["_exception"]
            text = str(exception.get("_stacktrace"))
            if fault is not None and fault is not error:
                text += f"\n{self._sentence(error, fault)}"
            exception["_stacktrace"] = storable(text, self.secrets)
        complete = super().complete_launch

        def complete_own() -> Any:
            return None if is_lost(self, launch_id) else complete(launch_id, action, state)

        survive_outage(lambda: self.await_turn(launch_id))
        launch = self.atomically(complete_own)
        if launch is None:
            logger.warning("Launch %s was given to another worker; its end is dropped.", launch_id)
            return {}
        if state == "FIZZLED":
            note_failure(self, launch_id)
        self.outcomes[state].append(launch["fw_id"])
        return launch

    def _sentence(self, error: BaseException | None, fault: MachineFault) -> str:
        """Return what a machine's fault means to a person."""
        meant = explain_error(error, self._settings) if isinstance(error, PyMongoError) else None
        return meant or str(fault)


def run_worker(  # noqa: PLR0913
    settings: Settings,
    *,
    campaign_id: str | None = None,
    category: str | None = None,
    until_done: bool = True,
    poll: float = 0.5,
    seconds: float | None = None,
    idle: float | None = None,
) -> WorkerSummary:
    """Run ready jobs one after the other in this process.

    A job that raises is stored as failed and the next one runs. SIGTERM and Ctrl-C put the running
    job back and end the worker. While a job runs, stdout, stderr and the current folder are those
    of its run folder, ``<data_dir>/runs/<campaign_id>/<fw_id>-<name>``.

    Parameters
    ----------
    campaign_id
        Only jobs of this campaign.
    category
        Only jobs of this category (``manager_config={"_category": ...}``) and those of none;
        None takes any.
    until_done
        End when no job is left that this worker could run or that others are running; else wait
        for new ones.
    poll
        Seconds between looks at the database when idle.
    seconds
        Start no job later than so many seconds from now; None sets no limit.
    idle
        End after so many seconds without a job to run, whatever others run; None sets no limit.

    Raises
    ------
    DatabaseError
        The database is not there, or went away for longer than ``mongo.OUTAGE_SECONDS``.
    DeviceFault
        The GPU failed in a job: the job is put back, and this process must not run another.
    """
    database(settings)
    stop = Stop()
    with explained(settings), patient(), _job_store(settings) as store, handling_signals(stop):
        opened = _WorkerLaunchPad(settings, stop)
        prepare(opened)
        store.check_ownership = opened.check_ownership
        worker = _Worker(opened, settings, campaign_id, category)
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        busy = time.monotonic()
        while not stop.now and time.monotonic() < end:
            if worker.run_one():
                busy = time.monotonic()
                continue
            if until_done and not worker.work_is_left():
                break
            if idle is not None and time.monotonic() - busy > idle:
                break
            _wait(poll, stop)
    if stop.device_fault is not None:
        raise DeviceFault(
            f"This worker ends, because its device failed ({stop.device_fault.rstrip('.')}); the "
            "job is left to another worker."
        )
    return WorkerSummary(
        completed=opened.outcomes["COMPLETED"],
        failed=opened.outcomes["FIZZLED"],
        released=opened.outcomes[STOPPED],
        stopped_by=stop.requested,
    )


class _Worker:
    """What one worker looks for and where it works."""

    def __init__(
        self,
        opened: _WorkerLaunchPad,
        settings: Settings,
        campaign_id: str | None,
        category: str | None,
    ) -> None:
        self.launchpad = opened
        self.campaign_id = campaign_id
        # jobs without category run anywhere
        categories = [category, None] if category else ""
        self.fworker = FWorker(worker_name(), categories, of_campaign(campaign_id))
        self.runs = settings.data_dir.expanduser().absolute() / "runs"
        self._next_release = 0.0

    def run_one(self) -> bool:
        """Run the next ready job; False if there is none."""
        firework = survive_outage(self._pick)
        if firework is None:
            return bool(self._release_dead())
        fence = FENCE.set(self.launchpad.hold)
        try:
            with run_folder(self.runs, firework, self.launchpad.secrets):
                # FireWorks claims exactly this one, unless another worker was faster.
                launch_rocket(self.launchpad, self.fworker, firework["fw_id"], strm_lvl="INFO")
        except WorkerStopped:
            # between the job's end and its storage
            self._next_release = 0.0
            self.launchpad.outcomes[STOPPED] += self._release_dead()
        except (AutoReconnect, PccdError):
            raise
        except Exception:
            # neither the job nor FireWorks' own handling of its failure: never run it in a loop
            logger.exception("Job %s could not be run or stored.", firework["fw_id"])
            _fail(self.launchpad, firework["fw_id"], traceback.format_exc())
        finally:
            FENCE.reset(fence)
            logging.getLogger("jobflow").handlers = []  # jobflow's writes to the job's stdout
        return True

    def _pick(self) -> dict[str, Any] | None:
        """Return the next ready job, which other workers then leave to this one for a while."""
        found: dict[str, Any] | None = self.launchpad.fireworks.find_one_and_update(
            self._ready() | UNPICKED,
            PICK,
            projection={"fw_id": 1, "name": 1, "spec.campaign_id": 1},
            sort=list(NEXT_FIRST),
        )
        return found

    def _ready(self) -> dict[str, Any]:
        """Return the query for the jobs that this worker could run now."""
        return dict(self.fworker.query) | {"state": "READY"}

    def _release_dead(self) -> list[int]:
        """Put back what dead workers ran, and what this one, which runs nothing now, did."""
        if time.monotonic() < self._next_release:
            return []
        self._next_release = time.monotonic() + RELEASE_SECONDS
        name = self.fworker.name
        return survive_outage(lambda: release_dead(self.launchpad, self.campaign_id, also=name))

    def work_is_left(self) -> bool:
        """Return whether a job is ready for this worker, or runs and may lead to one that is."""

        def look() -> bool:
            states = count_states(self.launchpad, self.campaign_id)
            ready = self.launchpad.fireworks.find_one(self._ready(), {"_id": 1})
            return any(states.get(state) for state in ACTIVE) or ready is not None

        return survive_outage(look)


def _fail(opened: _WorkerLaunchPad, fw_id: int, text: str) -> None:
    """Mark a firework as failed whose failure cannot be stored in the regular way.

    text: the traceback.
    """
    told = {"_exception": {"_stacktrace": storable(text, opened.secrets)}}
    action = FWAction(stored_data=told, exit=True).to_dict()

    def mark() -> None:
        failed = {"state": "FIZZLED"}
        query = {"fw_id": fw_id, "state": {"$in": [*ACTIVE, "READY"]}}
        if opened.fireworks.find_one_and_update(query, {"$set": failed}) is not None:
            running = {"fw_id": fw_id, "state": "RUNNING"}
            opened.launches.update_many(running, {"$set": failed | {"action": action}})
            states = {"$set": {f"fw_states.{fw_id}": "FIZZLED", "state": "FIZZLED"}}
            opened.workflows.update_one({"nodes": fw_id}, states)

    opened.atomically(mark)


def _wait(seconds: float, stop: Stop) -> None:
    """Sleep, but not through a request to stop."""
    deadline = time.monotonic() + seconds
    while stop.requested is None and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


@contextlib.contextmanager
def _job_store(settings: Settings) -> Iterator[PatientJobStore]:
    """Let jobflow store outputs in the campaign database, and FireWorks ping every minute.

    Where a worker is told to stop outside a task, FireWorks forgets its pinging thread, which may
    not keep the process alive.
    """
    from jobflow import SETTINGS

    before = SETTINGS.JOB_STORE, rocket.PING_TIME_SECS, rocket.Thread
    store = job_store(settings)
    thread = partial(threading.Thread, daemon=True)
    SETTINGS.JOB_STORE, rocket.PING_TIME_SECS, rocket.Thread = store, PING_SECONDS, thread
    try:
        yield store
    finally:
        SETTINGS.JOB_STORE, rocket.PING_TIME_SECS, rocket.Thread = before
