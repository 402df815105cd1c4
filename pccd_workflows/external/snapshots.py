"""Snapshots of the Materials Project: what was fetched, by database version and chemical system."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from pccd_workflows.candidate import SCHEMA_VERSION
from pccd_workflows.reference import ReferenceEntry

if TYPE_CHECKING:
    from pymongo.database import Database


class Snapshot(Protocol):
    """Where fetched entries are kept: by database version and chemical system."""

    def complete_version(self, systems: Sequence[str]) -> str | None:
        """Return the latest version of which all `systems` are kept; None if there is none."""

    def missing(self, version: str, systems: Sequence[str]) -> list[str]:
        """Return those of `systems` that are not kept of `version`."""

    def put(self, version: str, system: str, entries: Sequence[ReferenceEntry]) -> None:
        """Keep all phases of exactly these elements."""

    def entries(self, version: str, systems: Sequence[str]) -> list[ReferenceEntry]:
        """Return the kept phases of `systems`, by id."""


class MemorySnapshot:
    """Keeps entries as long as the process lives."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[ReferenceEntry]] = {}

    def complete_version(self, systems: Sequence[str]) -> str | None:
        """See Snapshot."""
        versions = {version for version, _ in self._kept}
        complete = [v for v in versions if not self.missing(v, systems)]
        return max(complete, key=version_key, default=None)

    def missing(self, version: str, systems: Sequence[str]) -> list[str]:
        """See Snapshot."""
        return [system for system in systems if (version, system) not in self._kept]

    def put(self, version: str, system: str, entries: Sequence[ReferenceEntry]) -> None:
        """See Snapshot."""
        self._kept[version, system] = list(entries)

    def entries(self, version: str, systems: Sequence[str]) -> list[ReferenceEntry]:
        """See Snapshot."""
        found = [entry for system in systems for entry in self._kept[version, system]]
        return sorted(found, key=lambda e: e.entry_id)


class MongoSnapshot:
    """Keeps entries in the campaign database: ``mp_entries``, and ``mp_systems`` for what is whole.

    A system is marked when all its entries are stored, so that a kill leaves nothing half-known.
    """

    def __init__(self, db: "Database[dict[str, Any]]") -> None:
        self._systems, self._entries = db["mp_systems"], db["mp_entries"]
        self._entries.create_index([("version", 1), ("system", 1)])

    def versions(self) -> dict[str, int]:
        """Return the number of complete systems by version, the latest first."""
        rows = self._systems.aggregate([{"$group": {"_id": "$version", "n": {"$sum": 1}}}])
        counts = {row["_id"]: row["n"] for row in rows}
        return dict(sorted(counts.items(), key=lambda item: version_key(item[0]), reverse=True))

    def complete_version(self, systems: Sequence[str]) -> str | None:
        """See Snapshot."""
        return next((v for v in self.versions() if not self.missing(v, systems)), None)

    def missing(self, version: str, systems: Sequence[str]) -> list[str]:
        """See Snapshot."""
        kept: set[str] = set()
        for start in range(0, len(systems), 10_000):
            ids = [f"{version}/{system}" for system in systems[start : start + 10_000]]
            rows = self._systems.find({"_id": {"$in": ids}}, {"system": 1})
            kept.update(row["system"] for row in rows)
        return [system for system in systems if system not in kept]

    def put(self, version: str, system: str, entries: Sequence[ReferenceEntry]) -> None:
        """See Snapshot."""
        from pymongo import ReplaceOne

        fields = {"version": version, "system": system, "schema_version": SCHEMA_VERSION}
        if entries:
            self._entries.bulk_write(
                [
                    ReplaceOne(
                        {"_id": f"{version}/{entry.entry_id}"},
                        {**fields, "entry": entry.model_dump(mode="json")},
                        upsert=True,
                    )
                    for entry in entries
                ]
            )
        marker = {**fields, "n_entries": len(entries), "stored_at": datetime.now(UTC)}
        self._systems.replace_one({"_id": f"{version}/{system}"}, marker, upsert=True)

    def entries(self, version: str, systems: Sequence[str]) -> list[ReferenceEntry]:
        """See Snapshot."""
        query = {"version": version, "system": {"$in": list(systems)}}
        rows = self._entries.find(query, {"entry": 1}).sort("_id", 1)
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
