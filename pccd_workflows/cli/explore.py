"""`pccd explore`: browse candidates in a web page on this machine."""

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help="Browse candidates in a web page on this machine.")


@app.command()
def explore(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8420,
    browse: Annotated[bool, typer.Option("--browse", help="Open it in the browser")] = False,
) -> None:
    """Serve a read-only table and pages of all candidates until Ctrl-C."""
    import webbrowser

    from pccd_workflows.execution import mongo
    from pccd_workflows.explorer.server import Explorer, is_loopback
    from pccd_workflows.settings import get_settings

    settings = get_settings()
    mongo.database(settings)  # say now, not in the browser, that the database is down
    with Explorer(host, port, lambda: mongo.database(settings)) as server:
        typer.echo(f"Candidates at {server.url} (Ctrl-C ends it)")
        if not is_loopback(host):
            typer.echo(
                "Whoever has this address can read all candidates; it travels unencrypted.",
                err=True,
            )
        if browse:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Stopped.")
