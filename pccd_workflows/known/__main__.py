"""``python -m pccd_workflows.known``: build the library of known crystals and compute for it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.known.library import SHIPPED

app = typer.Typer(add_completion=False, no_args_is_help=True)
Folder = Annotated[Path, typer.Option(help="The library; the one of the package by default.")]
Level = Annotated[str, typer.Argument(help="Name of a potential, e.g. chgnet.")]
LedgerPath = Annotated[Path, typer.Option("--ledger", help="Results, one a line; grows.")]
EVERY_SECONDS = 10.0
"""Between two lines of progress."""


@app.command()
def build(
    sources: list[Path],
    folder: Folder = SHIPPED,
    table: Annotated[
        Path | None, typer.Option(help="Formation energies: lists what has no structure here.")
    ] = None,
) -> None:
    """Write the crystals of data files (JSON lines, also gzipped) as a library."""
    from pccd_workflows.generators.pccd.dataset import split_of
    from pccd_workflows.known.build import build_library
    from pccd_workflows.known.library import KnownLibrary
    from pccd_workflows.known.missing import write_missing

    version = build_library(sources, folder, split_of, _reporter())
    typer.echo(f"Wrote version {version} to {folder}.")
    if table is not None:
        typer.echo(f"{write_missing(KnownLibrary(folder), table):,} phases have no structure.")


@app.command()
def info(folder: Folder = SHIPPED) -> None:
    """Say what the library holds, of which sources and licences, and its energies."""
    from pccd_workflows.known.library import library

    known = library(folder)
    known.check(known.levels)
    typer.echo(f"{len(known):,} crystals of {len(known.systems):,} systems, {known.version}")
    for source in known.sources:
        typer.echo(f"  {source.database}: {source.licence}. {source.attribution}")
    for level in known.levels:
        energies = known.energies(level)
        typer.echo(
            f"  {level}: energies of {energies.n_computed:,} ({energies.coverage:.0%}), "
            f"{energies.n_relaxed:,} of them relaxed"
        )


@app.command()
def compute(  # noqa: PLR0913
    level: Level,
    ledger: LedgerPath,
    *,
    folder: Folder = SHIPPED,
    limit: Annotated[int | None, typer.Option(help="Most crystals in this run.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    max_sites: Annotated[int | None, typer.Option(help="Leave larger crystals out.")] = None,
    relaxing: Annotated[bool, typer.Option("--relax/--no-relax", help="Near the hull.")] = True,
) -> None:
    """Compute energies of known crystals; goes on where it ended."""
    from pccd_workflows.engines.levels import get_level
    from pccd_workflows.engines.potential import calculator, relax, single_point
    from pccd_workflows.known.compute import Budget, Ledger, compute_energies
    from pccd_workflows.known.library import library

    calculator(get_level(level))  # a level that cannot compute is no property of a crystal
    budget = Budget(limit, None if minutes is None else 60 * minutes, max_sites)
    engines = (
        lambda structure: single_point(structure, level),
        (lambda structure: relax(structure, level)) if relaxing else None,
    )
    computed = compute_energies(
        library(folder),
        level,
        Ledger(ledger),
        engines=engines,
        budget=budget,
        progress=_reporter(),
    )
    typer.echo(f"Computed {computed:,} crystals at {level}.")


@app.command()
def collect(level: Level, ledger: LedgerPath, folder: Folder = SHIPPED) -> None:
    """Put the results of a ledger beside the library.

    Raises
    ------
    InputError
        There is no ledger.
    """
    from pccd_workflows.engines.levels import get_level
    from pccd_workflows.engines.potential import software
    from pccd_workflows.known.compute import Ledger, save_energies
    from pccd_workflows.known.library import library

    if not ledger.is_file():
        raise InputError(f"There is no ledger {ledger}: `compute` writes one.")
    energies = save_energies(library(folder), level, Ledger(ledger), software(get_level(level)))
    typer.echo(
        f"{level}: energies of {energies.n_computed:,} crystals ({energies.coverage:.0%}), "
        f"{energies.n_relaxed:,} of them relaxed."
    )


def _reporter() -> Callable[[str, int, int], None]:
    """Return what prints progress and the time left, a line every ten seconds."""
    started: dict[str, tuple[float, int]] = {}
    last = [0.0]

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        begin, first = started.setdefault(what, (now, done))
        if now - last[0] < EVERY_SECONDS and done != total:
            return
        last[0] = now
        left = ""
        if total and done > first:
            left = f", {(now - begin) / (done - first) * (total - done) / 60:.0f} min left"
        typer.echo(f"{what}: {done:,}" + (f" of {total:,}{left}" if total else ""))

    return report


def main() -> None:
    """Run the command; bad input ends it with one sentence."""
    try:
        app(standalone_mode=False)
    except PccdError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
