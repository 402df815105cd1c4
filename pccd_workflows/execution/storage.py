"""The storage of a running job: given by the caller, or found beside the job store."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jobflow import CURRENT_JOB, JobStore
from maggma.stores import MemoryStore

from pccd_workflows.core.files import make_private
from pccd_workflows.core.storage import Storage
from pccd_workflows.execution.memory import FolderStorage, MemoryStorage
from pccd_workflows.settings import get_settings

_given: ContextVar[Storage | None] = ContextVar("storage", default=None)


@contextmanager
def use_storage(storage: Storage) -> Iterator[None]:
    """Let the jobs that run in this block read and write `storage`."""
    token = _given.set(storage)
    try:
        yield
    finally:
        _given.reset(token)


def current_storage() -> Storage:
    """Return the storage of the running job.

    The one that was given by `use_storage`; with a job store in memory one that lives as long as
    it; with a job store in MongoDB, FireWorks' workers among them, the campaign database; else a
    folder of this machine.
    """
    if (given := _given.get()) is not None:
        return given
    store = CURRENT_JOB.store
    docs = store.docs_store if isinstance(store, JobStore) else None
    settings = get_settings()
    if isinstance(docs, MemoryStore):
        # kept by the store itself: maggma calls two of them equal that are not the same one
        storage: MemoryStorage = vars(docs).setdefault("_pccd_storage", MemoryStorage())
        return storage
    if docs is None or hasattr(docs, "database"):
        from pccd_workflows.execution.mongo_storage import mongo_storage

        return mongo_storage(settings)
    make_private(settings.data_dir)
    return FolderStorage(settings.data_dir / "results")
