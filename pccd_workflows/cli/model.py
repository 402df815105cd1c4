"""`pccd model`: train, sample, inspect and evaluate generative models."""

import json
import sys
from pathlib import Path
from typing import Any

import typer

from pccd_workflows.cli import assess
from pccd_workflows.cli.assess import AS_JSON, NAME, SEED, progress
from pccd_workflows.cli.sampler import takes_sampler
from pccd_workflows.generators.pccd.sampler import Sampler

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Train, sample and inspect generative models."
)
app.command()(assess.batches)
app.command()(assess.rediscover)
app.command("compare-levels")(assess.compare_levels)


@app.command()
def info(name: str = NAME, as_json: bool = AS_JSON) -> None:
    """Show what a model was trained on and can do."""
    from pccd_workflows.generators.pccd.checkpoint import find_model, read_model_info
    from pccd_workflows.settings import get_settings

    folder = find_model(name, get_settings())
    model_info = read_model_info(folder)
    content = model_info.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **content}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for key, value in content.items():
        shown = f"{len(value)}: {' '.join(value)}" if key == "elements" else _plain(value)
        table.add_row(key, shown)
    Console().print(table)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


@app.command()
@takes_sampler
def sample(
    *,
    name: str = typer.Option("pccd-default", "--model", help="A folder of model/, or a path"),
    elements: str = typer.Option(..., help="Comma-separated, e.g. Mg,Mn,O"),
    n: int = typer.Option(8, "--samples", "--n", min=1, max=100_000, help="How many"),
    out: Path | None = typer.Option(
        None, help="Folder for one CIF per crystal; the same command goes on where it was stopped"
    ),
    n_sites: int | None = typer.Option(None, min=1, help="Atoms per cell"),
    composition: str | None = typer.Option(None, help="Cell, e.g. Mg2Mn4O8"),
    band_gap: float | None = typer.Option(None, min=0, help="eV"),
    energy_above_hull: float | None = typer.Option(None, min=0, help="eV/atom; 0 = stable"),
    crystal_system: str | None = typer.Option(None, help="e.g. cubic"),
    space_group: int | None = typer.Option(None, help="Number, 1 to 230"),
    magnetic_ordering: str | None = typer.Option(None, help="NM, FM, AFM or FiM"),
    seed: int = SEED,
    sampler: Sampler,
    as_json: bool = AS_JSON,
) -> None:
    """Generate crystals of the given elements."""
    from pccd_workflows.generators.sampling import check_options, describe, draw, draw_into

    asked = check_options(
        {
            "model": name,
            "elements": [e.strip() for e in elements.split(",") if e.strip()],
            "samples": n,
            "seed": seed,
            "sampler": sampler,
            "conditions": {
                "n_sites": n_sites,
                "composition": composition,
                "band_gap": band_gap,
                "energy_above_hull": energy_above_hull,
                "crystal_system": crystal_system,
                "space_group": space_group,
                "magnetic_ordering": magnetic_ordering,
            },
        }
    )
    made = map(describe, draw(asked)) if out is None else draw_into(out, asked)
    rows: list[dict[str, Any]] = []
    with progress(quiet=as_json) as show:
        for row in made:
            rows.append(row)
            show("samples", len(rows), n)
            if not as_json:
                typer.echo(_sample_line(row))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for asked_for, unit, wanted in (
        ("band_gap", "eV", band_gap),
        ("energy_above_hull", "eV/atom", energy_above_hull),
    ):
        reached = [
            row["estimates"][asked_for] for row in rows if asked_for in row.get("estimates", {})
        ]
        if reached:
            typer.echo(
                f"{asked_for} asked for: {wanted:g} {unit}, estimated: {_range(reached)} {unit}"
            )
            typer.echo("(nothing likely of these elements is estimated nearer).")
    if out is not None:
        typer.echo(f"{sum(r['formula'] is not None for r in rows)} CIF files in {out}.")


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"


def _sample_line(row: dict[str, Any]) -> str:
    if row["formula"] is None:
        return f"{row['index']:6d}  no crystal: {row['reason']}"
    cell = "{:7.3f} {:7.3f} {:7.3f} Å".format(*row["a_b_c"])
    angles = "{:5.1f} {:5.1f} {:5.1f}°".format(*row["angles"])
    volume = f"{row['volume_per_atom']:6.2f} Å³/atom"
    return f"{row['index']:6d}  {row['formula']:18s} {cell}  {angles}  {volume}"


