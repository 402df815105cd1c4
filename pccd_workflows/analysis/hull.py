"""Where crystals lie on the convex hull of competing phases: all candidates of a system at once.

The lower hull of formation energy over composition is convex and piecewise linear, so the hull
energy of any composition is the largest value among the planes of its facets. The facets of a
chemical system are computed once; all candidates are then placed by one matrix product.
"""

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Structure
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, QhullError

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import EnergyConvention
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet

FloatArray = NDArray[np.float64]
System = tuple[str, ...]
"""Element symbols in alphabetical order."""

VERTICAL = 1e-7
"""A facet whose unit normal has a smaller energy component bounds the composition range: a real
facet that steep would mean 1e7 eV/atom."""
SAME_PLANE = 1e-8
"""Facets whose planes agree this well (eV/atom) at a composition may both hold it."""
MAX_SYSTEMS = 2000
"""Chemical systems whose facets are kept; a ternary one takes some tens of kB."""
MIN_FRACTION = 1e-8
"""Phases with a smaller atomic fraction are not part of a decomposition."""
MOST_ELEMENTS = 6
"""Systems of more elements have thousands of facets (8 elements and 1,000 phases: 8,000, in 17 s):
there, each composition is placed by a linear programme, which takes some milliseconds."""
EXACT = 1e-10
"""Tolerance of the linear programme, the tightest that HiGHS takes."""


@dataclass(frozen=True)
class HullQuery:
    """A crystal to place.

    energy: total energy of `composition`, eV.
    convention, level: what the energy is; both must be those of the references.
    """

    id: str
    composition: Composition
    energy: float
    convention: EnergyConvention
    level: str


@dataclass(frozen=True)
class HullResult:
    """Position of a crystal relative to the hull of the references alone.

    energy_above_hull: eV/atom; negative = below every known combination of phases.
    formation_energy_per_atom: eV/atom, relative to the lowest elemental references.
    decomposition: atomic fraction of each competing phase, by entry id; sums to 1.
    """

    energy_above_hull: float
    formation_energy_per_atom: float
    decomposition: dict[str, float]


@dataclass(frozen=True)
class _Phases:
    """The lowest phase of each composition in one chemical system.

    fractions: atomic fractions, shape (n_phases, n_elements).
    energies: formation energies, eV/atom, shape (n_phases,).
    """

    ids: list[str]
    fractions: FloatArray
    energies: FloatArray


@dataclass(frozen=True)
class _Facets:
    """The lower hull of one chemical system.

    potentials: chemical potentials of the facets' planes, eV/atom, shape (n_facets, n_elements):
    the plane's energy at atomic fractions x is x @ potential.
    simplices: indices of each facet's phases, shape (n_facets, n_elements).
    """

    phases: _Phases
    potentials: FloatArray
    simplices: NDArray[np.intp]

    def lowest(self, fractions: FloatArray) -> tuple[FloatArray, list[dict[str, float]]]:
        """Return the hull's energy (eV/atom) and phases at compositions, shape (q, n_elements)."""
        planes = fractions @ self.potentials.T
        return planes.max(axis=1), _decompose(self, fractions, planes)


@dataclass(frozen=True)
class _Mixtures:
    """The hull of one chemical system without its facets: the cheapest mixture, one by one.

    The lower hull at a composition is the least energy of any mixture of phases that has it, a
    linear programme (10.1103/PhysRevB.84.045115 uses the same for grand potentials).
    """

    phases: _Phases

    def lowest(self, fractions: FloatArray) -> tuple[FloatArray, list[dict[str, float]]]:
        """Return the hull's energy (eV/atom) and phases at compositions, shape (q, n_elements)."""
        mixtures = [self._cheapest(composition) for composition in fractions]
        return np.array([energy for energy, _ in mixtures]), [phases for _, phases in mixtures]

    def _cheapest(self, composition: FloatArray) -> tuple[float, dict[str, float]]:
        found = linprog(
            self.phases.energies,
            A_eq=self.phases.fractions.T,
            b_eq=composition,
            method="highs",
            options={"primal_feasibility_tolerance": EXACT, "dual_feasibility_tolerance": EXACT},
        )
        if not found.success:
            raise ValueError(f"no mixture of phases has the composition: {found.message}")
        weights = np.where(found.x < MIN_FRACTION, 0.0, found.x)
        weights /= weights.sum()
        used = np.flatnonzero(weights).tolist()
        return float(found.fun), {self.phases.ids[i]: float(weights[i]) for i in used}


