"""One level of theory in a campaign: what is relaxed, kept and spent."""

from typing import Self

from pydantic import Field, model_validator

from pccd_workflows.core.sections import Section
from pccd_workflows.engines.levels import LEVELS, LevelName, engine


class Keep(Section):
    """Who survives a rung."""

    energy_above_hull: float = Field(0.25, ge=0, le=10, description="eV/atom, at most")


class Budget(Section):
    """What a rung may spend."""

    candidates: int | None = Field(None, ge=1, description="At most so many crystals, best first")
    core_hours: float | None = Field(
        None, gt=0, description="No run is started once so many are spent; see campaign resume"
    )
    references: int = Field(
        40, ge=1, description="Competing phases recomputed per system (DFT), lowest first"
    )


class Rung(Section):
    """One level of theory: relax, place on the hull, keep the best."""

    level: LevelName
    keep: Keep = Keep()
    budget: Budget = Budget()
    fmax: float = Field(0.05, gt=0, le=1, description="Largest force of a relaxed crystal, eV/Å")
    steps: int = Field(300, ge=1, le=10_000, description="Most steps of one relaxation")
    batch: int = Field(8, ge=1, le=1000, description="Crystals per job (ML potentials)")
    band_structure: bool = Field(
        False,
        description="Electronic band structure of the crystals that are kept (VASP levels)",
        # left out where it is not asked for: older files keep their hash
        exclude_if=lambda asked: not asked,
    )

    @model_validator(mode="after")
    def _bands_need_vasp(self) -> Self:
        if self.band_structure and engine(self.level) != "vasp":
            able = " or ".join(name for name in LEVELS if engine(name) == "vasp")
            raise ValueError(f"band_structure needs the level {able}, not {self.level!r}")
        return self
