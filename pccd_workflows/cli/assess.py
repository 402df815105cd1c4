"""`pccd model batches | rediscover | compare-levels`: measures that need a potential."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.evaluation.stability import Progress

NAME = typer.Argument(..., help="A folder of model/, or a path")
DATA = typer.Option(..., help="Known crystals (JSON lines): novelty and competing phases")
SEED = typer.Option(0, min=0, help="Fixes every random number")
_DEFAULTS = Sampler()
SAMPLER = typer.Option(_DEFAULTS.name, help="dpm-solver++, ddim or ddpm")
STEPS = typer.Option(_DEFAULTS.steps, min=1, max=1000, help="Network evaluations per crystal")
TEMPERATURE = typer.Option(
    _DEFAULTS.temperature, min=0, max=2, help="Of space group, type and noise; 0 = the likeliest"
)
COMPOSITION_TEMPERATURE = typer.Option(
    _DEFAULTS.composition_temperature,
    min=0,
    max=2,
    help="Of the composition; 0 = always the likeliest",
)
RECALL = typer.Option(
    _DEFAULTS.recall, "--recall", help="Known compounds of the elements asked for come again"
)
GUIDANCE = typer.Option(
    _DEFAULTS.guidance, min=0, max=20, help="Weight of the conditions; 1 = as learned"
)
LEVEL = typer.Option("chgnet", help="Potential that relaxes: chgnet, 7net-0 or 7net-l3i5")
AS_JSON = typer.Option(False, "--json", help="Print JSON")


def batches(
    name: str = NAME,
    *,
    data: Path = DATA,
    samples: int = typer.Option(256, min=1, help="Raw samples of each batch"),
    only: str = typer.Option("1,2,3", help="Batches, comma-separated"),
    sampler: str = SAMPLER,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    temperature: float = TEMPERATURE,
    composition_temperature: float = COMPOSITION_TEMPERATURE,
    recall: bool = RECALL,
    energy_above_hull: float | None = typer.Option(None, min=0, help="Asked for, eV/atom"),
    relax: bool = typer.Option(True, help="Without, nothing is said of stability"),
    level: str = LEVEL,
    report: Path | None = typer.Option(None, help="HTML file with pictures to write"),
    as_json: bool = AS_JSON,
) -> None:
    """Measure the seed paper's three batches: its Table 2 with ours beside it.

    What is relaxed stays on disk: interrupted at any moment, the same command goes on.
    """
    from pccd_workflows.evaluation.assessment import (
        BATCHES,
        batches_part,
        known_for,
        potential_judge,
    )
    from pccd_workflows.generators.request import Conditions

    chosen = [f"seed-batch-{part.strip()}" for part in only.split(",")]
    if unknown := sorted(set(chosen) - set(BATCHES)):
        raise InputError(f"--only: there is no {unknown[0]}; use 1,2,3.")
    drawn = checked_sampler(sampler, steps, guidance, temperature, composition_temperature, recall)
    asked = None if energy_above_hull is None else Conditions(energy_above_hull=energy_above_hull)
    model, folder, settings = _loaded(name, data)
    with progress(quiet=as_json) as show:
        judge = potential_judge(data, level, settings, progress=show) if relax else None
        result = batches_part(
            model,
            known_for(folder, data, judge=judge),
            samples=samples,
            sampler=drawn,
            batches=chosen,
            conditions=asked,
        )
    if report is not None:
        from pccd_workflows.core.files import write_whole
        from pccd_workflows.report.generation import batches_page

        write_whole(report, batches_page(result))
    header = {"model": model.info.name, "weights_sha256": model.info.weights_sha256}
    if as_json:
        typer.echo(json.dumps({**header, "samples": samples, **result}, indent=2))
        return
    _print_table_2(result["table_2"])


def rediscover(
    name: str = NAME,
    *,
    data: Path = DATA,
    formulas: str = typer.Option("", help="Comma-separated; the seed's named crystals if empty"),
    samples: int = typer.Option(256, min=1, help="Of the elements of each formula"),
    seed: int = SEED,
    sampler: str = SAMPLER,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    temperature: float = TEMPERATURE,
    composition_temperature: float = COMPOSITION_TEMPERATURE,
    recall: bool = RECALL,
    relax: bool = typer.Option(True, help="Without, only how often the formulas appear"),
    phonons: bool = typer.Option(False, "--phonons", help="Verdict on the best of each formula"),
    level: str = LEVEL,
    as_json: bool = AS_JSON,
) -> None:
    """Ask for the elements of named crystals: how often their formulas come, and how good."""
    from pccd_workflows.evaluation.assessment import disk_results, known_for, potential_judge
    from pccd_workflows.evaluation.published import NAMED_CRYSTALS
    from pccd_workflows.evaluation.rediscovery import Draw, checked_formula, phonon_verdict
    from pccd_workflows.evaluation.rediscovery import rediscover as measure

    if phonons and not relax:
        raise InputError("--phonons needs a relaxed crystal: leave out --no-relax.")
    wanted = [f.strip() for f in formulas.split(",") if f.strip()] or list(NAMED_CRYSTALS)
    for formula in wanted:
        checked_formula(formula)
    drawn = Draw(
        samples,
        seed,
        checked_sampler(sampler, steps, guidance, temperature, composition_temperature, recall),
    )
    model, folder, settings = _loaded(name, data)
    results = disk_results(settings)
    with progress(quiet=as_json) as show:
        judge = potential_judge(data, level, settings, progress=show) if relax else None
        known = known_for(folder, data, judge=judge)
        verdict = (lambda s: phonon_verdict(s, level, results)) if phonons else None
        found = measure(model, known, draw=drawn, formulas=wanted, phonons=verdict)
    if as_json:
        header = {"model": model.info.name, "weights_sha256": model.info.weights_sha256}
        protocol = judge.card() if judge is not None else None
        content = {**header, "samples": samples, "seed": seed, "protocol": protocol}
        typer.echo(json.dumps({**content, "formulas": found}, indent=2))
        return
    _print_rediscovered(found)


def compare_levels(
    name: str = NAME,
    *,
    data: Path = DATA,
    levels: str = typer.Option("chgnet,7net-l3i5", help="Two potentials"),
    batch: int = typer.Option(3, min=1, max=3, help="Of the seed paper, whose elements are drawn"),
    samples: int = typer.Option(64, min=1, help="Raw samples"),
    sampler: str = SAMPLER,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    temperature: float = TEMPERATURE,
    composition_temperature: float = COMPOSITION_TEMPERATURE,
    recall: bool = RECALL,
    as_json: bool = AS_JSON,
) -> None:
    """Say how often two potentials disagree on which crystals are stable."""
    from pccd_workflows.evaluation.assessment import compare_levels as measure
    from pccd_workflows.evaluation.assessment import potential_judge

    names = [level.strip() for level in levels.split(",")]
    if len(set(names)) != 2:
        raise InputError(f"--levels {levels!r} must name two potentials.")
    drawn = checked_sampler(sampler, steps, guidance, temperature, composition_temperature, recall)
    model, _, settings = _loaded(name, data)
    with progress(quiet=as_json) as show:
        judges = [potential_judge(data, level, settings, progress=show) for level in names]
        result = measure(model, judges, batch=f"seed-batch-{batch}", samples=samples, sampler=drawn)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    typer.echo(f"{result['judged_by_both']} of {samples} samples judged by both {levels}")
    for threshold, rate in result["rate"].items():
        typer.echo(f"  {threshold:11} disagree: {_shown(rate)}")
    typer.echo(
        f"  energy above hull differs by {1000 * result['mean_absolute_difference']:.0f} meV/atom "
        f"on average ({1000 * result['mean_difference']:+.0f} signed)"
    )


def checked_sampler(
    name: str,
    steps: int,
    guidance: float,
    temperature: float,
    composition_temperature: float,
    recall: bool,
) -> Sampler:
    """Return a sampler; InputError if there is no such."""
    from pydantic import ValidationError

    from pccd_workflows.core.validation import explain

    try:
        return Sampler.model_validate(
            {
                "name": name,
                "steps": steps,
                "guidance": guidance,
                "temperature": temperature,
                "composition_temperature": composition_temperature,
                "recall": recall,
            }
        )
    except ValidationError as error:
        raise InputError(f"Options of the sampler: {explain(error, Sampler)}") from None


def _loaded(name: str, data: Path) -> tuple[Any, Path, Any]:
    """Return model, its folder and the settings, after a look at the data."""
    from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
    from pccd_workflows.generators.pccd.records import read_records
    from pccd_workflows.settings import get_settings

    warnings.simplefilter("ignore")  # pymatgen warns of noble gases and of isolated atoms
    if next(read_records(data), None) is None:
        raise InputError(f"{data} holds no crystal.")
    settings = get_settings()
    folder = find_model(name, settings)
    return load_model(folder, settings.device), folder, settings


@contextmanager
def progress(*, quiet: bool) -> "Iterator[Progress]":
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


def _shown(share: dict[str, Any] | None) -> str:
    if not share or share["value"] is None:
        return "-"
    low, high = share["interval"]
    return f"{share['value']:.1%} ({low:.0%}-{high:.0%}) of {share['n']}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _print_table_2(table: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("batch", "below", "seed, of screened", "ours, of screened", "of raw", box=None)
    for row in table["rows"]:
        for key, label in (("stable_250", "250 meV/atom"), ("stable_80", "80 meV/atom")):
            cell = row[key]
            shown.add_row(
                row["batch"],
                label,
                _percent(cell["seed_of_screened"]),
                _shown(cell["ours_of_screened"]),
                _shown(cell["ours_of_raw"]),
            )
    for peer, values in table["peers"].items():
        for key, label in (("stable_250", "250 meV/atom"), ("stable_80", "80 meV/atom")):
            if values[key] is not None:
                shown.add_row(peer, label, _percent(values[key]), "", "")
    console = Console()
    console.print(shown)
    console.print(table["caveat"], style="dim")


def _print_rediscovered(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("formula", "appeared", "above hull, meV/atom", "space group", "known", "phonons")
    for formula, row in found.items():
        best = row["best"] or {}
        above = best.get("energy_above_hull")
        table.add_row(
            formula,
            _shown(row["appeared"]),
            "-" if above is None else f"{1000 * above:.0f}",
            best.get("space_group", "-"),
            best.get("reference") or "-",
            (row["phonons"] or {}).get("verdict", "-"),
        )
    Console().print(table)
