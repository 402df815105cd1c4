"""Snapshots of the Materials Project: what was fetched, by database version and chemical system."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from pccd_workflows.core.bounded_files import COMPRESSIONS, Allowance, lines, metered
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.reference_set import ReferenceEntry
from pccd_workflows.execution.mongo import replace_documents, survive_outage

if TYPE_CHECKING:
    from pymongo.database import Database

FORMAT = "pccd snapshot of the Materials Project"


class Snapshot(Protocol):
    """Where fetched entries are kept: by database version and chemical system."""

    def complete_version(self, systems: Sequence[str]) -> str | None:
        """Return the latest version of which all `systems` are kept; None if there is none."""

    def missing(self, version: str, systems: Sequence[str]) -> list[str]:
        """Return those of `systems` that are not kept of `version`."""

    def put(self, version: str, system: str, entries: Sequence[ReferenceEntry]) -> None:
        """Keep all phases of exactly these elements."""

    def mark_whole(self, version: str) -> None:
        """Note that all of MP is kept of `version`: a system without entries has no phases."""

    def entries(self, version: str, systems: Sequence[str]) -> list[ReferenceEntry]:
        """Return the kept phases of `systems`, by id."""


class MemorySnapshot:
    """Keeps entries as long as the process lives."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[ReferenceEntry]] = {}
        self._whole: set[str] = set()

    def complete_version(self, systems: Sequence[str]) -> str | None:
        """See Snapshot."""
        versions = {version for version, _ in self._kept}
        complete = [v for v in versions if not self.missing(v, systems)]
        return max(complete, key=version_key, default=None)

    def missing(self, version: str, systems: Sequence[str]) -> list[str]:
        """See Snapshot."""
        if version in self._whole:
            return []
        return [system for system in systems if (version, system) not in self._kept]

    def put(self, version: str, system: str, entries: Sequence[ReferenceEntry]) -> None:
        """See Snapshot."""
        self._kept[version, system] = list(entries)

    def mark_whole(self, version: str) -> None:
        """See Snapshot."""
        self._whole.add(version)

    def entries(self, version: str, systems: Sequence[str]) -> list[ReferenceEntry]:
        """See Snapshot."""
        found = [entry for system in systems for entry in self._kept.get((version, system), [])]
        return sorted(found, key=lambda e: e.entry_id)