class Hull:
    """The convex hull of a reference set; facets are computed when a system is first asked for.

    The set may span many chemical systems; each query is placed in its own one, with all of the
    set's phases that consist of its elements.

    Raises
    ------
    InputError
        If two entries have the same id or an entry has no finite energy.
    """

    def __init__(self, references: ReferenceSet) -> None:
        self.level = references.level
        self.convention = references.convention
        _refuse_duplicates(references.entries)
        lowest: dict[System, dict[tuple[float, ...], tuple[float, str]]] = defaultdict(dict)
        for entry in references.entries:
            system, fractions, energy = _per_atom(entry)
            key = tuple(round(x, 9) for x in fractions)
            known = lowest[system].get(key, (np.inf, ""))
            lowest[system][key] = min(known, (energy, entry.entry_id))
        self._elemental = {s[0]: phases[1.0,][0] for s, phases in lowest.items() if len(s) == 1}
        self._phases = {system: self._below_elements(system, lowest[system]) for system in lowest}
        self._hulls: dict[System, _Facets | _Mixtures] = {}

    def _below_elements(
        self, system: System, lowest: dict[tuple[float, ...], tuple[float, str]]
    ) -> _Phases:
        """Return the phases of one system that may lie on its hull, with formation energies."""
        fractions = np.array(list(lowest))
        elements = np.array([self._elemental.get(symbol, np.nan) for symbol in system])
        energies = np.array([energy for energy, _ in lowest.values()]) - fractions @ elements
        kept = np.flatnonzero(energies <= 0)
        ids = [identifier for _, identifier in lowest.values()]
        return _Phases([ids[i] for i in kept], fractions[kept], energies[kept])

    def place(self, queries: Sequence[HullQuery]) -> list[HullResult]:
        """Return the position of each query, in the same order.

        Raises
        ------
        InputError
            If a query has another level or convention than the references, no finite energy, or
            an element without elemental reference.
        """
        systems: dict[System, list[int]] = defaultdict(list)
        amounts = []
        for index, query in enumerate(queries):
            self._check(query)
            amounts.append({e.symbol: n for e, n in query.composition.items()})
            systems[tuple(sorted(amounts[-1]))].append(index)
        results: dict[int, HullResult] = {}
        for system, members in systems.items():
            counts = np.array([[amounts[i][symbol] for symbol in system] for i in members])
            energies = np.array([queries[i].energy for i in members])
            placed = self._place_in(system, counts, energies)
            results.update(zip(members, placed, strict=True))
        return [results[index] for index in range(len(queries))]

    def _check(self, query: HullQuery) -> None:
        for what, have, want in (
            ("level", query.level, self.level),
            ("energy convention", query.convention, self.convention),
        ):
            if have != want:
                raise InputError(
                    f"Crystal {query.id} has {what} {have!r} but the references have {want!r}: "
                    "energies of different kinds cannot share a hull."
                )
        if not math.isfinite(query.energy):
            raise InputError(f"Crystal {query.id} has no finite energy.")

    def _hull_of(self, system: System) -> _Facets | _Mixtures:
        if system not in self._hulls:
            missing = [symbol for symbol in system if symbol not in self._elemental]
            if missing:
                raise InputError(
                    f"The references hold no elemental phase of {', '.join(missing)}, "
                    f"so nothing can be said about {'-'.join(system)}."
                )
            if len(self._hulls) >= MAX_SYSTEMS:
                del self._hulls[next(iter(self._hulls))]
            self._hulls[system] = _lower_hull(self._phases_of(system))
        return self._hulls[system]

    def _phases_of(self, system: System) -> _Phases:
        ids: list[str] = []
        fractions, energies = [], []
        for n in range(1, len(system) + 1):
            for columns in combinations(range(len(system)), n):
                phases = self._phases.get(tuple(system[c] for c in columns))
                if phases is not None:
                    ids += phases.ids
                    fractions.append(np.zeros((len(phases.ids), len(system))))
                    fractions[-1][:, columns] = phases.fractions
                    energies.append(phases.energies)
        return _Phases(ids, np.concatenate(fractions), np.concatenate(energies))

    def _place_in(
        self, system: System, amounts: FloatArray, energies: FloatArray
    ) -> list[HullResult]:
        """Return the position of crystals of one system.

        amounts: atoms of each element, shape (q, n_elements). energies: eV, shape (q,).
        """
        hull = self._hull_of(system)
        n_atoms = amounts.sum(axis=1)
        fractions = amounts / n_atoms[:, None]
        elements = np.array([self._elemental[symbol] for symbol in system])
        formation = energies / n_atoms - fractions @ elements
        lowest, decompositions = hull.lowest(fractions)
        above = formation - lowest
        return [
            HullResult(*row)
            for row in zip(above.tolist(), formation.tolist(), decompositions, strict=True)
        ]


