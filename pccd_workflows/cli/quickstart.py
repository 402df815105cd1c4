"""`pccd quickstart`: the campaign that comes with the project, from anywhere."""

from pathlib import Path

import typer

app = typer.Typer(add_completion=False)

CAMPAIGN = "quickstart.yaml"


HELP = """Look for new Mg-Mn-O crystals: about ten minutes, no key, no server, no GPU.

The same as `pccd campaign run quickstart.yaml`; run it again to go on after an interruption.
"""


@app.callback(help=HELP, invoke_without_command=True)
def quickstart(
    workers: int | None = typer.Option(None, min=1, max=256, help="Worker processes"),
    report: Path | None = typer.Option(None, help="HTML report; <campaign id>.html if left out"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, store nothing"),
) -> None:
    """Run the shipped campaign."""
    from pccd_workflows.cli.campaign import run
    from pccd_workflows.core.resources import resource

    run(resource("flows", CAMPAIGN), workers, report, dry_run)
