"""Copies of the database in plain files, and back: no MongoDB tool is needed for either."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS, dumps, loads
from pymongo.database import Database
from pymongo.errors import OperationFailure

from pccd_workflows import __version__
from pccd_workflows.core.errors import DatabaseError, InputError, PccdError
from pccd_workflows.core.files import make_private
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.execution.mongo import check_schema_version

Document = dict[str, Any]

MANIFEST = "manifest.json"
BATCH_BYTES = 8_000_000
SNAPSHOT_TOO_OLD = 239


def back_up(db: Database[Document], out: Path) -> Document:
    """Write every collection as it is at this moment to a new folder; return its manifest.

    One gzipped file of extended JSON lines per collection, GridFS included. The folder appears
    when it is complete; workers may go on meanwhile.

    Raises
    ------
    InputError
        `out` exists.
    PccdError
        The disk is full, `out` cannot be written, or the server kept its snapshot too briefly.
    """
    if out.exists():
        raise InputError(f"{out} exists: name a new folder.")
    with _appearing_whole(out) as folder, db.client.start_session(snapshot=True) as session:
        names = sorted(n for n in db.list_collection_names() if not n.startswith("system."))
        try:
            collections = {name: _dump(db, name, folder, session) for name in names}
        except OperationFailure as error:
            if error.code != SNAPSHOT_TOO_OLD:
                raise
            raise DatabaseError(
                "The backup took longer than the server keeps old states: raise its parameter "
                "minSnapshotHistoryWindowInSeconds, or stop the workers and try again."
            ) from None
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "pccd_workflows": __version__,
            "database": db.name,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "collections": collections,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end of the block, or vanishes if it fails."""
    scratch = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        make_private(scratch)
        yield scratch
        scratch.rename(out)
    except OSError as error:
        raise PccdError(f"The backup cannot be written to {out}: {error.strerror}.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _dump(db: Database[Document], name: str, folder: Path, session: Any) -> Document:
    path = folder / f"{name}.jsonl.gz"
    number = 0
    with path.open("wb") as raw, gzip.open(raw, "wt", encoding="utf-8", newline="\n") as stream:
        for document in db[name].find({}, session=session):
            stream.write(dumps(document, json_options=CANONICAL_JSON_OPTIONS) + "\n")
            number += 1
        stream.close()
        raw.flush()
        os.fsync(raw.fileno())
    return {"documents": number, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(folder: Path) -> Document:
    """Return the manifest of a backup after comparing every file with its checksum.

    Raises
    ------
    InputError
        The folder is no backup, or a file is missing, truncated or changed.
    DatabaseError
        A newer version of this package wrote it.
    """
    try:
        manifest: Document = json.loads((folder / MANIFEST).read_text())
        files = {n: (folder / f"{n}.jsonl.gz", c) for n, c in manifest["collections"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder} is no backup: it has no readable {MANIFEST}.") from None
    check_schema_version(manifest, f"Backup {folder}")
    for path, collection in files.values():
        if not path.is_file() or _sha256(path) != collection["sha256"]:
            raise InputError(f"{path} is missing, truncated or changed; nothing was restored.")
    return manifest


def restore(db: Database[Document], folder: Path) -> Document:
    """Fill an empty database from a backup; return the backup's manifest.

    Raises
    ------
    InputError
        The database is not empty, or the backup is not whole.
    """
    manifest = read_manifest(folder)
    if present := sorted(name for name in db.list_collection_names() if db[name].find_one()):
        raise InputError(
            f"Database {db.name!r} is not empty (it has {', '.join(present[:3])}, ...): "
            "set PCCD_DATABASE to a new name."
        )
    try:
        for name in manifest["collections"]:
            _load(db, name, folder)
    except BaseException:
        for name in manifest["collections"]:
            db.drop_collection(name)
        raise
    return manifest


def _load(db: Database[Document], name: str, folder: Path) -> None:
    batch: list[Document] = []
    size = 0
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            batch.append(loads(line))
            size += len(line)
            if size > BATCH_BYTES:
                db[name].insert_many(batch)
                batch, size = [], 0
    if batch:
        db[name].insert_many(batch)
