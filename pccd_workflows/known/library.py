"""The library of known crystals: looked up by chemical system, by composition and by id.

Opening reads the index; geometries are decompressed block by block when a crystal is asked for.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, combinations
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import MissingPhase
from pccd_workflows.core.systems import atomic_number, parse_formula, split_chemsys, symbol
from pccd_workflows.known.columns import ColumnsFile
from pccd_workflows.known.energies import (
    LevelEnergies,
    available_levels,
    digest_of,
    read_energies,
)
from pccd_workflows.known.library_files import (
    ANGLE_STEP,
    BLOCK,
    BLOCKS_PER_FILE,
    GEOMETRY,
    GEOMETRY_KIND,
    GRID,
    LENGTH_STEP,
    Geometry,
    open_index,
    unpack_energies,
)
from pccd_workflows.known.missing import read_missing
from pccd_workflows.known.sources import SPLITS, Source
from pccd_workflows.matching.cells import Cell, reduce_arrays

if TYPE_CHECKING:
    from pymatgen.core import Lattice, Structure

SHIPPED = Path(__file__).parent / "data"
"""Folder of the library that comes with the package."""
MAX_BLOCKS = 256
"""Blocks of geometries that are kept; one takes some 100 kB."""


@dataclass(frozen=True)
class KnownCrystal:
    """A crystal of the library.

    Attributes
    ----------
    formula
        Of its cell, elements in alphabetical order, e.g. Li4O6Ti2.
    split
        train, val, test or reserved; only crystals of the first may vote or train.
    spacegroup
        International number as its source states it (symprec 0.1).
    energy_above_hull, formation_energy_per_atom
        As its source states them, eV/atom.
    theoretical
        False if it was seen in an experiment, None if that is not known.
    """

    id: str
    chemsys: str
    formula: str
    n_sites: int
    source: Source
    split: str
    spacegroup: int | None
    energy_above_hull: float | None
    formation_energy_per_atom: float | None
    theoretical: bool | None
    row: int
    _library: "KnownLibrary" = field(repr=False, compare=False)

    @property
    def geometry(self) -> Geometry:
        """Cell and sites as they are kept."""
        return self._library.geometry(self.row)

    @property
    def structure(self) -> "Structure":
        """The crystal; sites by atomic number."""
        return self._library.structure(self.row)


def to_structure(geometry: Geometry) -> "Structure":
    """Return a geometry of the library as a structure."""
    from pymatgen.core import Structure

    return Structure(_lattice(geometry), geometry.numbers.tolist(), geometry.coords / GRID)


def to_cell(geometry: Geometry) -> Cell:
    """Return the reduced cell of a geometry of the library, without a structure on the way.

    Raises
    ------
    ReductionError
        The cell is flat, as in old databases.
    """
    labels = [symbol(number) for number in geometry.numbers.tolist()]
    return reduce_arrays(_lattice(geometry).matrix, geometry.coords / GRID, labels)


def _lattice(geometry: Geometry) -> "Lattice":
    from pymatgen.core import Lattice

    lengths, angles = geometry.lattice[:3] * LENGTH_STEP, geometry.lattice[3:] * ANGLE_STEP
    return Lattice.from_parameters(*lengths.tolist(), *angles.tolist())


class KnownLibrary:
    """Known crystals in a folder.

    Parameters
    ----------
    folder
        Where `build_library` wrote them.

    Raises
    ------
    InputError
        There is no library, or its files are damaged, cut off or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = open_index(folder)
        self.version: str = self._index.header["version"]
        self.sources = [Source(**source) for source in self._index.header["sources"]]
        self._ids = self._index.text("ids")
        names = self._index.text("systems")
        ends = np.cumsum(self._index.read("system_sizes")).tolist()
        bounds = zip([0, *ends[:-1]], ends, strict=True)
        self._systems = {n: range(*pair) for n, pair in zip(names, bounds, strict=True)}
        self._files: dict[int, ColumnsFile] = {}
        self._block = lru_cache(maxsize=MAX_BLOCKS)(self._read_block)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[KnownCrystal]:
        return map(self.crystal, range(len(self)))

    @property
    def systems(self) -> Collection[str]:
        """The chemical systems with a crystal, alphabetically."""
        return self._systems.keys()

    @property
    def levels(self) -> list[str]:
        """The levels with energies, by name."""
        return available_levels(self.folder)

    def check(self, levels: Iterable[str]) -> None:
        """See that geometries, energies at levels that are there, and what is missing can be read.

        Raises
        ------
        InputError
            A file is missing, damaged, cut off or of another version.
        """
        for place in range(-(-len(self) // (BLOCK * BLOCKS_PER_FILE))):
            self._file(place)
        for level in set(levels) & set(self.levels):
            self.energies(level)
        self.missing("H")  # reads the list of all

    def energies(self, level: str) -> LevelEnergies:
        """Return the energies at a level; InputError if there are none or they do not belong."""
        return read_energies(self.folder, level, self.version, len(self))

    def energies_digest(self, level: str) -> str | None:
        """Return the first 10 hex digits of the sha256 of a level's energies; None without any."""
        return digest_of(self.folder, level)

    def missing(self, chemsys: str) -> list[MissingPhase]:
        """Return the phases near the hull of a system, and of its parts, that are not at hand.

        Those that could move the hull most come first. Empty also where a library of one's own
        was never compared with a table (`missing.write_missing`).
        """
        elements = frozenset(split_chemsys(chemsys))
        sizes = range(1, len(elements) + 1)
        parts = (frozenset(part) for n in sizes for part in combinations(sorted(elements), n))
        found = [phase for part in parts for phase in self._missing.get(part, ())]
        return sorted(found, key=lambda phase: (-phase.shift, phase.energy_above_hull, phase.id))

    def id_of(self, row: int) -> str:
        """Return the id of the crystal of this number."""
        return self._ids[row]

    def structure(self, row: int) -> "Structure":
        """Return the crystal of this number; sites by atomic number."""
        return to_structure(self.geometry(row))

    def cell(self, row: int) -> Cell:
        """Return the reduced cell of the crystal of this number; ReductionError if it is flat."""
        return to_cell(self.geometry(row))

    def volume_per_site(self, row: int) -> float:
        """Return the volume of the crystal of this number, Å^3 for each of its sites."""
        return float(_lattice(self.geometry(row)).volume) / int(self.n_sites[row])

    def get(self, identifier: str) -> KnownCrystal:
        """Return the crystal with this id.

        Raises
        ------
        InputError
            There is none.
        """
        row = self.row_of(identifier)
        if row is None:
            raise InputError(f"The library of known crystals has no {identifier!r}.")
        return self.crystal(row)

    def row_of(self, identifier: str) -> int | None:
        """Return the number of the crystal with this id, None if there is none."""
        return self._rows.get(identifier)

    def in_system(self, chemsys: str, *, subsystems: bool = True) -> list[KnownCrystal]:
        """Return the crystals of a chemical system, with those of all its parts unless told not to.

        Parameters
        ----------
        chemsys
            Symbols joined by '-', in any order, e.g. Li-Ti-O.
        subsystems
            Whether crystals of fewer of the elements are among them.

        Raises
        ------
        InputError
            A symbol is no element.
        """
        return [self.crystal(row) for row in self.rows_in(chemsys, subsystems=subsystems)]

    def rows_in(self, chemsys: str, *, subsystems: bool = True) -> list[int]:
        """Return the numbers of the crystals of a chemical system; see `in_system`."""
        symbols = split_chemsys(chemsys)
        sizes = range(1, len(symbols) + 1) if subsystems else (len(symbols),)
        parts = ("-".join(part) for n in sizes for part in combinations(symbols, n))
        return [row for part in parts for row in self._systems.get(part, ())]

    def with_composition(self, formula: str) -> list[KnownCrystal]:
        """Return the crystals of a composition, whatever the size of their cells.

        Raises
        ------
        InputError
            `formula` is no chemical formula of whole numbers of atoms.
        """
        return [self.crystal(row) for row in self.rows_of(parse_formula(formula))]

    def rows_of(self, amounts: dict[str, int]) -> list[int]:
        """Return the numbers of the crystals with these atoms, in any multiple."""
        symbols = sorted(amounts)
        rows = self._systems.get("-".join(symbols), range(0))
        if not rows:
            return []
        wanted = np.array([amounts[symbol] for symbol in symbols])
        first = self._counts_start[rows.start]
        counts = self._counts[first : first + len(rows) * len(symbols)]
        counts = counts.reshape(len(rows), len(symbols))
        same = (counts * wanted[0] == counts[:, :1] * wanted).all(axis=1)
        return (rows.start + np.flatnonzero(same)).tolist()

    def amounts(self, row: int) -> dict[str, int]:
        """Return the atoms of each element of the crystal of this number, in lowest terms."""
        symbols, counts = self._composition(row)
        unit = gcd(*counts)
        return {symbol: n // unit for symbol, n in zip(symbols, counts, strict=True)}

    def crystal(self, row: int) -> KnownCrystal:
        """Return the crystal of this number."""
        symbols, counts = self._composition(row)
        theoretical = int(self._theoretical[row])
        return KnownCrystal(
            id=self._ids[row],
            chemsys="-".join(symbols),
            formula=_formula(symbols, counts),
            n_sites=sum(counts),
            source=self.sources[self._source[row]],
            split=SPLITS[self._split[row]],
            spacegroup=int(self.spacegroup[row]) or None,
            energy_above_hull=_optional(self._above[row]),
            formation_energy_per_atom=_optional(self._formation[row]),
            theoretical=None if theoretical == 0 else theoretical == 2,
            row=row,
            _library=self,
        )

    def geometry(self, row: int) -> Geometry:
        """Return cell and sites of the crystal of this number."""
        lattices, coords, starts = self._block(row // BLOCK)
        place = row % BLOCK
        start, stop = starts[place], starts[place + 1]
        symbols, counts = self._composition(row)
        numbers = sorted(zip((atomic_number(s) for s in symbols), counts, strict=True))
        repeated = np.repeat([z for z, _ in numbers], [n for _, n in numbers])
        sites = coords[3 * start : 3 * stop].reshape(3, -1).T
        return Geometry(lattices[:, place], repeated.astype(np.uint8), sites)

    def _read_block(self, number: int) -> tuple[NDArray[np.uint32], NDArray[np.uint16], list[int]]:
        """Return lattices, coordinates and the first site of each crystal of a block."""
        file = self._file(number // BLOCKS_PER_FILE)
        rows = range(number * BLOCK, min((number + 1) * BLOCK, len(self)))
        starts = [0, *accumulate(int(self.n_sites[row]) for row in rows)]
        lattices, coords = file.read(f"lattice/{number}"), file.read(f"coords/{number}")
        if lattices.shape != (6, len(rows)) or len(coords) != 3 * starts[-1]:
            raise InputError(f"{file.path} belongs to another library: build it again.")
        return lattices, coords, starts

    def _file(self, place: int) -> ColumnsFile:
        """Return a file of geometries; InputError if it is missing, cut off or of another kind."""
        if place not in self._files:
            self._files[place] = ColumnsFile(self.folder / GEOMETRY.format(place), GEOMETRY_KIND)
        return self._files[place]

    def _composition(self, row: int) -> tuple[list[str], list[int]]:
        symbols = self._system_names[self._system_of[row]].split("-")
        start = self._counts_start[row]
        return symbols, self._counts[start : start + len(symbols)].tolist()

    @cached_property
    def n_sites(self) -> NDArray[np.int64]:
        """Sites per cell of each crystal."""
        return np.add.reduceat(self._counts, self._counts_start)

    @cached_property
    def energy_above_hull(self) -> NDArray[np.float64]:
        """As stated by the sources, eV/atom; NaN where not known."""
        return self._above

    @cached_property
    def spacegroup(self) -> NDArray[np.uint8]:
        """International numbers as the sources state them (symprec 0.1); 0 where not known."""
        return self._index.read("spacegroup")

    @cached_property
    def n_elements(self) -> NDArray[np.int64]:
        """Elements of each crystal."""
        sizes = np.array([name.count("-") + 1 for name in self._system_names])
        return sizes[self._system_of]

    @cached_property
    def rows_by_pattern(self) -> dict[tuple[int, ...], NDArray[np.int64]]:
        """Numbers of the crystals by their atoms of each element in lowest terms, ascending."""
        width = int(self.n_elements.max())
        table = np.zeros((len(self), width), dtype=np.int64)
        place = np.arange(len(self._counts)) - np.repeat(self._counts_start, self.n_elements)
        table[np.repeat(np.arange(len(self)), self.n_elements), place] = self._counts
        table = np.sort(table // np.gcd.reduce(table, axis=1)[:, None], axis=1)
        patterns, number = np.unique(table, axis=0, return_inverse=True)
        order = np.argsort(number, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(number))[:-1])
        keys = (tuple(n for n in pattern if n) for pattern in patterns.tolist())
        return dict(zip(keys, parts, strict=True))

    @cached_property
    def _missing(self) -> dict[frozenset[str], list[MissingPhase]]:
        return read_missing(self.folder, self.version)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {identifier: row for row, identifier in enumerate(self._ids)}

    @cached_property
    def _system_names(self) -> list[str]:
        return list(self._systems)

    @cached_property
    def _system_of(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self._systems)), [len(r) for r in self._systems.values()])

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return self._index.read("counts").astype(np.int64)

    @cached_property
    def _counts_start(self) -> NDArray[np.int64]:
        return np.cumsum(self.n_elements) - self.n_elements

    @cached_property
    def _source(self) -> NDArray[np.uint8]:
        return self._index.read("source")

    @cached_property
    def _split(self) -> NDArray[np.uint8]:
        return self._index.read("split")

    @cached_property
    def _theoretical(self) -> NDArray[np.uint8]:
        return self._index.read("theoretical")

    @cached_property
    def _above(self) -> NDArray[np.float64]:
        return unpack_energies(self._index.read("energy_above_hull"))

    @cached_property
    def _formation(self) -> NDArray[np.float64]:
        return unpack_energies(self._index.read("formation_energy"))


@lru_cache(maxsize=2)
def library(folder: Path = SHIPPED) -> KnownLibrary:
    """Return the library of known crystals, opened once per process.

    Parameters
    ----------
    folder
        Where it is; the one that comes with the package by default.

    Raises
    ------
    InputError
        As `KnownLibrary`.
    """
    return KnownLibrary(folder)


def _formula(symbols: Iterable[str], counts: Iterable[int]) -> str:
    pairs = zip(symbols, counts, strict=True)
    return "".join(f"{symbol}{'' if n == 1 else n}" for symbol, n in pairs)


def _optional(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
