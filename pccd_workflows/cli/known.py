"""`pccd known`: what novelty is measured against, the library that ships and imported sets."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from pccd_workflows.core.errors import InputError
from pccd_workflows.known.__main__ import app as library_app

if TYPE_CHECKING:
    from pccd_workflows.core.crystal_files import Row
    from pccd_workflows.known.sets import KnownSet

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Sets of known crystals, and the library."
)

COLLECTION = "collection:"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done")]


app.add_typer(library_app, name="library", help="The library of known crystals that is shipped.")


@app.command("import")
def import_set(
    name: Annotated[str, typer.Argument(help="Name for campaign files, e.g. alexandria-2024-12")],
    source: Annotated[
        str,
        typer.Argument(
            help="JSON or JSON lines (Alexandria, OPTIMADE, pymatgen), .cif, a .zip of CIFs, a "
            "folder of all these, the base URL of an OPTIMADE provider, or collection:NAME of the "
            "database"
        ),
    ],
    query: Annotated[str, typer.Option("--filter", help="OPTIMADE filter (URLs only)")] = "",
    field: Annotated[str, typer.Option(help="Path of the structure (collections only)")] = (
        "structure"
    ),
    attribution: Annotated[
        str, typer.Option(help="Whose work it is, and its licence; verdicts quote it")
    ] = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read all, store nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Store crystals as a named set; an import that was cut off is completed."""
    from rich.console import Console

    from pccd_workflows.core.plain_structures import Unreadable
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.known.sets import import_known_set
    from pccd_workflows.settings import get_settings

    warnings.simplefilter("ignore")  # pymatgen warns of noble gases and of most CIF files
    rows, label = _rows(source, query, field)
    if dry_run:
        kinds = [isinstance(crystal, Unreadable) for _, crystal in rows]
        typer.echo(f"{label}: {kinds.count(False)} crystals, {kinds.count(True)} unreadable.")
        return
    console = Console(stderr=True)
    with console.status(f"{name}: reading {label}") as status:
        known = import_known_set(
            database(get_settings()),
            name,
            rows,
            source=label,
            attribution=attribution,
            progress=lambda read: status.update(f"{name}: {read} records of {label}"),
        )
    _print([known], as_json=as_json)
    if not as_json:
        typer.echo(f"A campaign is compared with it if its file says novelty: {{sets: [{name}]}}.")


@app.command("list")
def list_sets(as_json: AsJson = False) -> None:
    """List the imported sets, with what could not be read and why."""
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.known.sets import list_known_sets
    from pccd_workflows.settings import get_settings

    _print(list_known_sets(database(get_settings())), as_json=as_json)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the set")],
    dry_run: DryRun = False,
) -> None:
    """Delete a set; verdicts that name it stay as they are."""
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.known.sets import find_known_set, remove_known_set
    from pccd_workflows.settings import get_settings

    db = database(get_settings())
    known = find_known_set(db, name)
    if known is None:
        raise InputError(f"There is no set {name!r}; `pccd known list` names those there are.")
    if dry_run:
        typer.echo(f"{name} ({known.note}) would be deleted.")
        return
    typer.echo(f"Deleted {name}: {remove_known_set(db, name)} crystals.")


def _rows(source: str, query: str, field: str) -> "tuple[Iterable[Row], str]":
    """Return the records of a source and its name, without credentials or folders."""
    from pccd_workflows.core.crystal_files import read_crystals
    from pccd_workflows.known.providers import read_collection, read_optimade

    if source.startswith(("http://", "https://")):
        url = urlsplit(source)
        label = f"{url.hostname}{url.path}" + (f" where {query}" if query else "")
        return read_optimade(source, query=query), label
    if source.startswith(COLLECTION):
        from pccd_workflows.execution.mongo import database
        from pccd_workflows.settings import get_settings

        collection = database(get_settings())[source.removeprefix(COLLECTION)]
        return read_collection(collection, structure=field), source
    return read_crystals(Path(source)), Path(source).resolve().name


def _print(sets: "list[KnownSet]", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([known.model_dump() for known in sets], indent=2))
        return
    if not sets:
        typer.echo("No set was imported yet; try: pccd known import NAME FILE")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("set", "crystals", "unreadable", "source", "content", box=None)
    for known in sets:
        count = str(known.n_structures) if known.complete else "cut off: import again"
        unreadable = str(sum(known.unreadable.values()))
        table.add_row(known.name, count, unreadable, known.source, known.content_sha256[:10])
    Console().print(table)
    for known in sets:
        if known.attribution:
            typer.echo(f"{known.name}: {known.attribution}")
        for reason, number in known.unreadable.items():
            typer.echo(f"{known.name}: {number} x {reason}")
