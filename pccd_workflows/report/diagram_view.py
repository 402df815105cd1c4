"""The picture of a phase diagram: a hull for two elements, a triangle, or a tetrahedron that turns.

The page turns the tetrahedron and hides kinds of phases; without scripts the first drawing stays.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.report.phase_diagram import CORNERS, Diagram, Phase, energy_class, pretty
from pccd_workflows.report.statistics import REACHABLE
from pccd_workflows.report.structure_view import VIEW, rotation
from pccd_workflows.report.svg import Axis, Plot, element, figure, line, padded, path, text

WIDTH, HEIGHT = 700.0, 560.0
RIGHT, LEFT = ("start", 9.0, 4.0), ("end", -9.0, 4.0)
ABOVE, BELOW = ("middle", 0.0, -11.0), ("middle", 0.0, 20.0)
"""Where a label goes: its anchor and its distance from the mark, pixels."""
REACH = 290.0
"""Pixels per unit of the tetrahedron's coordinates (its corners lie 0.87 from its centre)."""
DIAMOND = "M0,-6.5 l6.5,6.5 l-6.5,6.5 l-6.5,-6.5 z"


def draw_diagram(diagram: Diagram) -> Markup:
    """Return the picture: a hull for two elements, a Gibbs triangle for three, a tetrahedron.

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
    return draw(diagram)


def _draw_binary(diagram: Diagram) -> Markup:
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
    parts += _marks(near, at)
    taken = [(x - 6, 12.0, y + 5) for x, y in at.values()]
    for phase in diagram.stable:
        sides = [BELOW, LEFT, RIGHT, ABOVE]
        if max(phase.fractions) == 1:
            sides = [LEFT] if phase.fractions[1] else [RIGHT]
        parts += _free_label(phase, at[id(phase)], taken, sides)
    return plot.draw(f"Convex hull of {left}-{right}", parts, class_="diagram")


def _draw_ternary(diagram: Diagram) -> Markup:
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
    parts += _marks(phases, at)
    for symbol, corner, (dx, dy) in zip(
        diagram.elements, corners, ((-14, 22), (14, 22), (0, -14)), strict=True
    ):
        x, y = place(corner)
        parts.append(text(x + dx, y + dy, symbol, class_="corner", text_anchor="middle"))
    parts += _labels(diagram, at)
    title = f"Phase diagram of {'-'.join(diagram.elements)}"
    return figure(WIDTH, HEIGHT, title, *parts, class_="diagram")


def _draw_quaternary(diagram: Diagram) -> Markup:
    """Return the tetrahedron from its first view; ``data-p`` is where a mark lies in space."""
    turn = rotation(*VIEW)

    def solid(phase: Phase) -> NDArray[np.float64]:
        return np.array(phase.fractions) @ CORNERS[4]

    def place(phase: Phase) -> tuple[float, float]:
        x, y, _ = turn @ solid(phase)
        return float(WIDTH / 2 + REACH * x), float(HEIGHT / 2 - REACH * y)

    parts = [
        line(*place(a), *place(b), class_="tie", data_p=_space(solid(a), solid(b)))
        for a, b in diagram.tie_lines
    ]
    phases = _drawn(diagram)
    at = {id(phase): place(phase) for phase in phases}
    parts += _marks(phases, at, {id(phase): _space(solid(phase)) for phase in phases})
    for phase in sorted(diagram.stable, key=lambda p: (max(p.fractions) < 1, len(p.formula))):
        x, y = at[id(phase)]
        kind = "corner" if max(phase.fractions) == 1 else "phase"
        label = pretty(phase.formula) if kind == "phase" else diagram.elements[_corner(phase)]
        where = {"data_p": _space(solid(phase)), "class_": kind}
        parts.append(text(x + 9, y + 4, label, **where))
    title = f"Phase diagram of {'-'.join(diagram.elements)}: drag to turn"
    return figure(WIDTH, HEIGHT, title, *parts, class_="diagram solid")


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


def _labels(diagram: Diagram, at: dict[int, tuple[float, float]]) -> list[Markup]:
    """Return the names of the stable compounds where there is room, short ones first."""
    taken = [(x - 6, 12.0, y + 5) for x, y in at.values()]
    compounds = [phase for phase in diagram.stable if max(phase.fractions) < 1]
    return [
        label
        for phase in sorted(compounds, key=lambda p: len(p.formula))
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
    space: dict[int, str] | None = None,
) -> list[Markup]:
    """Return known phases as circles and candidates as diamonds, candidates above.

    space: where they lie in a picture that turns.
    """
    marks = []
    for phase in sorted(phases, key=lambda p: (p.new is not None, p.new is True)):
        where = {"data_p": space[id(phase)]} if space else {}
        draw = _reference if phase.new is None else _candidate
        marks.append(draw(phase, *at[id(phase)], **where))
    return marks


def _reference(phase: Phase, x: float, y: float, **where: Any) -> Markup:
    energy = "stable" if phase.stable else _height(phase)
    tip = f"{pretty(phase.formula)} (known)\n{phase.label}\n{energy}"
    kind, radius = ("stable", 5.5) if phase.stable else ("unstable", 3.0)
    return element("circle", cx=x, cy=y, r=radius, class_=f"ref {kind}", data_tip=tip, **where)


def _candidate(phase: Phase, x: float, y: float, **where: Any) -> Markup:
    name = "new" if phase.new else "known"
    more = f"\nlowest of {phase.count} at this composition" if phase.count > 1 else ""
    tip = f"{pretty(phase.formula)} ({name})\n{_height(phase)}\n{phase.label}{more}"
    return element(
        "a",
        element("path", d=DIAMOND, data_tip=tip),
        href=f"#doc-{phase.label}",
        class_=f"cand {name} {energy_class(phase.energy_above_hull)}",
        transform=f"translate({x:.1f} {y:.1f})",
        **where,
    )


def _height(phase: Phase) -> str:
    return (
        f"{EV_TO_MEV * phase.energy_above_hull:+.1f} meV/atom above the hull, "
        f"formation energy {phase.formation_energy:.3f} eV/atom"
    )
