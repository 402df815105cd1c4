"""MongoDB, the only state: connections, collections, and what its errors mean to a user."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pymongo import ASCENDING, MongoClient, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.uri_parser import parse_uri
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_random_exponential,
)

from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.execution import mongod
from pccd_workflows.settings import Settings

Document = dict[str, Any]
T = TypeVar("T")

OUTAGE_SECONDS = 600.0
"""How long a worker waits for a database that went away while a job ran."""
BRIEF_OUTAGE_SECONDS = 60.0
"""How long any other command does."""
IDLE_SECONDS = 60.0
"""A connection that was idle for longer is not used again: a firewall on the way forgets it without
telling either end, and what is written into it is lost."""
ANSWER_SECONDS = 300.0
"""A server that takes longer to answer is taken to be away."""

# https://www.mongodb.com/docs/manual/reference/error-codes/
UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
NOT_WRITABLE = (10107, 13435, 11602, 189, 91)
INDEX_HAS_ANOTHER_NAME = 85
OUT_OF_DISK = (14031, 28)


BAD_URI = (
    "PCCD_MONGODB_URI is not a usable MongoDB address: write it as "
    "mongodb://user:password@host:port/ with special characters percent-encoded."
)

_patience: float | None = None
"""Seconds that this process's clients wait for a server, if not settings.database_timeout."""


_embedded: dict[Path, str] = {}
"""Addresses of the embedded servers that this process has used, by data_dir."""


# --- connections -----------------------------------------------------------------------------


