"""maggma's stores as workers need them: they wait out outages and keep secrets to themselves."""

from collections.abc import Iterator
from typing import Any, NoReturn

from maggma.stores import GridFSStore, MongoStore

from pccd_workflows.external.mongo import survive_outage


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
            return [doc for doc, _ in zip(documents, range(1), strict=False)], documents

        head, rest = survive_outage(first)
        yield from head
        yield from rest


class PatientMongoStore(_Patient, MongoStore):  # type: ignore[misc]
    """Documents in a collection."""


class PatientGridFSStore(_Patient, GridFSStore):  # type: ignore[misc]
    """Large objects in GridFS."""
