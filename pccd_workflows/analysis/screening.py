"""What the screening asks, and what it finds."""

from typing import Literal

from pydantic import Field, field_validator

from pccd_workflows.core.records import Record
from pccd_workflows.core.sections import Section


class Screen(Section):
    """Judgements that need no energy."""

    min_distance: float = Field(0.7, gt=0, le=5, description="Shortest allowed distance, Å")
    min_distance_radii: float = Field(
        0.6, ge=0, le=2, description="... and as a fraction of the two atomic radii's sum"
    )
    density: tuple[float, float] = Field((0.1, 30.0), description="Allowed range, g/cm^3")
    charge_neutral: Literal["require", "prefer", "ignore"] = Field(
        "prefer",
        description="require: reject what no oxidation states balance; prefer: record it and send "
        "balanced crystals first; ignore: do not look",
    )
    all_elements: bool = Field(True, description="Reject crystals that lack an element asked for")

    @field_validator("density")
    @classmethod
    def _density_is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1]:
            raise ValueError(f"density {list(value)} must be [lowest, highest], both positive")
        return value


class Screening(Record):
    """Whether a crystal is physically and chemically sensible before any energy is computed."""

    passed: bool
    reason_class: str | None = Field(
        None, description="e.g. too_close, density, elements, charge, symmetry"
    )
    reason: str | None = None
    min_distance: float | None = Field(None, description="Shortest periodic distance, Å")
    density: float | None = Field(None, description="g/cm^3")
    volume_per_atom: float | None = Field(None, description="Å^3")
    charge_balanced: bool | None = Field(
        None, description="None where oxidation states say nothing (metals, elements)"
    )
    oxidation_states: dict[str, float] | None = None
