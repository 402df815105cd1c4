"""Storage in MongoDB: what the workers of a cluster share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bson import MaxKey, MinKey
from pymatgen.core import Structure
from pymongo import DeleteOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.storage import ALL, Document, Share, StageRow
from pccd_workflows.execution import costs, mongo
from pccd_workflows.execution.mongo import survive_outage
from pccd_workflows.settings import Settings

FENCE: ContextVar[Callable[[ClientSession], None] | None] = ContextVar("fence", default=None)
"""Asked in the transaction that writes rows whether the running job is still this worker's: raises
if it is not. None outside of workers."""
ROW_FIELDS = tuple(StageRow.__dataclass_fields__)
BY_RANK = (("rank", 1), ("index", 1))
WENT_ON = [("campaign_id", 1), ("stage", 1), ("goes_on", 1), *BY_RANK]
"""The index of what goes on after a stage (see `mongo.INDEXED`)."""
TELL_SECONDS = 1.0
"""Between two notes of how far a job is: people watch, and a database has other things to do."""
PAGE = 500
"""Rows or structures written at once: a few MB."""


class MongoStorage:
    """The collections of a database; every operation waits out an outage of the server.

    Parameters
    ----------
    database
        With its indexes (`mongo.ensure_indexes`).
    """

    def __init__(self, database: Database[Document]) -> None:
        self.database = database
        self._told: dict[str, tuple[datetime, datetime]] = {}
        self._expected: frozenset[str] = frozenset()
        self._read: dict[str, Document | None] = {}

    def expect_results(self, keys: Sequence[str]) -> None:
        """Read results in one operation; each answers the next question for it.

        So does one of them that is stored in between.
        """
        self._expected, self._read = frozenset(keys), mongo.get_results(self.database, keys)

    def get_result(self, key: str) -> Document | None:
        """Return the result stored under `key`."""
        if key in self._read:
            return self._read.pop(key)
        return mongo.get_result(self.database, key)

    def put_result(self, key: str, kind: str, result: Document) -> None:
        """Store a result under its key; the first one stays."""
        first = mongo.put_result(self.database, key, kind, result)
        self._read.pop(key, None)
        if first and key in self._expected:
            self._read[key] = result

    def drop_results(self, keys: Sequence[str]) -> None:
        """Forget results."""
        for key in keys:
            self._read.pop(key, None)
        mongo.drop_results(self.database, keys)

    def put_structures(self, structures: Mapping[str, Structure]) -> None:
        """Store structures under their keys."""
        documents = [
            {"_id": key, "schema_version": SCHEMA_VERSION, "structure": structure.as_dict()}
            for key, structure in structures.items()
        ]
        writes = [UpdateOne({"_id": d["_id"]}, {"$setOnInsert": d}, upsert=True) for d in documents]
        self._write("structures", writes)

    def get_structures(self, keys: Iterable[str]) -> dict[str, Structure]:
        """Return stored structures by key."""
        found = self.structure_documents(keys)
        return {key: plain_structure(document) for key, document in found.items()}

    def structure_documents(self, keys: Iterable[str]) -> dict[str, Document]:
        """Return the same as the dictionaries that they are stored as."""
        query = {"_id": {"$in": list(keys)}}
        rows = survive_outage(lambda: list(self.database["structures"].find(query)))
        return {row["_id"]: row["structure"] for row in rows}

    def put_rows(self, rows: Sequence[StageRow]) -> None:
        """Store what a stage says about candidates, at the server's time."""
        documents = [
            {
                "_id": f"{row.candidate_id}/{row.stage}",
                "schema_version": SCHEMA_VERSION,
                **{name: getattr(row, name) for name in ROW_FIELDS},
            }
            for row in rows
        ]
        stamp = [{"at": "$$NOW"}]
        self._write_fenced(
            [
                UpdateOne(
                    {"_id": document["_id"]},
                    [{"$replaceWith": {"$mergeObjects": [{"$literal": document}, *stamp]}}],
                    upsert=True,
                )
                for document in documents
            ]
        )

    def _write(self, collection: str, writes: Sequence[Any]) -> None:
        for first in range(0, len(writes), PAGE):
            page = writes[first : first + PAGE]
            survive_outage(partial(self.database[collection].bulk_write, page, ordered=False))

    def _write_fenced(self, writes: Sequence[Any]) -> None:
        """Write rows, unless the job that says them was given to another worker."""
        fence = FENCE.get()
        if fence is None:
            self._write("stage_records", writes)
            return
        for first in range(0, len(writes), PAGE):
            page = writes[first : first + PAGE]

            def step(session: ClientSession, page: Sequence[Any] = page) -> None:
                fence(session)
                self.database["stage_records"].bulk_write(page, ordered=False, session=session)

            survive_outage(partial(self._transact, step))

    def _transact(self, step: Callable[[ClientSession], None]) -> None:
        with self.database.client.start_session() as session:
            session.with_transaction(step)

    def rows(
        self,
        campaign_id: str,
        stage: str,
        *,
        goes_on: bool | None = None,
        indices: tuple[int, int] | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[StageRow]:
        """Yield what a stage said, by rank and index."""
        # naming both values lets the index of what goes on sort the rows
        asked = {"$in": [True, False]} if goes_on is None else goes_on
        query: dict[str, Any] = {"campaign_id": campaign_id, "stage": stage, "goes_on": asked}
        if indices is not None:
            query["index"] = {"$gte": indices[0], "$lt": indices[1]}
        if ids is not None:
            query["_id"] = {"$in": [f"{candidate_id}/{stage}" for candidate_id in ids]}
        yield from self._rows(query, BY_RANK, places=(0, limit or 0))

    def going_on(self, campaign_id: str, stage: str, share: Share = ALL) -> Iterator[StageRow]:
        """Yield what goes on after a stage, by rank and index, without records."""
        first, end = share.places or (0, 0)
        if share.places is not None and first >= end:
            return
        query = _going_on(campaign_id, stage, share)
        if share.after is None:
            yield from self._rows(query, BY_RANK, places=(first, end), records=False)
            return
        rows = self._ranked(query, {"record": 0}, share.after).limit(end - first)
        yield from map(_to_row, survive_outage(lambda: iter(rows)))

    def located(
        self, campaign_id: str, stage: str, shares: Sequence[Share], whole: Share = ALL
    ) -> list[Share]:
        """Return shares by places, each with the crystal before it; the index alone is read."""
        query, fields = _going_on(campaign_id, stage, ALL), {"_id": 0, "rank": 1, "index": 1}
        found, after = [], whole.after
        for share in shares:
            found.append(replace(share, after=after))
            first, end = share.places or (0, 0)

            def last(after: Any = after, number: int = end - first) -> list[Document]:
                return list(self._ranked(query, fields, after).skip(number - 1).limit(1))

            for row in survive_outage(last):
                after = row["rank"], row["index"]
        return found

    def _ranked(self, query: Document, fields: Document, after: tuple[float, int] | None) -> Any:
        """Return a cursor over what goes on, by rank and index, from behind one of them."""
        before = [(name, query[name]) for name in ("campaign_id", "stage", "goes_on")]

        def bound(rank: Any, index: Any) -> Any:
            return [*before, ("rank", rank), ("index", index)]

        first = bound(MinKey(), MinKey()) if after is None else bound(after[0], after[1] + 1)
        found = self.database["stage_records"].find(query, fields).hint(WENT_ON).sort(WENT_ON)
        return found.min(first).max(bound(MaxKey(), MaxKey()))

    def formulas(self, campaign_id: str, stage: str, share: Share = ALL) -> list[tuple[str, int]]:
        """Return the reduced formulas of what goes on after a stage, with their numbers."""
        match = {"$match": _going_on(campaign_id, stage, share)}
        steps = [match, {"$group": {"_id": "$formula", "number": {"$sum": 1}}}]
        rows = survive_outage(lambda: list(self.database["stage_records"].aggregate(steps)))
        return sorted((row["_id"] or "", row["number"]) for row in rows)

    def changed(
        self, campaign_id: str, since: datetime | None
    ) -> tuple[list[str], datetime | None]:
        """Return the candidates with rows written at or after `since`, and the latest time."""
        query: dict[str, Any] = {"campaign_id": campaign_id}
        if since is not None:
            query["at"] = {"$gte": since}
        group = {"_id": "$candidate_id", "at": {"$max": "$at"}}
        stages = [{"$match": query}, {"$group": group}]
        rows = survive_outage(lambda: list(self.database["stage_records"].aggregate(stages)))
        latest = max((row["at"] for row in rows), default=None)
        return sorted(row["_id"] for row in rows), latest

    def rows_of(self, campaign_id: str, ids: Sequence[str]) -> Iterator[StageRow]:
        """Yield what every stage said about these candidates."""
        query = {"campaign_id": campaign_id, "candidate_id": {"$in": list(ids)}}
        yield from self._rows(query, [("candidate_id", 1), ("at", 1)])

    def _rows(
        self,
        query: Document,
        order: Sequence[tuple[str, int]],
        *,
        places: tuple[int, int] = (0, 0),
        records: bool = True,
    ) -> Iterator[StageRow]:
        """Yield rows in an order.

        places: the first and the last but one of them; 0 as the last: to the end.
        """
        first, end = places
        fields = None if records else {"record": 0}
        found = self.database["stage_records"].find(query, fields).sort(list(order))
        found = found.skip(first).limit(end - first if end else 0)
        for document in survive_outage(lambda: iter(found)):
            yield _to_row(document)

    def find_references(
        self, source: str, chemsys: str, level: str, version: str | None = None
    ) -> ReferenceSet | None:
        """Return the latest stored set of this source, system and level."""
        return mongo.find_reference_set(self.database, source, chemsys, level, version)

    def settle_references(self, campaign_id: str, references: ReferenceSet) -> None:
        """Note that a campaign uses a stored set; the first one of its system and level stays."""
        fields = {
            "campaign_id": campaign_id,
            "level": references.level,
            "chemsys": references.chemsys,
            "reference_id": references.reference_id,
            "schema_version": SCHEMA_VERSION,
        }
        key = {"_id": f"{campaign_id}/{references.level}/{references.chemsys}"}
        self._write("campaign_references", [UpdateOne(key, {"$setOnInsert": fields}, upsert=True)])

    def settled_references(self, campaign_id: str, level: str) -> dict[str, str]:
        """Return the ids of the sets that a campaign uses at a level, by chemical system."""
        query = {"campaign_id": campaign_id, "level": level}
        rows = survive_outage(lambda: list(self.database["campaign_references"].find(query)))
        return {row["chemsys"]: row["reference_id"] for row in rows}

    def get_references(self, reference_id: str) -> ReferenceSet | None:
        """Return the stored set with this id."""
        return mongo.get_reference_set(self.database, reference_id)

    def put_references(self, references: ReferenceSet) -> str:
        """Store a set; return its id."""
        return mongo.put_reference_set(self.database, references)

    def history(self, campaign_id: str, formulas: Sequence[str]) -> Iterator[tuple[str, Structure]]:
        """Yield the relaxed crystals of campaigns that had finished when this one was submitted."""
        query = {
            "formula_pretty": {"$in": list(formulas)},
            "campaign_id": {"$in": self._finished_before(campaign_id)},
            "novelty.duplicate_of": None,
            "structure": {"$ne": None},
            "stage": {"$nin": ["generate", "screen"]},
        }
        for document in self.database["candidates"].find(query, {"structure": 1}).sort("_id", 1):
            yield document["_id"], plain_structure(document["structure"])

    def _finished_before(self, campaign_id: str) -> list[str]:
        """Return what the campaign names; of an older version, campaigns submitted before it."""
        campaigns = self.database["campaigns"]
        own = campaigns.find_one({"_id": campaign_id}, {"history": 1, "submitted_at": 1}) or {}
        if "history" in own:
            return list(own["history"])
        before = {"submitted_at": {"$lt": own.get("submitted_at")}}
        return [row["_id"] for row in campaigns.find(before, {"_id": 1})]

    def note_cost(self, row: Document) -> None:
        """Add one run to the costs."""
        survive_outage(lambda: self.database["costs"].insert_one(dict(row)))

    def spent(self, campaign_id: str, level: str) -> float:
        """Return the core-hours that a campaign has spent at a level."""
        return costs.spent(self.database, campaign_id, level)

    def budget(self, campaign_id: str, level: str) -> float | None:
        """Return the core-hours a rung may spend, as it was set last."""
        return costs.budget(self.database, campaign_id, level)

    def note_skipped(self, campaign_id: str | None, level: str, job: str) -> None:
        """Remember a job that did nothing for want of budget."""
        costs.note_skipped(self.database, {"campaign_id": campaign_id}, job, level)

    def note_progress(self, campaign_id: str, what: str, done: int, total: int) -> None:
        """Store how far a job is, once a second; a piece of work that is done leaves nothing."""
        now, key = datetime.now(UTC), f"{campaign_id}/{what}"
        if done >= total:
            self._told.pop(key, None)
            self._write("progress", [DeleteOne({"_id": key})])
            return
        last, began = self._told.get(key, (None, now))
        if last is not None and (now - last).total_seconds() < TELL_SECONDS:
            return
        self._told[key] = now, began
        fields = {"campaign_id": campaign_id, "what": what, "done": done, "total": total}
        fields |= {"began": began, "at": now, "schema_version": SCHEMA_VERSION}
        self._write("progress", [UpdateOne({"_id": key}, {"$set": fields}, upsert=True)])

    def get_checkpoint(self, key: str) -> Document | None:
        """Return what the latest unfinished attempt left."""
        found = survive_outage(lambda: self.database["checkpoints"].find_one({"_id": key}))
        return None if found is None else dict(found)

    def put_checkpoint(self, key: str, document: Document) -> None:
        """Note an attempt, or what became of it."""
        row = {**document, "_id": key}
        survive_outage(
            lambda: self.database["checkpoints"].replace_one({"_id": key}, row, upsert=True)
        )

    def drop_checkpoint(self, key: str) -> None:
        """Forget the attempts of a run that is done."""
        survive_outage(lambda: self.database["checkpoints"].delete_one({"_id": key}))


def _to_row(document: Document) -> StageRow:
    mongo.check_schema_version(document, f"Record {document['_id']}")
    document.setdefault("record", {})
    return StageRow(**{name: document[name] for name in ROW_FIELDS})


def _going_on(campaign_id: str, stage: str, share: Share) -> Document:
    query: Document = {"campaign_id": campaign_id, "stage": stage, "goes_on": True}
    if share.formulas is not None:
        first, last = share.formulas
        query["formula"] = {"$gte": first, "$lte": last}
    return query


def mongo_storage(settings: Settings) -> MongoStorage:
    """Return the storage in the campaign database of this machine.

    Raises
    ------
    DatabaseError
        The server is down, refuses the credentials, is read-only or is a standalone.
    """
    return MongoStorage(mongo.database(settings))
