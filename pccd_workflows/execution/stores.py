"""jobflow's store as workers need it: it waits out outages and keeps secrets to itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from jobflow import JobStore
from maggma.stores import GridFSStore, MemoryStore, MongoStore

from pccd_workflows.execution.mongo import client_options, mongodb_uri, survive_outage
from pccd_workflows.settings import Settings

OUTPUTS = "job_outputs"
DATA = "job_data"


class _Patient:
    """Mixed into a maggma store that is reached by a URI with a password in it."""

    @property
    def name(self) -> str:
        """What maggma prints of a store; its own would be the URI, password included."""
        store: Any = self
        return f"mongo://{store.database}/{store.collection_name}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def as_dict(self) -> NoReturn:
        """Refuse: the dictionary would carry the password into a document or a file."""
        raise TypeError(f"{self!r} holds credentials and is not serialized.")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Store documents; safe to repeat because they replace those with the same key."""
        parent: Any = super()
        survive_outage(lambda: parent.update(*args, **kwargs))

    def query(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yield documents; an outage before the first one is waited out."""
        parent: Any = super()

        def first() -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
            documents = parent.query(*args, **kwargs)
            return [doc for _, doc in zip(range(1), documents, strict=False)], documents

        head, rest = survive_outage(first)
        yield from head
        yield from rest


class _OutputStore(_Patient, MongoStore):  # type: ignore[misc]
    """Job outputs; can hold writes back until what they refer to is stored."""

    _held: list[tuple[tuple[Any, ...], dict[str, Any]]] | None = None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Store documents, or remember to."""
        if self._held is None:
            super().update(*args, **kwargs)
        else:
            self._held.append((args, kwargs))

    @contextmanager
    def holding_back(self) -> Iterator[None]:
        """Write at the end of the block what is written in it; nothing if the block fails."""
        self._held = []
        try:
            yield
            held, self._held = self._held, None
            for args, kwargs in held:
                self.update(*args, **kwargs)
        finally:
            self._held = None


class _DataStore(_Patient, GridFSStore):  # type: ignore[misc]
    """Large objects in GridFS."""


class PatientJobStore(JobStore):  # type: ignore[misc]
    """Outputs in a collection, large objects in GridFS; an output appears when it is whole."""

    additional_stores: dict[str, Any]
    check_ownership: Callable[[], None] | None = None
    """Raises if the worker that writes has lost its job to another."""

    def update(self, docs: Any, key: Any = None, save: Any = None) -> None:
        """Store a job's large objects, then its output, then drop those of an earlier attempt.

        jobflow stores the output first, whose objects are then missing to whoever reads it in that
        moment, and for good if the process dies.
        """
        if self.check_ownership is not None:
            self.check_ownership()
        documents = docs if isinstance(docs, list) else [docs]
        data = self.additional_stores["data"]
        before = [_attempt(doc) for doc in documents]
        stale = [row["blob_uuid"] for query in before for row in _blobs(data, query)]
        with self.docs_store.holding_back():
            super().update(docs, key=key, save=save)
        if stale:
            survive_outage(lambda: data.remove_docs({"blob_uuid": {"$in": stale}}))


def _attempt(doc: Any) -> dict[str, Any]:
    get = doc.get if isinstance(doc, dict) else lambda name: getattr(doc, name)
    return {"job_uuid": get("uuid"), "job_index": get("index")}


def _blobs(data: Any, query: dict[str, Any]) -> list[dict[str, Any]]:
    query = data.transform_criteria(query)
    rows = survive_outage(lambda: list(data._files_store.query(query)))
    return [row["metadata"] for row in rows]


def make_job_store(**options: Any) -> PatientJobStore:
    """Return the job store in a database (`database`, `uri` and `mongoclient_kwargs`)."""
    outputs = _OutputStore(collection_name=OUTPUTS, **options)
    return PatientJobStore(
        outputs, additional_stores={"data": _DataStore(collection_name=DATA, **options)}
    )


def job_store(settings: Settings) -> PatientJobStore:
    """Return jobflow's store of job outputs, with GridFS for what jobs mark as ``data``.

    It waits out outages, keeps the password out of its name and refuses to be serialized.
    """
    return make_job_store(
        database=settings.database,
        uri=mongodb_uri(settings),
        mongoclient_kwargs=client_options(settings),
    )


def memory_store() -> JobStore:
    """Return a store that lives as long as the process, for flows run in place."""
    return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
