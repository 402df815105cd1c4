"""Competing phases from the library of known crystals, at a level of theory.

Stored energies are taken as they are. Phases near the hull that have none are computed where the
caller says how; what is left without is counted in the set's settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_references
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.systems import split_chemsys
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.known.compute import NEAR_IN_SOURCES
from pccd_workflows.known.library import KnownCrystal, KnownLibrary, library

if TYPE_CHECKING:
    from pymatgen.core import Structure

SinglePoint = Callable[["Structure"], float | None]
"""Energy of a crystal as it is, eV/atom; None if the potential cannot say."""
Relax = Callable[["Structure"], Relaxation]
SOURCE = "known"
NEAR_HULL = 0.01
"""eV/atom above the hull of a system's stored energies: phases below it that were never relaxed
are. CHGNet's own minimum lies 3.5 meV/atom below the known geometry in the median."""
SAME_ENERGY = 1e-6
"""eV/atom; less is rounding."""

Geometry = Literal["as it is", "relaxed"]


@dataclass(frozen=True)
class Engines:
    """What computes the energies that the library lacks.

    Attributes
    ----------
    single_point
        None leaves phases without a stored energy out.
    relax
        None takes single points near the hull as they are.
    """

    single_point: SinglePoint | None = None
    relax: Relax | None = None


@dataclass(frozen=True)
class _Phase:
    """A known crystal with its energy at the level, eV/atom."""

    crystal: KnownCrystal
    structure: "Structure"
    energy: float
    geometry: Geometry


def known_reference_set(
    chemsys: str,
    level: str,
    *,
    engines: Engines = Engines(),
    known: KnownLibrary | None = None,
    progress: Progress = silent,
) -> ReferenceSet:
    """Return the known phases of a chemical system and its parts with energies at a level.

    Parameters
    ----------
    chemsys
        Symbols joined by '-'.
    level
        Name of a potential of which the library has energies, or which `engines` computes.
    engines
        Compute what is missing: single points of phases that their sources place within 0.1
        eV/atom of the hull or nowhere, relaxations of those within 10 meV/atom of the level's hull.
    known
        The library; the one of the package by default.
    progress
        Told after each crystal that is computed.

    Returns
    -------
    ReferenceSet
        Energies in the level's own convention. Of phases with a stored relaxed energy the
        structure is the known one, not relaxed again. `settings` says how many phases were
        relaxed, taken as they are, and left out for lack of an energy.

    Raises
    ------
    InputError
        A symbol is no element; an element has no phase with an energy; or the library has no
        energies at the level and none can be computed.
    """
    known = known or library()
    symbols = split_chemsys(chemsys)
    rows = known.rows_in(chemsys)
    phases = _stored(known, level, rows, needed=engines.single_point is None)
    phases += _computed(known, rows, phases, engines.single_point, progress)
    _need_elements(symbols, phases, level)
    if engines.relax is not None:
        phases = _relaxed_near_hull(phases, level, engines.relax, progress)
    left_out = len(rows) - len(phases)
    return _reference_set(phases, known, level, left_out)


def _stored(known: KnownLibrary, level: str, rows: Sequence[int], *, needed: bool) -> list[_Phase]:
    """Return the phases with a stored energy; InputError if the level is needed and lacking."""
    if not needed and level not in known.levels:
        return []
    energies = known.energies(level)
    best = energies.best
    phases = []
    for row in rows:
        if np.isfinite(best[row]):
            relaxed = energies.relaxed[row] <= best[row]
            crystal = known.crystal(row)
            geometry: Geometry = "relaxed" if relaxed else "as it is"
            phases.append(_Phase(crystal, crystal.structure, float(best[row]), geometry))
    return phases


def _computed(
    known: KnownLibrary,
    rows: Sequence[int],
    stored: Sequence[_Phase],
    single_point: SinglePoint | None,
    progress: Progress,
) -> list[_Phase]:
    """Return the phases worth an energy that have none stored, with computed ones."""
    if single_point is None:
        return []
    there = {phase.crystal.row for phase in stored}
    above, elemental = known.energy_above_hull, known.n_elements == 1
    wanted = [
        r for r in rows if r not in there and (elemental[r] or not above[r] > NEAR_IN_SOURCES)
    ]
    phases = []
    for done, row in enumerate(wanted, start=1):
        crystal = known.crystal(row)
        energy = single_point(crystal.structure)
        if energy is not None and np.isfinite(energy):
            phases.append(_Phase(crystal, crystal.structure, float(energy), "as it is"))
        progress("single points of known phases", done, len(wanted))
    return phases


def _need_elements(symbols: Sequence[str], phases: Sequence[_Phase], level: str) -> None:
    have = {phase.crystal.chemsys for phase in phases}
    lacking = [symbol for symbol in symbols if symbol not in have]
    if lacking:
        raise InputError(
            f"The library of known crystals has no phase of {', '.join(lacking)} with an energy at "
            f"level {level!r}, so nothing can be said about {'-'.join(symbols)}."
        )


def _relaxed_near_hull(
    phases: Sequence[_Phase], level: str, relax: Relax, progress: Progress
) -> list[_Phase]:
    """Return the phases, those near their hull relaxed where they were not."""
    near = [i for i in _near_hull(phases, level) if phases[i].geometry != "relaxed"]
    after = list(phases)
    for done, place in enumerate(near, start=1):
        relaxation, phase = relax(phases[place].structure), phases[place]
        energy, structure = relaxation.energy_per_atom, relaxation.structure
        # one that went uphill or apart is no better than its start
        if relaxation.usable and structure is not None and energy is not None:
            lower = replace(phase, structure=structure, energy=energy, geometry="relaxed")
            after[place] = min(lower, phase, key=lambda p: p.energy)
        progress("relaxing known phases near the hull", done, len(near))
    return after


def _near_hull(phases: Sequence[_Phase], level: str) -> list[int]:
    """Return which phases are within reach of the hull, the lowest first."""
    entries = [_entry(phase) for phase in phases]
    references = correct_references(
        ReferenceSet(
            source=SOURCE,
            chemsys="",
            level=level,
            convention=get_level(level).convention,
            entries=entries,
        )
    )
    queries = [
        HullQuery(e.entry_id, e.composition, e.energy, references.convention, level)
        for e in references.entries
    ]
    above = [result.energy_above_hull for result in Hull(references).place(queries)]
    near = [i for i, height in enumerate(above) if height <= NEAR_HULL + SAME_ENERGY]
    return sorted(near, key=lambda i: above[i])


def _entry(phase: _Phase) -> ReferenceEntry:
    crystal = phase.crystal
    return ReferenceEntry(
        entry_id=crystal.id,
        formula=crystal.formula,
        energy=phase.energy * crystal.n_sites,
        structure=phase.structure,
        data={"geometry": phase.geometry, "database": crystal.source.database},
    )


def _reference_set(
    phases: Sequence[_Phase], known: KnownLibrary, level: str, left_out: int
) -> ReferenceSet:
    relaxed = sum(phase.geometry == "relaxed" for phase in phases)
    elements = {symbol for phase in phases for symbol in phase.crystal.chemsys.split("-")}
    return ReferenceSet(
        source=SOURCE,
        chemsys="-".join(sorted(elements)),
        level=level,
        convention=get_level(level).convention,
        source_version=f"library of known crystals {known.version}",
        settings={
            "relaxed": relaxed,
            "as_they_are": len(phases) - relaxed,
            "without_energy": left_out,
        },
        entries=sorted((_entry(phase) for phase in phases), key=lambda entry: entry.entry_id),
    )
