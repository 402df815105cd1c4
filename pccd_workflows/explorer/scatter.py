"""Any two quantities of the crystals of a list against each other, coloured by a third."""

import math
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from pccd_workflows.columns import Quantity, categories, quantities
from pccd_workflows.core.errors import InputError
from pccd_workflows.explorer.answers import Answer, page
from pccd_workflows.explorer.lists import filter_view
from pccd_workflows.explorer.state import parse_state
from pccd_workflows.query import campaign_ids, count_documents, find_documents
from pccd_workflows.report.phase_diagram import pretty
from pccd_workflows.report.svg import Plot, element, padded

if TYPE_CHECKING:
    from pymongo.database import Database

MOST = 2000
"""Crystals in one picture: more hide each other, and weigh on the page."""
COLOURS = 8
"""Colours of classes (explorer.css); the last, grey, is of those beyond them, and of no verdict."""
NOT_JUDGED = "not judged"
SIZE = (1080.0, 600.0)


def scatter_page(database: "Database[dict[str, Any]]", query: str) -> Answer:
    """Return the picture: ``x``, ``y`` and ``colour`` name quantities, the rest filters."""
    state = parse_state(query, further=("x", "y", "colour"))
    axes, colours = quantities(), categories()
    x = _chosen(axes, state.values.get("x", "nsites"))
    y = _chosen(axes, state.values.get("y", "energy_above_hull"))
    colour = _chosen(colours, state.values.get("colour", "kind_of_new"))
    fields = ["candidate_id", "formula_pretty", x.field, y.field, colour.field]
    candidates = database["candidates"]
    rows = list(find_documents(candidates, state.which, fields=fields, limit=MOST))
    points = [
        (row, found) for row in rows if None not in (found := (_value(row, x), _value(row, y)))
    ]
    names = _classes([_class(row, colour) for row, _ in points])
    total = count_documents(candidates, state.which)
    return page(
        "scatter.html",
        status=400 if state.problems else 200,
        **filter_view(state, campaign_ids(candidates)),
        axes=list(axes.values()),
        colours=list(colours.values()),
        chosen={"x": x, "y": y, "colour": colour},
        picture=_draw(points, (x, y, colour), names) if points else None,
        legend=names,
        caption=_caption(len(points), len(rows), total),
    )


def _chosen(known: dict[str, Quantity], key: str) -> Quantity:
    if key not in known:
        raise InputError(f"Unknown quantity {key!r}; use one of {', '.join(known)}.")
    return known[key]


def _value(row: dict[str, Any], quantity: Quantity) -> Any:
    """Return a field of a document, of a document in it after a dot."""
    first, _, second = quantity.field.partition(".")
    value = row.get(first)
    return (value or {}).get(second) if second else value


def _class(row: dict[str, Any], colour: Quantity) -> str:
    value = _value(row, colour)
    if value is None or value == "":
        return NOT_JUDGED
    if isinstance(value, bool):
        yes, no = ("new", "known") if colour.key == "novel" else ("yes", "no")
        return yes if value else no
    return str(value)


def _classes(found: list[str]) -> dict[str, int]:
    """Return the number of the colour of each class, the most frequent first."""
    counts = Counter(found)
    unknown = [NOT_JUDGED] * (NOT_JUDGED in counts)
    ranked = [name for name, _ in counts.most_common() if name != NOT_JUDGED]
    numbers = {name: min(number, COLOURS - 1) for number, name in enumerate(ranked)}
    return numbers | dict.fromkeys(unknown, COLOURS - 1)


def _caption(drawn: int, read: int, total: int) -> str:
    lacking = f"; {read - drawn:,} lack one of the two values" if drawn < read else ""
    first = f"the first {read:,} of {total:,}" if read < total else f"{total:,}"
    return (
        f"{drawn:,} crystals drawn of {first} that the filters pass, in the list's order{lacking}."
    )


def _draw(
    points: list[tuple[dict[str, Any], tuple[float, float]]],
    of: tuple[Quantity, Quantity, Quantity],
    classes: dict[str, int],
) -> Markup:
    x, y, colour = of
    ranges = [padded(p[axis] for _, p in points) for axis in (0, 1)]
    plot = Plot.make(SIZE, *ranges, margins=(16, 16, 48, 84))
    parts = plot.frame(x.title, y.title, x_ticks=9, y_ticks=8)
    # what nobody judged first, then the most frequent class, so that the rare ones lie on top
    order = [NOT_JUDGED, *classes]
    for row, (x_value, y_value) in sorted(points, key=lambda p: order.index(_class(p[0], colour))):
        name = _class(row, colour)
        formula = pretty(row.get("formula_pretty") or "")
        places = ((x, x_value), (y, y_value))
        lines = [f"{one.label} {_told(value)} {one.unit}".strip() for one, value in places]
        tip = "\n".join([f"{formula} ({name})", *lines])
        dot = element("circle", cx=plot.x(x_value), cy=plot.y(y_value), r=4.0, data_tip=tip)
        href = f"/candidate/{quote(row['candidate_id'])}"
        kind = f"dot k{classes[name]}"
        parts.append(element("a", dot, href=href, class_=kind, aria_label=tip.replace("\n", ", ")))
    return plot.draw(f"{y.title} against {x.title}", parts, class_="scatter", role="group")


def _told(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)
