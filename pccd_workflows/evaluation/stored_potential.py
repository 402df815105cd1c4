"""A potential whose results lie on disk by their content: nothing is computed twice."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from pccd_workflows.core.storage import Storage
from pccd_workflows.engines.engine import Task, Work, compute
from pccd_workflows.engines.records import Phonons, Relaxation, SinglePoint
from pccd_workflows.execution.memory import FolderStorage
from pccd_workflows.stages.phonons import PhononsSection
from pccd_workflows.stages.rung import Rung

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings


@dataclass(frozen=True)
class StoredPotential:
    """A potential that computes what its storage lacks.

    Attributes
    ----------
    level
        Name of a potential.
    """

    level: str
    storage: Storage

    @property
    def rung(self) -> Rung:
        """How crystals are relaxed: as a campaign does that says nothing else."""
        return Rung(level=self.level)

    def relax(self, structure: Structure) -> Relaxation:
        """Return a crystal at rest; one that cannot be relaxed has a verdict."""
        task = Task("relax", "reference", fmax=self.rung.fmax, steps=self.rung.steps)
        record = compute(structure, self.level, task, Work(self.storage))
        if not isinstance(record, Relaxation):
            raise TypeError(f"{self.level} did not return a relaxation")
        return record

    def energy_per_atom(self, structure: Structure) -> float | None:
        """Return the energy of a crystal as it is, eV/atom; None if the potential cannot say."""
        record = compute(structure, self.level, Task("static", "reference"), Work(self.storage))
        if not isinstance(record, SinglePoint):
            raise TypeError(f"{self.level} did not return a single point")
        return record.energy_per_atom

    def phonons(self, structure: Structure) -> Phonons:
        """Return the phonon verdict of a crystal."""
        from pccd_workflows.engines.phonons import compute_phonons

        return compute_phonons(structure, PhononsSection(level=self.level), Work(self.storage))


def stored_potential(level: str, settings: "Settings") -> StoredPotential:
    """Return a potential with this machine's results outside of campaigns.

    Raises
    ------
    InputError
        The level is no potential.
    MissingDependencyError
        Its package is not installed.
    """
    from pccd_workflows.engines.potential import calculator_of

    calculator_of(level)
    return StoredPotential(level, FolderStorage(settings.data_dir / "results"))
