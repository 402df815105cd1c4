"""The columns of tables and exports of candidates: the common ones, and those of the stages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pccd_workflows import stages
from pccd_workflows.candidate import FIELDS
from pccd_workflows.stages.hull import millis
from pccd_workflows.stages.stage import Column, Records, Stage, Tone, words

if TYPE_CHECKING:
    from pymongo.database import Database

Row = Mapping[str, Any]
"""A candidate's document, or the fields of it that `row_fields` names."""


@dataclass(frozen=True)
class TableCell:
    """One value of a table.

    sort: what a column is sorted by; None where there is no value.
    tone: of a verdict; None of anything else.
    """

    text: str
    sort: Any = None
    tone: Tone | None = None


@dataclass(frozen=True)
class Heading:
    """A column of a table of candidates.

    sort_key: indexed field that lists can be sorted by; None where there is none.
    numeric: whether its cells are numbers, aligned at the right.
    cell: of one row and its records.
    """

    key: str
    label: str
    unit: str
    cell: Callable[[Row, Records], TableCell]
    sort_key: str | None = None
    numeric: bool = False

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _field(name: str) -> Callable[[Row, Records], TableCell]:
    return lambda row, _records: TableCell(show_value(row.get(name)), row.get(name))


def _energy(row: Row, _records: Records) -> TableCell:
    energy = row.get("energy_above_hull")
    return TableCell(millis(energy), energy)


def _novelty(row: Row, _records: Records) -> TableCell:
    novel = row.get("novel")
    return TableCell("" if novel is None else "new" if novel else "known", novel)


def _kind(row: Row, _records: Records) -> TableCell:
    kind = row.get("kind_of_new")
    return TableCell(words(kind) if kind else "", kind)


def _status(row: Row, _records: Records) -> TableCell:
    text = str(row.get("status", ""))
    reason = row.get("reason_class")
    return TableCell(f"{text}: {words(reason)}" if reason else text, text)


COMMON = (
    Heading("formula_pretty", "Formula", "", _field("formula_pretty"), "formula_pretty"),
    Heading("spacegroup", "Space group", "", _field("spacegroup"), "spacegroup"),
    Heading("nsites", "Atoms", "", _field("nsites"), "nsites", numeric=True),
    Heading(
        "energy_above_hull",
        "E above hull",
        "meV/atom",
        _energy,
        "energy_above_hull",
        numeric=True,
    ),
    Heading("novel", "Novelty", "", _novelty, "novel"),
)
"""What every candidate has, before the columns of the stages."""
KINDS = (
    Heading("kind_of_new", "Kind", "", _kind, "kind_of_new"),
    Heading("known_id", "Known crystal", "", _field("known_id"), "known_id"),
)
"""What kept crystals are to the known ones; left out where there are none."""
STATUS = Heading("status", "Status", "", _status, "status")
"""The last column of every table."""

EXPORTED = (
    "candidate_id",
    "campaign_id",
    "formula_pretty",
    "chemsys",
    "nsites",
    "spacegroup",
    "status",
    "stage",
    "reason_class",
    "reason",
    "novel",
    "kind_of_new",
    "known_id",
)
"""Fields of every candidate in exports, before the columns of the stages."""


def stage_columns(*, shown: bool = False) -> list[tuple[Stage, Column]]:
    """Return the columns of all stages; shown: those of tables only."""
    return [
        (stage, column)
        for stage in stages.all_stages()
        for column in stage.columns
        if column.show or not shown
    ]


def values(records: Records, *, shown: bool = False) -> dict[str, Any]:
    """Return the value of each stage's column, by its key; None where a candidate has none."""
    latest = {stage.kind: stage.latest(records) for stage in stages.all_stages()}
    found: dict[str, Any] = {}
    for stage, column in stage_columns(shown=shown):
        record = latest[stage.kind]
        of = records if column.all_records else record
        found[column.key] = None if record is None else column.value(of)
    return found


def sortable(records: Records) -> dict[str, Any]:
    """Return what lists can sort and filter by: values of shown columns, and all numbers."""
    shown = {column.key for _, column in stage_columns(shown=True)}
    return {
        key: value
        for key, value in values(records).items()
        if _is_number(value) or (key in shown and isinstance(value, bool | str))
    }


def ensure_indexes(database: "Database[dict[str, Any]]") -> None:
    """Create the indexes of the database, with those that lists sorted by a column read along."""
    from pccd_workflows.execution import mongo

    mongo.ensure_indexes(database)
    keys = {column.key for _, column in stage_columns() if column.show or column.unit}
    for key in sorted(keys):
        database["candidates"].create_index([(f"values.{key}", 1), ("_id", 1)])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