def mongodb_uri(settings: Settings) -> str:
    """Return the URI, password included, of the configured server, else of the embedded one.

    Raises
    ------
    DatabaseError
        No server is configured and the embedded one does not run.
    """
    if settings.mongodb_uri is not None:
        return settings.mongodb_uri.get_secret_value()
    uri = mongod.running_uri(settings)
    if uri is not None:
        _embedded[settings.data_dir] = uri
    elif _patience is not None:  # a worker waits for it to come back, at the same address
        uri = _embedded.get(settings.data_dir)
    if uri is None:
        raise DatabaseError(mongod.why_down(settings))
    return uri


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the options of every MongoClient of this project."""
    return {
        "appname": "pccd",
        "serverSelectionTimeoutMS": int(1000 * (_patience or settings.database_timeout)),
        "connectTimeoutMS": int(1000 * settings.database_timeout),
        "maxIdleTimeMS": int(1000 * IDLE_SECONDS),
        "socketTimeoutMS": int(1000 * ANSWER_SECONDS),
        "retryWrites": True,
        "retryReads": True,
        # A write is done when it would survive a crash: in the journal of most members.
        "w": "majority",
    }


def client(settings: Settings) -> MongoClient[Document]:
    """Return this process's client; a forked child gets its own (MongoClient is not fork-safe).

    Raises
    ------
    DatabaseError
        The configured URI is none.
    """
    options = tuple(client_options(settings).items())
    try:
        return _client(os.getpid(), mongodb_uri(settings), options)
    except (InvalidURI, ConfigurationError, ValueError):
        # "from None": pymongo's own text may quote parts of the URI
        raise DatabaseError(BAD_URI) from None


@lru_cache(maxsize=16)
def _client(
    pid: int,  # noqa: ARG001
    uri: str,
    options: tuple[tuple[str, Any], ...],
) -> MongoClient[Document]:
    return MongoClient(uri, **dict(options), tz_aware=True)


def database(settings: Settings) -> Database[Document]:
    """Return the campaign database, after asking the server once that it is there and fit.

    Raises
    ------
    DatabaseError
        The server is down, refuses the credentials, is read-only or is a standalone.
    """
    with explained(settings):
        found = client(settings)[settings.database]
        _check_server(os.getpid(), found)
    return found


@lru_cache(maxsize=16)
def _check_server(pid: int, found: Database[Document]) -> None:  # noqa: ARG001
    hello = found.command("hello")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise DatabaseError(
            f"MongoDB at {_hosts_of(found.client)} is a standalone server, which has neither "
            "transactions nor retryable writes: start it with --replSet rs0 and call "
            "rs.initiate() once (one node is enough)."
        )
    found.command("ping")


def _hosts_of(connected: MongoClient[Document]) -> str:
    seeds = connected.nodes or {("the configured address", 0)}
    return ",".join(sorted(f"{host}:{port}" if port else host for host, port in seeds))


def hosts(settings: Settings) -> str:
    """Return the server's addresses without user or password, for messages."""
    try:
        nodes = parse_uri(mongodb_uri(settings), validate=False, warn=False)["nodelist"]
    except (PyMongoError, ValueError):
        return "the address in PCCD_MONGODB_URI"
    return ",".join(f"{host}:{port}" for host, port in nodes)


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn pymongo's errors into a DatabaseError of one sentence, without any credentials.

    What is no fault of the server (a duplicate key, a document beyond 16 MB) passes unchanged.
    """
    try:
        yield
    except PyMongoError as error:
        sentence = explain_error(error, settings)
        if sentence is None:
            raise
        # "from None": pymongo's own text may quote parts of the URI
        raise DatabaseError(sentence) from None


def explain_error(error: Exception, settings: Settings) -> str | None:  # noqa: PLR0911
    """Return what a pymongo error means to the user and what to do; None if nothing is known."""
    if isinstance(error, InvalidURI | ConfigurationError):
        return BAD_URI
    where = hosts(settings)
    mine = settings.mongodb_uri is not None
    code = getattr(error, "code", None)
    if code in OUT_OF_DISK or "No space left" in str(error):
        return f"The disk of MongoDB at {where} is full: free some space, then go on."
    if code in NOT_WRITABLE or type(error).__name__ == "NotPrimaryError":
        return f"MongoDB at {where} is read-only at the moment (no primary): try again later."
    if code == AUTHENTICATION_FAILED:
        source = "PCCD_MONGODB_URI" if mine else f"{mongod.folder(settings)}"
        return f"MongoDB at {where} refuses the user or password of {source}."
    if code == UNAUTHORIZED:
        return (
            f"The user at MongoDB {where} may not do this: it needs the role readWrite on the "
            f"database {settings.database!r}."
        )
    if isinstance(error, ConnectionFailure):
        waited = (
            f" within {settings.database_timeout:g} s"
            if isinstance(error, ServerSelectionTimeoutError)
            else ""
        )
        return f"MongoDB at {where} does not answer{waited}: {_cure(settings)}"
    return None


def _cure(settings: Settings) -> str:
    """Return what helps when a server does not answer."""
    if settings.mongodb_uri is not None:
        return "check PCCD_MONGODB_URI and the server."
    now = mongod.status(settings)
    if now.pid is None:
        down = mongod.why_down(settings)
        return down[0].lower() + down[1:]
    log = now.folder / "mongod.log"
    hangs = mongod.HANGS.format(pid=now.pid)
    return f"it runs (pid {now.pid}), so it is busy or hangs: try again, and see {log}. {hangs}"


@contextmanager
def patient() -> Iterator[None]:
    """Let everything this process asks of the database wait out an outage; for workers.

    A person at a terminal wants to hear within seconds that the database is down; a job that
    computed for hours must not lose its result to a restart of the server.
    """
    global _patience  # noqa: PLW0603
    before, _patience = _patience, OUTAGE_SECONDS
    try:
        yield
    finally:
        _patience = before


def survive_outage(
    operation: Callable[[], T],
    *,
    patience: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return `operation()`, repeated while the database is away (at most `patience` seconds).

    If not given, `patience` is that of a worker or, in other processes, of a person.
    Only for operations that may be done twice: reads, upserts, whole transactions.
    """
    if patience is None:
        patience = _patience or BRIEF_OUTAGE_SECONDS
    retrying = Retrying(
        retry=retry_if_exception_type(AutoReconnect),
        wait=wait_random_exponential(multiplier=0.2, max=10.0),
        stop=stop_before_delay(patience),
        sleep=sleep,
        reraise=True,
    )
    return retrying(operation)


