"""Figures of chemical systems: phase diagrams of two to four elements."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.figures.style import INK, KNOWN, NEW, WIDTH, NothingToShow, subscripts
from pccd_workflows.report.phase_diagram import CORNERS, Diagram, Phase
from pccd_workflows.report.statistics import REACHABLE

CHARACTER, LINE = 0.021, 0.05
"""Width and height of a character, as parts of the picture: labels that overlap are left out."""
SIDES = (("left", 0.02), ("right", 0.02), ("left", -0.05), ("right", -0.05))
"""Where a label may stand: on which side of its mark, and how far above."""
HALO = withStroke(linewidth=1.5, foreground="white")


def phase_diagram(diagram: Diagram) -> Figure:
    """Return a convex hull for two elements, a triangle for three, a tetrahedron for four."""
    size = len(diagram.elements)
    if size not in CORNERS and size != 2:
        raise NothingToShow(f"A system of {size} elements has no picture; two to four have.")
    figure = Figure(figsize=(WIDTH, 2.8 if size == 2 else 3.3), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d" if size == 4 else None)
    for a, b in diagram.tie_lines:
        ends = np.array([_place(diagram, phase) for phase in (a, b)])
        axes.plot(*ends.T, color=INK, linewidth=0.6, zorder=1)
    unstable = [p for p in diagram.references if not p.stable and _near(p)]
    _scatter(axes, diagram, unstable, color="white", edgecolors=KNOWN, linewidths=0.7, s=10)
    candidates = [phase for phase in diagram.candidates if _near(phase)]
    for new, colour in ((False, KNOWN), (True, NEW)):
        chosen = [phase for phase in candidates if (phase.new is True) == new]
        kind = "generated, new" if new else "generated, known"
        _scatter(axes, diagram, chosen, color=colour, marker="D", s=14, label=kind, linewidths=0)
    _scatter(axes, diagram, diagram.stable, color=INK, s=16, label="known, stable", linewidths=0)
    _label(axes, diagram)
    _finish(axes, diagram)
    return figure


def _near(phase: Phase) -> bool:
    return phase.energy_above_hull <= REACHABLE


def _place(diagram: Diagram, phase: Phase) -> NDArray[np.float64]:
    if len(diagram.elements) == 2:
        return np.array([phase.fractions[1], phase.formation_energy])
    return np.asarray(np.array(phase.fractions) @ CORNERS[len(diagram.elements)])


def _scatter(axes: Any, diagram: Diagram, phases: Iterable[Phase], **style: Any) -> None:
    places = np.array([_place(diagram, phase) for phase in phases])
    if len(places):
        axes.scatter(*places.T, zorder=3, **style)


def _label(axes: Any, diagram: Diagram) -> None:
    """Name the stable phases, elements and simple formulas first, where there is room."""
    names = sorted(diagram.stable, key=lambda p: (max(p.fractions) < 1, len(p.formula)))
    places = np.array([_place(diagram, phase) for phase in names])
    seen = np.array([_on_paper(axes, place) for place in places])
    span = np.ptp(seen, axis=0)
    taken: list[tuple[float, float, float]] = []
    for phase, place, (x, y) in zip(names, places, seen / span, strict=True):
        width = CHARACTER * len(phase.formula)
        for align, up in SIDES:
            left, base = (x if align == "left" else x - width), y + up
            if not any(
                left < other + size and other < left + width and abs(base - height) < LINE
                for other, size, height in taken
            ):
                taken.append((left, width, base))
                aside = 0.015 if align == "left" else -0.015
                shift = np.array([aside, up, 0.0])[: len(place)] * np.ptp(places, axis=0)
                label = subscripts(phase.formula)
                style = {"ha": align, "fontsize": 7, "zorder": 4, "path_effects": [HALO]}
                axes.text(*(place + shift), label, **style)
                break


def _on_paper(axes: Any, place: NDArray[np.float64]) -> tuple[float, float]:
    if len(place) == 2:
        return float(place[0]), float(place[1])
    from mpl_toolkits.mplot3d import proj3d

    x, y, _ = proj3d.proj_transform(*place, axes.get_proj())
    return float(x), float(y)


def _finish(axes: Any, diagram: Diagram) -> None:
    if len(diagram.elements) == 2:
        left, right = diagram.elements
        axes.set_xlabel(f"Atomic fraction of {right} in {left}-{right}")
        axes.set_ylabel("Formation energy (eV/atom)")
    else:
        axes.set_axis_off()
        axes.set_aspect("equal")
    axes.legend(fontsize=6, loc="best")
    axes.set_title(f"{'-'.join(diagram.elements)}, {diagram.level}", fontsize=8)


def checked(make: Any) -> Diagram:
    """Return the diagram that a function makes; NothingToShow where there is no hull."""
    try:
        diagram: Diagram = make()
    except InputError as error:
        raise NothingToShow(str(error)) from None
    return diagram
