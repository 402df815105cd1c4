"""`pccd reference`: build and list the competing phases of chemical systems."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pccd_workflows.core.errors import DatabaseError, InputError

if TYPE_CHECKING:
    from pccd_workflows.core.reference_set import ReferenceSet
    from pccd_workflows.engines.engine import Work
    from pccd_workflows.known.snapshots import MongoSnapshot

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Build and list competing phases."
)

FMAX = 0.05
STEPS = 300
"""The defaults of a campaign's rung, so that both share relaxations."""


@app.command()
def build(
    chemsys: Annotated[str, typer.Argument(metavar="CHEMSYS", help="e.g. Mg-Mn-O")],
    level: Annotated[str, typer.Option(help="Potential that relaxes the phases")] = "chgnet",
    out: Annotated[
        Path | None,
        typer.Option(help="Write a file (.json.gz) and use no database; else store in it"),
    ] = None,
    *,
    source: Annotated[
        Literal["known", "prototypes", "materials_project"],
        typer.Option(help="The library of known crystals, decorated structure types, or MP"),
    ] = "known",
    fmax: Annotated[float, typer.Option(min=1e-5, max=1, help="Largest force, eV/Å")] = FMAX,
    steps: Annotated[int, typer.Option(min=1, help="Most steps of a relaxation")] = STEPS,
    force: Annotated[bool, typer.Option("--force", help="Replace the file")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON")] = False,
) -> None:
    """Relax the phases of a chemical system at a level and keep them as a set.

    Of known crystals those are relaxed that may lie on the hull and never were; of the Materials
    Project those near its hull; `--level vasp/mp-gga` keeps MP's own energies. What is missing of
    MP is fetched (see `pccd snapshot`).
    """
    from pccd_workflows.core.progress import progress_bars
    from pccd_workflows.engines import engine
    from pccd_workflows.engines.engine import Task
    from pccd_workflows.known.reference_files import SET_SUFFIX, write_reference_set

    system = checked_chemsys(chemsys)
    if out is not None:
        _check_target(out, SET_SUFFIX, force=force)
    work, task = _work(stored=out is None), Task("relax", "reference", fmax=fmax, steps=steps)
    relax = partial(engine.relax, level=level, work=work, task=task)
    with progress_bars(show=not as_json) as progress:
        if source == "known":
            from pccd_workflows.known import competing

            engines = competing.engines_at(level, work, task)
            reference_set = competing.known_reference_set(
                system, level, engines=engines, progress=progress
            )
        elif source == "prototypes":
            from pccd_workflows.known import prototypes

            reference_set = prototypes.build_reference_set(
                system, level, relax=relax, progress=progress
            )
        else:
            from pccd_workflows.known import materials_project

            reference_set = materials_project.build_reference_set(
                system,
                level,
                relax=relax,
                snapshot=_snapshot() if out is None else None,
                progress=partial(progress, system),
            )
    if out is not None:
        write_reference_set(out, reference_set)
        place = str(out)
    else:
        place = _store(reference_set)
    summary = {**_facts(reference_set), "stored": place}
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        typer.echo(
            f"{summary['phases']} phases of {system} at {level}, {summary['on_hull']} of them on "
            f"the hull: {place}"
        )


@app.command("list")
def list_sets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
) -> None:
    """List the sets that come with the project and those in the database."""
    from pccd_workflows.known.reference_files import read_reference_set, shipped_paths

    rows = [{**_facts(read_reference_set(p)), "stored": p.name} for p in shipped_paths()]
    try:
        rows += _stored_rows()
    except DatabaseError as error:
        typer.echo(f"Only the shipped sets: {error}", err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        _print_table(rows)
    else:
        typer.echo("There are no reference sets; `pccd reference build` makes one.")


def checked_chemsys(text: str) -> str:
    """Return a chemical system with its symbols sorted; InputError if one is no element."""
    from pymatgen.core import Element

    symbols = [symbol.strip() for symbol in text.split("-")]
    for symbol in symbols:
        if symbol not in Element.__members__ or symbol in ("D", "T"):
            raise InputError(f"{symbol!r} in {text!r} is not an element; write e.g. Mg-Mn-O.")
    return "-".join(sorted(set(symbols)))


def _facts(reference_set: "ReferenceSet") -> dict[str, Any]:
    """Return what a list shows of a set."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    entries = [PDEntry(entry.composition, entry.energy) for entry in reference_set.entries]
    return {
        "id": reference_set.reference_id,
        "chemsys": reference_set.chemsys,
        "level": reference_set.level,
        "convention": reference_set.convention,
        "source": reference_set.source,
        "phases": len(entries),
        "on_hull": len(PhaseDiagram(entries).stable_entries),
    }


def _check_target(out: Path, suffix: str, *, force: bool) -> None:
    if not out.name.endswith(suffix):
        raise InputError(f"{out} must end in {suffix}.")
    if not out.parent.is_dir():
        raise InputError(f"There is no folder {out.parent}.")
    if out.exists() and not force:
        raise InputError(f"{out} exists; --force replaces it.")


def _work(*, stored: bool) -> "Work":
    """Return where results are looked up and kept: in the database, or nowhere for long."""
    from pccd_workflows.engines.engine import Work
    from pccd_workflows.execution.memory import MemoryStorage
    from pccd_workflows.execution.mongo_storage import mongo_storage
    from pccd_workflows.settings import get_settings

    return Work(mongo_storage(get_settings()) if stored else MemoryStorage())


def _snapshot() -> "MongoSnapshot":
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.known.snapshots import MongoSnapshot
    from pccd_workflows.settings import get_settings

    return MongoSnapshot(database(get_settings()))


def _store(reference_set: "ReferenceSet") -> str:
    from pccd_workflows.execution.mongo import database, put_reference_set
    from pccd_workflows.settings import get_settings

    return put_reference_set(database(get_settings()), reference_set)


def _stored_rows() -> list[dict[str, Any]]:
    """Return the headers of the sets in the database."""
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.settings import get_settings

    fields = ("chemsys", "level", "convention", "source")
    return [
        {
            "id": header["_id"],
            **{name: header.get(name) for name in fields},
            "phases": header.get("n_entries"),
            "on_hull": None,
            "stored": "database",
        }
        for header in database(get_settings()).references.find().sort("_id", 1)
    ]


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from pccd_workflows.cli.tables import plain_table

    table = plain_table()
    table.add_column("Id", no_wrap=True)  # to copy
    columns = ("chemsys", "level", "phases", "on_hull", "stored")
    for name in columns:
        table.add_column(name.replace("_", " ").capitalize(), overflow="fold")
    for row in rows:
        shown = row | ({} if row["stored"] == "database" else {"stored": "shipped"})
        cells = ("" if shown[name] is None else str(shown[name]) for name in columns)
        table.add_row(row["id"], *cells)
    Console().print(table)
