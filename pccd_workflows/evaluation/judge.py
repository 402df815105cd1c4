"""Crystals relaxed with a potential and placed on that potential's own hull."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.evaluation.known_file import LEGACY_TABLE, KnownCrystalsFile, known_file
from pccd_workflows.evaluation.missing_phases import MissingPhaseBias, missing_phase_bias
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.stored_potential import StoredPotential, stored_potential
from pccd_workflows.known.phases import (
    NEAR_AT_LEVEL,
    NEAR_IN_SOURCE,
    ToldPhases,
    complete_elements,
    compute_phases,
    elements_of,
    phases_near_hull,
    tell_nobody,
)
from pccd_workflows.stages.hull import Stability, judge_stability

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings


class HullFacts(Result):
    """The hull that crystals were placed on.

    Attributes
    ----------
    phases, reference_set
        Number of competing phases, and the id of their set.
    largest_phase
        Sites of the largest one of the data file.
    missing_phases
        None without a table of all phases.
    """

    phases: int
    reference_set: str
    largest_phase: int
    missing_phases: MissingPhaseBias | None


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
    """Relaxes crystals with a potential and places them on that potential's own hull.

    Attributes
    ----------
    data
        The competing phases.
    relax_phases
        False takes the phases as they are in the data: faster, and some meV/atom too high.
    progress
        Told what is being done.
    """

    data: KnownCrystalsFile
    potential: StoredPotential
    relax_phases: bool = True
    progress: ToldPhases = tell_nobody

    def __call__(self, structures: Sequence[Structure]) -> Judgement:
        """Return the relaxation and the place on the hull of each crystal."""
        if not structures:
            return Judgement([], [])
        relaxations = {}
        for number, structure in enumerate(structures):
            relaxations[str(number)] = self.potential.relax(structure)
            what = f"relaxing samples, {self.potential.level}"
            self.progress(what, number + 1, len(structures))
        systems = {elements_of(structure.composition) for structure in structures}
        phases = phases_near_hull(self.data.rows, systems)
        references = compute_phases(
            complete_elements(phases, systems, self.potential),
            self.potential,
            relax=self.relax_phases,
            progress=self.progress,
        )
        found = judge_stability(relaxations, self.potential.rung, [references])
        stabilities = [found[name] for name in relaxations]
        hull = HullFacts(
            phases=len(references.entries),
            reference_set=references.reference_id,
            largest_phase=max((len(phase.structure) for phase in phases), default=0),
            missing_phases=self._missing_phases(structures, stabilities),
        )
        return Judgement(list(relaxations.values()), stabilities, hull)

    def _missing_phases(
        self, structures: Sequence[Structure], stabilities: Sequence[Stability]
    ) -> MissingPhaseBias | None:
        if not self.data.table:
            return None
        crystals = [
            (structure.composition, stability.energy_above_hull)
            for structure, stability in zip(structures, stabilities, strict=True)
        ]
        present = {row["id"] for row in self.data.rows}
        return missing_phase_bias(self.data.table, present, crystals, name=LEGACY_TABLE)

    def protocol(self) -> JudgeProtocol:
        """Return what the verdicts of this judge mean."""
        from pccd_workflows.engines.potential import software

        rung = self.potential.rung
        near = (
            f"those at most {NEAR_AT_LEVEL:g} eV/atom above the unrelaxed hull are relaxed"
            if self.relax_phases
            else "not relaxed"
        )
        return JudgeProtocol(
            potential={"level": rung.level, **software(get_level(rung.level))},
            relaxation=f"cell and sites, forces below {rung.fmax:g} eV/Å, at most "
            f"{rung.steps} steps",
            hull=f"phases of {self.data.path.name} with the same potential: all elements (known "
            "structure types of those that it lacks), and "
            f"compounds at most {NEAR_IN_SOURCE:g} eV/atom above its hull, or not placed on one; "
            + near,
        )


def potential_judge(
    data: Path, level: str, settings: "Settings", *, progress: ToldPhases = tell_nobody
) -> PotentialJudge:
    """Return the judge of a level with the phases of a data file.

    Raises
    ------
    InputError
        The level is no potential.
    MissingDependencyError
        Its package is not installed.
    """
    return PotentialJudge(known_file(data), stored_potential(level, settings), progress=progress)
