"""`pccd snapshot`: what the Materials Project says, fetched once and carried where it is needed."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pccd_workflows.core.errors import InputError

if TYPE_CHECKING:
    from pccd_workflows.known.mp_client import Client
    from pccd_workflows.known.snapshots import MongoSnapshot

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Fetch and carry Materials Project data."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


@app.command()
def fetch(
    chemsys: Annotated[list[str] | None, typer.Argument(help="e.g. Mg-Mn-O; several")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of MP (hours)")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch chemical systems with their subsystems in MP's present version; only what is missing.

    Each is also stored as a reference set at MP's own level, vasp/mp-gga.
    """
    from pccd_workflows.cli.reference import checked_chemsys
    from pccd_workflows.core.systems import subsystems
    from pccd_workflows.known.materials_project import fetch_everything
    from pccd_workflows.known.mp_client import Client

    if bool(chemsys) == everything:
        raise InputError("Give chemical systems (Mg-Mn-O) or --all.")
    snapshot, client = _snapshot(), Client()
    systems = [checked_chemsys(text) for text in chemsys or ()]
    if dry_run:
        wanted = {"-".join(p) for system in systems for p in subsystems(system.split("-"))}
        names = client.all_systems() if everything else sorted(wanted)
        missing = snapshot.missing(version := client.version(), names)
        typer.echo(f"{len(missing)} of {len(names)} systems of version {version} are missing.")
        return
    if everything:
        version = fetch_everything(snapshot, client=client, progress=_show)
        rows: list[dict[str, object]] = [{"chemsys": "all", "version": version}]
    else:
        rows = [_fetch_one(system, snapshot, client) for system in systems]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            typer.echo(", ".join(f"{name} {value}" for name, value in row.items()))


@app.command("list")
def list_versions(as_json: AsJson = False) -> None:
    """List the versions of the Materials Project that are kept, the latest first."""
    snapshot = _snapshot()
    rows = [
        {"version": version, "systems": count, "whole": snapshot.is_whole(version)}
        for version, count in snapshot.versions().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo("Nothing was fetched yet; try: pccd snapshot fetch Mg-Mn-O")
    for row in rows if not as_json else ():
        extent = "all of MP" if row["whole"] else f"{row['systems']} chemical systems"
        typer.echo(f"{row['version']}: {extent}")


@app.command("export")
def export_file(
    version: Annotated[str, typer.Argument(help="As `pccd snapshot list` shows it")],
    path: Annotated[Path, typer.Argument(help="File to write (.jsonl.gz)")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file")] = False,
) -> None:
    """Write what is kept of a version to one file, for machines without network."""
    from pccd_workflows.known.snapshots import export_snapshot

    if path.exists() and not force:
        raise InputError(f"{path} exists; --force replaces it.")
    count = export_snapshot(_snapshot(), version, path)
    typer.echo(f"Wrote {count} chemical systems of version {version} to {path}.")


@app.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(help="File that `pccd snapshot export` wrote")],
) -> None:
    """Keep what a file holds, as if it had been fetched."""
    from pccd_workflows.known.snapshots import import_snapshot

    version = import_snapshot(_snapshot(), path, progress=_show)
    typer.echo(f"Imported version {version} of the Materials Project.")


def _fetch_one(system: str, snapshot: "MongoSnapshot", client: "Client") -> dict[str, object]:
    from pccd_workflows.execution.mongo import database, put_reference_set
    from pccd_workflows.known.materials_project import fetch_reference_set
    from pccd_workflows.settings import get_settings

    references = fetch_reference_set(
        system, snapshot=snapshot, refresh=True, client=client, progress=_show
    )
    return {
        "chemsys": system,
        "phases": len(references.entries),
        "version": references.source_version,
        "reference": put_reference_set(database(get_settings()), references),
    }


def _show(done: int, total: int) -> None:
    """Tell a person who waits how far it is."""
    if sys.stderr.isatty():
        typer.echo(f"\r{done} of {total} chemical systems", err=True, nl=done == total)


def _snapshot() -> "MongoSnapshot":
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.known.snapshots import MongoSnapshot
    from pccd_workflows.settings import get_settings

    return MongoSnapshot(database(get_settings()))