class MongoSnapshot:
    """Keeps entries in the campaign database: ``mp_entries``, and ``mp_systems`` for what is whole.

    A system is marked when all its entries are stored, so that a kill leaves nothing half-known.
    """

    def __init__(self, db: "Database[dict[str, Any]]") -> None:
        self._systems, self._entries = db["mp_systems"], db["mp_entries"]
        survive_outage(lambda: self._entries.create_index([("version", 1), ("system", 1)]))

    def versions(self) -> dict[str, int]:
        """Return the number of complete systems by version, the latest first."""
        kept = {"$match": {"system": {"$exists": True}}}
        group = {"$group": {"_id": "$version", "n": {"$sum": 1}}}
        rows = survive_outage(lambda: list(self._systems.aggregate([kept, group])))
        counts = {row["_id"]: row["n"] for row in rows}
        return dict(sorted(counts.items(), key=lambda item: version_key(item[0]), reverse=True))

    def complete_version(self, systems: Sequence[str]) -> str | None:
        """See Snapshot."""
        return next((v for v in self.versions() if not self.missing(v, systems)), None)

    def missing(self, version: str, systems: Sequence[str]) -> list[str]:
        """See Snapshot."""
        if self.is_whole(version):
            return []
        kept: set[str] = set()
        for start in range(0, len(systems), 10_000):
            ids = [f"{version}/{system}" for system in systems[start : start + 10_000]]
            kept.update(self._names({"_id": {"$in": ids}}))
        return [system for system in systems if system not in kept]

    def put(self, version: str, system: str, entries: Sequence[ReferenceEntry]) -> None:
        """See Snapshot."""
        fields = {"version": version, "system": system, "schema_version": SCHEMA_VERSION}
        rows = [
            {"_id": f"{version}/{e.entry_id}", **fields, "entry": e.model_dump(mode="json")}
            for e in entries
        ]
        replace_documents(self._entries, rows)
        marker = {**fields, "n_entries": len(entries), "stored_at": datetime.now(UTC)}
        self._mark(f"{version}/{system}", marker)

    def mark_whole(self, version: str) -> None:
        """See Snapshot."""
        self._mark(version, {"version": version, "schema_version": SCHEMA_VERSION, "whole": True})

    def _mark(self, key: str, marker: dict[str, Any]) -> None:
        survive_outage(lambda: self._systems.replace_one({"_id": key}, marker, upsert=True))

    def _names(self, query: dict[str, Any]) -> list[str]:
        rows = survive_outage(lambda: list(self._systems.find(query, {"system": 1})))
        return [row["system"] for row in rows]

    def is_whole(self, version: str) -> bool:
        """Return whether all of MP is kept of `version`."""
        return survive_outage(lambda: self._systems.find_one({"_id": version})) is not None

    def systems(self, version: str) -> list[str]:
        """Return the kept chemical systems of a version, sorted."""
        return sorted(self._names({"version": version, "system": {"$exists": True}}))

    def entries(self, version: str, systems: Sequence[str]) -> list[ReferenceEntry]:
        """See Snapshot."""
        query = {"version": version, "system": {"$in": list(systems)}}
        rows = survive_outage(lambda: list(self._entries.find(query, {"entry": 1}).sort("_id", 1)))
        return [ReferenceEntry.model_validate(row["entry"]) for row in rows]


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts versions such as 2025.9.25, 2025_11_1 and 2025.11.1.post1 by date."""
    parts = version.replace("_", ".").replace("-", ".").split(".")
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def content_hash(entries: Iterable[ReferenceEntry]) -> str:
    """Return the sha256 over everything the entries say, structures included; in any order."""
    rows = sorted(
        orjson.dumps(entry.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        for entry in entries
    )
    return hashlib.sha256(b"\n".join(rows)).hexdigest()


# --- portable files --------------------------------------------------------------------------


def export_snapshot(snapshot: MongoSnapshot, version: str, path: Path) -> int:
    """Write what is kept of a version as gzipped JSON lines; return the number of systems.

    The first line says what it is, then comes a line for each chemical system, and the last one
    has the sha256 of all before: the same content gives the same bytes.

    Raises
    ------
    InputError
        Nothing is kept of `version`, or the file cannot be written.
    """
    systems = snapshot.systems(version)
    if not systems:
        there = ", ".join(snapshot.versions()) or "none"
        raise InputError(f"Nothing is kept of version {version!r} (there are: {there}).")
    header = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": version,
        "whole": snapshot.is_whole(version),
        "systems": len(systems),
    }
    digest = hashlib.sha256()
    scratch = path.with_name(f".{path.name}.part")
    try:
        with scratch.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as file:
            for row in chain([header], _system_rows(snapshot, version, systems)):
                line = orjson.dumps(row, option=orjson.OPT_SORT_KEYS) + b"\n"
                digest.update(line)
                file.write(line)
            file.write(orjson.dumps({"sha256": digest.hexdigest()}) + b"\n")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    return len(systems)


def _system_rows(
    snapshot: MongoSnapshot, version: str, systems: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for system in systems:
        entries = snapshot.entries(version, [system])
        yield {"system": system, "entries": [entry.model_dump(mode="json") for entry in entries]}


def import_snapshot(
    snapshot: Snapshot,
    path: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> str:
    """Keep what a file from `export_snapshot` holds; return its version.

    The whole file is checked before anything is kept; what is kept already is left as it is.

    Raises
    ------
    InputError
        It is no such file, was written by a newer version, is damaged or cut off.
    """
    header = _verified(path)
    version: str = header["version"]
    for done, line in enumerate(islice(_lines(path), 1, None), start=1):
        row = orjson.loads(line)
        if "system" in row and snapshot.missing(version, [row["system"]]):
            entries = [ReferenceEntry.model_validate(entry) for entry in row["entries"]]
            snapshot.put(version, row["system"], entries)
        progress(min(done, header["systems"]), header["systems"])
    if header["whole"]:
        snapshot.mark_whole(version)
    return version


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a gzipped file, whatever its name is."""
    with path.open("rb") as raw:
        allowance = Allowance(path.stat().st_size, str(path))
        yield from lines(metered(COMPRESSIONS[".gz"](raw), allowance), str(path))


def _verified(path: Path) -> dict[str, Any]:
    """Return the header of a snapshot file after reading it to its end."""
    digest, held = hashlib.sha256(), b""
    try:
        found = _lines(path)
        first = next(found, b"")
        digest.update(first)
        for line in found:
            digest.update(held)
            held = line
        header, trailer = orjson.loads(first), orjson.loads(held)
        is_snapshot = header["format"] == FORMAT
        whole = trailer["sha256"] == digest.hexdigest()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError, KeyError, TypeError):
        is_snapshot, whole, header = True, False, {}
    if not is_snapshot or not whole:
        raise InputError(f"{path} is no snapshot of the Materials Project, or damaged or cut off.")
    if header["schema_version"] > SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer version: update pccd-workflows.")
    return dict(header)
