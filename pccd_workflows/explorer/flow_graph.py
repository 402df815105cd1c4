"""The picture of a campaign's flow: kinds of jobs in the order they run, with their states."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from markupsafe import Markup

from pccd_workflows.execution.job_graph import JobKind
from pccd_workflows.report.svg import element, figure, text

STATES = ("COMPLETED", "RUNNING", "RESERVED", "READY", "WAITING", "PAUSED", "DEFUSED", "FIZZLED")
"""FireWorks' own, in the order of the bar; each has a class of its name (explorer.css)."""
WORDS = {"COMPLETED": "done", "RESERVED": "queued", "FIZZLED": "failed"}
"""Of states that people call otherwise."""
WIDTH, HEIGHT, GAP, STEP = 210.0, 46.0, 16.0, 34.0
"""Of a box, between boxes, and between rows of boxes, pixels."""
ACROSS = 4
"""Boxes in one row."""
LETTERS = 30


def state_word(state: str) -> str:
    """Return a state as people call it."""
    return WORDS.get(state, state.lower())


def draw_graph(kinds: Sequence[JobKind], campaign_id: str) -> Markup:
    """Return the flow from top to bottom: kinds of one depth beside each other.

    A click on a box leads to its jobs, or to its job if there is one.
    """
    places = _places(kinds)
    parts = [
        _arrow(places[before], places[kind.name])
        for kind in kinds
        for before in sorted(kind.after)
        if before in places
    ]
    parts += [
        element("a", _box(kind, *places[kind.name]), href=_address(kind, campaign_id))
        for kind in kinds
    ]
    across = max(x for x, _ in places.values()) + WIDTH + 2
    down = max(y for _, y in places.values()) + HEIGHT + 2
    head = element(
        "marker",
        element("path", d="M0,0 L7,3.5 L0,7 z"),
        id="arrow",
        viewBox="0 0 7 7",
        refX="7",
        refY="3.5",
        markerWidth="7",
        markerHeight="7",
        orient="auto",
    )
    inner = (element("defs", head), *parts)
    return figure(across, down, "Flow of jobs", *inner, class_="flow", role="group")


def _address(kind: JobKind, campaign_id: str) -> str:
    if sum(kind.states.values()) == 1:
        return f"/job/{kind.first}"
    return f"/jobs/{quote(campaign_id)}?{urlencode({'kind': kind.name})}"


def _places(kinds: Sequence[JobKind]) -> dict[str, tuple[float, float]]:
    """Return the upper left corner of each kind's box, pixels."""
    places: dict[str, tuple[float, float]] = {}
    row = 0
    for depth in sorted({kind.depth for kind in kinds}):
        level = [kind for kind in kinds if kind.depth == depth]
        for number, kind in enumerate(level):
            down, across = divmod(number, ACROSS)
            places[kind.name] = (
                1 + across * (WIDTH + GAP),
                1 + (row + down) * (HEIGHT + STEP),
            )
        row += 1 + (len(level) - 1) // ACROSS
    return places


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    """Return an arrow; one that would run straight through boxes goes round them."""
    x1, y1 = start[0] + WIDTH / 2, start[1] + HEIGHT
    x2, y2 = end[0] + WIDTH / 2, end[1]
    middle = (y1 + y2) / 2
    first, second = f"{x1:.0f},{middle:.0f}", f"{x2:.0f},{middle:.0f}"
    if start[0] == end[0] and y2 - y1 > STEP + 1:
        # a curve comes three quarters of the way to its control points
        beside = x1 + (WIDTH / 2 + GAP / 2) / 0.75
        first, second = f"{beside:.0f},{y1 + STEP:.0f}", f"{beside:.0f},{y2 - STEP:.0f}"
    curve = f"M{x1:.0f},{y1:.0f} C{first} {second} {x2:.0f},{y2:.0f}"
    return element("path", d=curve, class_="arrow", marker_end="url(#arrow)")


def _box(kind: JobKind, x: float, y: float) -> Markup:
    total = sum(kind.states.values())
    told = ", ".join(f"{kind.states[s]} {state_word(s)}" for s in STATES if kind.states[s])
    name = kind.name if len(kind.name) <= LETTERS else f"{kind.name[: LETTERS - 1]}…"
    bar, left = [], x + 8
    for state in STATES:
        width = (WIDTH - 16) * kind.states[state] / total
        if width:
            bar.append(
                element("rect", x=left, y=y + 34, width=width, height=6.0, class_=state.lower())
            )
            left += width
    return element(
        "g",
        element("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=6.0, class_="box"),
        text(x + 8, y + 16, name, class_="name"),
        text(x + 8, y + 29, told, class_="tick"),
        *bar,
        data_tip=f"{kind.name}\n{told}",
    )
