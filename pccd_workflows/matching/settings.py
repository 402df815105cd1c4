"""Tolerances of structure matching."""

from pydantic import Field

from pccd_workflows.core.sections import Section


class MatcherSettings(Section):
    """Tolerances of pymatgen's StructureMatcher (its own defaults)."""

    ltol: float = Field(0.2, gt=0, le=1, description="Fractional length tolerance")
    stol: float = Field(0.3, gt=0, le=2, description="Site tolerance / (V/N)^(1/3)")
    angle_tol: float = Field(5.0, gt=0, le=45, description="Degrees")
