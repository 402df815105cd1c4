"""Files of chosen crystals, or of all that a list shows: CIFs in a zip, extXYZ, CSV."""

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.errors import InputError
from pccd_workflows.explorer.answers import Answer
from pccd_workflows.explorer.crystals import find
from pccd_workflows.explorer.state import parse_state
from pccd_workflows.export import ONE_FILE_EACH, export_candidates
from pccd_workflows.query import count_documents, find_documents, to_candidate

if TYPE_CHECKING:
    from pymongo.database import Database

MOST = 500
"""Crystals in one download; `pccd candidate export` writes any number."""
TYPES = {
    "cif": "application/zip",
    "cif-p1": "application/zip",
    "poscar": "application/zip",
    "extxyz": "chemical/x-xyz",
    "csv": "text/csv; charset=utf-8",
}
"""Formats that are offered."""


def export_selected(database: "Database[dict[str, Any]]", query: str) -> Answer:
    """Return the crystals given by ``id`` (repeatable), else those that the filters pass.

    ``format`` is one of TYPES.
    """
    pairs = parse_qsl(query)
    form = next((value for key, value in pairs if key == "format"), "")
    if form not in TYPES:
        raise InputError(f"Unknown format {form!r}; use one of {', '.join(TYPES)}.")
    ids = [value for key, value in pairs if key == "id"]
    rest = urlencode([pair for pair in pairs if pair[0] not in ("id", "format")])
    found = (find(database, one) for one in ids) if ids else _matching(database, rest)
    with tempfile.TemporaryDirectory(prefix="pccd-") as scratch:
        files = export_candidates(found, Path(scratch), form).files
        if form in ONE_FILE_EACH:
            return Answer(_zipped(files), TYPES[form], filename=f"crystals-{form}.zip")
        return Answer(files[0].read_bytes(), TYPES[form], filename=files[0].name)


def _matching(database: "Database[dict[str, Any]]", query: str) -> Iterator[CandidateDoc]:
    state = parse_state(query)
    if state.problems:
        raise InputError(state.problems[0])
    total = count_documents(database["candidates"], state.which)
    if total > MOST:
        command = f"pccd candidate export {state.which.describe()} --format ... --out ..."
        raise InputError(
            f"{total:,} crystals are more than one download holds ({MOST}): narrow down, or use "
            f"`{command}`."
        )
    return (to_candidate(row) for row in find_documents(database["candidates"], state.which))


def _zipped(files: list[Path]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
    return whole.getvalue()
