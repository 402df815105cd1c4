"""The `pccd` command. Each noun is a module that is imported only when it is asked for."""

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from pccd_workflows import __version__
from pccd_workflows.core.errors import PccdError

NOUNS = {
    "quickstart": "Run the example campaign: new Mg-Mn-O crystals in about ten minutes.",
    "campaign": "Run, submit, watch and report discovery campaigns.",
    "job": "List jobs, explain failures and run them again.",
    "candidate": "List, show and export the crystals that were found.",
    "db": "Start, stop and check the database.",
    "model": "Train, sample and inspect generative models.",
    "dataset": "Build and describe training sets.",
    "reference": "Build and list the competing phases of chemical systems.",
    "snapshot": "Fetch, export and import what the Materials Project says.",
    "known": "Known crystals that novelty is measured against: the library, imported sets.",
    "explore": "Browse candidates in a web page on this machine.",
    "doctor": "Check what is installed and say what each missing thing would cost you.",
    "worker": "Run the jobs of campaigns until none is left.",
    "completion": "Let bash, zsh or fish complete the commands.",
}
"""Module below this package and help text of each command."""

COMPLETE = "_PCCD_COMPLETE"
"""Variable that is set by the shell that asks what could come next (`pccd completion`)."""


class LazyNouns(TyperGroup):
    """Imports the module of a noun when it is called, not to list the nouns."""

    _describing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page, for which the nouns' own help texts suffice."""
        self._describing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._describing = False

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Return all nouns."""
        return list(NOUNS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant; a mistyped one is answered with the nearest."""
        if args and args[0] not in NOUNS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], NOUNS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "`pccd --help` lists them."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Return the command of a noun; only its help text when listing all of them."""
        if cmd_name not in NOUNS:
            return super().get_command(ctx, cmd_name)  # type: ignore[arg-type]
        if self._describing:
            return _described(cmd_name)
        module = importlib.import_module(f"pccd_workflows.cli.{cmd_name}")
        return typer.main.get_command(module.app)


def _described(noun: str) -> Any:
    """Return a command that has nothing but a name and a help text."""
    described = typer.Typer(help=NOUNS[noun], add_completion=False)
    described.callback(help=NOUNS[noun])(lambda: None)
    command = typer.main.get_command(described)
    command.name = noun
    return command


app = typer.Typer(
    cls=LazyNouns,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pccd_workflows {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True),
) -> None:
    """From chosen elements to new crystals: generated, relaxed, judged, traceable."""


def main(arguments: list[str] | None = None) -> None:
    """Run `pccd`; exit 0 done, 1 something failed, 2 the input is wrong, 130 and 143 signals."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if COMPLETE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        with _quiet_libraries(arguments):
            app(arguments)
    except PccdError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"pccd: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in arguments or (explanation := _explain(error)) is None:
            raise
        typer.echo(f"pccd: {explanation}", err=True)
        sys.exit(1)


@contextmanager
def _quiet_libraries(arguments: list[str]) -> Iterator[None]:
    """Leave out what libraries warn their programmers of; jobs keep it, in their ``job.out``.

    ``--debug`` and Python's own ways (``-W``, PYTHONWARNINGS) show it.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions and "--debug" not in arguments and "worker" not in arguments:
            warnings.simplefilter("ignore")
        yield


def _explain(error: Exception) -> str | None:
    """Return one sentence for errors of the outside world, None for our own faults."""
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{name}."
    if type(error).__module__.split(".")[0] in ("pymongo", "gridfs"):
        from pccd_workflows.execution.mongo import explain_error
        from pccd_workflows.settings import get_settings

        return explain_error(error, get_settings())
    return None


__all__ = ["app", "main"]
