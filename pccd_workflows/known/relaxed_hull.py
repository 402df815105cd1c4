"""Known phases at rest at a level: as few relaxations as the hull needs.

Known geometries are near their minimum already, so that a relaxation gains little and most phases
stay above the hull whatever they gain. First those on the hull come to rest, again and again until
all of them are; then what lies within reach of it. A phase whose forces and stress promise no more
than that reach is left as it is: one evaluation, where a relaxation takes 10 to 30.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_mp2020
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.levels import get_level, hull_convention
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.build import Progress, silent

if TYPE_CHECKING:
    from pymatgen.core import Structure

Relax = Callable[["Structure"], Relaxation]
Look = Callable[["Structure", float], float | None]
"""About what a relaxation of a crystal with this energy, eV/atom, would gain, eV/atom; None where
nobody can say."""
REACH = 0.005
"""eV/atom above the hull of relaxed phases: those below it that were not relaxed are. Known phases
gain 3.5 meV/atom in the median with CHGNet, those on the hull as much as those above it:
`benchmarks/known_hull.py --compare` says what a shorter or a longer reach changes."""
ELEMENT_REACH = 0.025
"""eV/atom, for elements: their molecules (S8, P4) gain up to 19 meV/atom, and every hull that holds
the element rests on the lowest of them."""
SAME_ENERGY = 1e-6
"""eV/atom; less is rounding."""
WHAT = "relaxing known phases near the hull"


@dataclass(frozen=True)
class Phase:
    """A known crystal with its energy at a level, eV/atom, in the level's own convention.

    Attributes
    ----------
    id
        Unique among those that compete.
    database
        Where it is from.
    relaxed
        Whether the energy is that of the crystal at rest at the level.
    """

    id: str
    database: str
    structure: "Structure"
    energy: float
    relaxed: bool = False


def relax_near_hull(
    phases: Sequence[Phase],
    level: str,
    relax: Relax,
    progress: Progress = silent,
    *,
    look: Look | None = None,
    reach: float = REACH,
) -> list[Phase]:
    """Return the phases, those that may lie on their hull at rest.

    Parameters
    ----------
    phases
        Of one chemical system and its parts, every element among them.
    level
        Name of the level that `relax` relaxes at.
    relax
        Relaxes one crystal.
    progress
        Told after each phase; the total grows when the hull moves.
    look
        Says which phases are at rest as they are; None relaxes all of them.
    reach
        How far above the hull of phases at rest those lie that may come to it, eV/atom.
    """
    found = list(phases)
    corrected = [corrected_energy(phase, level) for phase in phases]
    settled = {i for i, phase in enumerate(found) if phase.relaxed}
    done = 0
    while batch := _next(found, heights(found, corrected, level), settled, reach):
        total = done + len(batch)
        for place in batch:
            gain = None if look is None else look(found[place].structure, found[place].energy)
            if gain is None or gain > reach:
                found[place] = _at_rest(found[place], relax)
                corrected[place] = corrected_energy(found[place], level)
            settled.add(place)
            done += 1
            progress(WHAT, done, total)
    return found


def _next(
    phases: Sequence[Phase], above: Sequence[float], settled: set[int], reach: float
) -> list[int]:
    """Return which phases are relaxed next: those on the hull, else those within reach.

    Small cells come first: they cost least and lower the hull that spares others.
    """
    waiting = [i for i in range(len(phases)) if i not in settled]
    chosen = [i for i in waiting if above[i] <= SAME_ENERGY] or [
        i for i in waiting if above[i] <= _reach_of(phases[i], reach) + SAME_ENERGY
    ]
    return sorted(chosen, key=lambda i: (len(phases[i].structure), phases[i].id))


def _reach_of(phase: Phase, reach: float) -> float:
    return max(reach, ELEMENT_REACH) if phase.structure.n_elems == 1 else reach


def _at_rest(phase: Phase, relax: Relax) -> Phase:
    """Return a phase after its relaxation; as it is if that went uphill, apart or wrong."""
    found = relax(phase.structure)
    energy, structure = found.energy_per_atom, found.structure
    if not found.usable or structure is None or energy is None or energy > phase.energy:
        return phase
    return replace(phase, structure=structure, energy=energy, relaxed=True)


def corrected_energy(phase: Phase, level: str) -> float:
    """Return a phase's energy in the convention of its hull, eV/atom."""
    n_sites = len(phase.structure)
    convention = get_level(level).convention
    total = correct_mp2020(phase.structure, phase.energy * n_sites, convention=convention)
    return total / n_sites


def with_correction(phases: Sequence[Phase], level: str) -> list[Phase]:
    """Return the phases that the corrections of the level's hull apply to; mostly all."""
    get_level(level)  # an unknown level is no property of a phase
    found = []
    for phase in phases:
        with suppress(InputError):  # no hull of a system is lost for one odd phase of it
            corrected_energy(phase, level)
            found.append(phase)
    return found


def heights(phases: Sequence[Phase], corrected: Sequence[float], level: str) -> list[float]:
    """Return how far phases lie above their hull, eV/atom.

    corrected: of `corrected_energy`.
    """
    convention = hull_convention(get_level(level).convention)
    compositions = [phase.structure.composition for phase in phases]
    queries = [
        HullQuery(phase.id, composition, energy * len(phase.structure), convention, level)
        for phase, composition, energy in zip(phases, compositions, corrected, strict=True)
    ]
    entries = [
        ReferenceEntry(
            entry_id=query.id,
            formula=query.composition.formula.replace(" ", ""),
            energy=query.energy,
        )
        for query in queries
    ]
    references = ReferenceSet(
        source="known", chemsys="", level=level, convention=convention, entries=entries
    )
    return [result.energy_above_hull for result in Hull(references).place(queries)]
