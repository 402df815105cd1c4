"""Competing phases of known crystals, with their energies at a potential's own level.

Errors of a potential that are the same for a crystal and for what it competes with cancel only if
both are computed alike. So the phases near the hull that their source states, or of unknown place,
are computed with the same potential: all of them as they are, then those near the resulting hull
relaxed. What computes is given by the caller.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pymatgen.core import Composition, Structure

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_mp2020
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import EnergyConvention
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.systems import subsystems
from pccd_workflows.engines.levels import get_level, hull_convention
from pccd_workflows.engines.records import Relaxation

NEAR_IN_SOURCE = 0.1
"""eV/atom above the hull that a source states: phases below it are computed at another level.
Errors of an ML potential relative to PBE are smaller than this for most compounds, so what lies
higher hardly carries the level's hull."""
NEAR_AT_LEVEL = 0.04
"""eV/atom above the hull of single points at the level: phases below it are relaxed. Sources hold
relaxed PBE geometries; a potential's own minimum lies some meV/atom lower, so that what is further
up does not come to the hull."""

Systems = Collection[frozenset[str]]
"""Elements of chemical systems."""
ToldPhases = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and the total."""


def tell_nobody(what: str, done: int, total: int) -> None:
    """Report progress to nobody."""


class PhaseEngine(Protocol):
    """What computes phases at one level."""

    @property
    def level(self) -> str:
        """Name of a potential."""

    def energy_per_atom(self, structure: Structure) -> float | None:
        """Return the energy of a crystal as it is, eV/atom; None if the potential cannot say."""

    def relax(self, structure: Structure) -> Relaxation:
        """Return a crystal at rest."""


@dataclass(frozen=True)
class KnownPhase:
    """A known crystal that may compete.

    Attributes
    ----------
    energy_above_hull
        As its source states it, eV/atom; None if it does not.
    """

    id: str
    structure: Structure
    energy_above_hull: float | None


def elements_of(composition: Composition) -> frozenset[str]:
    """Return the symbols of the elements of a composition."""
    return frozenset(element.symbol for element in composition)


def with_subsystems(systems: Iterable[Collection[str]]) -> set[frozenset[str]]:
    """Return chemical systems and all their parts, down to the elements."""
    distinct = {frozenset(system) for system in systems}
    return {frozenset(part) for system in distinct for part in subsystems(system)}


def phases_near_hull(
    rows: Iterable[Mapping[str, Any]], systems: Iterable[Collection[str]]
) -> list[KnownPhase]:
    """Return the crystals of a data file that may lie on the hulls of chemical systems.

    Taken are all elements, and of compounds those at most NEAR_IN_SOURCE above the hull that the
    file states, or with no such statement.

    Parameters
    ----------
    rows
        Crystals with id, lattice (3x3, Å), species and frac_coords and, where known,
        energy_above_hull or energy_above_hull_legacy_derived, eV/atom.
    systems
        Elements of each system; subsystems are included.
    """
    wanted = with_subsystems(systems)
    phases = []
    for row in rows:
        species = row.get("species")
        if not species or frozenset(species) not in wanted:
            continue
        above = stated_energy_above_hull(row)
        if len(set(species)) == 1 or above is None or above <= NEAR_IN_SOURCE:
            structure = Structure(row["lattice"], species, row["frac_coords"])
            phases.append(KnownPhase(str(row["id"]), structure, above))
    return phases


def stated_energy_above_hull(row: Mapping[str, Any]) -> float | None:
    """Return what a data file says, eV/atom; the hull of one database and vintage comes first."""
    for name in ("energy_above_hull_legacy_derived", "energy_above_hull"):
        if row.get(name) is not None:
            return float(row[name])
    return None


def complete_elements(
    phases: Sequence[KnownPhase], systems: Systems, engine: PhaseEngine
) -> list[KnownPhase]:
    """Return the phases with crystals of elements that data files lack.

    Those are diatomic crystals of the elements that are molecules, and known structure types of
    elements of which there is no phase.
    """
    from pccd_workflows.engines.potential import supported_elements
    from pccd_workflows.known.prototypes import DIMERS, build_reference_set, dimer_crystals

    asked = {element for system in systems for element in system}
    known = supported_elements(get_level(engine.level))
    have = _elemental(phase.structure.composition for phase in phases)
    found = [
        KnownPhase(label, structure, None)
        for element in sorted(asked & set(DIMERS))
        for label, structure in dimer_crystals(element)
    ]
    for element in sorted((asked if known is None else asked & known) - have):
        built = build_reference_set(element, engine.level, relax=engine.relax)
        found += [KnownPhase(e.entry_id, e.structure, None) for e in built.entries if e.structure]
    return [*phases, *found]


def _elemental(compositions: Iterable[Composition]) -> set[str]:
    """Return the elements of which there is an elemental phase."""
    found = map(elements_of, compositions)
    return {symbol for symbols in found if len(symbols) == 1 for symbol in symbols}


def compute_phases(
    phases: Sequence[KnownPhase],
    engine: PhaseEngine,
    *,
    relax: bool = True,
    progress: ToldPhases = tell_nobody,
) -> ReferenceSet:
    """Return the phases with their energies at a level, in the convention of its hull.

    What the level cannot compute is left out, and with it the phases of an element of which no
    elemental phase is left: they have no hull.

    Parameters
    ----------
    phases
        Of all the systems that will be asked for.
    relax
        Whether those within NEAR_AT_LEVEL of the hull of single points are relaxed.
    progress
        Told after each crystal.
    """
    convention = get_level(engine.level).convention
    entries: list[ReferenceEntry] = []
    for done, phase in enumerate(phases, start=1):
        energy = engine.energy_per_atom(phase.structure)
        total = None if energy is None else energy * len(phase.structure)
        total = _corrected(phase.structure, total, convention)
        if total is not None:
            entries.append(_entry(phase.id, phase.structure, total, "as it is"))
        progress("single points of known phases", done, len(phases))
    entries = _with_hull(entries)
    if relax and entries:
        _relax_near_hull(entries, engine, progress)
    return _reference_set(entries, engine.level)


def _corrected(
    structure: Structure, energy: float | None, convention: EnergyConvention
) -> float | None:
    """Return a total energy (eV) with the MP2020 corrections, None where there is none."""
    if energy is None or not math.isfinite(energy):
        return None
    try:
        return correct_mp2020(structure, energy, convention=convention)
    except InputError:
        return None


def _with_hull(entries: Sequence[ReferenceEntry]) -> list[ReferenceEntry]:
    have = _elemental(entry.composition for entry in entries)
    return [entry for entry in entries if elements_of(entry.composition) <= have]


def _relax_near_hull(
    entries: list[ReferenceEntry], engine: PhaseEngine, progress: ToldPhases
) -> None:
    """Put relaxed phases in the place of those near the hull."""
    convention = get_level(engine.level).convention
    near = _near_hull(_reference_set(entries, engine.level))
    for done, place in enumerate(near, start=1):
        start = entries[place]
        relaxation = None if start.structure is None else engine.relax(start.structure)
        if relaxation is not None and relaxation.usable and relaxation.structure is not None:
            total = _corrected(relaxation.structure, relaxation.energy, convention)
            # one that went uphill or apart is no better than its start
            if total is not None and total < start.energy:
                entries[place] = _entry(start.entry_id, relaxation.structure, total, "relaxed")
        progress("relaxing phases near the hull", done, len(near))


def _near_hull(known: ReferenceSet) -> list[int]:
    """Return the numbers of the entries that are worth a relaxation."""
    placed = Hull(known).place(
        [
            HullQuery(e.entry_id, e.composition, e.energy, known.convention, known.level)
            for e in known.entries
        ]
    )
    return [i for i, found in enumerate(placed) if found.energy_above_hull <= NEAR_AT_LEVEL]


def _entry(identifier: str, structure: Structure, energy: float, how: str) -> ReferenceEntry:
    return ReferenceEntry(
        entry_id=identifier,
        formula=structure.composition.formula.replace(" ", ""),
        energy=energy,
        structure=structure,
        data={"geometry": how},
    )


def _reference_set(entries: Sequence[ReferenceEntry], level: str) -> ReferenceSet:
    symbols = frozenset().union(*(elements_of(entry.composition) for entry in entries))
    return ReferenceSet(
        source="file",
        chemsys="-".join(sorted(symbols)),
        level=level,
        convention=hull_convention(get_level(level).convention),
        entries=list(entries),
    )
