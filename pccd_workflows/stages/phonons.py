"""Dynamical stability of the best crystals of the last rung."""

from pydantic import Field

from pccd_workflows.core.sections import Section
from pccd_workflows.engines.levels import LevelName


class PhononsSection(Section):
    """Dynamical stability of the best crystals of the last rung."""

    level: LevelName = "chgnet"
    confirm: LevelName | None = Field(None, description="Level that settles ambiguous verdicts")
    tolerance_thz: float = Field(0.1, ge=0, le=5, description="Imaginary modes below it are noise")
    max_energy_above_hull: float = Field(0.08, ge=0, le=10, description="Only crystals this near")
    candidates: int = Field(3, ge=1, description="At most so many, lowest first")
    min_length: float = Field(10.0, gt=0, le=50, description="Supercell lengths at least, Å")
    displacement: float = Field(0.01, gt=0, le=0.2, description="Å")
    novel_only: bool = Field(True, description="Spend phonons on new crystals only")
