"""`pccd model batches | rediscover | compare-levels`: measures that need a potential."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pccd_workflows.cli.sampler import takes_sampler
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.core.intervals import Estimate
    from pccd_workflows.evaluation.batches import SeedTable
    from pccd_workflows.evaluation.model_and_data import ModelAndData
    from pccd_workflows.evaluation.rediscovery import Rediscovered
    from pccd_workflows.known.build import Progress as Told

NAME = typer.Argument(..., help="A folder of model/, or a path")
DATA = typer.Option(None, help="More known crystals (JSON lines), for what is new")
SEED = typer.Option(0, min=0, help="Fixes every random number")
LEVEL = typer.Option("chgnet", help="Potential that relaxes: chgnet, 7net-0 or 7net-l3i5")
AS_JSON = typer.Option(False, "--json", help="Print JSON")


@takes_sampler
def batches(
    name: str = NAME,
    *,
    data: Path | None = DATA,
    samples: int = typer.Option(256, min=1, help="Raw samples of each batch"),
    only: str = typer.Option("1,2,3", help="Batches, comma-separated"),
    sampler: Sampler,
    energy_above_hull: float | None = typer.Option(None, min=0, help="Asked for, eV/atom"),
    relax: bool = typer.Option(True, help="Without, nothing is said of stability"),
    level: str = LEVEL,
    report: Path | None = typer.Option(None, help="HTML file with pictures to write"),
    as_json: bool = AS_JSON,
) -> None:
    """Measure the seed paper's three batches: its Table 2 with ours beside it.

    What is relaxed stays on disk: interrupted at any moment, the same command goes on.
    """
    from pccd_workflows.evaluation.batches import BATCHES, measure_batches
    from pccd_workflows.generators.request import Conditions

    chosen = [f"seed-batch-{part.strip()}" for part in only.split(",")]
    if unknown := sorted(set(chosen) - set(BATCHES)):
        raise InputError(f"--only: there is no {unknown[0]}; use 1,2,3.")
    asked = None if energy_above_hull is None else Conditions(energy_above_hull=energy_above_hull)
    loaded = _loaded(name, data)
    with progress(quiet=as_json) as show:
        judge = loaded.judge(level, show) if relax else None
        result = measure_batches(
            loaded.model,
            loaded.yardstick(judge),
            samples=samples,
            sampler=sampler,
            batches=chosen,
            conditions=asked,
        )
    if report is not None:
        from pccd_workflows.core.files import write_whole
        from pccd_workflows.report.generation import batches_page

        write_whole(report, batches_page(result.as_json()))
    if as_json:
        content = {**loaded.header, "samples": samples, **result.as_json()}
        typer.echo(json.dumps(content, indent=2))
        return
    _print_seed_table(result.table_2)


@takes_sampler
def rediscover(
    name: str = NAME,
    *,
    data: Path | None = DATA,
    formulas: str = typer.Option("", help="Comma-separated; the seed's named crystals if empty"),
    samples: int = typer.Option(256, min=1, help="Of the elements of each formula"),
    seed: int = SEED,
    sampler: Sampler,
    relax: bool = typer.Option(True, help="Without, only how often the formulas appear"),
    phonons: bool = typer.Option(False, "--phonons", help="Verdict on the best of each formula"),
    level: str = LEVEL,
    as_json: bool = AS_JSON,
) -> None:
    """Ask for the elements of named crystals: how often their formulas come, and how good."""
    from pccd_workflows.evaluation.published import NAMED_CRYSTALS
    from pccd_workflows.evaluation.rediscovery import Sampling, checked_formula
    from pccd_workflows.evaluation.rediscovery import rediscover as measure

    if phonons and not relax:
        raise InputError("--phonons needs a relaxed crystal: leave out --no-relax.")
    wanted = [f.strip() for f in formulas.split(",") if f.strip()] or list(NAMED_CRYSTALS)
    for formula in wanted:
        checked_formula(formula)
    loaded = _loaded(name, data)
    with progress(quiet=as_json) as show:
        judge = loaded.judge(level, show) if relax else None
        found = measure(
            loaded.model,
            loaded.yardstick(judge),
            sampling=Sampling(samples, seed, sampler),
            formulas=wanted,
            phonons=judge.potential.phonons if judge is not None and phonons else None,
        )
    if as_json:
        protocol = judge.protocol().as_json() if judge is not None else None
        content = {**loaded.header, "samples": samples, "seed": seed, "protocol": protocol}
        content["formulas"] = {formula: row.as_json() for formula, row in found.items()}
        typer.echo(json.dumps(content, indent=2))
        return
    _print_rediscovered(found)


@takes_sampler
def compare_levels(
    name: str = NAME,
    *,
    data: Path | None = DATA,
    levels: str = typer.Option("chgnet,7net-l3i5", help="Two potentials"),
    batch: int = typer.Option(3, min=1, max=3, help="Of the seed paper, whose elements are drawn"),
    samples: int = typer.Option(64, min=1, help="Raw samples"),
    sampler: Sampler,
    as_json: bool = AS_JSON,
) -> None:
    """Say how often two potentials disagree on which crystals are stable."""
    from pccd_workflows.evaluation.level_comparison import compare_levels as measure

    names = [level.strip() for level in levels.split(",")]
    if len(names) != 2 or len(set(names)) != 2:
        raise InputError(f"--levels {levels!r} must name two potentials.")
    loaded = _loaded(name, data)
    with progress(quiet=as_json) as show:
        judges = (loaded.judge(names[0], show), loaded.judge(names[1], show))
        result = measure(
            loaded.model, judges, batch=f"seed-batch-{batch}", samples=samples, sampler=sampler
        )
    if as_json:
        typer.echo(json.dumps(result.as_json(), indent=2))
        return
    found = result.disagreement
    typer.echo(f"{found.judged_by_both} of {samples} samples judged by both {levels}")
    for threshold, rate in found.rate.items():
        typer.echo(f"  {threshold:11} disagree: {_shown(rate)}")
    typer.echo(
        f"  energy above hull differs by {EV_TO_MEV * found.mean_absolute_difference:.0f} meV/atom "
        f"on average ({EV_TO_MEV * found.mean_difference:+.0f} signed)"
    )


def _loaded(name: str, data: Path | None) -> "ModelAndData":
    from pccd_workflows.evaluation.model_and_data import load_model_and_data

    return load_model_and_data(name, data)


@contextmanager
def progress(*, quiet: bool) -> "Iterator[Told]":
    """Yield what shows on a terminal how far each kind of work is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield show


