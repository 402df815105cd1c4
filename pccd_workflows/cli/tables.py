"""Tables of candidates that fit the terminal: short ids, columns that give way, nothing cut."""

from collections.abc import Collection, Sequence
from textwrap import wrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pccd_workflows import columns
from pccd_workflows.columns import COMMON, KINDS, STATUS, Heading, Row, TableCell, make_table
from pccd_workflows.query import short_id
from pccd_workflows.stages.level_difference import note, side_by_side
from pccd_workflows.stages.stage import Records

TONES = {"good": "green", "bad": "red", "open": "yellow"}
GIVES_WAY_LAST = ("known_id", "kind_of_new", "nsites", "spacegroup")
"""Common columns that a narrow terminal goes without, after those of stages."""
PLACE = "place"
"""Column that says which hull a crystal lies on or below; never left out."""
NARROW = 9
"""Characters of a line of a heading; longer words stay whole."""
LEVELS = "level_difference_ev_per_atom"
"""The column whose warnings are printed below the table where it does not fit."""
LEAST_STATUS = 14
"""Characters of the last column, which wraps."""


def plain_table(*headings: str) -> Table:
    """Return a table as all commands print them: no lines, bold headings."""
    return Table(*headings, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def print_candidates(rows: Sequence[tuple[Row, Records]], campaigns: Sequence[str]) -> None:
    """Print candidates as a table.

    campaigns: ids of all campaigns, which short ids tell apart.
    """
    console = Console()
    names = [short_id(row["campaign_id"], row["index"], campaigns) for row, _ in rows]
    table = make_table(rows)
    kept = fitting(names, table.headings, table.rows, console.width)
    printed = Table(
        box=None, pad_edge=False, collapse_padding=True, header_style="bold", padding=(0, 1)
    )
    printed.add_column("Id", no_wrap=True)
    for number in kept:
        heading = table.headings[number]
        printed.add_column(
            _title(heading),
            justify="right" if heading.numeric else "left",
            no_wrap=heading is not STATUS,
            overflow="fold",
        )
    for name, cells in zip(names, table.rows, strict=True):
        printed.add_row(Text(name), *(_text(cells[number]) for number in kept))
    console.print(printed)
    _print_left_out(console, names, rows, table, kept)


def _print_left_out(
    console: Console,
    names: Sequence[str],
    rows: Sequence[tuple[Row, Records]],
    table: columns.Table,
    kept: Collection[int],
) -> None:
    """Print what of the columns without room must be read, and name the rest."""
    there = {h.key: number for number, h in enumerate(table.headings) if number not in kept}
    if (place := there.pop(PLACE, None)) is not None:  # a verdict: in lines below the table
        for name, cells in zip(names, table.rows, strict=True):
            if cells[place].text:
                console.print(Text(f"{name}: {cells[place].text}"))
    if there:
        labels = ", ".join(table.headings[number].label for number in there.values())
        console.print(Text(f"Not shown for want of width: {labels}.", style="dim"))
    if LEVELS in there:
        for name, (_, records) in zip(names, rows, strict=True):
            if note(records):
                console.print(Text(f"{name}: {side_by_side(records)}", style="yellow"))


def fitting(
    names: Sequence[str],
    headings: Sequence[Heading],
    rows: Sequence[Sequence[TableCell]],
    width: int,
) -> list[int]:
    """Return the numbers of the columns that fit `width` characters beside the names."""
    widths = [
        max(len(text) for text in [*_title(heading).split("\n"), *(row[n].text for row in rows)])
        for n, heading in enumerate(headings)
    ]
    widths[-1] = min(widths[-1], LEAST_STATUS)
    kept = list(range(len(headings)))
    for number in _giving_way(headings, rows):
        taken = max(len(name) for name in names) + sum(1 + widths[n] for n in kept)
        if taken <= width:
            break
        kept.remove(number)
    return kept


def _giving_way(headings: Sequence[Heading], rows: Sequence[Sequence[TableCell]]) -> list[int]:
    """Return the columns a table can go without, the least needed first.

    The numbers of stages come first, the later ones before the earlier, then common columns, then
    the verdicts of stages.
    """
    common = {heading.key for heading in (*COMMON, *KINDS, STATUS)}
    own = [n for n, heading in enumerate(headings) if heading.key not in common]
    verdicts = [n for n in own if any(row[n].tone is not None for row in rows)]
    numbers = [n for n in reversed(own) if n not in verdicts]
    keys = [heading.key for heading in headings]
    shared = [keys.index(key) for key in GIVES_WAY_LAST if key in keys]
    return [*numbers, *shared, *reversed(verdicts)]


def _title(heading: Heading) -> str:
    """Return label and unit on lines about as narrow as the cells below."""
    return "\n".join([*wrap(heading.label, NARROW), *filter(None, [heading.unit])])


def _text(cell: TableCell) -> Text:
    return Text(cell.text, style="" if cell.tone is None else TONES[cell.tone])
