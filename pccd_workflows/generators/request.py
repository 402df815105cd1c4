"""What sources of crystals are asked for, and how a crystal was made."""

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


class SourceOptions(Section):
    """What every source of crystals is told; each adds its own options.

    Sources of others derive theirs from this class. A field `elements` (a list of symbols) or
    `conditions` is understood without further ado.
    """

    source: str = Field(
        "pccd",
        description="pccd, files, substitution, an installed one, or module:attribute",
        # left out where it is the model: older files keep their hash
        exclude_if=lambda name: name == "pccd",
    )
    samples: int = Field(256, ge=1, le=MAX_SAMPLES, description="Raw samples, before any filter")
    shard: int = Field(128, ge=1, le=10_000, description="Samples per job")

    def possible_elements(self) -> set[str]:
        """Return every element that its crystals may hold."""
        return set(getattr(self, "elements", None) or [])

    def most_elements(self) -> int:
        """Return the most elements that one crystal is asked to hold."""
        return len(self.possible_elements())

    def chemsys(self) -> str | None:
        """Return the one chemical system that is asked for; None if there are several."""
        return None

    def asked_conditions(self) -> Conditions:
        """Return what its crystals should be like."""
        given = getattr(self, "conditions", None)
        return given if isinstance(given, Conditions) else Conditions()


class AskedElements(SourceOptions):
    """Options of a source that is asked for crystals of certain elements."""

    elements: ElementSet | None = Field(None, description="One set of elements for all samples")
    element_sets: Annotated[list[ElementSet], Field(min_length=1)] | None = Field(
        None, description="Several sets, used in turn"
    )
    draw: Draw | None = Field(None, description="A random set for each sample")
    seed: int = Field(0, ge=0, lt=2**63, description="Fixes every sample")

    @model_validator(mode="after")
    def _one_choice_of_elements(self) -> Self:
        given = [k for k in CHOICES_OF_ELEMENTS if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of elements, element_sets and draw, "
                f"not {' and '.join(given) or 'none of them'}"
            )
        return self

    def possible_elements(self) -> set[str]:
        """Return every element that its crystals may hold."""
        if self.draw is not None:
            return {*self.draw.elements, *self.draw.always}
        return {symbol for symbols in self._sets() for symbol in symbols}

    def most_elements(self) -> int:
        """Return the most elements that one crystal is asked to hold."""
        return self.draw.n_elements[1] if self.draw is not None else max(map(len, self._sets()))

    def chemsys(self) -> str | None:
        """Return the one chemical system that is asked for; None if there are several."""
        return None if self.elements is None else "-".join(sorted(self.elements))

    def _sets(self) -> list[list[str]]:
        return self.element_sets or [self.elements or []]


CHOICES_OF_ELEMENTS = ("elements", "element_sets", "draw")


class Generate(AskedElements):
    """What the generative model of this project is asked for."""

    model: str = Field("pccd-default", description="A folder of model/, or a path to one")
    conditions: Conditions = Conditions()
    sampler: Sampler = Sampler()


class Aim(Record):
    """Structure type that a crystal was drawn for."""

    space_group: int = Field(ge=1, le=230)
    orbits: dict[str, list[int]] | None = Field(
        None,
        description="Of each element the atoms of its orbits in the conventional cell; null where "
        "the model does not decide them beforehand",
    )
    new_type: bool = Field(description="Whether no training crystal has the structure type")
    estimates: dict[str, float] | None = Field(
        None,
        description="Of the properties asked for, by name: what is expected of its composition and "
        "space group, eV or eV/atom; nothing likely of these elements is nearer to what was asked",
    )


class Generation(Record):
    """How a crystal was made: enough to make it again, alone."""

    source: str = Field("pccd", description="Source of the crystal, as the campaign file names it")
    model: str = Field(description="Name of the generative model, or of the file or folder")
    weights_sha256: str = Field(description="Of the model's weights, or of the files' content")
    seed: int = Field(0, description="Of the source; with `index` it fixes the sample")
    index: int = Field(ge=0, description="Number of the sample in its source")
    elements: list[str] = Field(
        description="Element symbols asked for; those of the crystal where nothing was asked"
    )
    origin: str | None = Field(
        None, description="Entry of a file, or the known crystal whose structure it took"
    )
    conditions: dict[str, Any] = Field(default_factory=dict)
    sampler: dict[str, Any] = Field(default_factory=dict)
    aim: Aim | None = Field(None, description="Null where nothing was aimed at")
    error_class: str | None = Field(None, description="Why there is no crystal, as a class")
    reason: str | None = None
    seconds: float = Field(
        0.0, ge=0, description="Wall time of this sample's share of its batch, s"
    )
