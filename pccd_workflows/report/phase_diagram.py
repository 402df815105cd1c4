"""Phase diagrams of two and three elements: the known phases, their hull and the candidates."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup
from pymatgen.core import Composition

from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.report.statistics import METASTABLE, REACHABLE, Point
from pccd_workflows.report.svg import Axis, Plot, element, figure, line, padded, path, text

ON_HULL = 1e-6
"""eV/atom; a reference this near to its own hull is one of its corners."""
WIDTH, HEIGHT = 700.0, 560.0
RIGHT, LEFT = ("start", 9.0, 4.0), ("end", -9.0, 4.0)
ABOVE, BELOW = ("middle", 0.0, -11.0), ("middle", 0.0, 20.0)
"""Where a label goes: its anchor and its distance from the mark, pixels."""
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class Phase:
    """One phase in a diagram: the lowest of its kind (known or candidate) at its composition.

    fractions: atomic fractions in the order of the diagram's elements.
    energies: eV/atom, per atom of the phase.
    count: how many of the same kind share the composition.
    """

    label: str
    formula: str
    fractions: tuple[float, ...]
    formation_energy: float
    energy_above_hull: float
    new: bool | None = None
    count: int = 1


@dataclass(frozen=True)
class Diagram:
    """What one chemical system's picture shows."""

    elements: tuple[str, ...]
    reference_id: str
    level: str
    references: list[Phase]
    candidates: list[Phase]
    tie_lines: list[tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=list)
    n_far: int = 0

    @property
    def stable(self) -> list[Phase]:
        """Known phases on the hull."""
        return [phase for phase in self.references if phase.energy_above_hull <= ON_HULL]


def make_diagram(references: ReferenceSet, points: Sequence[Point]) -> Diagram:
    """Return the diagram of one reference set with the candidates that were judged against it.

    Candidates more than 0.25 eV/atom above the hull are counted, not shown.

    Raises
    ------
    InputError
        The set has no hull, e.g. because an elemental phase is missing.
    """
    elements = tuple(references.chemsys.split("-"))
    known = _lowest(_reference_phases(references, elements))
    own_id = references.reference_id
    own = [point for point in points if point.references == own_id]
    near = [point for point in own if point.energy_above_hull <= REACHABLE + 1e-4]
    candidates = _lowest(
        [_candidate_phase(p, elements) for p in near if p.formation_energy_per_atom is not None]
    )
    return Diagram(
        elements,
        own_id,
        references.level,
        known,
        candidates,
        _tie_lines(known, elements),
        len(own) - len(near),
    )


def draw_diagram(diagram: Diagram) -> Markup:
    """Return the picture: a convex hull for two elements, a Gibbs triangle for three.

    Raises
    ------
    InputError
        The system has another number of elements.
    """
    if len(diagram.elements) == 2:
        return _draw_binary(diagram)
    if len(diagram.elements) == 3:
        return _draw_ternary(diagram)
    raise InputError(
        f"A system of {len(diagram.elements)} elements has no flat phase diagram; "
        "the tables list its crystals."
    )


def _reference_phases(references: ReferenceSet, elements: tuple[str, ...]) -> list[Phase]:
    queries = [
        HullQuery(e.entry_id, e.composition, e.energy, references.convention, references.level)
        for e in references.entries
    ]
    results = Hull(references).place(queries)
    return [
        Phase(
            query.id,
            query.composition.reduced_formula,
            _fractions(query.composition, elements),
            result.formation_energy_per_atom,
            result.energy_above_hull,
        )
        for query, result in zip(queries, results, strict=True)
    ]


def _candidate_phase(point: Point, elements: tuple[str, ...]) -> Phase:
    return Phase(
        point.candidate_id,
        point.formula,
        _fractions(Composition(point.formula), elements),
        point.formation_energy_per_atom or 0.0,
        point.energy_above_hull,
        point.novel,
    )


