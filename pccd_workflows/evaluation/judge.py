"""Crystals relaxed with a potential and placed on that potential's own hull."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.systems import covering_system
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.stored_potential import StoredPotential, stored_potential
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.known.competing import (
    Engines,
    NoElementalPhaseError,
    known_reference_set,
    version_at,
)
from pccd_workflows.known.library import KnownLibrary
from pccd_workflows.stages.hull import Stability, judge_stability

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings


class HullFacts(Result):
    """The hulls that crystals were placed on.

    Attributes
    ----------
    systems
        Chemical systems of which there is one; systems within another one of them not counted.
    phases
        Competing phases of all of them.
    missing_phases, predicted_phases
        Phases known to exist that have no structure here, and those of them in whose place a
        predicted one competes.
    """

    systems: int
    phases: int
    missing_phases: int
    predicted_phases: int


class JudgeProtocol(Result):
    """What a judge's verdicts mean."""

    potential: dict[str, str]
    relaxation: str
    hull: str
    corrections: str = "MaterialsProject2020Compatibility, once"


@dataclass(frozen=True)
class Judgement:
    """Crystals at rest and on the hull, in their order, by the records of a campaign's stages.

    Attributes
    ----------
    hull
        None if nothing was to be placed, or by a judge that does not say.
    """

    relaxations: Sequence[Relaxation]
    stabilities: Sequence[Stability]
    hull: HullFacts | None = None


Judge = Callable[[Sequence[Structure]], Judgement]
"""Relaxes crystals and places them on the hull."""


@dataclass(frozen=True)
class PotentialJudge:
    """Relaxes crystals and places them on the hull that a campaign places its crystals on.

    Attributes
    ----------
    known
        Whose crystals compete; the library of the package if left out.
    progress
        Told what is being done.
    """

    potential: StoredPotential
    known: KnownLibrary | None = None
    progress: Progress = silent

    def __call__(self, structures: Sequence[Structure]) -> Judgement:
        """Return the relaxation and the place on the hull of each crystal.

        Without a phase of one of its elements there is no hull, and a reason in place of a place.
        """
        if not structures:
            return Judgement([], [])
        relaxations = {}
        for number, structure in enumerate(structures):
            relaxations[str(number)] = self.potential.relax(structure)
            what = f"relaxing samples, {self.potential.level}"
            self.progress(what, number + 1, len(structures))
        sets = self._references(relaxations)
        found = judge_stability(relaxations, self.potential.rung, sets)
        return Judgement(
            list(relaxations.values()), [found[name] for name in relaxations], _facts(sets)
        )

    def _references(self, relaxations: Mapping[str, Relaxation]) -> list[ReferenceSet]:
        """Return the known phases of the systems of the crystals that came to rest.

        The largest systems come first: what lies within one that has a hull needs no other.
        """
        distinct = {
            relaxation.structure.chemical_system
            for relaxation in relaxations.values()
            if relaxation.usable and relaxation.structure is not None
        }
        engines = Engines(self.potential.energy_per_atom, self.potential.relax)
        level, sets = self.potential.level, dict[str, ReferenceSet]()
        for done, system in enumerate(sorted(distinct, key=lambda s: (-s.count("-"), s)), start=1):
            if covering_system(system, sets) is None:
                with suppress(NoElementalPhaseError):
                    sets[system] = known_reference_set(
                        system, level, engines=engines, known=self.known, progress=self.progress
                    )
            self.progress("hulls of chemical systems", done, len(distinct))
        return list(sets.values())

    def protocol(self) -> JudgeProtocol:
        """Return what the verdicts of this judge mean."""
        from pccd_workflows.engines.potential import software

        rung = self.potential.rung
        return JudgeProtocol(
            potential={"level": rung.level, **software(get_level(rung.level))},
            relaxation=f"cell and sites, forces below {rung.fmax:g} eV/Å, at most "
            f"{rung.steps} steps",
            hull="of known crystals with the same potential, as in campaigns, predicted ones in "
            f"the place of missing ones: {version_at(rung.level, self.known)}",
        )


def _facts(sets: Sequence[ReferenceSet]) -> HullFacts:
    entries = {(entry.entry_id, entry.formula) for found in sets for entry in found.entries}
    missing = {phase.id: phase for found in sets for phase in found.missing or ()}
    return HullFacts(
        systems=len(sets),
        phases=len(entries),
        missing_phases=len(missing),
        predicted_phases=sum(bool(phase.predicted_from) for phase in missing.values()),
    )


def potential_judge(
    level: str, settings: "Settings", *, progress: Progress = silent
) -> PotentialJudge:
    """Return the judge of a level, with what this machine has computed.

    Raises
    ------
    InputError
        The level is no potential.
    MissingDependencyError
        Its package is not installed.
    """
    return PotentialJudge(stored_potential(level, settings), progress=progress)
