"""What every stage says of itself: its record, what it rejects, how the funnel counts it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pccd_workflows.core.records import Record
from pccd_workflows.core.sections import Section

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign
    from pccd_workflows.core.storage import Storage

Status = Literal[
    "pending",  # alive, waits for its next stage
    "rejected",  # a stage said no; `reason_class` and `reason` tell which and why
    "failed",  # a job died or a computation broke; can be rerun
    "passed",  # went through every stage of its campaign
]
Tone = Literal["good", "bad", "open"]
Records = Mapping[str, Any]
"""The records of one candidate, by stage name."""


@dataclass(frozen=True)
class Outcome:
    """Where a record leaves its candidate."""

    status: Status
    reason_class: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Description:
    """A record in words: the verdict, whether that is good, and the numbers behind it."""

    verdict: str
    tone: Tone
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FunnelStep:
    """One step of the funnel.

    Attributes
    ----------
    key
        Stored with every candidate that reached the step.
    label
        For people.
    reached
        Whether a candidate with these records reached it.
    """

    key: str
    label: str
    reached: Callable[[Records], bool]


@dataclass(frozen=True)
class Column:
    """A column that a stage adds to exports and, if it says so, to every table of candidates.

    Attributes
    ----------
    name
        In exports, with the unit behind it: ``band_gap`` in eV is ``band_gap_ev``.
    unit
        Empty if there is none.
    value
        Of one record of the stage, or of all records of the candidate: see `all_records`.
    show
        Whether tables (terminal, report, explorer) have it, too.
    text
        The cell of a table; the value if left out.
    badge
        Whether the cell is a verdict, in the colour of the stage's description.
    heading
        Of a table's column, without the unit; the name in words if left out.
    all_records
        Whether `value` and `text` are given all records of a candidate instead of one.
    """

    name: str
    unit: str
    value: Callable[[Any], Any]
    show: bool = False
    text: Callable[[Any], str] | None = None
    badge: bool = False
    heading: str = ""
    all_records: bool = False

    @cached_property
    def key(self) -> str:
        """Its name in exports."""
        unit = self.unit.lower().replace("/", "_per_").replace("å", "a").replace("³", "3")
        return re.sub(r"\W+", "_", f"{self.name}_{unit}").strip("_")

    @property
    def label(self) -> str:
        """Its heading in tables, without the unit."""
        return self.heading or words(self.name).capitalize()


def nothing(*_: Any) -> tuple[()]:
    """Return nothing: what most stages have of most things."""
    return ()


def always(_: Any) -> bool:
    """Return True."""
    return True


@dataclass(frozen=True)
class Stage:
    """One stage of a campaign, everything of it in one place.

    Attributes
    ----------
    kind
        First part of its name in documents; a level may follow: ``relax:chgnet``.
    record
        What it finds out about one crystal.
    levels
        The levels at which a campaign asks for it; ``("",)`` where it has none, () where it is not
        asked for.
    outcome
        Whether a record ends its candidate's way, and why; None if it goes on.
    describe
        A record in words; the second argument is all records of the candidate.
    steps
        Its steps of the funnel, at one level.
    rung
        Whether it belongs to each rung, rather than to the campaign.
    columns
        What it adds to tables and exports; of several records the latest `tabulated` one counts.
    tabulated
        Whether the columns of a record have values.
    heavy
        Fields of the record that no column needs: tables are read without them. Each has a default.
    figure
        Pictures of its records: ``module:function``, or the function. It gets all records of a
        candidate and returns `pccd_workflows.report.panels.Panel`.
    options
        Its section of a campaign file, under ``stages`` by its kind; None where the campaign has a
        key of its own for the stage, or it has no options.
    run
        Runs it for all candidates that reached it, in one job; for stages without a Maker of
        their own. Arguments: campaign, level, storage.
    """

    kind: str
    record: type[Record]
    levels: Callable[["Campaign"], Sequence[str]]
    outcome: Callable[[Any, "Campaign"], Outcome | None]
    describe: Callable[[Any, Records], Description]
    steps: Callable[["Campaign", str], Sequence[FunnelStep]] = nothing
    rung: bool = False
    columns: tuple[Column, ...] = ()
    tabulated: Callable[[Any], bool] = always
    heavy: tuple[str, ...] = ()
    figure: str | Callable[[Records], Sequence[Any]] | None = None
    options: type[Section] | None = None
    run: Callable[["Campaign", str, "Storage"], None] | None = None

    def name(self, level: str) -> str:
        """Return the stage's name at a level, as documents hold it."""
        return f"{self.kind}:{level}" if level else self.kind

    def owns(self, name: str) -> bool:
        """Return whether a stage's name is one of this stage's."""
        return name.partition(":")[0] == self.kind

    def records(self, records: Records) -> list[Any]:
        """Return those of a candidate's records that are this stage's, in the order of levels."""
        return [record for name, record in records.items() if self.owns(name)]

    def latest(self, records: Records) -> Any:
        """Return the record whose values stand in tables; None if there is none."""
        return next(filter(self.tabulated, reversed(self.records(records))), None)


def facts(*texts: str) -> tuple[str, ...]:
    """Return the texts that are not empty."""
    return tuple(text for text in texts if text)


def number(name: str, value: float | None, unit: str, digits: int) -> str:
    """Return ``name value unit``; empty if there is no value."""
    return "" if value is None else f"{name} {value:.{digits}f} {unit}"


def words(name: str | None) -> str:
    """Return a class of reasons in words."""
    return (name or "no reason stated").replace("_", " ")


def point(values: Sequence[float]) -> str:
    """Return reduced coordinates as text."""
    return ", ".join(f"{value:.3g}" for value in values)
