"""Where crystals lie on the convex hull of competing phases: all candidates of a system at once.

The lower hull of formation energy over composition is convex and piecewise linear, so the hull
energy of any composition is the largest value among the planes of its facets. The facets of a
chemical system are computed once; all candidates are then placed by one matrix product.
"""

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
from scipy.spatial import ConvexHull

from pccd_workflows.errors import InputError
from pccd_workflows.levels import EnergyConvention
from pccd_workflows.reference import ReferenceEntry, ReferenceSet

FloatArray = NDArray[np.float64]

VERTICAL = 1e-7
"""A facet whose unit normal has a smaller energy component bounds the composition range: a real
facet that steep would mean 1e7 eV/atom."""
SAME_PLANE = 1e-8
"""Facets whose planes agree this well (eV/atom) at a composition may both hold it."""
MIN_FRACTION = 1e-8
"""Phases with a smaller atomic fraction are not part of a decomposition."""


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


class Hull:
    """The convex hull of a reference set, built once, system by system when first asked for.

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
        self._phases: dict[tuple[str, ...], list[tuple[str, dict[str, float], float]]] = (
            defaultdict(list)
        )
        self._elemental: dict[str, float] = {}
        for entry in references.entries:
            self._add(entry)
        self._facets: dict[tuple[str, ...], _Facets] = {}

    def _add(self, entry: ReferenceEntry) -> None:
        composition = entry.composition
        n_atoms = composition.num_atoms
        energy = entry.energy / n_atoms
        if not np.isfinite(energy):
            raise InputError(f"Reference {entry.entry_id} has no finite energy.")
        fractions = {e.symbol: n / n_atoms for e, n in composition.element_composition.items()}
        system = tuple(sorted(fractions))
        self._phases[system].append((entry.entry_id, fractions, energy))
        if len(system) == 1:
            self._elemental[system[0]] = min(energy, self._elemental.get(system[0], np.inf))

    def place(self, queries: Sequence[HullQuery]) -> list[HullResult]:
        """Return the position of each query, in the same order.

        Raises
        ------
        InputError
            If a query has another level or convention than the references, no finite energy, or
            an element without elemental reference.
        """
        systems: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            self._check(query)
            systems[_chemical_system(query.composition)].append(index)
        results: dict[int, HullResult] = {}
        for system, members in systems.items():
            facets = self._facets_of(system)
            placed = self._place_in(system, facets, [queries[i] for i in members])
            results.update(zip(members, placed, strict=True))
        return [results[i] for i in range(len(queries))]

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
        if not np.isfinite(query.energy):
            raise InputError(f"Crystal {query.id} has no finite energy.")

    def _facets_of(self, system: tuple[str, ...]) -> _Facets:
        if system not in self._facets:
            missing = [symbol for symbol in system if symbol not in self._elemental]
            if missing:
                raise InputError(
                    f"The references hold no elemental phase of {', '.join(missing)}, "
                    f"so nothing can be said about {'-'.join(system)}."
                )
            self._facets[system] = _lower_hull(self._phases_of(system))
        return self._facets[system]

    def _phases_of(self, system: tuple[str, ...]) -> _Phases:
        lowest: dict[tuple[float, ...], tuple[float, str]] = {}
        subsystems = (c for n in range(1, len(system) + 1) for c in combinations(system, n))
        for identifier, fractions, energy in (p for s in subsystems for p in self._phases[s]):
            x = tuple(fractions.get(symbol, 0.0) for symbol in system)
            formation = energy - sum(f * self._elemental[e] for e, f in fractions.items())
            key = tuple(round(v, 9) for v in x)
            if formation <= 0 or len(fractions) == 1:
                lowest[key] = min(lowest.get(key, (np.inf, "")), (formation, identifier))
        return _Phases(
            [identifier for _, identifier in lowest.values()],
            np.array(list(lowest)),
            np.array([energy for energy, _ in lowest.values()]),
        )

    def _place_in(
        self, system: tuple[str, ...], facets: _Facets, queries: Sequence[HullQuery]
    ) -> list[HullResult]:
        fractions = np.array([_fractions(q.composition, system) for q in queries])
        per_atom = np.array([q.energy / q.composition.num_atoms for q in queries])
        formation = per_atom - fractions @ np.array([self._elemental[e] for e in system])
        planes = fractions @ facets.potentials.T
        above = formation - planes.max(axis=1)
        return [
            HullResult(float(e), float(f), _decompose(facets, x, row))
            for e, f, x, row in zip(above, formation, fractions, planes, strict=True)
        ]


def _refuse_duplicates(entries: Iterable[ReferenceEntry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.entry_id in seen:
            raise InputError(f"Two references have the same id {entry.entry_id!r}.")
        seen.add(entry.entry_id)


def _chemical_system(composition: Composition) -> tuple[str, ...]:
    return tuple(sorted({e.symbol for e in composition}))


def _fractions(composition: Composition, system: tuple[str, ...]) -> list[float]:
    amounts = composition.get_el_amt_dict()
    total = sum(amounts.values())
    return [amounts.get(symbol, 0.0) / total for symbol in system]


def _lower_hull(phases: _Phases) -> _Facets:
    """Return the facets of the lower convex hull of formation energy over composition."""
    n_elements = phases.fractions.shape[1]
    points = np.column_stack([phases.fractions[:, 1:], phases.energies])
    corners = np.array([[int(np.argmax(phases.fractions[:, i] == 1.0)) for i in range(n_elements)]])
    if n_elements == 1 or phases.energies.min() > -MIN_FRACTION:
        return _Facets(phases, np.zeros((1, n_elements)), corners)
    # A point far above each composition's plane keeps qhull's input full-dimensional.
    top = np.append(points[:, :-1].mean(axis=0), 1.0)
    hull = ConvexHull(np.vstack([points, top]))
    lower = hull.equations[:, -2] < -VERTICAL
    normals, simplices = hull.equations[lower], hull.simplices[lower]
    offset = -normals[:, -1] / normals[:, -2]
    slopes = -normals[:, :-2] / normals[:, -2, None]
    potentials = np.column_stack([offset, offset[:, None] + slopes])
    return _Facets(phases, potentials, simplices)


def _decompose(facets: _Facets, fractions: FloatArray, planes: FloatArray) -> dict[str, float]:
    """Return the atomic fraction of each phase of the facet that holds a composition."""
    best: FloatArray = np.array([-np.inf])
    chosen = facets.simplices[0]
    for index in np.flatnonzero(planes > planes.max() - SAME_PLANE):
        simplex = facets.simplices[index]
        weights = np.linalg.lstsq(facets.phases.fractions[simplex].T, fractions, rcond=None)[0]
        if weights.min() > best.min():
            best, chosen = weights, simplex
    kept = [(facets.phases.ids[i], float(w)) for i, w in zip(chosen, best, strict=True)]
    total = sum(w for _, w in kept if w > MIN_FRACTION)
    return {identifier: w / total for identifier, w in kept if w > MIN_FRACTION}


@lru_cache(maxsize=1)
def _mp2020() -> Any:
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


def correct_mp2020(structure: Structure, energy: float, *, convention: EnergyConvention) -> float:
    """Return a total energy (eV) in the convention ``mp2020``: corrected once, never twice.

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
        What `energy` is; ``mp2020`` is returned as it is.

    Raises
    ------
    InputError
        If the scheme has no corrections for the crystal.
    """
    if convention == "mp2020":
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
    """Return a reference set in the convention ``mp2020``.

    Raises
    ------
    InputError
        If an uncorrected entry has no structure (which tells oxides from peroxides).
    """
    if references.convention == "mp2020":
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
