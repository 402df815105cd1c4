"""`pccd job`: the jobs of campaigns, why some failed, and how to run them again."""

import json
import re
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pccd_workflows.execution.reruns import Failure

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List jobs, explain failures, run them again."
)

CAMPAIGN = typer.Option("", "--campaign", help="Name or id of a campaign; all if left out")
CANDIDATE = typer.Option("", "--candidate", help="Only jobs of this candidate")
ERROR_CLASS = typer.Option("", "--error-class", help="Only failures of this class")
AS_JSON = typer.Option(False, "--json", help="Print JSON")
STATES = ("WAITING", "READY", "RESERVED", "RUNNING", "COMPLETED", "FIZZLED", "DEFUSED", "PAUSED")


@app.command("list")
def list_jobs(
    campaign: str = CAMPAIGN,
    candidate: str = CANDIDATE,
    state: str = typer.Option("", "--state", help="Only jobs in this FireWorks state"),
    limit: int = typer.Option(100, min=1, max=1_000_000, help="At most so many, latest first"),
    as_json: bool = AS_JSON,
) -> None:
    """List jobs, the latest first."""
    from pccd_workflows.cli.tables import plain_table
    from pccd_workflows.core.errors import InputError
    from pccd_workflows.execution import reruns
    from pccd_workflows.settings import get_settings

    if state and state.upper() not in STATES:
        raise InputError(f"Unknown state {state!r}; use one of {list(STATES)}.")
    rows = reruns.job_list(
        get_settings(),
        campaign_id=_campaign_id(campaign),
        candidate=_candidate(candidate),
        state=state.upper() or None,
        limit=limit,
    )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = plain_table("Job", "State", "Name", "Campaign")
    for row in rows:
        own = f"{row['campaign_id']}-"  # the last column says it
        name = re.sub(rf"{re.escape(own)}0*(\d+)", r"\1", row["name"])
        table.add_row(str(row["fw_id"]), row["state"], name, row["campaign_id"])
    _print(table)
    more = "; --limit shows more" if len(rows) == limit else ""
    typer.echo(f"{_count(len(rows), 'job')}{more}.")


@app.command()
def failures(
    campaign: str = CAMPAIGN,
    candidate: str = CANDIDATE,
    error_class: str = ERROR_CLASS,
    as_json: bool = AS_JSON,
) -> None:
    """Show failed jobs by class, with the evidence and what usually helps."""
    found = _failures(campaign, candidate, error_class)
    groups = _grouped(found)
    if as_json:
        content = {"groups": groups, "failures": [failure.as_dict() for failure in found]}
        typer.echo(json.dumps(content, indent=2))
        return
    if not found:
        typer.echo("No failed jobs.")
        return
    _print(failure_table(found))
    typer.echo(f"{_count(len(found), 'failed job')}; what runs those of a class again:")
    for group in groups:
        typer.echo(f"pccd job rerun --error-class {group['error_class']}{group['options']}")


def failure_table(found: "list[Failure]") -> "Table":
    """Return failures by class as a table: how many, the evidence, what helps."""
    from rich.markup import escape

    from pccd_workflows.cli.tables import plain_table

    table = plain_table("Class", "Jobs", "Crystals", "Evidence", "What helps")
    for group in _grouped(found):
        table.add_row(
            group["error_class"],
            str(group["jobs"]),
            str(group["candidates"]),
            escape(group["evidence"]),
            group["cure"],
        )
    return table


@app.command()
def rerun(  # noqa: PLR0917
    campaign: str = CAMPAIGN,
    candidate: str = CANDIDATE,
    error_class: str = ERROR_CLASS,
    job: list[int] = typer.Option([], "--job", help="Only this job (repeatable)"),
    from_contcar: bool = typer.Option(
        False, "--from-contcar", help="VASP goes on from the failed attempt's last geometry"
    ),
    tags: list[str] = typer.Option([], "--set", help="e.g. INCAR.ALGO=All (repeatable)"),
    max_attempts: int = typer.Option(5, min=1, max=100, help="Leave jobs that failed so often"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say which jobs it would be"),
    as_json: bool = AS_JSON,
) -> None:
    """Make failed jobs ready again, with what depends on them; `pccd job undo` takes it back."""
    from pccd_workflows.core.errors import InputError
    from pccd_workflows.core.failures import parse_overrides
    from pccd_workflows.execution import reruns
    from pccd_workflows.settings import get_settings

    incar = parse_overrides(tags)
    if not (campaign or candidate or error_class or job):
        raise InputError("Say which: --error-class, --campaign, --candidate or --job.")
    chosen = [f for f in _failures(campaign, candidate, error_class) if not job or f.fw_id in job]
    outcome = reruns.rerun(
        get_settings(),
        chosen,
        from_contcar=from_contcar,
        incar=incar,
        max_attempts=max_attempts,
        dry_run=dry_run,
    )
    if as_json:
        content = {"rerun": outcome.rerun, "refused": outcome.refused, "dry_run": dry_run}
        typer.echo(json.dumps(content, indent=2))
        return
    if not chosen:
        typer.echo("No failed job is of that kind; `pccd job failures` shows all.")
        return
    verb = "would be" if dry_run else "are"
    typer.echo(f"{len(outcome.rerun)} of {len(chosen)} failed jobs {verb} ready again.")
    for fw_id, reason in outcome.refused.items():
        typer.echo(f"Job {fw_id} {'would be' if dry_run else 'was'} left: {reason}.")


@app.command()
def undo(
    job: int = typer.Argument(..., help="Number of a job that was rerun"), as_json: bool = AS_JSON
) -> None:
    """Take back the last rerun of a job that has not started yet."""
    from pccd_workflows.execution import reruns
    from pccd_workflows.settings import get_settings

    restored = reruns.undo(get_settings(), job)
    if as_json:
        typer.echo(json.dumps({"restored": restored}))
        return
    typer.echo(f"Job {job} is failed again, as before; {len(restored) - 1} others with it.")


def _failures(campaign: str, candidate: str, error_class: str) -> "list[Failure]":
    from pccd_workflows.core.failures import check_class
    from pccd_workflows.execution import reruns
    from pccd_workflows.settings import get_settings

    return reruns.job_failures(
        get_settings(),
        campaign_id=_campaign_id(campaign),
        candidate=_candidate(candidate),
        error_class=check_class(error_class) if error_class else None,
    )


def _grouped(found: "list[Failure]") -> list[dict[str, Any]]:
    from pccd_workflows.core.failures import BY_NAME

    members: dict[str, list[Failure]] = {}
    for failure in found:
        members.setdefault(failure.error_class, []).append(failure)
    groups = []
    for name, rows in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        known = BY_NAME[name]
        groups.append(
            {
                "error_class": name,
                "jobs": len(rows),
                "candidates": len({c for row in rows for c in row.candidates}),
                "evidence": rows[0].evidence,
                "cure": known.cure,
                "options": known.options,
            }
        )
    return groups


def _campaign_id(name: str) -> str | None:
    """Return the id of a campaign given by name or id; None for all."""
    if not name:
        return None
    from pccd_workflows import operations
    from pccd_workflows.settings import get_settings

    document = operations.campaign_document(operations.check_reference(name), get_settings())
    return str(document["_id"])


def _candidate(name: str) -> str | None:
    from pccd_workflows import operations

    return operations.check_reference(name) if name else None


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
