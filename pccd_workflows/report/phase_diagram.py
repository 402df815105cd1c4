"""Phase diagrams as data: the known phases, their hull and the candidates of one system."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pymatgen.core import Composition

from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.report.statistics import METASTABLE, REACHABLE, Point

ON_HULL = 1e-6
"""eV/atom; a reference this near to its own hull is one of its corners."""
CORNERS = {
    3: np.array([(0.0, 0.0), (1.0, 0.0), (0.5, 3**0.5 / 2)]),
    4: np.array([(1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)]) / 2,
}
"""Where the pure elements lie in a triangle and in a tetrahedron, by number of elements."""
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

    @property
    def stable(self) -> bool:
        """Whether a known phase is a corner of the hull."""
        return self.new is None and self.energy_above_hull <= ON_HULL


@dataclass(frozen=True)
class Diagram:
    """What one chemical system's picture shows."""

    elements: tuple[str, ...]
    reference_id: str
    level: str
    references: list[Phase]
    candidates: list[Phase]
    tie_lines: list[tuple[Phase, Phase]] = field(default_factory=list)
    n_far: int = 0

    @property
    def stable(self) -> list[Phase]:
        """Known phases on the hull."""
        return [phase for phase in self.references if phase.stable]


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


def _reference_phases(references: ReferenceSet, elements: tuple[str, ...]) -> list[Phase]:
    queries = [
        HullQuery(e.entry_id, e.composition, e.energy, references.convention, references.level)
        for e in references.entries
    ]
    results = Hull(references).place(queries)
    formation = {
        query.id: result.formation_energy_per_atom
        for query, result in zip(queries, results, strict=True)
    }
    return [
        Phase(
            query.id,
            query.composition.reduced_formula,
            _fractions(query.composition, elements),
            result.formation_energy_per_atom,
            # against the phases themselves: qhull's planes are exact to some 1e-9 eV/atom only
            result.formation_energy_per_atom
            - sum(part * formation[name] for name, part in result.decomposition.items()),
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


def _tie_lines(known: Sequence[Phase], elements: tuple[str, ...]) -> list[tuple[Phase, Phase]]:
    """Return the edges of the hull's facets."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Element

    if len(elements) > max(CORNERS):
        return []  # no picture shows them
    stable = [phase for phase in known if phase.stable]
    pure = {elements[phase.fractions.index(1.0)] for phase in stable if 1.0 in phase.fractions}
    if missing := sorted(set(elements) - pure):
        raise InputError(f"The references hold no elemental phase of {', '.join(missing)}.")
    # Formation energies put the elements at zero; the hull's facets do not depend on that choice.
    entries = [
        PDEntry(
            composition := Composition(phase.formula),
            phase.formation_energy * composition.num_atoms,
            name=str(number),
        )
        for number, phase in enumerate(stable)
    ]
    diagram = PhaseDiagram(entries, elements=[Element(symbol) for symbol in elements])
    corners = [stable[int(entry.name)] for entry in diagram.qhull_entries]
    edges = {
        tuple(sorted((int(a), int(b))))
        for facet in diagram.facets
        for a in facet
        for b in facet
        if a != b
    }
    return [(corners[a], corners[b]) for a, b in sorted(edges)]


def energy_class(energy_above_hull: float) -> str:
    """Return the class that a page colours an energy by: on the hull, near, reachable, far."""
    for limit, name in ((1e-4, "e-hull"), (METASTABLE, "e-near"), (REACHABLE, "e-wide")):
        if energy_above_hull <= limit:
            return name
    return "e-far"


def pretty(formula: str) -> str:
    """Return a formula with subscripts."""
    return formula.translate(_SUBSCRIPTS)
