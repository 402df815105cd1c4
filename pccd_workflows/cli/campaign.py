"""`pccd campaign`: run, submit, watch, resume, report and list campaigns."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pccd_workflows.core.errors import PccdError

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign
    from pccd_workflows.cost import CostEstimate
    from pccd_workflows.execution.queue import QueueTemplate
    from pccd_workflows.settings import Settings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Run, submit, watch and report campaigns."
)

FILE = typer.Argument(..., help="Campaign file, or the name of a shipped one: quickstart.yaml")
NAME = typer.Argument(..., help="Name or id of a submitted campaign")
WORKERS = typer.Option(None, min=1, max=256, help="Worker processes on this machine")
AS_JSON = typer.Option(False, "--json", help="Print JSON")


@app.command()
def run(
    file: Path = FILE,
    workers: int | None = WORKERS,
    report: Path | None = typer.Option(None, help="HTML report; <campaign id>.html if left out"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, store nothing"),
) -> None:
    """Submit a campaign, run it on this machine to its end and write the report.

    A campaign that was interrupted goes on where it stopped.
    """
    campaign, settings = _read(file)
    if dry_run:
        _describe(campaign, settings)
        return
    from pccd_workflows import operations

    settings = _with_database(settings)
    document = operations.submit(campaign, settings)
    _finish(document, settings, workers, report)


@app.command()
def submit(
    file: Path = FILE,
    queue: list[Path] = typer.Option(
        [], "--queue", help="Queue template, e.g. db_config/slurm_cpu.yaml (repeatable)"
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, store nothing"),
) -> None:
    """Store a campaign and its jobs; workers (here or on a cluster) will run it."""
    from pccd_workflows.execution.queue import read_template

    campaign, settings = _read(file)
    templates = [read_template(path) for path in queue]
    if dry_run:
        _describe(campaign, settings)
        return
    from pccd_workflows import operations

    document = operations.submit(campaign, _with_database(settings))
    typer.echo(f"Submitted {document['_id']}.")
    typer.echo(f"Run it here:  pccd campaign resume {document['_id']}")
    typer.echo(f"or on a node: pccd worker --campaign {document['_id']}")
    _print_queue_lines(templates)
    _say_what_no_worker_runs(campaign, templates)


@app.command()
def status(name: str = NAME, as_json: bool = AS_JSON) -> None:
    """Show the funnel, the jobs by state and what failed."""
    from rich.console import Console

    from pccd_workflows import following, operations
    from pccd_workflows.cli import live

    settings = _settings()
    document = operations.campaign_document(operations.check_reference(name), settings)
    progress = operations.progress(document["_id"], settings)
    operations.collect(document, progress, settings)
    campaign = operations.stored_campaign(document)
    steps = operations.funnel(campaign, settings)
    if as_json:
        content = {
            "campaign_id": document["_id"],
            "jobs": progress.states,
            "funnel": {step.name: step.reached for step in steps},
            "failures": [
                {"fw_id": f["fw_id"], "name": f["name"], "reason": f["error"]}
                for f in progress.failures
            ],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    doing = following.long_jobs(document["_id"], settings)
    running = following.running_jobs(document["_id"], settings)
    view = live.View(steps, progress, 0.0, None, doing, running)
    Console().print(live.status_view(document["_id"], view))


@app.command()
def resume(
    name: str = NAME,
    workers: int | None = WORKERS,
    report: Path | None = typer.Option(None, help="HTML report; <campaign id>.html if left out"),
    max_attempts: int = typer.Option(
        5, min=1, max=100, help="Leave jobs that failed so often (see `pccd job failures`)"
    ),
    core_hours: list[str] = typer.Option(
        [], help="LEVEL=HOURS: raise a rung's budget, e.g. vasp/mp-gga=500 (repeatable)"
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be run again"),
) -> None:
    """Go on with a campaign: rerun what was lost or failed, keep all that is done.

    `pccd job undo` takes the rerun of a failed job back as long as it has not started.
    """
    from pccd_workflows import operations
    from pccd_workflows.migrate import check_migrated

    settings = _settings() if dry_run else _with_database(_settings())
    document = operations.campaign_document(operations.check_reference(name), settings)
    check_migrated(settings, document["_id"])
    _raise_budgets(document, core_hours, settings, dry_run=dry_run)
    if dry_run:
        progress = operations.progress(document["_id"], settings)
        typer.echo(
            f"{progress.completed} jobs are done, {progress.unfinished} are ready or running."
        )
    elif document["state"] == "submitting":
        document = operations.submit(operations.stored_campaign(document), settings)
    found = operations.restart(document["_id"], settings, max_attempts, dry_run=dry_run)
    verb = "would be" if dry_run else "are"
    if dry_run or found.released or found.rerun:
        typer.echo(
            f"{len(found.released)} lost and {len(found.rerun)} failed jobs {verb} ready again."
        )
    for fw_id, reason in found.refused.items():
        typer.echo(f"Job {fw_id} {'would be' if dry_run else 'was'} left: {reason}.")
    if dry_run:
        return
    _finish(document, settings, workers, report)


def _raise_budgets(
    document: dict[str, Any], budgets: list[str], settings: "Settings", *, dry_run: bool
) -> None:
    """Set the budgets given as LEVEL=HOURS and say how many jobs that lacked them run again."""
    from pccd_workflows import operations
    from pccd_workflows.cost import read_budget
    from pccd_workflows.execution.costs import raise_budget

    campaign = operations.stored_campaign(document)
    for level, hours in [read_budget(text, campaign) for text in budgets]:
        if dry_run:
            typer.echo(f"{level} would get a budget of {hours:g} core-hours.")
            continue
        count = raise_budget(settings, document["_id"], level, hours)
        typer.echo(
            f"{level} has a budget of {hours:g} core-hours; {count} skipped jobs are ready again."
        )


@app.command()
def cost(
    name: str = typer.Argument(..., help="Campaign file, or name or id of a submitted campaign"),
    as_json: bool = AS_JSON,
) -> None:
    """Estimate core-hours and GPU-hours rung by rung, at most; corrected by finished runs."""
    from pccd_workflows import operations
    from pccd_workflows.core.resources import campaign_file
    from pccd_workflows.cost import estimate_campaign

    if campaign_file(name).is_file():
        campaign, settings = _read(Path(name))
    else:
        settings = _settings()
        document = operations.campaign_document(operations.check_reference(name), settings)
        campaign = operations.stored_campaign(document)
    found = estimate_campaign(campaign, settings)
    if as_json:
        content = {
            "campaign_id": campaign.campaign_id,
            "rungs": [rung.as_dict() for rung in found],
            "core_hours": sum(rung.core_hours for rung in found),
            "gpu_hours": sum(rung.gpu_hours for rung in found),
        }
        typer.echo(json.dumps(content, indent=2))
        return
    _print_costs(found)


def _print_costs(found: "list[CostEstimate]") -> None:
    from rich.console import Console

    from pccd_workflows.cli.tables import plain_table

    hours = ("each", "in all", "on GPUs", "spent", "budget")
    table = plain_table("Rung", "At most", *hours)
    for rung in found:
        crystals = f"{rung.candidates} crystals"
        if rung.references:
            crystals += f", {rung.references} references"
        limit = "-" if rung.limit is None else f"{rung.limit:g} (pays for {rung.affordable})"
        numbers = (rung.core_hours_per_candidate, rung.core_hours, rung.gpu_hours, rung.spent)
        table.add_row(rung.level, crystals, *(f"{x:.3g}" for x in numbers), limit)
    Console().print(table)
    typer.echo("In core-hours, those on GPUs in GPU-hours.")
    for rung in found:
        typer.echo(
            f"{rung.level}: {rung.calibrated_by} finished runs, which took {rung.correction:.2g} "
            "times the model."
            if rung.calibrated_by
            else f"{rung.level}: no finished runs yet: the model's guess, good to a factor of ten."
        )


@app.command()
def report(
    name: str = NAME,
    out: Path | None = typer.Option(None, help="File to write; <campaign id>.html if left out"),
) -> None:
    """Write one self-contained HTML file about a campaign."""
    from pccd_workflows import operations

    settings = _settings()
    document = operations.campaign_document(operations.check_reference(name), settings)
    progress = operations.progress(document["_id"], settings)
    operations.collect(document, progress, settings)
    typer.echo(f"Wrote {_write_report(document, settings, out)}")


@app.command()
def figures(
    name: str = NAME,
    out: Path = typer.Option(..., help="Folder for the files"),
) -> None:
    """Write publication figures as PNG and SVG; say of which there is nothing to show."""
    from pccd_workflows import operations
    from pccd_workflows.execution import mongo
    from pccd_workflows.figures import write_figures
    from pccd_workflows.report.stored import read_stored

    settings = _settings()
    document = operations.campaign_document(operations.check_reference(name), settings)
    for figure in write_figures(out, *read_stored(document, mongo.database(settings))):
        suffixes = ", ".join(file.suffix for file in figure.files[1:])
        written = f"{figure.files[0]}, {suffixes}" if figure.files else ""
        typer.echo(written or f"{figure.name}: {figure.absent}")


@app.command()
def rescore(
    name: str = NAME,
    references: list[str] = typer.Option(
        ..., help="Reference id (see `pccd reference list`) or a file; may be repeated"
    ),
    level: str | None = typer.Option(None, help="Rung of a file of JSON lines or CIFs; the last"),
    dry_run: bool = typer.Option(False, "--dry-run", help="List the flips, store nothing"),
    as_json: bool = AS_JSON,
) -> None:
    """Judge a campaign's relaxed crystals against another snapshot; list what flips, and why.

    The new verdicts are stored beside the old ones.
    """
    from pccd_workflows import operations
    from pccd_workflows.cli import rescoring

    settings = _settings()
    document = operations.campaign_document(operations.check_reference(name), settings)
    campaign = operations.stored_campaign(document)
    rescoring.run(campaign, settings, references, level=level, dry_run=dry_run, as_json=as_json)


@app.command("list")
def list_campaigns(as_json: bool = AS_JSON) -> None:
    """List the campaigns in the database, the latest first."""
    from rich.console import Console

    from pccd_workflows.cli.tables import plain_table
    from pccd_workflows.execution import launchpad, mongo

    settings = _settings()
    rows = []
    for document in mongo.database(settings)["campaigns"].find().sort("submitted_at", -1):
        states = launchpad.campaign_states(settings, document["_id"])
        rows.append(
            {
                "campaign_id": document["_id"],
                "name": document["name"],
                "submitted_at": document["submitted_at"].isoformat(timespec="seconds"),
                "jobs": sum(states.values()),
                "completed": states.get("COMPLETED", 0),
                "failed": states.get("FIZZLED", 0),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("No campaign was submitted yet; try: pccd quickstart")
        return
    table = plain_table("Campaign", "Submitted (UTC)", "Jobs done", "Failed")
    for row in rows:
        done, at = f"{row['completed']}/{row['jobs']}", row["submitted_at"][:16].replace("T", " ")
        table.add_row(row["campaign_id"], at, done, str(row["failed"]))
    Console().print(table)


def _print_queue_lines(templates: "list[QueueTemplate]") -> None:
    """Say how to keep workers coming on a cluster."""
    from pccd_workflows.core.resources import resource
    from pccd_workflows.execution.queue import launch_lines

    launchpad = Path("~/.fireworks/my_launchpad.yaml").expanduser()
    for template in templates:
        category = template.category or "any"
        fworker = resource("db_config", f"my_fworker_{category}.yaml")
        lines = launch_lines(template, launchpad, fworker)
        typer.echo(f"{template.kind} workers ({category}), now:\n  {lines.now}")
        typer.echo(f"and from now on, in your crontab:\n  {lines.crontab}")
    if templates and not launchpad.exists():
        typer.echo(f"qlaunch reads {launchpad}, which is not there: see db_config/README.md.")


def _say_what_no_worker_runs(campaign: "Campaign", templates: "list[QueueTemplate]") -> None:
    """Name the rungs whose category no template's workers take."""
    from pccd_workflows import operations

    served = {template.category for template in templates}
    if not templates or None in served:
        return
    for category, stages in operations.stages_by_category(campaign).items():
        if category not in served:
            typer.echo(
                f"No template's workers take the category {category} ({', '.join(stages)}): add a "
                f"--queue for it, or run `pccd worker --category {category}` somewhere."
            )


