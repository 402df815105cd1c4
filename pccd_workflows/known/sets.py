"""Named sets of known crystals in the campaign database: what "new" is measured against.

A set is imported once and does not change: its name goes into novelty verdicts, so another release
of the same database is another set.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Structure

from pccd_workflows.core.crystal_files import Row
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import Unreadable
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.sections import NAME_PATTERN
from pccd_workflows.execution.mongo import survive_outage
from pccd_workflows.known.novelty import RESERVED_SETS

if TYPE_CHECKING:
    from pymongo.database import Database

Document = dict[str, Any]

BATCH = 500
"""Crystals per write."""
REASONS = 20
"""Different reasons for unreadable records that are kept."""


class KnownSet(BaseModel):
    """What is known about a set."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    source: str = Field(description="Where it was imported from")
    attribution: str = Field("", description="Whose work it is and under which licence")
    complete: bool = Field(description="False while an import runs or after it was cut off")
    n_structures: int = 0
    unreadable: dict[str, int] = Field(default_factory=dict, description="Records by reason")
    content_sha256: str = Field("", description="Over id and geometry of every crystal")

    @property
    def note(self) -> str:
        """What a novelty verdict says about the set."""
        whose = f" ({self.attribution})" if self.attribution else ""
        content = f"content {self.content_sha256[:10]}"
        return f"{self.n_structures} crystals of {self.source}, {content}{whose}"


def import_known_set(
    db: "Database[Document]",
    name: str,
    rows: Iterable[Row],
    *,
    source: str,
    attribution: str = "",
    progress: Callable[[int], None] = lambda read: None,  # noqa: ARG005
) -> KnownSet:
    """Store crystals as the set `name`; return what is there.

    An import that was cut off is completed by the same call; a complete one is left as it is.

    Parameters
    ----------
    db
        The campaign database.
    name
        Of the set, as campaign files will name it.
    rows
        Id and crystal; unreadable records are counted, not stored.
    source
        Where they come from, in words; it must not hold credentials.
    attribution
        Whose work they are and under which licence; every verdict that names the set quotes it.
    progress
        Called with the records read so far.

    Raises
    ------
    InputError
        The name is not allowed or belongs to a set from another source; or there is no crystal.
    """
    # no dots: the name is a key in candidates' documents, where MongoDB takes them for paths
    if not NAME_PATTERN.fullmatch(name) or "." in name or name in RESERVED_SETS:
        raise InputError(
            f"{name!r} cannot name a set: take a-z, 0-9, '_' and '-', and none of "
            f"{', '.join(RESERVED_SETS)}."
        )
    known = find_known_set(db, name)
    if known is not None and known.source != source:
        raise InputError(
            f"There is a set {name!r} from {known.source} already: choose another name, or remove "
            "that one first."
        )
    if known is not None and known.complete:
        return known
    db["known_structures"].create_index([("set", 1), ("formula", 1)])
    unreadable: Counter[str] = Counter()
    read = 0
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        read += len(batch)
        # of records with one id the first stays, as across batches
        good = {i: crystal for i, crystal in reversed(batch) if isinstance(crystal, Structure)}
        if good:  # a source that cannot be read leaves no set behind
            _begin(db, name, {"source": source, "attribution": attribution})
            _store(db, name, good)
        unreadable.update(c.reason for _, c in batch if isinstance(c, Unreadable))
        progress(read)
    return _finish(db, name, read, unreadable)


def find_known_set(db: "Database[Document]", name: str) -> KnownSet | None:
    """Return what is known about a set; None if there is none of that name."""
    row = survive_outage(lambda: db["known_sets"].find_one({"_id": name}))
    return None if row is None else KnownSet(name=name, **row)


def list_known_sets(db: "Database[Document]") -> list[KnownSet]:
    """Return all sets, by name."""
    rows = survive_outage(lambda: list(db["known_sets"].find().sort("_id", 1)))
    return [KnownSet(name=row["_id"], **row) for row in rows]


def check_known_sets(db: "Database[Document]", names: Sequence[str]) -> None:
    """See that sets are there and whole.

    Raises
    ------
    InputError
        One is not; the message names those that are.
    """
    sets = {known.name: known for known in list_known_sets(db)}
    for name in names:
        if name not in sets:
            there = ", ".join(sets) or "none; `pccd known import` makes one"
            raise InputError(f"novelty.sets: there is no set {name!r} (there are: {there}).")
        if not sets[name].complete:
            raise InputError(
                f"novelty.sets: the import of {name!r} was cut off: run it again to complete it."
            )


def known_structures(
    db: "Database[Document]", name: str, formulas: Iterable[str]
) -> Iterator[tuple[str, Structure]]:
    """Yield id and crystal of those in the set `name` with one of the reduced `formulas`."""
    wanted = sorted(set(formulas))
    for start in range(0, len(wanted), BATCH):
        query = {"set": name, "formula": {"$in": wanted[start : start + BATCH]}}
        for row in _find(db, query):
            yield row["id"], unpack(row["structure"])