def _fractions(composition: Composition, elements: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(float(composition.get_atomic_fraction(symbol)) for symbol in elements)


def _lowest(phases: Sequence[Phase]) -> list[Phase]:
    """Return the lowest phase of each composition (known and new apart), with the number there."""
    groups: dict[tuple[str, bool], list[Phase]] = defaultdict(list)
    for phase in phases:
        groups[(phase.formula, phase.new is True)].append(phase)
    lowest = []
    for group in groups.values():
        best = min(group, key=lambda phase: phase.energy_above_hull)
        lowest.append(Phase(**{**vars(best), "count": len(group)}))
    return sorted(lowest, key=lambda phase: -phase.energy_above_hull)


def _tie_lines(
    known: Sequence[Phase], elements: tuple[str, ...]
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return the edges of the hull's facets as pairs of atomic fractions."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Element

    stable = [phase for phase in known if phase.energy_above_hull <= ON_HULL]
    # Formation energies put the elements at zero; the hull's facets do not depend on that choice.
    entries = [
        PDEntry(composition := Composition(p.formula), p.formation_energy * composition.num_atoms)
        for p in stable
    ]
    diagram = PhaseDiagram(entries, elements=[Element(symbol) for symbol in elements])
    where = [_fractions(entry.composition, elements) for entry in diagram.qhull_entries]
    edges = {
        tuple(sorted((int(a), int(b))))
        for facet in diagram.facets
        for a in facet
        for b in facet
        if a != b
    }
    return [(where[a], where[b]) for a, b in sorted(edges)]


def _draw_binary(diagram: Diagram) -> Markup:
    left, right = diagram.elements
    phases = [*diagram.references, *diagram.candidates]
    near = [p for p in phases if p.energy_above_hull <= REACHABLE]
    y_range = padded([*(phase.formation_energy for phase in near), 0.0], 0.09, least=0.1)
    plot = Plot.make((WIDTH, 400.0), (0.0, 1.0), y_range, margins=(16, 20, 44, 60))
    parts: list[Markup] = plot.frame(
        f"Atomic fraction of {right} in {left}-{right}", "Formation energy (eV/atom)"
    )
    corner = {phase.fractions: phase.formation_energy for phase in diagram.stable}
    for a, b in diagram.tie_lines:
        ends = [(plot.x(x[1]), plot.y(corner[x])) for x in (a, b)]
        parts.append(line(*ends[0], *ends[1], class_="tie"))
    at = {id(phase): (plot.x(phase.fractions[1]), plot.y(phase.formation_energy)) for phase in near}
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
    y_axis = Axis(0.0, 1.0, HEIGHT - 40, HEIGHT - 40 - side * math.sqrt(3) / 2)

    def place(fractions: tuple[float, ...]) -> tuple[float, float]:
        _, right, top = fractions
        return x_axis(right + top / 2), y_axis(top)

    corners = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    parts: list[Markup] = [
        path([*(place(c) for c in corners), place(corners[0])], class_="triangle")
    ]
    parts += [line(*place(a), *place(b), class_="tie") for a, b in diagram.tie_lines]
    phases = [
        phase
        for phase in [*diagram.references, *diagram.candidates]
        if phase.energy_above_hull <= REACHABLE or len(set(phase.fractions)) == 2
    ]
    at = {id(phase): place(phase.fractions) for phase in phases}
    parts += _marks(phases, at)
    for symbol, corner, (dx, dy) in zip(
        diagram.elements, corners, ((-14, 22), (14, 22), (0, -14)), strict=True
    ):
        x, y = place(corner)
        parts.append(text(x + dx, y + dy, symbol, class_="corner", text_anchor="middle"))
    taken = [(x - 6, 12.0, y + 5) for x, y in at.values()]
    for phase in sorted(diagram.stable, key=lambda p: len(p.formula)):
        if max(phase.fractions) < 1:
            sides = (RIGHT, LEFT, ABOVE, BELOW)
            parts += _free_label(phase, at[id(phase)], taken, sides)
    title = f"Phase diagram of {'-'.join(diagram.elements)}"
    return figure(WIDTH, HEIGHT, title, *parts, class_="diagram")


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


def _marks(phases: Sequence[Phase], at: dict[int, tuple[float, float]]) -> list[Markup]:
    """Return known phases as circles and candidates as diamonds, candidates above."""
    marks = []
    for phase in sorted(phases, key=lambda p: (p.new is not None, p.new is True)):
        x, y = at[id(phase)]
        energy = f"{EV_TO_MEV * phase.energy_above_hull:+.0f} meV/atom above the hull"
        if phase.new is None:
            on_hull = phase.energy_above_hull <= ON_HULL
            tip = f"{pretty(phase.formula)} (known)\n{phase.label}\n"
            tip += "stable" if on_hull else energy
            kind = "stable" if on_hull else "unstable"
            radius = 5.5 if on_hull else 3.0
            mark = element("circle", cx=x, cy=y, r=radius, class_=f"ref {kind}", data_tip=tip)
        else:
            name = "new" if phase.new else "known"
            more = f"\nlowest of {phase.count} at this composition" if phase.count > 1 else ""
            tip = f"{pretty(phase.formula)} ({name})\n{energy}\n{phase.label}{more}"
            mark = element(
                "a",
                element("path", d=_diamond(x, y, 6.5), data_tip=tip),
                href=f"#doc-{phase.label}",
                class_=f"cand {name} {energy_class(phase.energy_above_hull)}",
            )
        marks.append(mark)
    return marks


def energy_class(energy_above_hull: float) -> str:
    """Return the class that a page colours an energy by: on the hull, near, reachable, far."""
    for limit, name in ((1e-4, "e-hull"), (METASTABLE, "e-near"), (REACHABLE, "e-wide")):
        if energy_above_hull <= limit:
            return name
    return "e-far"


def _diamond(x: float, y: float, r: float) -> str:
    return f"M{x:.1f},{y - r:.1f} l{r:g},{r:g} l{-r:g},{r:g} l{-r:g},{-r:g} z"


def pretty(formula: str) -> str:
    """Return a formula with subscripts."""
    return formula.translate(_SUBSCRIPTS)
