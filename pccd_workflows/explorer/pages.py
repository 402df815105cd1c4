"""The explorer's answers: a database and an address in, a page or JSON out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from jinja2 import ChoiceLoader, Environment, PackageLoader

from pccd_workflows import __version__
from pccd_workflows.core.errors import DatabaseError, InputError, PccdError
from pccd_workflows.explorer.state import PER_PAGE, VERDICTS, ListState, parse_state
from pccd_workflows.export import best_relaxation, cif_text, file_stem
from pccd_workflows.query import (
    STATUSES,
    SUMMARY_FIELDS,
    count_documents,
    find_candidate,
    find_documents,
)
from pccd_workflows.report.card import make_card
from pccd_workflows.report.phase_diagram import energy_class, pretty
from pccd_workflows.report.render import asset, environment
from pccd_workflows.report.stages import millis
from pccd_workflows.rescore import find_rescores

if TYPE_CHECKING:
    from pymongo.database import Database

MAX_CAMPAIGNS = 200
"""Campaigns offered by name; others can be typed."""
COLUMNS = (
    ("Formula", "formula_pretty"),
    ("Space group", "spacegroup"),
    ("Atoms", "nsites"),
    ("E above hull (meV/atom)", "energy_above_hull"),
    ("Novelty", None),
    ("Phonons", None),
    ("Band gap (eV)", None),
    ("Status", "status"),
    ("Campaign", None),
    ("Candidate", "index"),
)


class NotFoundError(PccdError):
    """Nothing lies at an address."""


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser."""

    body: str
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    filename: str | None = None


def answer(database: "Database[dict[str, Any]]", path: str, query: str) -> Answer:
    """Return the page or data at an address; errors become pages (or JSON) of one sentence."""
    as_json = path.startswith("/api/")
    try:
        return _route(database, path, query)
    except PccdError as error:
        status = {InputError: 400, NotFoundError: 404, DatabaseError: 503}.get(type(error), 500)
        if as_json:
            return _json({"error": str(error)}, status)
        return Answer(_render("error.html", message=str(error), status=status), status=status)


def _route(database: "Database[dict[str, Any]]", path: str, query: str) -> Answer:
    if path == "/":
        return Answer(_render("list.html", **list_view(database, parse_state(query))))
    if path == "/api/candidates":
        return _json(list_data(database, parse_state(query)))
    for prefix, respond in (
        ("/candidate/", _candidate_page),
        ("/api/candidate/", _candidate_json),
        ("/cif/", _candidate_cif),
    ):
        if path.startswith(prefix):
            return respond(database, unquote(path.removeprefix(prefix)))
    raise NotFoundError("There is no such page.")


def list_data(database: "Database[dict[str, Any]]", state: ListState) -> dict[str, Any]:
    """Return one page of candidates (what a table needs of them) and how many there are."""
    candidates = database["candidates"]
    total = count_documents(candidates, state.which)
    rows = find_documents(
        candidates, state.which, fields=SUMMARY_FIELDS, skip=state.skip, limit=PER_PAGE
    )
    return {
        "total": total,
        "page": state.page,
        "pages": max(1, -(-total // PER_PAGE)),
        "per_page": PER_PAGE,
        "candidates": list(rows),
    }


def list_view(database: "Database[dict[str, Any]]", state: ListState) -> dict[str, Any]:
    """Return what the list's template shows."""
    data = list_data(database, state)
    campaigns = database["campaigns"].find({}, {"_id": 1}).sort("submitted_at", -1)
    described = state.which.describe()
    sort = "" if state.which.sort == "energy_above_hull" else f" --sort={state.which.sort}"
    return {
        "state": state,
        "data": data,
        "rows": [_row(row) for row in data["candidates"]],
        "columns": COLUMNS,
        "campaigns": [row["_id"] for row in campaigns.limit(MAX_CAMPAIGNS)],
        "statuses": STATUSES,
        "verdicts": VERDICTS,
        "first": state.skip + 1 if data["candidates"] else 0,
        "last": state.skip + len(data["candidates"]),
        "command_line": f"pccd candidate list {described}".strip() + sort,
        "filtered": bool(described),
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    energy = row.get("energy_above_hull")
    return {
        **{field: row.get(field) for field in SUMMARY_FIELDS},
        "formula": pretty(row.get("formula_pretty") or ""),
        "energy": millis(energy),
        "energy_class": "" if energy is None else energy_class(energy),
    }


def _candidate_page(database: "Database[dict[str, Any]]", candidate_id: str) -> Answer:
    doc = _find(database, candidate_id)
    rescores = find_rescores(database, candidate_id=doc.candidate_id).get(doc.candidate_id, [])
    card = make_card(doc, "c0", rescores)
    return Answer(_render("candidate.html", card=card, has_cif=best_relaxation(doc)))


def _candidate_json(database: "Database[dict[str, Any]]", candidate_id: str) -> Answer:
    return Answer(_find(database, candidate_id).model_dump_json(), "application/json")


def _candidate_cif(database: "Database[dict[str, Any]]", candidate_id: str) -> Answer:
    doc = _find(database, candidate_id)
    relaxation = best_relaxation(doc)
    if relaxation is None or relaxation.structure is None:
        raise NotFoundError(f"{doc.candidate_id} has no relaxed structure.")
    text = cif_text(doc, relaxation.structure)
    name = f"{file_stem(doc, relaxation.structure)}.cif"
    return Answer(text, "chemical/x-cif; charset=utf-8", filename=name)


def _find(database: "Database[dict[str, Any]]", candidate_id: str) -> Any:
    try:
        return find_candidate(database["candidates"], candidate_id)
    except InputError as error:
        raise NotFoundError(str(error)) from None


def _json(data: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(json.dumps(data, default=str), "application/json", status)


def _render(template: str, **values: Any) -> str:
    return (
        _environment()
        .get_template(template)
        .render(style=asset("style.css"), script=asset("page.js"), version=__version__, **values)
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    own, shared = PackageLoader("pccd_workflows.explorer"), PackageLoader("pccd_workflows.report")
    return environment().overlay(loader=ChoiceLoader([own, shared]))