def structures_in_system(
    db: "Database[Document]", name: str, chemsys: str
) -> Iterator[tuple[str, Structure]]:
    """Yield id and crystal of those in the set `name` that consist of elements of `chemsys`."""
    symbols = "|".join(chemsys.split("-"))
    # formulas are indexed, systems are not; a symbol ends where the next capital begins
    pattern = f"^(?:(?:{symbols})(?![a-z])|[0-9.()])+$"
    for row in _find(db, {"set": name, "formula": {"$regex": pattern}}):
        yield row["id"], unpack(row["structure"])


def stored_crystals(db: "Database[Document]", name: str) -> Iterator[tuple[str, Structure]]:
    """Yield id and crystal of all of the set `name`, by id."""
    last = ""
    while rows := _after(db, name, last):
        for row in rows:
            yield row["id"], unpack(row["structure"])
        last = rows[-1]["_id"]


def _after(db: "Database[Document]", name: str, last: str) -> list[Document]:
    """Return the next records of a set: a cursor would not survive an outage."""
    query = {"_id": {"$gt": last or f"{name}/", "$lt": f"{name}0"}}
    found = db["known_structures"]
    return survive_outage(lambda: list(found.find(query).sort("_id", 1).limit(10 * BATCH)))


def _find(db: "Database[Document]", query: Document) -> list[Document]:
    return survive_outage(lambda: list(db["known_structures"].find(query).sort("_id", 1)))


def remove_known_set(db: "Database[Document]", name: str) -> int:
    """Delete a set; return the number of its crystals."""
    db["known_sets"].update_one({"_id": name}, {"$set": {"complete": False}})
    deleted = db["known_structures"].delete_many({"set": name}).deleted_count
    db["known_sets"].delete_one({"_id": name})
    return deleted


def pack(structure: Structure) -> Document:
    """Return the geometry alone: rows of the lattice in Å, symbols, fractional coordinates."""
    return {
        "lattice": structure.lattice.matrix.ravel().tolist(),
        "species": [site.specie.symbol for site in structure],
        "frac_coords": structure.frac_coords.ravel().tolist(),
    }


def unpack(packed: Document) -> Structure:
    """Return the crystal that `pack` made small."""
    coords = packed["frac_coords"]
    sites = [coords[i : i + 3] for i in range(0, len(coords), 3)]
    lattice = packed["lattice"]
    rows = [lattice[i : i + 3] for i in range(0, 9, 3)]
    return Structure(rows, packed["species"], sites)


def _begin(db: "Database[Document]", name: str, origin: dict[str, str]) -> None:
    header = {
        "schema_version": SCHEMA_VERSION,
        **origin,
        "complete": False,
        "started_at": datetime.now(UTC),
    }
    survive_outage(
        lambda: db["known_sets"].update_one({"_id": name}, {"$setOnInsert": header}, upsert=True)
    )


def _store(db: "Database[Document]", name: str, crystals: dict[str, Structure]) -> None:
    """Store those crystals that an earlier import has not stored."""
    collection = db["known_structures"]
    ids = [f"{name}/{identifier}" for identifier in crystals]

    def write() -> None:
        there = {row["_id"] for row in collection.find({"_id": {"$in": ids}}, {"_id": 1})}
        new = [
            {
                "_id": f"{name}/{identifier}",
                "set": name,
                "id": identifier,
                "formula": crystal.composition.element_composition.reduced_formula,
                "structure": pack(crystal),
            }
            for identifier, crystal in crystals.items()
            if f"{name}/{identifier}" not in there
        ]
        if new:
            collection.insert_many(new, ordered=False)

    survive_outage(write)


def _finish(db: "Database[Document]", name: str, read: int, unreadable: Counter[str]) -> KnownSet:
    """Mark a set as complete and say what it holds."""
    digest, count = hashlib.sha256(), 0
    for row in db["known_structures"].find({"set": name}).sort("_id", 1):
        digest.update(orjson.dumps([row["id"], row["structure"]], option=orjson.OPT_SORT_KEYS))
        count += 1
    if count == 0:
        db["known_sets"].delete_one({"_id": name})
        reasons = "; ".join(reason for reason, _ in unreadable.most_common(3))
        raise InputError(f"The source of set {name!r} holds no usable crystal ({reasons}).")
    if (repeated := read - unreadable.total() - count) > 0:
        unreadable["its id is that of another record"] = repeated
    rows = unreadable.most_common(REASONS)
    fields_now = {
        "complete": True,
        "n_structures": count,
        "unreadable": {reason.replace(".", " ").replace("$", " "): n for reason, n in rows},
        "content_sha256": digest.hexdigest(),
        "completed_at": datetime.now(UTC),
    }
    db["known_sets"].update_one({"_id": name}, {"$set": fields_now})
    found = find_known_set(db, name)
    if found is None:
        raise InputError(f"Set {name!r} was removed during its import.")
    return found