@dataclass(frozen=True)
class Quantity:
    """A number that candidates have: what ranges and axes are made of.

    key: in addresses. field: of stored documents.
    """

    key: str
    field: str
    label: str
    unit: str

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def quantities() -> dict[str, Quantity]:
    """Return the quantities that have a unit, and the number of atoms, by key."""
    found = [
        Quantity("energy_above_hull", "energy_above_hull", "E above hull", "eV/atom"),
        Quantity("nsites", "nsites", "Atoms", ""),
    ]
    for _, column in stage_columns():
        if column.unit and column.name not in {quantity.key for quantity in found}:
            # a heading with a unit of its own is that of cells, which say it otherwise
            label = words(column.name).capitalize() if "(" in column.heading else column.label
            found.append(Quantity(column.key, f"values.{column.key}", label, column.unit))
    return {quantity.key: quantity for quantity in found}


def categories() -> dict[str, Quantity]:
    """Return what has few values (verdicts, kinds, levels), by key."""
    found = [
        Quantity("kind_of_new", "kind_of_new", "Kind of new", ""),
        Quantity("novel", "novel", "Novelty", ""),
        Quantity("status", "status", "Status", ""),
    ]
    for _, column in stage_columns(shown=True):
        if not column.unit:
            found.append(Quantity(column.key, f"values.{column.key}", column.label, ""))
    return {quantity.key: quantity for quantity in found}


@dataclass(frozen=True)
class Table:
    """Candidates as a table: a row of cells for each, as many as there are headings."""

    headings: list[Heading]
    rows: list[list[TableCell]]


def make_table(candidates: Iterable[tuple[Row, Records]]) -> Table:
    """Return the table of candidates, each a row and its records.

    Columns of kinds and of stages in which no candidate has a value are left out.
    """
    own = [*KINDS, *(_heading(stage, column) for stage, column in stage_columns(shown=True))]
    headings = [*COMMON, *own, STATUS]
    rows = [[heading.cell(row, records) for heading in headings] for row, records in candidates]
    kept = [
        number
        for number, heading in enumerate(headings)
        if heading not in own or any(row[number].text for row in rows)
    ]
    return Table([headings[n] for n in kept], [[row[n] for n in kept] for row in rows])


def _heading(stage: Stage, column: Column) -> Heading:
    def cell(_row: Row, records: Records) -> TableCell:
        record = stage.latest(records)
        if record is None:
            return TableCell("")
        of = records if column.all_records else record
        value = column.value(of)
        text = show_value(value) if column.text is None else column.text(of)
        tone = stage.describe(record, records).tone if column.badge else None
        return TableCell(text, value, tone)

    unit = "" if column.text is not None else column.unit  # texts hold theirs
    sort_key = f"values.{column.key}"
    return Heading(column.key, column.label, unit, cell, sort_key, numeric=bool(unit))


def show_value(value: Any) -> str:
    """Return a value as the cell of a table: empty for None, numbers to three digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def row_fields() -> list[str]:
    """Return the fields of stored documents that hold the records of the shown columns."""
    fields: list[str] = []
    for stage in _shown():
        field = FIELDS.get(stage.kind, "further")
        light = [name for name in stage.record.model_fields if name not in stage.heavy]
        fields += [field] if field == "further" else [f"{field}.{name}" for name in light]
    return list(dict.fromkeys(fields))


def row_records(row: Row) -> dict[str, Any]:
    """Return the records of a stored document that the shown columns need, by stage name.

    Those that a newer version wrote, in a form unknown here, are left out: the rest of a list is
    worth showing.
    """
    found: dict[str, Any] = {}
    for stage in _shown():
        for name, record in _stored(row, stage):
            try:
                found[name] = stage.record.model_validate(record)
            except ValidationError:
                continue
    return found


def _shown() -> list[Stage]:
    return list({stage.kind: stage for stage, _ in stage_columns(shown=True)}.values())


def _stored(row: Row, stage: Stage) -> list[tuple[str, Any]]:
    field = FIELDS.get(stage.kind)
    if field is None:
        further = row.get("further") or {}
        return [(name, record) for name, record in further.items() if stage.owns(name)]
    held = row.get(field) or []
    several = held if isinstance(held, list) else [held]
    return [(stage.name(record.get("level", "")), record) for record in several]


def summary(row: Row, records: Records) -> dict[str, Any]:
    """Return what lists say of a candidate as data: its common fields and the shown columns."""
    held = {name.partition(".")[0] for name in row_fields()}
    common = {name: value for name, value in row.items() if name not in held}
    return common | values(records, shown=True)
