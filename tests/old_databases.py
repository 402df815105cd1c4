"""Databases that earlier versions wrote, and the ledgers they must lead to."""

import json
from pathlib import Path
from typing import Any

from pccd_workflows.execution import backup, launchpad, mongo
from pccd_workflows.settings import Settings

FOLDER = Path(__file__).parent / "fixtures" / "databases"
FINISHED = "c7e1b0f-finished"
HALF_RUN = "c7e1b0f-half-run"
LEDGER_FIELDS = (
    "status",
    "stage",
    "reason_class",
    "formula_pretty",
    "spacegroup",
    "energy_above_hull",
    "novel",
    "phonon_stable",
)

Ledger = dict[str, dict[str, Any]]


def load_database(name: str, settings: Settings) -> dict[str, Any]:
    """Fill the empty database of `settings` with a stored one; return the backup's manifest."""
    database = mongo.database(settings)
    manifest = backup.restore(database, FOLDER / name)
    mongo.ensure_indexes(database)
    launchpad.launchpad(settings)
    return manifest


def expected_ledger(name: str) -> Ledger:
    """Return candidate_id -> LEDGER_FIELDS of a database, as the version that wrote it ends."""
    ledger: Ledger = json.loads((FOLDER / f"{name}.expected-ledger.json").read_text())
    return ledger


def judged_today(ledger: Ledger, settings: Settings) -> Ledger:
    """Return a ledger with the one verdict that changed since: known before relaxing, known now.

    Earlier versions took the verdict on the relaxed crystal alone.
    """
    query = {"novelty.duplicate_of": None, "novelty": {"$ne": None}}
    documents = mongo.database(settings)["candidates"].find(query)
    known = {
        row["_id"]
        for row in documents
        if any(found["known"] for found in row["novelty"]["sets"].values())
    }
    return {name: row | ({"novel": False} if name in known else {}) for name, row in ledger.items()}


def ledger_of(settings: Settings) -> Ledger:
    """Return what `expected_ledger` returns of the candidates that are stored now."""
    rows = mongo.database(settings)["candidates"].find().sort("_id", 1)
    return {row["_id"]: {field: row[field] for field in LEDGER_FIELDS} for row in rows}
