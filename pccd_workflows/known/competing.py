"""Competing phases from the library of known crystals, at a level of theory.

Stored energies are taken as they are. Phases near the hull that have none are computed where the
caller says how; what is left without is counted in the set's settings.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import MissingPhase, ReferenceEntry, ReferenceSet
from pccd_workflows.core.systems import split_chemsys
from pccd_workflows.engines import engine
from pccd_workflows.engines.engine import Task, Work
from pccd_workflows.engines.levels import get_level
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.known.compute import NEAR_IN_SOURCES
from pccd_workflows.known.library import KnownCrystal, KnownLibrary, library
from pccd_workflows.known.options import source_name
from pccd_workflows.known.predicted import predict_phases, with_predictions
from pccd_workflows.known.relaxed_hull import (
    Phase,
    Relax,
    relax_near_hull,
    with_correction,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure


class NoElementalPhaseError(InputError):
    """There is no hull: an element has no phase with an energy."""


METHOD = 2
"""Raised when `known_reference_set` makes another set of the same crystals and energies."""
SinglePoint = Callable[["Structure"], float | None]
"""Energy of a crystal as it is, eV/atom; None if the potential cannot say."""


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


def engines_at(level: str, work: Work, task: Task) -> Engines:
    """Return what computes energies at a potential's level, or finds them where work is kept.

    task: how phases are relaxed.
    """

    def single_point(structure: "Structure") -> float | None:
        return engine.static(structure, level, work).energy_per_atom

    return Engines(single_point, lambda s: engine.relax(s, level, work, task))


@dataclass(frozen=True)
class ImportedSet:
    """Crystals that somebody imported and that compete, too.

    Attributes
    ----------
    name
        Of the set; its crystals are called ``name/id``.
    crystals
        Id and crystal.
    """

    name: str
    crystals: Iterable[tuple[str, "Structure"]]


def known_reference_set(
    chemsys: str,
    level: str,
    *,
    engines: Engines = Engines(),
    known: KnownLibrary | None = None,
    imported: Sequence[ImportedSet] = (),
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
        eV/atom of the hull or nowhere, relaxations of those that may lie on the level's hull.
    known
        The library; the one of the package by default.
    imported
        Sets whose crystals of the system join, but for those that the library has.
    progress
        Told after each crystal that is computed.

    Returns
    -------
    ReferenceSet
        Energies in the level's own convention. Of phases with a stored relaxed energy the
        structure is the known one, not relaxed again. `settings` says how many phases were
        relaxed, taken as they are, and left out for lack of an energy; `missing` which phases
        are known to exist and have no structure here, and which of them were predicted, where
        `engines` relax (see `known.predicted`).

    Raises
    ------
    InputError
        A symbol is no element, or the library has no energies at the level and none can be
        computed.
    NoElementalPhaseError
        An element has no phase with an energy.
    """
    known = known or library()
    symbols = split_chemsys(chemsys)
    rows = known.rows_in(chemsys)
    phases = _stored(known, level, rows, needed=engines.single_point is None)
    there = {phase.id for phase in phases}
    wanted = [_crystal(known.crystal(row)) for row in _wanted(known, rows, there)]
    new = _new(known, imported)
    n_phases = len(rows) + len(new)
    phases += _computed([*wanted, *new], engines.single_point, progress)
    phases = with_correction(phases, level)
    _need_elements(symbols, phases, level)
    missing = _missing(known, chemsys, [phase.id for phase in phases])
    without_energy = n_phases - len(phases)
    if engines.relax is not None:
        found = with_correction(predict_phases(missing, known, engines.relax, progress), level)
        missing = with_predictions(missing, found)
        phases = relax_near_hull([*phases, *found], level, engines.relax, progress)
    relaxed = sum(phase.relaxed for phase in phases)
    return ReferenceSet(
        source=source_name("known", [each.name for each in imported]),
        chemsys="-".join(symbols),
        level=level,
        convention=get_level(level).convention,
        source_version=version_at(level, known),
        settings={
            "relaxed": relaxed,
            "as_they_are": len(phases) - relaxed,
            "without_energy": without_energy,
        },
        entries=sorted((_entry(phase) for phase in phases), key=lambda entry: entry.entry_id),
        missing=missing,
    )


