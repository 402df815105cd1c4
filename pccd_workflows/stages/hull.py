"""Position of relaxed crystals on the convex hull of their competing phases."""

from pydantic import Field

from pccd_workflows.core.records import EnergyConvention, Record
from pccd_workflows.known.novelty import Novelty


class Stability(Record):
    """Position on the convex hull of one reference set at one level."""

    level: str
    passed: bool
    reason_class: str | None = None
    reason: str | None = None
    energy_above_hull: float | None = Field(
        None, description="eV/atom against the references; negative = a new ground state"
    )
    formation_energy_per_atom: float | None = Field(None, description="eV/atom")
    decomposition: dict[str, float] = Field(
        default_factory=dict, description="Atomic fraction of each competing phase, by its entry id"
    )
    references: str = Field("", description="Id (content hash) of the reference set")
    convention: EnergyConvention | None = None
    threshold: float | None = Field(None, description="Kept if energy_above_hull <= this, eV/atom")
    novelty: Novelty | None = Field(
        None, description="Of the relaxed crystal, among those near the hull"
    )
