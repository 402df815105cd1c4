"""`pccd dataset`: build and describe training sets."""

import json
from pathlib import Path

import typer

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Build and describe training sets."
)
AS_JSON = typer.Option(False, "--json", help="Print JSON")


@app.command()
def build(
    source: Path = typer.Option(..., "--from", help="JSON lines (.jsonl, .jsonl.gz) or CIF folder"),
    out: Path = typer.Option(..., help="File to write, e.g. train.npz"),
    max_elements: int = typer.Option(3, min=1, max=5, help="Leave out crystals with more"),
    max_sites: int = typer.Option(16, min=1, max=64, help="Leave out larger primitive cells"),
    as_json: bool = AS_JSON,
) -> None:
    """Write crystals in canonical form to one columnar file.

    A line of JSON has lattice (3x3, Å), species and frac_coords of a primitive Niggli cell and,
    where known, spacegroup, split, band_gap, energy_above_hull and magnetic_ordering. Without
    `split` the chemical system decides: 92 % train, 3 % val, 5 % test.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from pccd_workflows.diffusion.dataset import (
        DatasetLimits,
        build_dataset,
        describe_dataset,
        write_dataset,
    )
    from pccd_workflows.errors import InputError

    if not out.parent.is_dir():
        raise InputError(f"There is no folder {out.parent} to write to.")
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} read"), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=as_json) as bar:
        task = bar.add_task("build", total=None)
        arrays, rejected = build_dataset(
            source,
            DatasetLimits(max_elements, max_sites),
            progress=lambda n: bar.update(task, completed=n),
        )
    sha256 = write_dataset(out, arrays)
    if as_json:
        summary = describe_dataset(arrays)
        content = {"file": str(out), "sha256": sha256, "left_out": dict(rejected), **summary}
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(f"Wrote {len(arrays):,} crystals to {out} (content sha256 {sha256[:12]}…).")
    for reason, count in rejected.most_common():
        typer.echo(f"  left out: {count:,} with {reason}")


@app.command()
def describe(
    file: Path = typer.Argument(..., help="Dataset of `pccd dataset build`"),
    as_json: bool = AS_JSON,
) -> None:
    """Show what a dataset holds."""
    from rich.console import Console
    from rich.table import Table

    from pccd_workflows.diffusion.dataset import content_hash, describe_dataset, read_dataset

    arrays = read_dataset(file)
    summary = {"sha256": content_hash(arrays), **describe_dataset(arrays)}
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    table = Table("what", "value", box=None)
    for name, value in summary.items():
        shown = (
            ", ".join(f"{k}: {v:,}" for k, v in value.items())
            if isinstance(value, dict)
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )
        table.add_row(name, shown)
    Console().print(table)