@app.command()
def train(
    config: Path = typer.Argument(..., help="Training file, e.g. model/pccd-default/train.yaml"),
    out: Path | None = typer.Option(None, help="Folder of the finished model; scratch if left out"),
    work: Path | None = typer.Option(None, help="Folder of the checkpoints"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check file and data, train nothing"),
) -> None:
    """Train a model; interrupted at any moment, the same command goes on."""
    from pccd_workflows.generators.pccd.config import load_train_config
    from pccd_workflows.generators.pccd.dataset import check_splits, read_dataset

    settings = load_train_config(config)
    work = work or Path("scratch") / settings.name / "checkpoints"
    out = out or Path("scratch") / settings.name / "model"
    data = read_dataset(settings.data)
    check_splits(data)
    crystals = int((data.split == 0).sum())
    typer.echo(f"{settings.name}: {crystals:,} training crystals, checkpoints in {work}")
    if dry_run:
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from pccd_workflows.generators.pccd import train as training

    text = TextColumn("{task.description}")
    with Bar(BarColumn(), TimeRemainingColumn(), text, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(progress: training.Progress) -> None:
            label = f"step {progress.step:,}  loss {progress.loss:.4f}"
            bar.update(task, completed=progress.fraction, description=label)

        model_info = training.train(settings, work, out, report=show)
    if model_info is not None:  # the first of several processes
        typer.echo(f"Wrote {out} (weights sha256 {model_info.weights_sha256[:12]}…).")


@app.command("add-parts")
def add_parts(name: str = NAME, seed: int = SEED) -> None:
    """Teach a trained model, from the crystals in its weights, new structure types and properties.

    About six minutes of one core.
    """
    from pccd_workflows.generators.pccd.checkpoint import find_model
    from pccd_workflows.generators.pccd.config import SmallNetwork
    from pccd_workflows.generators.pccd.new_types_training import add_parts
    from pccd_workflows.settings import get_settings

    folder = find_model(name, get_settings())
    proposing = SmallNetwork(width=160, epochs=9)
    model_info = add_parts(folder, proposing, SmallNetwork(width=96, epochs=150), seed)
    typer.echo(f"Wrote {folder} (weights sha256 {model_info.weights_sha256[:12]}…).")


@app.command()
@takes_sampler
def evaluate(
    name: str = NAME,
    *,
    data: Path = typer.Option(..., help="JSON lines file, dataset (.npz) or CIF folder"),
    split: str = typer.Option("test", help="train, val, test or all of the data"),
    only: str | None = typer.Option(None, help="Parts, comma-separated; all if left out"),
    samples: int = typer.Option(256, min=1, help="Crystals of each part"),
    attempts: int = typer.Option(1, min=1, max=100, help="Samples per crystal of csp"),
    csp_temperature: float | None = typer.Option(
        None, min=0, max=2, help="Of csp; 0 if left out: --attempts then aim at different types"
    ),
    level: str | None = typer.Option(None, help="Potential that relaxes what is generated"),
    energy_level: str = typer.Option("chgnet", help="Potential of the energy distance"),
    report: Path | None = typer.Option(None, help="Folder for a page with figures"),
    seed: int = SEED,
    sampler: Sampler,
    as_json: bool = AS_JSON,
) -> None:
    """Measure a model on held-out crystals.

    Parts: reconstruction (the seed paper's test), control (the same from pure noise), inversion
    (crystal to noise and back), csp (structure prediction), substitution (the same by the nearest
    training crystal with its elements exchanged), copy (the analogue of the type aimed at, copied),
    overlap (which crystals these find), similarity (six metrics between crystals and their
    reconstructions), generation (validity, novelty, with --level stability), symmetry (what was
    aimed at against what came), conditions (each crystal system asked for), types (crystals whose
    structure type training lacks, in 20 guesses).
    """
    from pccd_workflows.cli import evaluation
    from pccd_workflows.evaluation.crystals import read_crystals
    from pccd_workflows.generators.pccd.checkpoint import find_model, load_model, read_model_info
    from pccd_workflows.settings import get_settings

    settings = get_settings()
    folder = find_model(name, settings)
    parts = evaluation.chosen_parts(only, read_model_info(folder))
    model = load_model(folder, settings.device)
    held_out = read_crystals(data, split, model.info)
    if csp_temperature is None:
        csp_temperature = 0.0
    request = evaluation.Request(
        data=data,
        split=split,
        samples=samples,
        seed=seed,
        sampler=sampler,
        attempts=attempts,
        csp_temperature=csp_temperature,
        level=level,
        energy_level=energy_level,
    )
    measured = evaluation.Evaluation(
        folder, model, held_out.crystals, request, settings, _say_on_terminal
    )
    result = {
        "model": model.info.name,
        "weights_sha256": model.info.weights_sha256,
        "data": data.name,
        "split": split,
        "crystals": len(held_out.crystals),
        "skipped": held_out.skipped,
        "samples": samples,
        "seed": seed,
        "sampler": sampler.model_dump(),
        "csp_temperature": csp_temperature,
        "known_to_model": evaluation.known_to_model(folder, held_out.crystals),
        **measured.summary(parts),
    }
    if report is not None:
        from pccd_workflows.report.evaluation import write_evaluation

        write_evaluation(
            report,
            result,
            measured.parts,
            loss_curve=evaluation.loss_curve(folder),
            command=evaluation.command_line(),
        )
    typer.echo(json.dumps(result, indent=2) if as_json else "\n".join(evaluation.lines(result)))


def _say_on_terminal(part: str) -> None:
    """Tell a person who waits at a terminal what is being done."""
    if sys.stderr.isatty():
        typer.echo(f"measuring {part} ...", err=True)