# --- collections -----------------------------------------------------------------------------


INDEXED: dict[str, dict[tuple[str, ...], bool]] = {
    "campaigns": {("name",): False, ("submitted_at",): False},
    "candidates": {
        ("campaign_id", "index"): True,
        ("chemsys",): False,
        ("campaign_id", "reached"): False,
        # lists are sorted by one of these, ties by _id
        ("energy_above_hull", "_id"): False,
        ("formula_pretty", "_id"): False,
        ("index", "_id"): False,
        ("kind_of_new", "_id"): False,
        ("known_id", "_id"): False,
        ("novel", "_id"): False,
        ("nsites", "_id"): False,
        ("spacegroup", "_id"): False,
        ("status", "_id"): False,
        ("updated_at", "_id"): False,
    },
    "samples": {("campaign_id", "index"): True},
    "stage_records": {
        ("campaign_id", "stage", "goes_on", "rank", "index"): False,
        ("campaign_id", "stage", "goes_on", "formula"): False,
        ("campaign_id", "at"): False,
        ("campaign_id", "candidate_id"): False,
    },
    "progress": {("campaign_id",): False},
    "results": {("kind",): False},
    "references": {("source", "chemsys", "level"): False},
    "campaign_references": {("campaign_id", "level"): False},
    "costs": {("campaign_id", "level"): False, ("level", "at"): False},
    "reference_entries": {("reference_id", "index"): True},
    "job_outputs": {("uuid", "index"): True, ("metadata.campaign_id",): False},
    "job_data.files": {
        ("metadata.job_uuid", "metadata.job_index"): False,
        ("metadata.blob_uuid",): False,
    },
}
"""Indexed fields by collection, and whether they are unique together; columns.py adds more."""


def ensure_indexes(db: Database[Document]) -> None:
    """Create what is missing of the indexes that queries and uniqueness rest on."""
    for collection, indexes in INDEXED.items():
        for fields, unique in indexes.items():
            keys = [(field, ASCENDING) for field in fields]
            try:
                db[collection].create_index(keys, unique=unique)
            except OperationFailure as error:
                if error.code != INDEX_HAS_ANOTHER_NAME:
                    raise


def check_schema_version(doc: Document, what: str) -> None:
    """Refuse a document that a newer version of this package wrote.

    Raises
    ------
    DatabaseError
        One sentence that names `what` and both versions.
    """
    version = doc.get("schema_version")
    if not isinstance(version, int):
        raise DatabaseError(f"{what} has no schema_version: pccd did not write it.")
    if version > SCHEMA_VERSION:
        raise DatabaseError(
            f"{what} was written by a newer version (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): update pccd-workflows."
        )


def get_result(db: Database[Document], key: str) -> Document | None:
    """Return the result stored under the content address `key`, waiting out an outage.

    A damaged one is forgotten, so that it is computed again.
    """
    return get_results(db, [key])[key]


def get_results(db: Database[Document], keys: Sequence[str]) -> dict[str, Document | None]:
    """Return the results stored under content addresses, None for those that are not there."""
    query = {"_id": {"$in": list(keys)}}
    rows = survive_outage(lambda: list(db.results.find(query)))
    found: dict[str, Document | None] = dict.fromkeys(keys)
    damaged = []
    for row in rows:
        result = row.get("result")
        if not (isinstance(result, dict) and isinstance(row.get("schema_version"), int)):
            damaged.append(row["_id"])
            continue
        check_schema_version(row, f"Result {row['_id']}")
        found[row["_id"]] = result
    if damaged:
        drop_results(db, damaged)
    return found