def _shown(share: "Estimate | None") -> str:
    if not share or share["value"] is None or share["interval"] is None:
        return "-"
    low, high = share["interval"]
    return f"{share['value']:.1%} ({low:.0%}-{high:.0%}) of {share['n']}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


LIMITS = (("stable_250", "250 meV/atom"), ("stable_80", "80 meV/atom"))


def _print_seed_table(table: "SeedTable") -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("batch", "below", "seed, of screened", "ours, of screened", "of raw", box=None)
    for row in table.rows:
        for cell, (_, label) in zip((row.stable_250, row.stable_80), LIMITS, strict=True):
            shown.add_row(
                row.batch,
                label,
                _percent(cell.seed_of_screened),
                _shown(cell.ours_of_screened),
                _shown(cell.ours_of_raw),
            )
    for peer, values in table.peers.items():
        for key, label in LIMITS:
            if values[key] is not None:
                shown.add_row(peer, label, _percent(values[key]), "", "")
    console = Console()
    console.print(shown)
    console.print(table.caveat, style="dim")


def _print_rediscovered(found: "Mapping[str, Rediscovered]") -> None:
    from rich.console import Console

    from pccd_workflows.cli.tables import plain_table

    table = plain_table("Formula", "Appeared", "meV/atom", "Space group", "Known", "Phonons")
    for formula, row in found.items():
        best = row.best
        table.add_row(
            formula,
            _shown(row.appeared),
            "-" if best is None else f"{EV_TO_MEV * best.energy_above_hull:.0f}",
            "-" if best is None else best.space_group,
            (best.reference if best is not None else None) or "-",
            "-" if row.phonons is None else row.phonons.verdict,
        )
    Console().print(table)
    typer.echo("meV/atom: of the best crystal, above the hull.")
