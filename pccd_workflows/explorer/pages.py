"""The explorer's answers: a database and an address in, a page or JSON out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from jinja2 import ChoiceLoader, Environment, PackageLoader

from pccd_workflows import __version__
from pccd_workflows.columns import make_table, row_fields, row_records, summary
from pccd_workflows.core.errors import DatabaseError, InputError, PccdError
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.explorer.state import PER_PAGE, VERDICTS, ListState, parse_state
from pccd_workflows.export import best_relaxation, cif_text, file_stem
from pccd_workflows.query import (
    STATUSES,
    SUMMARY_FIELDS,
    campaign_ids,
    count_documents,
    find_candidate,
    find_documents,
    short_id,
)
from pccd_workflows.report.card import make_card, table_views
from pccd_workflows.report.render import asset, environment
from pccd_workflows.rescore import find_rescores
from pccd_workflows.stages.stage import Records

if TYPE_CHECKING:
    from pymongo.database import Database

MAX_CAMPAIGNS = 200
"""Campaigns offered by name; others can be typed."""


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
        state = parse_state(query)
        status = 400 if state.problems else 200
        return Answer(_render("list.html", **list_view(database, state)), status=status)
    if path == "/api/candidates":
        state = parse_state(query)
        if state.problems:
            raise InputError(state.problems[0])
        return _json(list_data(database, state))
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
    total = count_documents(database["candidates"], state.which)
    return {
        "total": total,
        "page": state.page,
        "pages": max(1, -(-total // PER_PAGE)),
        "per_page": PER_PAGE,
        "candidates": [summary(row, records) for row, records in _page(database, state)],
    }


def _page(
    database: "Database[dict[str, Any]]", state: ListState
) -> list[tuple[dict[str, Any], Records]]:
    """Return the rows of one page with the records that their columns need."""
    fields = [*SUMMARY_FIELDS, *row_fields()]
    found = find_documents(
        database["candidates"], state.which, fields=fields, skip=state.skip, limit=PER_PAGE
    )
    return [(row, row_records(row)) for row in found]


def list_view(database: "Database[dict[str, Any]]", state: ListState) -> dict[str, Any]:
    """Return what the list's template shows."""
    candidates = database["candidates"]
    rows = _page(database, state)
    table = make_table(rows)
    total = count_documents(candidates, state.which)
    campaigns = campaign_ids(candidates)
    described = state.which.describe()
    sort = "" if state.which.sort == "energy_above_hull" else f" --sort={state.which.sort}"
    return {
        "state": state,
        "total": total,
        "pages": max(1, -(-total // PER_PAGE)),
        "headings": table.headings,
        "rows": [
            {**row, "short": short_id(row["campaign_id"], row["index"], campaigns), "cells": views}
            for (row, _), views in zip(rows, table_views(table), strict=True)
        ],
        "campaigns": campaigns[:MAX_CAMPAIGNS],
        "statuses": STATUSES,
        "verdicts": VERDICTS,
        "shown": _shown(state, len(rows), total),
        "closer": _closer(state),
        "command_line": f"pccd candidate list {described}".strip() + sort,
        "filtered": bool(described) or bool(state.problems),
    }


def _shown(state: ListState, rows: int, total: int) -> str:
    """Return which of all crystals a page shows."""
    if not total:
        return "No crystal"
    if not rows:
        return f"{total:,} crystals, none of them on page {state.page:,}"
    return f"{state.skip + 1:,} to {state.skip + rows:,} of {total:,}"


def _closer(state: ListState) -> str:
    """Return the address with an energy that was hardly meant in eV/atom read as meV/atom."""
    energy = state.which.max_ehull
    return "" if energy is None else state.url(max_ehull=f"{energy / EV_TO_MEV:g}", page=None)


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
