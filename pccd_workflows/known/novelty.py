"""What counts as known, and what is found out about a crystal's novelty."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from pccd_workflows.core.records import Record
from pccd_workflows.core.sections import Section
from pccd_workflows.matching.settings import MatcherSettings

LIBRARY = "library"
"""The set of known crystals that comes with the project."""
RESERVED_SETS = (LIBRARY, "references", "training", "history")
"""What novelty is measured against without importing anything; no set has such a name."""
Kind = Literal["duplicate", "substitution", "new_structure_type"]
"""What a crystal is to the known ones.

*duplicate*: it is one of them. *substitution*: one of them has its structure type, with other
elements on its sites. *new_structure_type*: neither.
"""


class NoveltySection(Section):
    """What counts as known."""

    library: bool = Field(
        True,
        description="Compare with the library of known crystals that comes with the project",
        exclude_if=lambda asked: asked,  # older files keep their hash
    )
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
        default_factory=dict,
        description="By set: library, references, training, history, or imported",
    )
    kind: Kind | None = Field(
        None, description="What it is to the known crystals; None where types were not compared"
    )
    known_id: str | None = Field(
        None, description="Known crystal that it is, or whose structure type it has"
    )

    @property
    def novel(self) -> bool:
        """True if no set that was consulted knows the crystal."""
        return not any(verdict.known for verdict in self.sets.values())

    def with_kind(self) -> "Novelty":
        """Return it with the kind that its sets amount to, the first set that says so deciding."""
        kind, known_id = _kind(self.sets)
        return self.model_copy(update={"kind": kind, "known_id": known_id})

    def after(self, earlier: "Novelty | None") -> "Novelty":
        """Return the verdict on a crystal that was judged before it was relaxed, too.

        What was known then stays known: relaxing a known crystal makes no new one.
        """
        if earlier is None:
            return self
        known = {name: found for name, found in earlier.sets.items() if found.known}
        merged = self.model_copy(update={"sets": {**earlier.sets, **self.sets, **known}})
        return merged if self.kind is None and earlier.kind is None else merged.with_kind()


def _kind(sets: Mapping[str, SetNovelty]) -> tuple[Kind | None, str | None]:
    known = [found for found in sets.values() if found.known]
    if known:
        return "duplicate", next((found.matched_id for found in known if found.matched_id), None)
    if all(found.known is None for found in sets.values()):
        return None, None
    types = (found.framework_id for found in sets.values() if found.framework_id is not None)
    framework = next(types, None)
    return ("new_structure_type" if framework is None else "substitution"), framework
