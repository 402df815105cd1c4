"""Data files of known crystals -> the library's files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pccd_workflows.known.library_files import SplitOf, write_library
from pccd_workflows.known.sources import KnownRow, read_rows

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and the total (0 if that is not known)."""
REPORT_EVERY = 2000
"""Crystals between two reports of progress."""


def silent(what: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def build_library(
    sources: Sequence[Path], folder: Path, split_of: SplitOf, progress: Progress = silent
) -> str:
    """Write the crystals of data files as a library; return its version.

    The same sources give the same files. Sources are read and checked before anything is written.

    Parameters
    ----------
    sources
        Files of one JSON object per line, gzipped or not: id, lattice (3x3, Å), species,
        frac_coords; where known database, source, functional, split, spacegroup, theoretical,
        formation_energy_per_atom, energy_above_hull_legacy_derived or energy_above_hull.
    folder
        Where to.
    split_of
        Split of a chemical system of which no record names one.
    progress
        Told after every some crystals.

    Raises
    ------
    InputError
        A source cannot be read, a record is no crystal, an id occurs twice, or a chemical system
        has two splits.
    """
    rows: list[KnownRow] = []
    for path in sources:
        for row in read_rows(path):
            rows.append(row)
            if len(rows) % REPORT_EVERY == 0:
                progress(f"reading {path.name}", len(rows), 0)
    return write_library(rows, folder, split_of=split_of, progress=progress)
