"""Options of the sampler: how noise becomes crystals."""

from typing import Literal

from pydantic import Field

from pccd_workflows.core.sections import Section


class Sampler(Section):
    """How noise becomes crystals."""

    name: Literal["ddpm", "ddim", "dpm-solver++"] = "dpm-solver++"
    steps: int = Field(
        25, ge=1, le=1000, description="Network evaluations (each doubled by guidance)"
    )
    guidance: float = Field(
        1.0, ge=0, le=20, description="Weight of the conditions; 1 = as learned, >1 = stronger"
    )
    temperature: float = Field(
        0.5,
        ge=0,
        le=2,
        description="Space group, structure type and noise are drawn from p^(1/temperature); 1 = "
        "as learned, 0 = always the likeliest",
    )
    composition_temperature: float = Field(
        1.0,
        ge=0,
        le=2,
        description="The same for the number of atoms of each element; below 1 few formulas of a "
        "chemical system are left",
    )
    recall: bool = Field(
        False,
        description="Whether training crystals of exactly the elements asked for vote, alone: "
        "known compounds come again; without, they do not vote at all",
    )
    separation: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Atoms that are predicted closer than this fraction of their covalent radii's "
        "sum are pushed apart while the noise is removed; 0 = leave them",
    )
    new_types: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the samples that aim at a structure type which no training crystal "
        "has; the others aim at known types",
        # as `symmetric`
        exclude_if=lambda asked: asked == 0,
    )
    symmetric: bool = Field(
        True,
        description="Whether crystals get the symmetry that they aim at; without, the noise alone "
        "decides",
        # left out where it is not changed: older files keep their hash
        exclude_if=lambda asked: asked,
    )
    start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Noise that an analogue (a known crystal of the structure type aimed at, its "
        "elements exchanged) is given before it is removed again, as a share of T; 1 = all, "
        "nothing is left of its coordinates; 0 = none, it is what comes out. Crystals without an "
        "analogue always begin with noise alone",
        # as `symmetric`
        exclude_if=lambda asked: asked == 0,
    )
