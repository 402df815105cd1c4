"""The library of known crystals as files: an index, and geometries in blocks of crystals.

Crystals are sorted by chemical system, composition and id. Lengths are kept to 1e-5 Å, angles to
1e-4 degrees, fractional coordinates as multiples of 1/60,000, among which are all fractions that
symmetry asks for: errors of 1e-4 Å in a cell of 12 Å.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.systems import symbol
from pccd_workflows.known.columns import Array, ColumnsFile, pack_text, write_columns
from pccd_workflows.known.sources import SPLITS, KnownRow, sources_of

GRID = 60_000
"""Steps of a fractional coordinate: divisible by 2, 3, 4, 6, 8, 12 and 24, and 16 bits hold it."""
LENGTH_STEP = 1e-5
"""Å"""
ANGLE_STEP = 1e-4
"""degrees"""
ENERGY_STEP = 1e-5
"""eV/atom"""
NO_ENERGY = np.iinfo(np.int32).min
"""Stands for an energy that is not known."""
BLOCK = 128
"""Crystals that are compressed together: one is decompressed in about 2 ms."""
BLOCKS_PER_FILE = 120
"""Files of about a megabyte: version control keeps each of them whole."""
INDEX, GEOMETRY = "index.columns", "geometry-{:02d}.columns"
INDEX_KIND, GEOMETRY_KIND = "an index of known crystals", "geometries of known crystals"

SplitOf = Callable[[str], str]
"""The split of a chemical system of which no record names one."""


@dataclass(frozen=True)
class Geometry:
    """A crystal as the library keeps it.

    Attributes
    ----------
    lattice
        Shape (6,), uint32.
        Lengths and angles in LENGTH_STEP and ANGLE_STEP.
    numbers
        Shape (n,), uint8.
        Atomic numbers, ascending.
    coords
        Shape (n, 3), uint16.
        Fractional coordinates times GRID.
    """

    lattice: NDArray[np.uint32]
    numbers: NDArray[np.uint8]
    coords: NDArray[np.uint16]

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell one geometry from another."""
        digest = hashlib.blake2b(digest_size=8)
        for array, kind in ((self.lattice, "<u4"), (self.numbers, "u1"), (self.coords, "<u2")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return digest.hexdigest()


def quantised(row: KnownRow) -> Geometry:
    """Return the geometry of a record as the library keeps it."""
    lengths = np.round(np.array(row.lengths) / LENGTH_STEP)
    angles = np.round(np.array(row.angles) / ANGLE_STEP)
    return Geometry(
        np.concatenate([lengths, angles]).astype(np.uint32),
        row.numbers.astype(np.uint8),
        (np.round(row.frac_coords * GRID).astype(np.int64) % GRID).astype(np.uint16),
    )


def write_library(
    rows: Iterable[KnownRow],
    folder: Path,
    *,
    split_of: SplitOf,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,  # noqa: ARG005
) -> str:
    """Write known crystals as a library; return its version.

    The index comes last: a library that was cut off while it was written is none.

    Parameters
    ----------
    rows
        The crystals, of all sources.
    folder
        Where to; geometries and index that are there are replaced.
    split_of
        Decides where no record of a chemical system names its split.
    progress
        Told what is being done, how much of it, and the total.

    Raises
    ------
    InputError
        Two crystals have the same id, a chemical system has two splits, or there is no crystal.
    """
    ordered = sorted(rows, key=lambda row: ("-".join(row.symbols), _unit(row), row.id))
    if not ordered:
        raise InputError("The sources hold no crystal: there is nothing to build a library from.")
    _refuse_twins(ordered)
    splits = _splits(ordered, split_of)
    (folder / INDEX).unlink(missing_ok=True)
    blocks = [ordered[i : i + BLOCK] for i in range(0, len(ordered), BLOCK)]
    digest = hashlib.sha256()
    for number, first in enumerate(range(0, len(blocks), BLOCKS_PER_FILE)):
        columns: dict[str, Array] = {}
        for place, block in enumerate(blocks[first : first + BLOCKS_PER_FILE], start=first):
            columns |= _geometry_columns(block, place, digest)
        write_columns(folder / GEOMETRY.format(number), GEOMETRY_KIND, {}, columns)
        progress(
            "writing crystals", min((first + BLOCKS_PER_FILE) * BLOCK, len(ordered)), len(ordered)
        )
    return _write_index(folder, ordered, splits, digest)


def _unit(row: KnownRow) -> tuple[int, ...]:
    """Return the numbers of atoms of each element, in lowest terms."""
    _, counts = np.unique(row.numbers, return_counts=True)
    return tuple((counts // gcd(*counts.tolist())).tolist())


def _refuse_twins(rows: Sequence[KnownRow]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InputError(f"Two crystals have the same id {row.id!r}.")
        seen.add(row.id)


def _splits(rows: Sequence[KnownRow], split_of: SplitOf) -> list[int]:
    """Return the split of each row, as an index into SPLITS."""
    splits = []
    for symbols, members in groupby(rows, key=lambda row: row.symbols):
        crystals = list(members)
        named = {row.split for row in crystals if row.split is not None}
        system = "-".join(symbols)
        if len(named) > 1:
            raise InputError(f"The system {system} has more than one split: {sorted(named)}.")
        splits += [SPLITS.index(named.pop() if named else split_of(system))] * len(crystals)
    return splits


def _geometry_columns(
    rows: Sequence[KnownRow], number: int, digest: "hashlib._Hash"
) -> dict[str, Array]:
    geometries = [quantised(row) for row in rows]
    for row, geometry in zip(rows, geometries, strict=True):
        digest.update(f"{row.id} {geometry.digest}\n".encode())
    return {
        f"lattice/{number}": np.array([g.lattice for g in geometries]).T,
        f"coords/{number}": np.concatenate([g.coords.T.ravel() for g in geometries]),
    }


def _write_index(
    folder: Path, rows: Sequence[KnownRow], splits: Sequence[int], digest: "hashlib._Hash"
) -> str:
    sources = sources_of(rows)
    place = {source: number for number, source in enumerate(sources)}
    systems = [(symbols, len(list(members))) for symbols, members in groupby(rows, key=_symbols)]
    columns = {
        "systems": pack_text("-".join(symbols) for symbols, _ in systems),
        "system_sizes": np.array([size for _, size in systems], dtype=np.uint32),
        "ids": pack_text(row.id for row in rows),
        "counts": np.concatenate([_counts(row) for row in rows]).astype(np.uint16),
        "source": np.array([place[row.source] for row in rows], dtype=np.uint8),
        "split": np.array(splits, dtype=np.uint8),
        "spacegroup": np.array([row.spacegroup for row in rows], dtype=np.uint8),
        "theoretical": np.array(
            [0 if row.theoretical is None else 1 + row.theoretical for row in rows], dtype=np.uint8
        ),
        "energy_above_hull": pack_energies([row.energy_above_hull for row in rows]),
        "formation_energy": pack_energies([row.formation_energy_per_atom for row in rows]),
    }
    for name, column in columns.items():
        digest.update(name.encode() + column.tobytes())
    version = digest.hexdigest()[:16]
    header = {"version": version, "sources": [asdict(source) for source in sources]}
    write_columns(folder / INDEX, INDEX_KIND, header, columns)
    return version


def _symbols(row: KnownRow) -> tuple[str, ...]:
    return row.symbols


def _counts(row: KnownRow) -> NDArray[np.int64]:
    """Return the atoms of each element, in the order of its symbols."""
    numbers, counts = np.unique(row.numbers, return_counts=True)
    return np.asarray(counts[np.argsort([symbol(z) for z in numbers.tolist()])])


def pack_energies(values: Sequence[float | None] | NDArray[np.float64]) -> NDArray[np.int32]:
    """Return energies (eV/atom; None or NaN where not known) as whole numbers of ENERGY_STEP."""
    energies = np.array([np.nan if v is None else v for v in values], dtype=float)
    known = np.isfinite(energies)
    packed = np.full(len(energies), NO_ENERGY, dtype=np.int32)
    packed[known] = np.round(energies[known] / ENERGY_STEP).astype(np.int32)
    return packed


def unpack_energies(packed: Array) -> NDArray[np.float64]:
    """Return energies in eV/atom, NaN where not known."""
    energies = packed * ENERGY_STEP
    energies[packed == NO_ENERGY] = np.nan
    return np.asarray(energies, dtype=float)


def open_index(folder: Path) -> ColumnsFile:
    """Return the index of the library in a folder; InputError if there is none or it is damaged.

    Raises
    ------
    InputError
        The library is missing, damaged or of another version.
    """
    if not (folder / INDEX).is_file():
        raise InputError(
            f"There is no library of known crystals in {folder}: build one there first."
        )
    return ColumnsFile(folder / INDEX, INDEX_KIND)
