"""What counts as known, and what is found out about a crystal's novelty."""

from typing import Literal

from pydantic import Field, field_validator

from pccd_workflows.core.records import Record
from pccd_workflows.core.sections import Section
from pccd_workflows.matching.settings import MatcherSettings

RESERVED_SETS = ("references", "training", "history")
"""What novelty is measured against without importing anything; no set has such a name."""


class NoveltySection(Section):
    """What counts as known."""

    against: tuple[Literal["references", "training", "history"], ...] = (
        "references",
        "training",
        "history",
    )
    sets: tuple[str, ...] = Field(
        (), description="Imported sets of known crystals (see `pccd known list`)"
    )
    keep_known: bool = Field(
        True,
        description="Known crystals go on through the funnel, marked as known (seed Fig. 4 shows "
        "both); false rejects them before any energy is computed",
    )
    matcher: MatcherSettings = MatcherSettings()

    @field_validator("sets")
    @classmethod
    def _set_names_are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len({*names, *RESERVED_SETS}) < len(names) + len(RESERVED_SETS):
            raise ValueError(
                f"{list(names)} must name each set once, and none of {', '.join(RESERVED_SETS)}"
            )
        return names


class SetNovelty(Record):
    """Verdict against one named set of known crystals."""

    known: bool | None = Field(None, description="None if the set could not be consulted")
    matched_id: str | None = None
    method: str = Field(description="How it was compared, with the settings")
    note: str | None = None
    framework_id: str | None = Field(
        None,
        description="Known crystal of the same structure type but another composition; looked for "
        "when a new crystal lies near the hull",
    )


class Novelty(Record):
    """Uniqueness in its campaign, novelty against each named set apart."""

    duplicate_of: str | None = Field(None, description="candidate_id of the crystal kept instead")
    sets: dict[str, SetNovelty] = Field(
        default_factory=dict, description="By set: references, training, history, or imported"
    )

    @property
    def novel(self) -> bool:
        """True if no set that was consulted knows the crystal."""
        return not any(verdict.known for verdict in self.sets.values())
