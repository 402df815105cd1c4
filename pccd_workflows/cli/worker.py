"""`pccd worker`: run jobs in this process until none is left."""

import typer

app = typer.Typer(help="Run the jobs of campaigns until none is left.")


@app.command()
def worker(
    campaign: str = typer.Option("", help="Only this campaign (id); all campaigns if left out."),
    category: str = typer.Option("", help="Only jobs of this category (gpu, cpu)."),
    forever: bool = typer.Option(False, help="Wait for new jobs instead of ending."),
) -> None:
    """Run ready jobs one after the other. Start as many workers as there are cores to use."""
    import os

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: see docs on threads
    from pccd_workflows.external.launchpad import run_worker
    from pccd_workflows.settings import get_settings

    run_worker(
        get_settings(),
        campaign_id=campaign or None,
        category=category or None,
        until_done=not forever,
    )
