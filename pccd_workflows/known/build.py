"""Data files of known crystals -> the library's files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pccd_workflows.core.errors import InputError
from pccd_workflows.known.energies import LevelEnergies, write_energies
from pccd_workflows.known.library import KnownLibrary
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
    Energies of a library that is there already are kept for crystals of the same id and geometry.

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
    kept = _energies_by_geometry(folder)
    version = write_library(rows, folder, split_of=split_of, progress=progress)
    _write_kept(KnownLibrary(folder), kept)
    return version


Kept = dict[str, tuple[dict[str, str], dict[tuple[str, str], tuple[float, float]]]]
"""By level: software, and single point and relaxed energy (eV/atom) by id and geometry."""


def _energies_by_geometry(folder: Path) -> Kept:
    """Return the energies of the library in a folder; {} if there is none that can be read."""
    try:
        old = KnownLibrary(folder)
        columns = {level: old.energies(level) for level in old.levels}
    except InputError:
        return {}
    kept: Kept = {}
    for level, energies in columns.items():
        rows = np.flatnonzero(np.isfinite(energies.best)).tolist()
        keys = [(old.id_of(row), old.geometry(row).digest) for row in rows]
        pairs = zip(energies.single_point[rows], energies.relaxed[rows], strict=True)
        kept[level] = energies.software, dict(zip(keys, pairs, strict=True))
    return kept


def _write_kept(library: KnownLibrary, kept: Kept) -> None:
    for level, (software, energies) in kept.items():
        columns = np.full((2, len(library)), np.nan)
        for (identifier, geometry), pair in energies.items():
            row = library.row_of(identifier)
            if row is not None and library.geometry(row).digest == geometry:
                columns[:, row] = pair
        found = LevelEnergies(level, columns[0], columns[1], software)
        write_energies(library.folder, library.version, found)
