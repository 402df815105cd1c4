"""The picture of a phase diagram: a hull for two elements, a triangle, or a tetrahedron that turns.

The page turns the tetrahedron and hides kinds of phases; without scripts the first drawing stays.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.report.phase_diagram import (
    CORNERS,
    Diagram,
    Phase,
    energy_class,
    make_diagram,
    pretty,
)
from pccd_workflows.report.statistics import METASTABLE, REACHABLE, Point
from pccd_workflows.report.structure_view import VIEW, rotation
from pccd_workflows.report.svg import Axis, Plot, element, figure, line, padded, path, text

WIDTH, HEIGHT = 700.0, 560.0
RIGHT, LEFT = ("start", 9.0, 4.0), ("end", -9.0, 4.0)
ABOVE, BELOW = ("middle", 0.0, -11.0), ("middle", 0.0, 20.0)
"""Where a label goes: its anchor and its distance from the mark, pixels."""
REPORT_LINK = "#doc-"
REACH = 290.0
"""Pixels per unit of the tetrahedron's coordinates (its corners lie 0.87 from its centre)."""
DIAMOND = "M0,-6.5 l6.5,6.5 l-6.5,6.5 l-6.5,-6.5 z"


def diagram_facts(
    references: ReferenceSet, points: Sequence[Point], link: str = REPORT_LINK
) -> dict[str, Any]:
    """Return what a page shows of one chemical system: picture, legend, stable phases, caption.

    link: address of a crystal's page, before its id.
    """
    title = f"{references.chemsys} ({references.level})"
    try:
        diagram = make_diagram(references, points)
        picture = draw_diagram(diagram, link)
    except InputError as error:
        return {"title": title, "picture": None, "absent": str(error)}
    far = f" {diagram.n_far} crystals lie higher and are not drawn." if diagram.n_far else ""
    n_candidates = sum(phase.count for phase in diagram.candidates)
    kinds = {
        ("new" if p.new else "known", energy_class(p.energy_above_hull)) for p in diagram.candidates
    }
    words = {"e-hull": "on the hull", "e-near": "≤ 80 meV", "e-wide": "≤ 250 meV"}
    legend = [
        (f"{novelty} {energy}", f"{novelty}, {words[energy]}")
        for novelty in ("new", "known")
        for energy in words
        if (novelty, energy) in kinds
    ]
    return {
        "title": title,
        "picture": picture,
        "legend": legend,
        "stable": sorted(diagram.stable, key=lambda phase: phase.formation_energy),
        "caption": f"{len(references.entries)} known phases, {len(diagram.stable)} of them on the "
        f"hull; {n_candidates} generated crystals within 250 meV/atom, the lowest of each "
        f"composition drawn.{far} Hull: {references.reference_id}.",
    }


def draw_diagram(diagram: Diagram, link: str = REPORT_LINK) -> Markup:
    """Return the picture: a hull for two elements, a Gibbs triangle for three, a tetrahedron.

    link: address of a crystal's page, before its id.

    Raises
    ------
    InputError
        The system has another number of elements.
    """
    draw = {2: _draw_binary, 3: _draw_ternary, 4: _draw_quaternary}.get(len(diagram.elements))
    if draw is None:
        raise InputError(
            f"A system of {len(diagram.elements)} elements has no phase diagram that can be drawn; "
            "the tables list its crystals."
        )
    return draw(diagram, link)


