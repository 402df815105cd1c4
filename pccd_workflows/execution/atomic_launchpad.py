"""FireWorks' LaunchPad, each of whose steps happens whole or not at all.

FireWorks completes a job in several writes (launch, new fireworks, states, links, a lock). A
process that is killed between two of them leaves a workflow locked for ever, or jobs that belong
to no workflow. Here each step is one MongoDB transaction, repeated until it succeeds.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from gridfs import GridFS
from pymongo import MongoClient
from pymongo.client_session import ClientSession

from pccd_workflows.core.optional import optional_imports
from pccd_workflows.execution.mongo import client_options, mongodb_uri, survive_outage
from pccd_workflows.execution.workflow_part import refresh_part
from pccd_workflows.settings import Settings

with optional_imports("A campaign on MongoDB"):
    from fireworks.core.firework import Workflow
    from fireworks.core.launchpad import LaunchPad
    from fireworks.fw_config import GRIDFS_FALLBACK_COLLECTION
    from fireworks.utilities import fw_utilities

T = TypeVar("T")

PING_SECONDS = 60
"""How often a worker says that it is alive."""
LEASE_SECONDS = 15 * PING_SECONDS
"""A worker owns its job for so long after its last sign, in the database's own time: a node's
network may be away for minutes, and a job that is taken in vain is computed twice."""
LEASED = [{"$set": {"lease": {"$add": ["$$NOW", 1000 * LEASE_SECONDS]}}}]
"""Update of a launch; milliseconds."""
NOW_AS_TEXT = {"$dateToString": {"date": "$$NOW", "format": "%Y-%m-%dT%H:%M:%S.%L"}}
SEEN = [
    {
        "$set": {
            "state_history": {
                "$map": {
                    "input": "$state_history",
                    "in": {
                        "$cond": [
                            {"$eq": ["$$this.state", "RUNNING"]},
                            {"$mergeObjects": ["$$this", {"updated_on": NOW_AS_TEXT}]},
                            "$$this",
                        ]
                    },
                }
            }
        }
    }
]
"""Update of a launch: the last sign of life, as FireWorks' own commands read it."""

TURN_SECONDS = 10.0
"""A worker that ends a job has its workflow to itself for so long at most."""
LONGEST_PAUSE = 0.5
"""Between two looks whether it is a worker's turn, s."""
TURN = [{"$set": {"ending_until": {"$add": ["$$NOW", 1000 * TURN_SECONDS]}}}]
"""Update of a workflow; milliseconds."""

JOINING = frozenset(
    (
        *("find", "find_one", "aggregate", "count_documents"),
        *("find_one_and_update", "find_one_and_replace", "update_one", "update_many"),
        *("insert_one", "insert_many", "delete_one", "delete_many", "replace_one"),
    )
)
"""What a collection can do inside a transaction."""


class _JoiningCollection:
    """A collection whose operations join the transaction of their thread, if there is one."""

    def __init__(self, collection: Any, thread: threading.local) -> None:
        self._collection = collection
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._collection, name)
        session = getattr(self._thread, "session", None)
        if session is None or name not in JOINING:
            return attribute
        return partial(attribute, session=session)


class _RepeatableGridFS(GridFS):
    """Where FireWorks puts what exceeds 16 MB. GridFS takes no part in transactions."""

    def put(self, data: Any, **kwargs: Any) -> Any:
        """Store a launch's action in place of that of an earlier attempt of the same step."""
        for earlier in self.find({"metadata.launch_id": kwargs["metadata"]["launch_id"]}):
            self.delete(earlier._id)
        return super().put(data, **kwargs)


