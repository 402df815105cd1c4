"""`pccd worker`: run jobs in this process until none is left."""

import os
import signal
import threading
import time

import typer

from pccd_workflows.core.errors import Interrupted

app = typer.Typer(add_completion=False, help="Run the jobs of campaigns until none is left.")

PARENT_CHECK_SECONDS = 1.0


@app.command()
def worker(
    campaign: str = typer.Option("", help="Only this campaign (name or id); all if left out."),
    category: str = typer.Option("", help="Only jobs of this category (gpu, cpu), or of none."),
    minutes: float = typer.Option(
        0.0, min=0.0, help="Start no job later than this (a queue's walltime less one job's time)."
    ),
    idle: float = typer.Option(
        0.0, min=0.0, help="End after so many minutes without a job, though others run some."
    ),
    forever: bool = typer.Option(False, "--forever", help="Wait for new jobs instead of ending."),
    parent: int = typer.Option(0, hidden=True, help="End when this process is gone."),
) -> None:
    """Run ready jobs one after the other. Start as many workers as there are cores to use."""
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # torch reads it once; more collapse on busy cores
    if parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from pccd_workflows.execution.worker import run_worker
    from pccd_workflows.migrate import check_migrated
    from pccd_workflows.settings import get_settings

    if campaign:
        from pccd_workflows.operations import campaign_id_of

        campaign = campaign_id_of(campaign, get_settings())
    check_migrated(get_settings(), campaign or None)
    summary = run_worker(
        get_settings(),
        campaign_id=campaign or None,
        category=category or None,
        until_done=not forever,
        seconds=60 * minutes or None,
        idle=60 * idle or None,
    )
    if summary.stopped_by is not None:
        message = f"Stopped by {summary.stopped_by}; the job that ran is ready again."
        raise Interrupted(message, signal.Signals[summary.stopped_by])


def _end_with(parent: int) -> None:
    """Stop this worker (its job goes back) when the process that started it was killed."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
