"""Crystals of files, one at a time, as plain dictionaries.

A record has lattice (3x3, Å), species and frac_coords of a primitive Niggli cell, or structure (a
pymatgen Structure or its dictionary, any cell), and where known id, spacegroup, split, band_gap
(eV), energy_above_hull (eV/atom) and magnetic_ordering (NM, FM, AFM, FiM).
"""

import gzip
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pccd_workflows.core.errors import InputError

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
    try:
        with source.open("rb") as raw, _text(raw, source) as lines:
            for number, line in enumerate(lines, start=1):
                if position is not None and number % 500 == 0:
                    position(raw.tell())
                if line.strip():
                    yield _parsed(line, f"{source} line {number}")
    except FileNotFoundError:
        raise InputError(f"There is no file or folder {source}.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read: {error}.") from None


def _parsed(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        raise InputError(f"{where} is not JSON.") from None
    if not isinstance(record, dict):
        raise InputError(f"{where} is not a JSON object.")
    return record


def _text(raw: IO[bytes], path: Path) -> IO[str]:
    stream: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
    return io.TextIOWrapper(stream, encoding="utf-8")


def _read_cifs(folder: Path, position: Position | None) -> Iterator[Record]:
    from pymatgen.core import Structure

    paths = sorted(folder.glob("*.cif"))
    if not paths:
        raise InputError(f"Folder {folder} holds no .cif file.")
    for number, path in enumerate(paths, start=1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                structure = Structure.from_file(path)
        except Exception as error:  # pymatgen raises anything on a broken CIF
            raise InputError(f"{path} is not a readable CIF: {error}.") from None
        if position is not None:
            position(number)
        yield {"id": path.stem, "structure": structure}