def _draw_binary(diagram: Diagram, link: str) -> Markup:
    left, right = diagram.elements
    phases = [*diagram.references, *diagram.candidates]
    near = [p for p in phases if p.energy_above_hull <= REACHABLE]
    y_range = padded([*(phase.formation_energy for phase in near), 0.0], 0.09, least=0.1)
    plot = Plot.make((WIDTH, 400.0), (0.0, 1.0), y_range, margins=(16, 20, 44, 60))
    parts: list[Markup] = plot.frame(
        f"Atomic fraction of {right} in {left}-{right}", "Formation energy (eV/atom)"
    )

    def place(phase: Phase) -> tuple[float, float]:
        return plot.x(phase.fractions[1]), plot.y(phase.formation_energy)

    parts += [line(*place(a), *place(b), class_="tie") for a, b in diagram.tie_lines]
    at = {id(phase): place(phase) for phase in near}
    parts += _marks(near, at, link)
    taken = [(x - 6, 12.0, y + 5) for x, y in at.values()]
    pure = [phase for phase in diagram.stable if max(phase.fractions) == 1]
    for phase in [*pure, *_named(diagram)]:
        sides = [BELOW, LEFT, RIGHT, ABOVE]
        if phase in pure:
            sides = [LEFT] if phase.fractions[1] else [RIGHT]
        parts += _free_label(phase, at[id(phase)], taken, sides)
    return plot.draw(f"Convex hull of {left}-{right}", parts, class_="diagram", role="group")


def _draw_ternary(diagram: Diagram, link: str) -> Markup:
    side = 560.0
    x_axis = Axis(0.0, 1.0, (WIDTH - side) / 2, (WIDTH + side) / 2)
    y_axis = Axis(0.0, 1.0, HEIGHT - 40, HEIGHT - 40 - side)

    def place(fractions: Sequence[float]) -> tuple[float, float]:
        x, y = np.array(fractions) @ CORNERS[3]
        return x_axis(x), y_axis(y)

    corners = np.eye(3).tolist()
    outline = [place(corner) for corner in [*corners, corners[0]]]
    parts: list[Markup] = [path(outline, class_="triangle")]
    parts += [
        line(*place(a.fractions), *place(b.fractions), class_="tie") for a, b in diagram.tie_lines
    ]
    phases = _drawn(diagram)
    at = {id(phase): place(phase.fractions) for phase in phases}
    parts += _marks(phases, at, link)
    for symbol, corner, (dx, dy) in zip(
        diagram.elements, corners, ((-14, 22), (14, 22), (0, -14)), strict=True
    ):
        x, y = place(corner)
        parts.append(text(x + dx, y + dy, symbol, class_="corner", text_anchor="middle"))
    parts += _labels(diagram, at)
    title = f"Phase diagram of {'-'.join(diagram.elements)}"
    return figure(WIDTH, HEIGHT, title, *parts, class_="diagram", role="group")


def _draw_quaternary(diagram: Diagram, link: str) -> Markup:
    """Return the tetrahedron from its first view; ``data-p`` is where a mark lies in space."""
    turn = rotation(*VIEW)

    def solid(phase: Phase) -> NDArray[np.float64]:
        return np.asarray(np.array(phase.fractions) @ CORNERS[4])

    def place(phase: Phase) -> tuple[float, float]:
        x, y, _ = turn @ solid(phase)
        return float(WIDTH / 2 + REACH * x), float(HEIGHT / 2 - REACH * y)

    parts = [
        line(*place(a), *place(b), class_="tie", data_p=_space(solid(a), solid(b)))
        for a, b in diagram.tie_lines
    ]
    phases = _drawn(diagram)
    at = {id(phase): place(phase) for phase in phases}
    parts += _marks(phases, at, link, {id(phase): _space(solid(phase)) for phase in phases})
    pure = [phase for phase in diagram.stable if max(phase.fractions) == 1]
    for phase in [*pure, *_named(diagram)]:
        x, y = at[id(phase)]
        kind = "corner" if max(phase.fractions) == 1 else "phase"
        label = pretty(phase.formula) if kind == "phase" else diagram.elements[_corner(phase)]
        where = {"data_p": _space(solid(phase)), "class_": kind}
        parts.append(text(x + 9, y + 4, label, **where))
    title = f"Phase diagram of {'-'.join(diagram.elements)}: drag to turn"
    turning = {"data_view": list(VIEW), "data_reach": REACH, "tabindex": 0, "role": "group"}
    return figure(WIDTH, HEIGHT, title, *parts, class_="diagram solid", **turning)


def _corner(phase: Phase) -> int:
    return int(np.argmax(phase.fractions))


def _space(*places: NDArray[np.float64]) -> str:
    """Return places in space as the page reads them."""
    return " ".join(f"{value:.4f}" for place in places for value in place)


