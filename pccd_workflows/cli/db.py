"""`pccd db`: start, stop, check, back up and restore the database."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Start, stop and check the database."
)

AS_JSON = typer.Option(False, "--json", help="Print JSON")


@app.command()
def start() -> None:
    """Start the embedded database of this user (nothing to do if PCCD_MONGODB_URI is set)."""
    from pccd_workflows.execution import mongo, mongod

    settings = _settings()
    if settings.mongodb_uri is not None:
        mongo.database(settings)
        typer.echo(f"PCCD_MONGODB_URI is set: using the MongoDB at {mongo.hosts(settings)}.")
        return
    mongod.start(settings)
    mongo.ensure_indexes(mongo.database(settings))
    now = mongod.status(settings)
    typer.echo(f"Running on 127.0.0.1:{now.port}, data in {now.folder}. Stop it: pccd db stop")


@app.command()
def stop() -> None:
    """Stop the embedded database; jobs that run wait for its return."""
    from pccd_workflows.execution import mongod

    settings = _settings()
    if mongod.stop(settings):
        typer.echo("Stopped.")
    elif settings.mongodb_uri is not None:
        typer.echo("No embedded database runs; PCCD_MONGODB_URI names a server of your own.")
    else:
        typer.echo("It was not running.")


@app.command()
def status(as_json: bool = AS_JSON) -> None:
    """Show where the database is and what it holds; exit 1 if it cannot be used."""
    from pccd_workflows.core.errors import DatabaseError

    settings = _settings()
    found = _whereabouts(settings)
    problem = None
    try:
        found["documents"] = _numbers(settings)
    except DatabaseError as error:
        problem = str(error)
    if as_json:
        typer.echo(json.dumps(found | {"ok": problem is None, "problem": problem}, indent=2))
    else:
        for key, value in found.items():
            shown = ", ".join(f"{v} {k}" for k, v in value.items()) if key == "documents" else value
            typer.echo(f"{key:10} {shown}")
        if problem is not None:
            typer.echo(f"{'problem':10} {problem}", err=True)
    if problem is not None:
        raise typer.Exit(1)


def _whereabouts(settings: "Settings") -> dict[str, Any]:
    from pccd_workflows.execution import mongo, mongod

    if settings.mongodb_uri is not None:
        return {"server": mongo.hosts(settings), "database": settings.database}
    now = mongod.status(settings)
    return {
        "server": f"127.0.0.1:{now.port}" if now.running else "not running",
        "database": settings.database,
        "folder": str(now.folder),
        "password": f"in {now.folder / 'password'} (user {mongod.USER}, replica set rs0)",
    }


def _numbers(settings: "Settings") -> dict[str, int]:
    from pccd_workflows.execution import mongo

    db = mongo.database(settings)
    with mongo.explained(settings):
        return {
            name: db[name].estimated_document_count()
            for name in ("campaigns", "candidates", "results", "references", "fireworks")
        }


@app.command()
def init() -> None:
    """Create indexes and counters that are missing; never changes or deletes a document."""
    from pccd_workflows import columns
    from pccd_workflows.execution import launchpad, mongo

    settings = _settings()
    db = mongo.database(settings)
    with mongo.explained(settings):
        columns.ensure_indexes(db)
        launchpad.launchpad(settings)
    typer.echo(f"Database {db.name!r} at {mongo.hosts(settings)} is ready.")


@app.command()
def check(as_json: bool = AS_JSON) -> None:
    """Check that the database is fit and its content consistent; exit 1 if not."""
    from pccd_workflows.execution.inspection import inspect_database

    findings = inspect_database(_settings())
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            sign = "ok     " if finding.problem is None else "PROBLEM"
            rest = f": {finding.problem}" if finding.problem else ""
            typer.echo(f"{sign} {finding.check} ({finding.found}){rest}")
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)


@app.command()
def backup(
    out: Path | None = typer.Option(
        None, help="New folder; <data folder>/backups/<database>-<time> if left out"
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Copy the whole database, as it is now, into plain files."""
    from pccd_workflows.execution import mongo
    from pccd_workflows.execution.backup import back_up

    settings = _settings()
    folder = out or _backup_folder(settings)
    db = mongo.database(settings)
    with mongo.explained(settings):
        manifest = back_up(db, folder.expanduser().absolute())
    _tell("Backed up", manifest, folder, as_json=as_json)


@app.command()
def restore(
    folder: Path = typer.Argument(..., help="Folder that `pccd db backup` wrote"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check the backup, restore nothing"),
    as_json: bool = AS_JSON,
) -> None:
    """Fill an empty database (PCCD_DATABASE names it) from a backup."""
    from pccd_workflows import columns
    from pccd_workflows.execution import backup as copies
    from pccd_workflows.execution import launchpad, mongo

    if dry_run:
        _tell("Is whole:", copies.read_manifest(folder), folder, as_json=as_json)
        return
    settings = _settings()
    db = mongo.database(settings)
    with mongo.explained(settings):
        manifest = copies.restore(db, folder)
        columns.ensure_indexes(db)
        launchpad.launchpad(settings)
    _tell("Restored", manifest, folder, as_json=as_json)


@app.command()
def migrate(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be done"),
    as_json: bool = AS_JSON,
) -> None:
    """Make campaigns of an older version go on; a backup is written first."""
    from dataclasses import asdict

    from pccd_workflows import migrate as migration

    settings = _settings()
    found = migration.plan(settings)
    folder = None
    if found.steps and not dry_run:
        if not found.running:
            folder = _back_up(settings)
        found = migration.migrate(settings)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "backup": folder and str(folder)}, indent=2))
        return
    would = "Would migrate" if dry_run else "Migrated"
    for step in found.steps:
        rest = f", {step.unfinished} jobs replaced" if step.unfinished else ""
        typer.echo(f"{would} {step.campaign_id}: {step.candidates} candidates{rest}.")
    if not found.steps:
        typer.echo("Everything is of this version; nothing to migrate.")
    if folder is not None:
        typer.echo(f"Backup: {folder}")


def _back_up(settings: "Settings") -> Path:
    from pccd_workflows.execution import mongo
    from pccd_workflows.execution.backup import back_up

    folder = _backup_folder(settings)
    db = mongo.database(settings)
    with mongo.explained(settings):
        back_up(db, folder)
    return folder


def _backup_folder(settings: "Settings") -> Path:
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = settings.data_dir / "backups" / f"{settings.database}-{moment}"
    return folder.expanduser().absolute()


def _tell(what: str, manifest: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **manifest}, indent=2))
        return
    collections = manifest["collections"]
    number = sum(row["documents"] for row in collections.values())
    typer.echo(f"{what} {number} documents of {len(collections)} collections: {folder}")


def _settings() -> "Settings":
    from pccd_workflows.settings import get_settings

    return get_settings()