class AtomicLaunchPad(LaunchPad):  # type: ignore[misc]
    """A LaunchPad that a kill at any moment leaves consistent."""

    def __init__(self, settings: Settings) -> None:
        _silence_fireworks()
        super().__init__(
            host=mongodb_uri(settings),
            name=settings.database,
            uri_mode=True,
            strm_lvl="WARNING",
            mongoclient_kwargs=client_options(settings),
        )
        self.embedded = settings.mongodb_uri is None
        self._thread = threading.local()
        # Not fw_id_assigner: every step of every worker would wait for it. Ids may have gaps.
        for name in ("fireworks", "launches", "workflows", "offline_runs"):
            setattr(self, name, _JoiningCollection(self.db[name], self._thread))
        self.gridfs_fallback = _RepeatableGridFS(self.db, GRIDFS_FALLBACK_COLLECTION)

    @property
    def session(self) -> ClientSession | None:
        """Session of this thread's transaction, for collections of our own; None outside one."""
        return getattr(self._thread, "session", None)

    def atomically(self, step: Callable[[], T]) -> T:
        """Return `step()`, done in one transaction; it may be called several times."""
        if getattr(self._thread, "session", None) is not None:
            return step()

        attempts = itertools.count()

        def join(session: ClientSession) -> T:
            # Another worker was faster (a write conflict): do not meet it again at once.
            longest = 0.02 * (2 ** min(next(attempts), 6) - 1)
            time.sleep(random.random() * longest)  # noqa: S311
            self._thread.session = session
            try:
                return step()
            finally:
                self._thread.session = None

        client: MongoClient[dict[str, Any]] = self.connection

        def transact() -> T:
            with client.start_session() as session:
                return session.with_transaction(join)

        return survive_outage(transact)

    def to_dict(self) -> dict[str, Any]:
        """Return what may be known of it: FireWorks' own would carry the password."""
        return {"name": self.name}

    def add_wf(self, wf: Any, reassign_all: bool = True) -> dict[int, int]:
        """Add a workflow; return its new ids by its old ones."""
        blueprint = wf.to_dict()
        add = super().add_wf
        ids: dict[int, int] = self.atomically(
            lambda: add(Workflow.from_dict(blueprint), reassign_all=reassign_all)
        )
        return ids

    def checkout_fw(self, *args: Any, **kwargs: Any) -> tuple[Any, int | None]:
        """Take a ready firework and note who runs it where."""
        take = super().checkout_fw

        def lease() -> tuple[Any, int | None]:
            self._thread.starting = True
            try:
                firework, launch_id = take(*args, **kwargs)
            finally:
                self._thread.starting = False
            if launch_id is not None:
                self.launches.update_one({"launch_id": launch_id}, LEASED)
            return firework, launch_id

        return self.atomically(lease)

    def complete_launch(self, launch_id: int, *args: Any, **kwargs: Any) -> Any:
        """Note that a firework is done, with all that follows for its workflow."""
        complete = super().complete_launch

        def complete_alone() -> Any:
            self._claim_workflow(launch_id)
            return complete(launch_id, *args, **kwargs)

        return self.atomically(complete_alone)

    def await_turn(self, launch_id: int) -> None:
        """Wait until nobody else ends a job of a launch's workflow, six turns at most.

        Transactions keep a workflow whole without this, but of many that write to it at once all
        but one are repeated, again and again. A turn ends with the transaction that it is for.
        """
        launch = self.launches.find_one({"launch_id": launch_id}, {"fw_id": 1}) or {}
        which = {"nodes": launch.get("fw_id")}
        free = which | {"$expr": {"$lt": ["$ending_until", "$$NOW"]}}  # missing: less than any time
        end = time.monotonic() + 6 * TURN_SECONDS
        pause = 0.02
        while self.workflows.find_one_and_update(free, TURN, projection={"_id": 1}) is None:
            if time.monotonic() > end or self.workflows.find_one(which, {"_id": 1}) is None:
                return
            time.sleep(random.random() * pause)  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    def _claim_workflow(self, launch_id: int) -> None:
        """Write to a launch's workflow first: who ends a job of it meanwhile finds out at once."""
        launch = self.launches.find_one({"launch_id": launch_id}, {"fw_id": 1})
        if launch is not None:
            claim = {"$currentDate": {"claimed_on": True}, "$unset": {"ending_until": ""}}
            self.workflows.update_one({"nodes": launch["fw_id"]}, claim)

    def rerun_fw(self, *args: Any, **kwargs: Any) -> list[int]:
        """Make a firework, and whatever ran after it, ready to run again."""
        rerun = super().rerun_fw
        ids: list[int] = self.atomically(lambda: rerun(*args, **kwargs))
        return ids

    def ping_launch(
        self,
        launch_id: int,
        ptime: Any = None,  # noqa: ARG002
        checkpoint: Any = None,  # noqa: ARG002
    ) -> None:
        """Note that a firework is still running: its worker owns it for another while.

        In one operation, at the database's time; nobody goes on from a checkpoint of FireWorks.
        """
        running = {"launch_id": launch_id, "state": "RUNNING"}
        survive_outage(lambda: self.launches.update_one(running, [*LEASED, *SEEN]))

    def _refresh_wf(self, fw_id: int) -> None:
        # nothing follows from a start, and workers that start jobs do not meet in their workflow
        if getattr(self._thread, "starting", False):
            return
        refresh = super()._refresh_wf
        self.atomically(lambda: refresh_part(self, fw_id) or refresh(fw_id))

    def _upsert_fws(self, fws: Iterable[Any], reassign_all: bool = False) -> dict[int, int]:
        """Store fireworks; of failed parents only who they are (whole, they may exceed 16 MB)."""
        fws = list(fws)
        for firework in fws:
            if parents := firework.spec.get("_fizzled_parents"):
                firework.spec["_fizzled_parents"] = [
                    {name: parent.get(name) for name in ("fw_id", "name")} for parent in parents
                ]
        if reassign_all:
            ids: dict[int, int] = super()._upsert_fws(fws, reassign_all=True)
            return ids
        super()._upsert_fws([firework for firework in fws if firework.fw_id >= 0])
        return self._insert([firework for firework in fws if firework.fw_id < 0])

    def _insert(self, fws: list[Any]) -> dict[int, int]:
        """Store new fireworks, all at once; return their ids by those they had."""
        if not fws:
            return {}
        first = self.get_new_fw_id(quantity=len(fws))
        fws.sort(key=lambda firework: -firework.fw_id)
        ids = {}
        for number, firework in enumerate(fws, start=first):
            ids[firework.fw_id] = number
            firework.fw_id = number
        self.fireworks.insert_many([firework.to_db_dict() for firework in fws])
        return ids


def _silence_fireworks() -> None:
    """Keep FireWorks from logging to stdout, where commands print their results.

    A logger that it believes to be set up already gets no handler; warnings still reach stderr.
    """
    known = fw_utilities.PREVIOUS_STREAM_LOGGERS
    for logger in (("launchpad", "WARNING"), ("rocket.launcher", "INFO")):
        if logger not in known:
            known.append(logger)