def version_at(level: str, known: KnownLibrary | None = None) -> str:
    """Return what sets of a level name as their source: versions of library and energies."""
    known = known or library()
    digest = known.energies_digest(level)
    stored = "" if digest is None else f", energies {digest}"
    return f"library of known crystals {known.version}, hull {METHOD}{stored}"


def check_library(
    symbols: Iterable[str], levels: Iterable[str], known: KnownLibrary | None = None
) -> None:
    """See that the library can be read and has a phase of every element: without, no hull.

    Parameters
    ----------
    symbols
        The elements.
    levels
        Of whose energies those that the library has are read.
    known
        The library; the one of the package by default.

    Raises
    ------
    InputError
        A file is damaged, cut off or of another version; or an element has no phase.
    """
    known = known or library()
    known.check(levels)
    lacking = [symbol for symbol in symbols if not known.rows_in(symbol)]
    if lacking:
        raise InputError(
            f"The library of known crystals has no phase of {', '.join(lacking)}, so there is no "
            "hull: leave it out, or give the competing phases with references: {source: file}."
        )


def _crystal(crystal: KnownCrystal) -> tuple[str, str, "Structure"]:
    return crystal.id, crystal.source.database, crystal.structure


def _stored(known: KnownLibrary, level: str, rows: Sequence[int], *, needed: bool) -> list[Phase]:
    """Return the phases with a stored energy; InputError if the level is needed and lacking."""
    if not needed and level not in known.levels:
        return []
    energies = known.energies(level)
    best = energies.best
    return [
        Phase(
            *_crystal(known.crystal(row)),
            energy=float(best[row]),
            relaxed=bool(energies.relaxed[row] <= best[row]),
        )
        for row in rows
        if np.isfinite(best[row])
    ]


def _wanted(known: KnownLibrary, rows: Sequence[int], there: set[str]) -> list[int]:
    """Return the phases worth an energy that have none stored."""
    above, elemental = known.energy_above_hull, known.n_elements == 1
    return [
        row
        for row in rows
        if known.id_of(row) not in there and (elemental[row] or not above[row] > NEAR_IN_SOURCES)
    ]


def _new(
    known: KnownLibrary, imported: Sequence[ImportedSet]
) -> list[tuple[str, str, "Structure"]]:
    """Return id, set and structure of imported crystals that the library does not have."""
    from pccd_workflows.known.identify import Identifier

    crystals = [
        (f"{each.name}/{identifier}", each.name, crystal)
        for each in imported
        for identifier, crystal in each.crystals
    ]
    if not crystals:
        return []
    found = Identifier(known).find_known([crystal for *_, crystal in crystals])
    return [each for each, same in zip(crystals, found, strict=True) if same is None]


def _computed(
    crystals: Sequence[tuple[str, str, "Structure"]],
    single_point: SinglePoint | None,
    progress: Progress,
) -> list[Phase]:
    """Return the phases of which the potential has an energy."""
    if single_point is None:
        return []
    phases = []
    for done, (identifier, database, structure) in enumerate(crystals, start=1):
        energy = single_point(structure)
        if energy is not None and np.isfinite(energy):
            phases.append(Phase(identifier, database, structure, float(energy)))
        progress("single points of known phases", done, len(crystals))
    return phases


def _need_elements(symbols: Sequence[str], phases: Sequence[Phase], level: str) -> None:
    have = {phase.structure.chemical_system for phase in phases}
    lacking = [symbol for symbol in symbols if symbol not in have]
    if lacking:
        raise NoElementalPhaseError(
            f"The library of known crystals has no phase of {', '.join(lacking)} with an energy at "
            f"level {level!r}, so nothing can be said about {'-'.join(symbols)}."
        )


def _entry(phase: Phase) -> ReferenceEntry:
    return ReferenceEntry(
        entry_id=phase.id,
        formula=phase.structure.composition.formula.replace(" ", ""),
        energy=phase.energy * len(phase.structure),
        structure=phase.structure,
        data={
            "geometry": "relaxed" if phase.relaxed else "as it is",
            "database": phase.database,
        },
    )


def _missing(known: KnownLibrary, chemsys: str, ids: Iterable[str]) -> list[MissingPhase]:
    """Return the missing phases of a system; those whose id an imported crystal has are there."""
    there = {identifier.rpartition("/")[2] for identifier in ids}
    return [phase for phase in known.missing(chemsys) if phase.id not in there]
