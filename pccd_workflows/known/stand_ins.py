"""Stand-ins for known phases without a structure: structure types of their composition.

Where the library has no crystal of a composition that a table of formation energies knows near
its hull, prototypes of that composition are relaxed, so that the hull is not empty there. They
stand in for the phase; whether it is one of them is not known, and it stays on the list of what is
missing.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.known.library import KnownLibrary, library

if TYPE_CHECKING:
    from pymatgen.core import Structure

Relax = Callable[["Structure"], Relaxation]


def missing_compositions(
    chemsys: str, known: KnownLibrary | None = None
) -> dict[tuple[str, ...], set[str]]:
    """Return the reduced formulas that need a stand-in, by their elements.

    Those of missing phases that could move the hull and of whose composition the library has no
    crystal.
    """
    from pymatgen.core import Composition

    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for phase in (known or library()).missing(chemsys):
        if phase.could_move_hull and phase.n_same_composition == 0:
            formula = Composition(phase.formula).reduced_formula
            found[tuple(phase.chemsys.split("-"))].add(str(formula))
    return dict(found)


def with_stand_ins(
    references: ReferenceSet,
    relax: Relax,
    *,
    known: KnownLibrary | None = None,
    progress: Progress = silent,
) -> ReferenceSet:
    """Return a reference set with stand-ins for the compositions that the library lacks.

    Parameters
    ----------
    references
        What `known_reference_set` returned.
    relax
        Relaxes one crystal at the set's level.
    known
        The library; the one of the package by default.
    progress
        Told after each relaxation.

    Returns
    -------
    ReferenceSet
        The same set where nothing is missing; else `settings` says how many phases stand in, and
        each says so in its `data`.
    """
    from pccd_workflows.known.prototypes import relaxed_compositions

    wanted = missing_compositions(references.chemsys, known)
    entries = list(references.entries)
    for system in sorted(wanted, key=lambda symbols: (len(symbols), symbols)):
        found = relaxed_compositions(
            system, wanted[system], entries, references.level, relax=relax, progress=progress
        )
        entries += [_marked(entry) for entry in found]
    n_stand_ins = len(entries) - len(references.entries)
    if not n_stand_ins:
        return references
    settings = {**references.settings, "stand_ins": n_stand_ins}
    ordered = sorted(entries, key=lambda entry: entry.entry_id)
    return references.model_copy(update={"entries": ordered, "settings": settings})


def _marked(entry: ReferenceEntry) -> ReferenceEntry:
    return entry.model_copy(update={"data": {**entry.data, "geometry": "stand-in"}})
