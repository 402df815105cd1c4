"""What a generative model is asked for, and how a crystal was made."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from pccd_workflows.core.records import Record
from pccd_workflows.core.sections import ElementSet, ElementSymbol, Section
from pccd_workflows.generators.pccd.sampler import Sampler

LAST_SPACE_GROUP = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
"""Crystal systems with the number of their last space group, in order."""


MAX_SAMPLES = 10_000_000


class Draw(Section):
    """Each sample gets its own random set of elements."""

    elements: ElementSet = Field(alias="from", description="Elements to draw from")
    n_elements: tuple[int, int] = Field((1, 3), description="Fewest and most elements of a set")
    always: list[ElementSymbol] = Field(
        default_factory=list, description="Elements that every set contains (oxides: [O])"
    )

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _counts_make_sense(self) -> Self:
        low, high = self.n_elements
        if not 1 <= low <= high <= len({*self.elements, *self.always}):
            raise ValueError(
                f"n_elements {list(self.n_elements)} must be [fewest, most] between 1 and the "
                f"{len({*self.elements, *self.always})} elements given"
            )
        if len(self.always) > high:
            raise ValueError(f"'always' names more elements than n_elements allows ({high})")
        return self


class Conditions(Section):
    """What the crystals should be like; null leaves it to the model."""

    band_gap: float | None = Field(None, ge=0, le=20, description="eV")
    magnetic_ordering: Literal["NM", "FM", "AFM", "FiM"] | None = None
    energy_above_hull: float | None = Field(None, ge=0, le=5, description="eV/atom; 0 = stable")
    n_sites: int | None = Field(None, ge=1, le=64, description="Atoms per cell")
    composition: str | None = Field(None, description="Formula of the cell, e.g. Mg2Mn4O8")
    crystal_system: (
        Literal[
            "triclinic",
            "monoclinic",
            "orthorhombic",
            "tetragonal",
            "trigonal",
            "hexagonal",
            "cubic",
        ]
        | None
    ) = None
    space_group: int | None = Field(
        None, ge=1, le=230, description="Number of the space group; aimed at, not imposed"
    )

    @model_validator(mode="after")
    def _symmetry_agrees(self) -> Self:
        if self.space_group is None or self.crystal_system is None:
            return self
        system = next(s for s, last in LAST_SPACE_GROUP.items() if self.space_group <= last)
        if system != self.crystal_system:
            raise ValueError(
                f"space_group {self.space_group} is {system}, not {self.crystal_system}"
            )
        return self


class Generate(Section):
    """What the generative model is asked for."""

    model: str = Field("pccd-default", description="A folder of model/, or a path to one")
    elements: ElementSet | None = Field(None, description="One set of elements for all samples")
    element_sets: Annotated[list[ElementSet], Field(min_length=1)] | None = Field(
        None, description="Several sets, used in turn"
    )
    draw: Draw | None = Field(None, description="A random set for each sample")
    conditions: Conditions = Conditions()
    samples: int = Field(256, ge=1, le=MAX_SAMPLES, description="Raw samples, before any filter")
    shard: int = Field(128, ge=1, le=10_000, description="Samples per job")
    seed: int = Field(0, ge=0, lt=2**63, description="Fixes every sample")
    sampler: Sampler = Sampler()

    @model_validator(mode="after")
    def _one_choice_of_elements(self) -> Self:
        given = [k for k in ("elements", "element_sets", "draw") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of elements, element_sets and draw, "
                f"not {' and '.join(given) or 'none of them'}"
            )
        return self


class Generation(Record):
    """How a crystal was sampled: enough to sample it again, alone."""

    model: str = Field(description="Name of the generative model")
    weights_sha256: str
    seed: int = Field(description="Seed of the campaign; with `index` it fixes the sample")
    index: int = Field(ge=0, description="Number of the sample in its campaign")
    elements: list[str] = Field(description="Element symbols asked for")
    conditions: dict[str, Any] = Field(default_factory=dict)
    sampler: dict[str, Any] = Field(default_factory=dict)
    error_class: str | None = Field(None, description="Class of the DecodeError, if any")
    reason: str | None = None
    seconds: float = Field(
        0.0, ge=0, description="Wall time of this sample's share of its batch, s"
    )
