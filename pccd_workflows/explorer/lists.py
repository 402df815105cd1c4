"""The list of crystals: a page of a table, and what its filters offer."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pymatgen.core import Element

from pccd_workflows.columns import make_table, quantities, row_fields, row_records, summary
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.explorer.answers import Answer, data, page
from pccd_workflows.explorer.state import PER_PAGE, VERDICTS, ListState, parse_state
from pccd_workflows.query import (
    STATUSES,
    SUMMARY_FIELDS,
    campaign_ids,
    count_documents,
    find_documents,
    short_id,
)
from pccd_workflows.report.card import table_views
from pccd_workflows.stages.stage import Records

if TYPE_CHECKING:
    from pymongo.database import Database

MAX_CAMPAIGNS = 200
"""Campaigns offered by name; others can be typed."""
HEAVIEST = 103
"""Atomic number of the last element in the periodic table of the filters."""


def list_page(database: "Database[dict[str, Any]]", query: str) -> Answer:
    """Return a page of the list; 400 with the page if a filter is wrong."""
    state = parse_state(query)
    return page("list.html", status=400 if state.problems else 200, **list_view(database, state))


def list_json(database: "Database[dict[str, Any]]", query: str) -> Answer:
    """Return a page of the list as data.

    Raises
    ------
    InputError
        A filter is wrong.
    """
    state = parse_state(query)
    if state.problems:
        raise InputError(state.problems[0])
    total = count_documents(database["candidates"], state.which)
    return data(
        {
            "total": total,
            "page": state.page,
            "pages": _pages(total),
            "per_page": PER_PAGE,
            "candidates": [summary(row, records) for row, records in _page(database, state)],
        }
    )


def _pages(total: int) -> int:
    return max(1, -(-total // PER_PAGE))


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
    sort = "" if state.which.sort == "energy_above_hull" else f" --sort={state.which.sort}"
    return {
        **filter_view(state, campaigns),
        "total": total,
        "pages": _pages(total),
        "headings": table.headings,
        "rows": [
            {**row, "short": short_id(row["campaign_id"], row["index"], campaigns), "cells": views}
            for (row, _), views in zip(rows, table_views(table), strict=True)
        ],
        "shown": _shown(state, len(rows), total),
        "only": _only(row["campaign_id"] for row, _ in rows),
        "command_line": f"pccd candidate list {state.which.describe()}".strip() + sort,
        "in_terminal": not state.which.ranges,
    }


def filter_view(state: ListState, campaigns: list[str]) -> dict[str, Any]:
    """Return what the form of filters shows."""
    return {
        "state": state,
        "campaigns": campaigns[:MAX_CAMPAIGNS],
        "statuses": STATUSES,
        "verdicts": VERDICTS,
        "ranges": list(quantities().values()),
        "closer": _closer(state),
        "filtered": bool(state.values.keys() - {"sort"}),
        "periodic_table": [_element(Element.from_Z(z)) for z in range(1, HEAVIEST + 1)],
    }


def _element(element: Element) -> dict[str, Any]:
    """Return symbol, name, and where an element stands in a table of 18 columns, from 1."""
    row, column = element.row, element.group
    if element.is_lanthanoid or element.is_actinoid:
        first = 57 if element.is_lanthanoid else 89
        row, column = element.row + 3, element.Z - first + 3
    return {"symbol": element.symbol, "name": element.long_name, "row": row, "column": column}


def _only(found: Iterable[str]) -> str | None:
    """Return the campaign of all rows; None if they are of several."""
    different = set(found)
    return different.pop() if len(different) == 1 else None


def _shown(state: ListState, rows: int, total: int) -> str:
    """Return which of all crystals a page shows."""
    if not total:
        return "No crystal"
    if not rows:
        return f"{total:,} crystals, none of them on page {state.page:,}"
    return f"{state.skip + 1:,} to {state.skip + rows:,} of {total:,}"


def _closer(state: ListState) -> str:
    """Return the address with energies that were hardly meant in eV/atom read as meV/atom."""
    changes: dict[str, str] = {}
    if state.which.max_ehull is not None:
        changes["max_ehull"] = f"{state.which.max_ehull / EV_TO_MEV:g}"
    for one in state.which.ranges:
        if one.doubt and one.high is not None:
            changes[f"to.{one.key}"] = f"{one.high / EV_TO_MEV:g}"
    return state.url(**changes, page=None) if changes else ""
