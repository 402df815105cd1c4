"""Known crystals, reduced once: who is it, and whose structure type does it have?

An index of known crystals is built once, kept in a file and loaded in a second. Two questions are
put to it: which known crystal a new one is (`find_all`), and, for one that nobody knows, which
known crystal has the same arrangement of sites with other species on them (`find_frameworks`): a
new composition of a known structure type.
"""

import hashlib
import json
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.matching.cells import (
    Cell,
    ReductionError,
    formula_key,
    reduce_sites,
    reduce_structure,
    species_labels,
)
from pccd_workflows.matching.fitting import stack
from pccd_workflows.matching.groups import DEFAULT_SETTINGS, match
from pccd_workflows.matching.lattices import expand
from pccd_workflows.matching.settings import MatcherSettings

Species = tuple[tuple[str, int], ...]
Pattern = tuple[int, ...]
"""Numbers of like sites in a reduced cell, ascending."""

FORMAT = "pccd index of known crystals, 1"
"""Changes whenever the reduction of cells does."""
CELLS_AT_ONCE = 20_000
"""Known and new cells that are compared in one go: keeps memory flat."""
TYPES_AT_ONCE = 400
"""Known cells of one pattern that are compared with a new one before the next ones are."""


class KnownCrystals:
    """Crystals that are known, by id.

    Only reduced cells are kept, about 1.5 kB per crystal. Of the crystals it is made of, those
    without a reduced cell (flat ones, in old databases) are left out: nothing matches them.
    """

    def __init__(
        self,
        crystals: Iterable[tuple[str, Structure]] = (),
        *,
        settings: MatcherSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.settings = settings
        self._known: dict[Species, list[tuple[str, Cell]]] = defaultdict(list)
        self._formulas: set[frozenset[tuple[str, int]]] = set()
        for identifier, structure in crystals:
            with suppress(ReductionError):
                self.add(identifier, structure)

    def __len__(self) -> int:
        return sum(len(known) for known in self._known.values())

    def add(self, identifier: str, structure: Structure) -> None:
        """Make a crystal known; ReductionError if its cell is flat."""
        self.add_cell(identifier, reduce_structure(structure))

    def add_cell(self, identifier: str, cell: Cell) -> None:
        """Make a crystal known by its reduced cell."""
        self._known[cell.species].append((identifier, cell))
        unit = math.gcd(*(count for _, count in cell.species))
        self._formulas.add(frozenset((label, count // unit) for label, count in cell.species))

    def find(self, structure: Structure) -> str | None:
        """Return the smallest id of the known crystals that match, None if none does."""
        return self.find_all([structure])[0]

    def find_all(self, structures: Sequence[Structure]) -> list[str | None]:
        """Return for each structure the smallest id of the known crystals that match, or None."""
        found: list[str | None] = [None] * len(structures)
        for batch in self._batches(structures):
            for index, identifier in self._matches(batch):
                smallest = found[index]
                found[index] = identifier if smallest is None else min(smallest, identifier)
        return found

    def _batches(self, structures: Sequence[Structure]) -> Iterator[list[tuple[int, Cell]]]:
        """Yield number and cell of those structures whose composition is known."""
        batch: list[tuple[int, Cell]] = []
        size = 0
        for index, structure in enumerate(structures):
            labels = species_labels(structure)
            if formula_key(labels) not in self._formulas:
                continue
            cell = reduce_sites(structure, labels)
            if cell.species in self._known:
                batch.append((index, cell))
                size += 1 + len(self._known[cell.species])
            if size >= CELLS_AT_ONCE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _matches(self, crystals: Sequence[tuple[int, Cell]]) -> Iterator[tuple[int, str]]:
        """Yield (index, id) of all known crystals that cells match."""
        species = dict.fromkeys(cell.species for _, cell in crystals)
        known = [pair for each in species for pair in self._known[each]]
        ends = np.cumsum([len(self._known[each]) for each in species]).tolist()
        ranges = dict(zip(species, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        stacked = stack([cell for _, cell in known] + [cell for _, cell in crystals])
        bounds = np.array([ranges[cell.species] for _, cell in crystals])
        row, number = expand(bounds[:, 1] - bounds[:, 0])
        other = bounds[row, 0] + number
        matched = match(stacked, len(known) + row, other, self.settings)
        for i, j in zip(row[matched].tolist(), other[matched].tolist(), strict=True):
            yield crystals[i][0], known[j][0]

    def find_frameworks(self, structures: Sequence[Structure]) -> list[str | None]:
        """Return for each structure the smallest id of the known crystals of its type, or None.

        Two crystals have one structure type if they match after one of the ways to put the species
        of one in the place of those of the other, as in StructureMatcher.fit_anonymous, in either
        direction.
        """
        by_pattern: dict[Pattern, list[tuple[str, Cell]]] = defaultdict(list)
        for species, known in self._known.items():
            by_pattern[_pattern(species)] += known
        for known in by_pattern.values():
            known.sort(key=lambda pair: pair[0])
        cells = [reduce_structure(structure) for structure in structures]
        return [self._find_type(cell, by_pattern.get(_pattern(cell.species), [])) for cell in cells]

    def _find_type(self, cell: Cell, known: Sequence[tuple[str, Cell]]) -> str | None:
        ways = relabelled(cell)
        for start in range(0, len(known), TYPES_AT_ONCE):
            some = known[start : start + TYPES_AT_ONCE]
            stacked = stack([other for _, other in some] + ways)
            number, way = (index.ravel() for index in np.indices((len(some), len(ways))))
            matched = number[match(stacked, len(some) + way, number, self.settings)]
            if len(matched):
                return some[int(matched.min())][0]
        return None

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the index to a file, whole or not at all: arrays of numbers and JSON, no pickle."""
        arrays = self._arrays()
        arrays["digest"] = np.array(_digest(arrays))
        with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        Path(file.name).replace(path)

    @classmethod
    def load(cls, path: Path, *, settings: MatcherSettings = DEFAULT_SETTINGS) -> "KnownCrystals":
        """Read an index that `save` wrote; the tolerances need not be those it was built with.

        Raises
        ------
        InputError
            The file is damaged, of another format or no index.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            digest = str(arrays.pop("digest"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
            raise InputError(f"{path} is damaged or no index of known crystals.") from None
        if digest != _digest(arrays):
            raise InputError(f"{path} is damaged or an index of another version.")
        index = cls(settings=settings)
        for identifier, cell in _cells(arrays):
            index.add_cell(identifier, cell)
        return index

    def _arrays(self) -> dict[str, NDArray[Any]]:
        known = [pair for pairs in self._known.values() for pair in pairs]
        kinds = {species: number for number, species in enumerate(self._known)}
        cells = [cell for _, cell in known]
        text = json.dumps({"ids": [i for i, _ in known], "species": list(kinds)})
        return {
            "text": np.frombuffer(text.encode(), dtype=np.uint8),
            "kinds": np.array([kinds[cell.species] for cell in cells], dtype=np.int64),
            "anchors": np.array([cell.anchor for cell in cells], dtype=np.int64),
            "matrices": np.array([cell.matrix for cell in cells]).reshape(-1, 3, 3),
            "coords": np.concatenate([np.empty((0, 3)), *(cell.coords for cell in cells)]),
        }


def relabelled(cell: Cell) -> list[Cell]:
    """Return the cell with its species in every order that keeps their numbers of sites sorted.

    Sites stay where they are; only their order changes, and with it whom they are compared with.
    """
    counts = [count for _, count in cell.species]
    ends = np.cumsum(counts).tolist()
    blocks = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
    alike = [[b for b, n in enumerate(counts) if n == count] for count in dict.fromkeys(counts)]
    ways = []
    for orders in product(*(permutations(group) for group in alike)):
        order = [b for group in orders for b in group]
        sites = np.concatenate([blocks[b] for b in order])
        anchor = int(np.flatnonzero(sites == cell.anchor)[0])
        species = tuple(cell.species[b] for b in order)
        ways.append(replace(cell, coords=cell.coords[sites], species=species, anchor=anchor))
    return ways


def _pattern(species: Species) -> Pattern:
    return tuple(count for _, count in species)


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(FORMAT.encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _cells(arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, Cell]]:
    text = json.loads(bytes(arrays["text"].data))
    species = [tuple((label, count) for label, count in kind) for kind in text["species"]]
    matrices = np.asarray(arrays["matrices"], dtype=float)
    coords = np.asarray(arrays["coords"], dtype=float)
    start = 0
    for identifier, kind, anchor, matrix in zip(
        text["ids"], arrays["kinds"].tolist(), arrays["anchors"].tolist(), matrices, strict=True
    ):
        stop = start + sum(count for _, count in species[kind])
        yield identifier, Cell(matrix, coords[start:stop], species[kind], anchor)
        start = stop