def _settings() -> "Settings":
    from pccd_workflows.settings import get_settings

    return get_settings()


def _read(file: Path) -> "tuple[Campaign, Settings]":
    from pccd_workflows.campaign import load_campaign

    return load_campaign(file), _settings()


def _with_database(settings: "Settings") -> "Settings":
    """Start the embedded database unless a server is configured."""
    if settings.mongodb_uri is None:
        from pccd_workflows.execution import mongod

        mongod.start(settings)
    return settings


def _describe(campaign: "Campaign", settings: "Settings") -> None:
    """Check what a campaign needs here and print it as a campaign file that says everything."""
    from pccd_workflows import operations
    from pccd_workflows.campaign import to_yaml

    operations.preflight(campaign, settings)
    typer.echo(f"# {campaign.campaign_id} is valid; with every default filled in:")
    typer.echo(to_yaml(campaign), nl=False)


def _finish(
    document: dict[str, Any], settings: "Settings", workers: int | None, report: Path | None
) -> None:
    """Work until nothing can run, write the report, print the best; exit 1 after failures."""
    from pccd_workflows import operations
    from pccd_workflows.cli import live

    campaign = operations.stored_campaign(document)
    progress = live.work(document, campaign, settings, workers or settings.workers)
    path = _write_report(document, settings, report)
    live.print_outcome(campaign, settings, path, progress)
    if (nothing := operations.nothing_left(campaign, settings)) is not None:
        raise PccdError(nothing)
    if progress.failures or progress.states.get("WAITING", 0):
        raise typer.Exit(1)


def _write_report(document: dict[str, Any], settings: "Settings", out: Path | None) -> Path:
    from pccd_workflows.execution import mongo
    from pccd_workflows.report.stored import write_stored_report

    database = mongo.database(settings)
    return write_stored_report(out or Path(f"{document['_id']}.html"), document, database)