def _refuse_duplicates(entries: Iterable[ReferenceEntry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.entry_id in seen:
            raise InputError(f"Two references have the same id {entry.entry_id!r}.")
        seen.add(entry.entry_id)


def _per_atom(entry: ReferenceEntry) -> tuple[System, list[float], float]:
    """Return the chemical system of an entry, its atomic fractions and its energy, eV/atom."""
    amounts = {e.symbol: n for e, n in entry.composition.element_composition.items()}
    system = tuple(sorted(amounts))
    total = sum(amounts.values())
    energy = entry.energy / total
    if not math.isfinite(energy):
        raise InputError(f"Reference {entry.entry_id} has no finite energy.")
    return system, [amounts[symbol] / total for symbol in system], energy


def _lower_hull(phases: _Phases) -> _Facets | _Mixtures:
    """Return the lower convex hull of formation energy over composition."""
    n_elements = phases.fractions.shape[1]
    points = np.column_stack([phases.fractions[:, 1:], phases.energies])
    corners = np.array([[int(np.argmax(phases.fractions[:, i] == 1.0)) for i in range(n_elements)]])
    if n_elements == 1 or phases.energies.min() > -MIN_FRACTION:
        return _Facets(phases, np.zeros((1, n_elements)), corners)
    if n_elements > MOST_ELEMENTS:
        return _Mixtures(phases)
    # A point far above each composition's plane keeps qhull's input full-dimensional.
    top = np.append(points[:, :-1].mean(axis=0), 1.0)
    try:
        hull = ConvexHull(np.vstack([points, top]))
    except QhullError:  # facets that merge too widely, in systems of 6 elements
        return _Mixtures(phases)
    lower = hull.equations[:, -2] < -VERTICAL
    normals, simplices = hull.equations[lower], hull.simplices[lower]
    offset = -normals[:, -1] / normals[:, -2]
    slopes = -normals[:, :-2] / normals[:, -2, None]
    potentials = np.column_stack([offset, offset[:, None] + slopes])
    return _Facets(phases, potentials, simplices)


def _decompose(
    facets: _Facets, fractions: FloatArray, planes: FloatArray
) -> list[dict[str, float]]:
    """Return the atomic fraction of each competing phase for compositions, shape (q, n_elements).

    planes: energy of each facet's plane at each composition, shape (q, n_facets).
    """
    chosen = facets.simplices[planes.argmax(axis=1)]
    corners = facets.phases.fractions[chosen].transpose(0, 2, 1)
    flat = np.abs(np.linalg.det(corners)) < MIN_FRACTION
    corners[flat] = np.eye(corners.shape[1])
    weights = np.linalg.solve(corners, fractions[:, :, None])[:, :, 0]
    # facets in one plane tie: another one than the first may hold the composition
    for row in np.flatnonzero(flat | (weights.min(axis=1) < -MIN_FRACTION)):
        chosen[row], weights[row] = _holding_facet(facets, fractions[row], planes[row])
    weights[weights < MIN_FRACTION] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    ids = facets.phases.ids
    return [
        {ids[i]: w for i, w in zip(simplex, row, strict=True) if w}
        for simplex, row in zip(chosen.tolist(), weights.tolist(), strict=True)
    ]


def _holding_facet(
    facets: _Facets, fractions: FloatArray, planes: FloatArray
) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the phases, and their fractions, of that of the tying facets that holds a point."""
    best: tuple[NDArray[np.intp], FloatArray] | None = None
    for index in np.flatnonzero(planes > planes.max() - SAME_PLANE):
        simplex = facets.simplices[index]
        corners = facets.phases.fractions[simplex].T
        weights = np.linalg.lstsq(corners, fractions, rcond=None)[0]
        exact = np.abs(corners @ weights - fractions).max() < MIN_FRACTION
        if best is None or (exact and weights.min() > best[1].min()):
            best = simplex, weights
    if best is None:
        raise ValueError("a composition lies on no facet")
    return best


@lru_cache(maxsize=1)
def _mp2020() -> Any:
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


def correct_mp2020(structure: Structure, energy: float, *, convention: EnergyConvention) -> float:
    """Return a total energy (eV) in the convention of its hull: corrected once, never twice.

    Uncorrected energies get the anion corrections (oxide, peroxide and superoxide told apart by
    the O-O distances) and the GGA/GGA+U mixing corrections of MaterialsProject2020Compatibility.
    They are taken as computed with MP's settings: with +U for the oxides and fluorides of Co, Cr,
    Fe, Mn, Mo, Ni, V and W, as VASP in MP's input sets and potentials trained on MP do.

    Parameters
    ----------
    structure
        The crystal `energy` belongs to.
    energy
        Total energy of its cell, eV.
    convention
        What `energy` is; all but ``uncorrected`` is returned as it is.

    Raises
    ------
    InputError
        If the scheme has no corrections for the crystal.
    """
    if convention != "uncorrected":
        return energy
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    scheme = _mp2020()
    anion = max(structure.composition.elements, key=lambda e: Element(e.symbol).X).symbol
    u_values = scheme.u_settings.get(anion, {})
    symbols = {e.symbol for e in structure.composition}
    hubbards = {s: float(u_values[s]) for s in symbols if u_values.get(s) and len(symbols) > 1}
    entry = ComputedStructureEntry(
        structure,
        energy,
        parameters={"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corrected = scheme.process_entry(entry, clean=True, inplace=False)
    if corrected is None:
        raise InputError(f"MP2020 corrections do not apply to {structure.formula}.")
    return float(corrected.energy)


def correct_references(references: ReferenceSet) -> ReferenceSet:
    """Return a reference set in the convention of its hull: ``mp2020`` if it was uncorrected.

    Raises
    ------
    InputError
        If an uncorrected entry has no structure (which tells oxides from peroxides).
    """
    if references.convention != "uncorrected":
        return references
    entries = []
    for entry in references.entries:
        if entry.structure is None:
            raise InputError(f"Reference {entry.entry_id} needs a structure to be corrected.")
        per_atom = correct_mp2020(
            entry.structure,
            entry.energy_per_atom * len(entry.structure),
            convention=references.convention,
        ) / len(entry.structure)
        energy = per_atom * entry.composition.num_atoms
        entries.append(entry.model_copy(update={"energy": energy}))
    return references.model_copy(update={"entries": entries, "convention": "mp2020"})
