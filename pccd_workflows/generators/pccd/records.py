"""Crystals of files, one at a time, as plain dictionaries.

A record has lattice (3x3, Å), species and frac_coords of a primitive Niggli cell, or structure (a
pymatgen Structure or its dictionary, any cell), and where known id, spacegroup, split, band_gap
(eV), energy_above_hull (eV/atom) and magnetic_ordering (NM, FM, AFM, FiM).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from pccd_workflows.core.crystal_files import json_lines
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import Unreadable, attempt, from_cif

Record = dict[str, Any]
Position = Callable[[int], None]
"""Told how many bytes of the file (or how many files of the folder) are read."""


def size_of(source: Path) -> int | None:
    """Return the bytes of a file or the number of CIFs in a folder; None if there is neither."""
    if source.is_dir():
        return sum(1 for _ in source.glob("*.cif"))
    return source.stat().st_size if source.is_file() else None


def read_records(source: Path, position: Position | None = None) -> Iterator[Record]:
    """Yield the crystals of a JSON lines file (.jsonl, .jsonl.gz) or a folder of CIFs.

    Raises
    ------
    InputError
        The source is missing, cannot be read, or a line is not a JSON object.
    """
    if source.is_dir():
        yield from _read_cifs(source, position)
        return
    for number, record in json_lines(source, position):
        if not isinstance(record, dict):
            raise InputError(f"{source} line {number} is not a JSON object.")
        yield record


def _cif(path: Path) -> Structure:
    return from_cif(path.read_text(encoding="utf-8", errors="replace"))


def _read_cifs(folder: Path, position: Position | None) -> Iterator[Record]:
    paths = sorted(folder.glob("*.cif"))
    if not paths:
        raise InputError(f"Folder {folder} holds no .cif file.")
    for number, path in enumerate(paths, start=1):
        # disorder is the caller's to judge and to count
        found = attempt(partial(_cif, path), judge=lambda structure: structure)
        if isinstance(found, Unreadable):
            raise InputError(f"{path} is not a readable CIF: {found.reason}.")
        if position is not None:
            position(number)
        yield {"id": path.stem, "structure": found}