def put_result(db: Database[Document], key: str, kind: str, doc: Document) -> bool:
    """Store a result under its content address; the first one written stays.

    Returns
    -------
    Whether this is the first one.
    """
    new = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.now(UTC),
        "result": doc,
    }

    def upsert() -> bool:
        try:
            done = db.results.update_one({"_id": key}, {"$setOnInsert": new}, upsert=True)
        except DuplicateKeyError:
            return False  # somebody else was first by a hair
        return done.upserted_id is not None

    return survive_outage(upsert)


def drop_results(db: Database[Document], keys: Sequence[str]) -> None:
    """Forget results whose files are gone, so that they are computed again."""
    survive_outage(lambda: db.results.delete_many({"_id": {"$in": list(keys)}}))


def insert_once(collection: Collection[Document], document: Document) -> None:
    """Store a document unless there is one with its ``_id``; the first one stays."""
    query = {"_id": document["_id"]}
    new = {name: value for name, value in document.items() if name != "_id"}
    with suppress(DuplicateKeyError):  # somebody else was first by a hair
        collection.update_one(query, {"$setOnInsert": new}, upsert=True)


def replace_documents(collection: Collection[Document], documents: Sequence[Document]) -> None:
    """Store documents under their ``_id``, in place of those that are there."""
    writes = [ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in documents]
    if writes:
        survive_outage(lambda: collection.bulk_write(writes, ordered=False))


def find_reference_set(
    db: Database[Document], source: str, chemsys: str, level: str, version: str | None = None
) -> ReferenceSet | None:
    """Return the latest stored set of this source, system and level.

    version: of the source that made it, or would have made the same; None takes any.
    """
    query: Document = {"source": source, "chemsys": chemsys, "level": level}
    if version is not None:
        query["$or"] = [{"source_version": version}, {"same_of": version}]
    header = survive_outage(lambda: db.references.find_one(query, sort=[("stored_at", -1)]))
    return None if header is None else _load_reference_set(db, header)


def get_reference_set(db: Database[Document], reference_id: str) -> ReferenceSet | None:
    """Return the stored set with this id (ReferenceSet.reference_id)."""
    header = survive_outage(lambda: db.references.find_one({"_id": reference_id}))
    return None if header is None else _load_reference_set(db, header)


def _load_reference_set(db: Database[Document], header: Document) -> ReferenceSet:
    what = f"Reference set {header['_id']}"
    check_schema_version(header, what)
    query = {"reference_id": header["_id"]}
    rows = survive_outage(lambda: list(db.reference_entries.find(query).sort("index", ASCENDING)))
    if len(rows) != header["n_entries"]:
        raise DatabaseError(
            f"{what} has {len(rows)} of {header['n_entries']} entries: delete it from the "
            "collection 'references' and build it again."
        )
    fields = {name: header[name] for name in ReferenceSet.model_fields if name in header}
    return ReferenceSet.model_validate({**fields, "entries": [row["entry"] for row in rows]})


def put_reference_set(db: Database[Document], reference_set: ReferenceSet) -> str:
    """Store a set, an entry per document (a large system exceeds 16 MB); return its id.

    The header goes last: a set that was cut short is not found and is completed by the next try.
    That a later version of the source makes the same content is noted there.
    """
    reference_id = reference_set.reference_id
    header = reference_set.model_dump(mode="json", exclude={"entries"})
    header |= {
        "created_at": reference_set.created_at,
        "stored_at": datetime.now(UTC),
        "n_entries": len(reference_set.entries),
    }
    rows = [
        ReplaceOne(
            {"_id": f"{reference_id}/{index}"},
            {
                "reference_id": reference_id,
                "index": index,
                "schema_version": SCHEMA_VERSION,
                "entry": entry.model_dump(mode="json"),
            },
            upsert=True,
        )
        for index, entry in enumerate(reference_set.entries)
    ]

    def store() -> None:
        if rows:
            db.reference_entries.bulk_write(rows)
        change = {"$setOnInsert": header, "$addToSet": {"same_of": reference_set.source_version}}
        db.references.update_one({"_id": reference_id}, change, upsert=True)

    survive_outage(store)
    return reference_id