def _drawn(diagram: Diagram) -> list[Phase]:
    """Return the phases near the hull; known compounds of two elements whatever their energy."""
    return [
        phase
        for phase in [*diagram.references, *diagram.candidates]
        if phase.energy_above_hull <= REACHABLE or len(set(phase.fractions)) == 2
    ]


def _named(diagram: Diagram) -> list[Phase]:
    """Return the compounds to name: the stable ones, then crystals near the hull between them."""
    stable = sorted(diagram.stable, key=lambda p: len(p.formula))
    near = [p for p in diagram.candidates if p.energy_above_hull <= METASTABLE]
    by_formula = {p.formula: p for p in reversed([*stable, *near]) if max(p.fractions) < 1}
    return list(reversed(by_formula.values()))


def _labels(diagram: Diagram, at: dict[int, tuple[float, float]]) -> list[Markup]:
    """Return the names of compounds where there is room."""
    taken = [(x - 6, 12.0, y + 5) for x, y in at.values()]
    return [
        label
        for phase in _named(diagram)
        for label in _free_label(phase, at[id(phase)], taken, (RIGHT, LEFT, ABOVE, BELOW))
    ]


def _free_label(
    phase: Phase,
    at: tuple[float, float],
    taken: list[tuple[float, float, float]],
    sides: Sequence[tuple[str, float, float]],
) -> list[Markup]:
    """Return the label of a stable phase on the first side where nothing is yet.

    taken: left end, width and base line of labels and marks; the new label is added.
    """
    x, y = at
    label = pretty(phase.formula)
    width = 7.2 * len(label)
    for anchor, dx, dy in sides:
        left = x + dx - {"start": 0.0, "end": width, "middle": width / 2}[anchor]
        if not any(
            left < other + size and other < left + width and abs(y + dy - base) < 13
            for other, size, base in taken
        ):
            taken.append((left, width, y + dy))
            return [text(x + dx, y + dy, label, class_="phase", text_anchor=anchor)]
    return []


def _marks(
    phases: Sequence[Phase],
    at: dict[int, tuple[float, float]],
    link: str,
    space: dict[int, str] | None = None,
) -> list[Markup]:
    """Return known phases as circles and candidates as diamonds, candidates above.

    space: where they lie in a picture that turns.
    """
    marks = []
    for phase in sorted(phases, key=lambda p: (p.new is not None, p.new is True)):
        where = {"data_p": space[id(phase)]} if space else {}
        if phase.new is None:
            marks.append(_reference(phase, at[id(phase)], **where))
        else:
            marks.append(_candidate(phase, at[id(phase)], link, **where))
    return marks


def _reference(phase: Phase, at: tuple[float, float], **where: Any) -> Markup:
    x, y = at
    energy = "stable" if phase.stable else _height(phase)
    tip = f"{pretty(phase.formula)} (known)\n{phase.label}\n{energy}"
    kind, radius = ("stable", 5.5) if phase.stable else ("unstable", 3.0)
    return element("circle", cx=x, cy=y, r=radius, class_=f"ref {kind}", data_tip=tip, **where)


def _candidate(phase: Phase, at: tuple[float, float], link: str, **where: Any) -> Markup:
    x, y = at
    name = "new" if phase.new else "known"
    more = f"\nlowest of {phase.count} at this composition" if phase.count > 1 else ""
    tip = f"{pretty(phase.formula)} ({name})\n{_height(phase)}\n{phase.label}{more}"
    return element(
        "a",
        element("path", d=DIAMOND, data_tip=tip),
        href=link + quote(phase.label),
        class_=f"cand {name} {energy_class(phase.energy_above_hull)}",
        transform=f"translate({x:.1f} {y:.1f})",
        aria_label=tip.replace("\n", ", "),
        **where,
    )


def _height(phase: Phase) -> str:
    return (
        f"{EV_TO_MEV * phase.energy_above_hull:+.1f} meV/atom above the hull, "
        f"formation energy {phase.formation_energy:.3f} eV/atom"
    )
