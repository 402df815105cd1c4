"""`pccd dataset`: build and describe training sets."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pccd_workflows.core.errors import InputError

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.dataset import DatasetLimits
    from pccd_workflows.generators.pccd.records import Record

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Build and describe training sets."
)
AS_JSON = typer.Option(False, "--json", help="Print JSON")
MATERIALS_PROJECT = "materials_project"
COLLECTION = "collection:"
Show = Callable[[int, int], None]
"""Told what is read and the total, in bytes, files or materials."""


@app.command()
def build(
    *,
    source: str = typer.Option(
        ...,
        "--from",
        help="JSON lines (.jsonl, .jsonl.gz), CIF folder, materials_project, or collection:NAME "
        "of the database",
    ),
    out: Path = typer.Option(..., help="File to write, e.g. train.npz"),
    max_elements: int = typer.Option(3, min=1, max=5, help="Leave out crystals with more"),
    max_sites: int = typer.Option(16, min=1, max=64, help="Leave out larger primitive cells"),
    band_gap: str = typer.Option("", help="Lowest and highest, eV, e.g. 0.5,4"),
    max_energy_above_hull: float | None = typer.Option(None, min=0, help="eV/atom"),
    magnetic_ordering: str = typer.Option("", help="Any of NM,FM,AFM,FiM"),
    crystal_system: str = typer.Option("", help="e.g. cubic,hexagonal"),
    structure_field: str = typer.Option("structure", help="Path of the structure (collections)"),
    resplit: bool = typer.Option(False, "--resplit", help="Ignore the splits that records name"),
    setting: str = typer.Option(
        "reduced", help="Of the cells: reduced (Niggli) or standard (primitive, of the space group)"
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Write crystals in canonical form to one columnar file; the defaults are the seed paper's.

    A line of JSON has lattice (3x3, Å), species and frac_coords of a primitive Niggli cell, or a
    pymatgen structure of any cell, and, where known, spacegroup, split, band_gap,
    energy_above_hull and magnetic_ordering. Without `split` the chemical system decides: 92 %
    train, 3 % val, 5 % test. Crystals whose property is limited but not known are left out.
    """
    from pccd_workflows.generators.pccd.dataset import (
        SETTINGS,
        DatasetLimits,
        build_dataset,
        check_splits,
        describe_dataset,
        write_dataset,
    )

    if not out.parent.is_dir():
        raise InputError(f"There is no folder {out.parent} to write to.")
    if setting not in SETTINGS:
        raise InputError(f"--setting {setting!r} must be one of {', '.join(SETTINGS)}.")
    limits = DatasetLimits(
        max_elements=max_elements,
        max_sites=max_sites,
        band_gap=_range(band_gap),
        max_energy_above_hull=max_energy_above_hull,
        orderings=_names(magnetic_ordering),
        crystal_systems=_names(crystal_system),
    )
    with _Bar(quiet=as_json) as bar:
        records = _records(source, limits, structure_field, bar.moved)
        arrays, rejected = build_dataset(
            records, limits, resplit=resplit, setting=SETTINGS[setting], progress=bar.counted
        )
    check_splits(arrays)
    provenance = {
        "source": Path(source).name if "/" in source else source,
        "limits": _plain(limits),
        "left_out": dict(rejected),
        "resplit": resplit,
        "setting": setting,
    }
    sha256 = write_dataset(out, arrays, provenance)
    if as_json:
        content = {"file": str(out), "sha256": sha256, **provenance, **describe_dataset(arrays)}
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(f"Wrote {len(arrays):,} crystals to {out} (content sha256 {sha256[:12]}…).")
    for reason, count in rejected.most_common():
        typer.echo(f"  left out: {count:,} with {reason}")
    typer.echo("  no chemical system occurs in two splits")


def _plain(limits: "DatasetLimits") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(limits)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _range(text: str) -> tuple[float, float] | None:
    """Return two numbers; InputError if the text is neither empty nor two numbers."""
    if not text:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--band-gap {text!r} must be two numbers in eV, e.g. 0.5,4.") from None
    if not 0 <= low <= high:
        raise InputError(f"--band-gap {text!r}: the lowest comes first, and is not negative.")
    return low, high


def _records(
    source: str, limits: "DatasetLimits", structure_field: str, show: Show
) -> "Iterable[Record]":
    """Return the records of a source."""
    from pccd_workflows.generators.pccd.records import read_records, size_of

    if source == MATERIALS_PROJECT:
        from pccd_workflows.generators.pccd.training_records import materials_project_records

        return materials_project_records(
            max_elements=limits.max_elements, max_sites=limits.max_sites, progress=show
        )
    if source.startswith(COLLECTION):
        from pccd_workflows.execution.mongo import database
        from pccd_workflows.generators.pccd.training_records import collection_records
        from pccd_workflows.settings import get_settings

        collection = database(get_settings())[source.removeprefix(COLLECTION)]
        return collection_records(collection, structure=structure_field)
    path = Path(source)
    total = size_of(path) or 0
    return read_records(path, lambda place: show(place, total))


class _Bar:
    """How far a build is, on a terminal only."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        text = TextColumn("{task.description}")
        self.progress = Progress(
            BarColumn(),
            TimeRemainingColumn(),
            text,
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self.task = self.progress.add_task("reading", total=None)

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def moved(self, done: int, total: int) -> None:
        """Show how much of the source is read."""
        self.progress.update(self.task, completed=done, total=total or None)

    def counted(self, crystals: int) -> None:
        """Show how many crystals were read."""
        self.progress.update(self.task, description=f"{crystals:,} crystals")


@app.command()
def describe(
    file: Path = typer.Argument(..., help="Dataset of `pccd dataset build`"),
    plots: Path | None = typer.Option(None, help="HTML file with pictures to write"),
    as_json: bool = AS_JSON,
) -> None:
    """Show what a dataset holds."""
    from rich.console import Console
    from rich.table import Table

    from pccd_workflows.generators.pccd.dataset import (
        content_hash,
        describe_dataset,
        read_dataset,
        read_provenance,
    )

    arrays = read_dataset(file)
    summary = {"sha256": content_hash(arrays), **describe_dataset(arrays)}
    provenance = read_provenance(file)
    if plots is not None:
        from pccd_workflows.core.files import write_whole
        from pccd_workflows.report.dataset import dataset_page

        write_whole(plots, dataset_page(file.name, arrays, summary, provenance))
    if as_json:
        typer.echo(json.dumps({**summary, "provenance": provenance}, indent=2))
        return
    table = Table("what", "value", box=None)
    for name, value in summary.items():
        table.add_row(name, _shown(value))
    Console().print(table)
    if plots is not None:
        typer.echo(f"Wrote {plots}.")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v:,}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
