"""Who is it? Crystals against the library: a known one, a known structure type, or a new one.

By geometry alone: no energy, no space group, no id decides. Two crystals are the same if
StructureMatcher fits one to the other in either direction (see `matching.groups`), so that
verdicts depend neither on the order of crystals nor on that of a pair.
"""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.systems import atomic_number
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.novelty import Kind
from pccd_workflows.matching.cells import Cell, ReductionError, reduce_structure
from pccd_workflows.matching.groups import DEFAULT_SETTINGS
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings

if TYPE_CHECKING:
    from pymatgen.core import Structure

Composition = tuple[tuple[str, int], ...]
"""Symbols and numbers of atoms in lowest terms, alphabetically."""
Pattern = tuple[int, ...]
"""Numbers of atoms of each element in lowest terms, ascending."""
MAX_CRYSTALS = 100_000
"""Reduced cells that are kept, 1.5 kB each; the least recently used go first."""
LAST_TRICLINIC = 2
"""Number of P-1, the last triclinic space group."""


@dataclass(frozen=True)
class WyckoffPositions:
    """Space group and Wyckoff positions, the same for all descriptions of a crystal.

    Attributes
    ----------
    space_group
        International number.
    positions
        A number for those of all elements, by their numbers of atoms, then the most electropositive
        first.
    """

    space_group: int
    positions: int


@dataclass(frozen=True)
class KindOfNew:
    """What a crystal is to those that are known.

    Attributes
    ----------
    kind
    known_id
        Of which crystal; the smallest id where there are several.
    """

    kind: Kind
    known_id: str | None


class Identifier:
    """Compares crystals with a library; keeps the reduced cells that it has compared with.

    Parameters
    ----------
    library
        The known crystals.
    settings
        Tolerances of the matcher.
    """

    def __init__(self, library: KnownLibrary, settings: MatcherSettings = DEFAULT_SETTINGS) -> None:
        self.library = library
        self._settings = settings
        self._index = KnownCrystals(settings=settings)
        self._indexed: set[Composition] = set()
        self._types: OrderedDict[tuple[Pattern, int], KnownCrystals] = OrderedDict()
        self._positions: dict[int, WyckoffPositions | None] = {}

    def find_known(self, structures: Sequence["Structure"]) -> list[str | None]:
        """Return for each crystal the smallest id of the known ones that match it, or None.

        Raises
        ------
        ReductionError
            A structure has no atoms, infinite numbers or a flat cell.
        """
        self._make_known({_in_lowest_terms(structure) for structure in structures})
        return self._index.find_all(structures)

    def _make_known(self, compositions: set[Composition]) -> None:
        """Reduce the library's crystals of some compositions, if that was not done before."""
        if len(self._index) > MAX_CRYSTALS:
            self._index, self._indexed = KnownCrystals(settings=self._settings), set()
        for composition in sorted(compositions - self._indexed):
            for row in self.library.rows_of(dict(composition)):
                with suppress(ReductionError):  # a flat cell, in old databases: nothing matches it
                    self._index.add_cell(self.library.id_of(row), self.library.cell(row))
        self._indexed |= compositions

    def kinds_of_new(self, structures: Sequence["Structure"]) -> list[KindOfNew]:
        """Return what each crystal is: duplicate, substitution or new structure type.

        A structure type is known if the sites of a known crystal match, whatever their elements; or
        else if one has the same space group and Wyckoff positions. The first comparison with a
        frequent kind of formula reduces all its known crystals, which takes some seconds (ABC2
        with four sites: 12,500).

        Raises
        ------
        ReductionError
            A structure has no atoms, infinite numbers or a flat cell.
        """
        return [
            KindOfNew("duplicate", known) if known is not None else self._new(structure)
            for structure, known in zip(structures, self.find_known(structures), strict=True)
        ]

    def _new(self, structure: "Structure") -> KindOfNew:
        cell = reduce_structure(structure)
        pattern, n_sites = _pattern(cell), cell.n_sites
        # a known cell that repeats within itself counts as its primitive one
        rows = self.library.rows_by_pattern.get(pattern, np.empty(0, dtype=np.int64))
        rows = rows[self.library.n_sites[rows] % n_sites == 0]
        if not len(rows):
            return KindOfNew("new_structure_type", None)
        framework = self._type_index(pattern, n_sites, rows).find_frameworks([structure])[0]
        if framework is None:
            framework = self._same_positions(cell, structure.volume / len(structure), rows)
        kind: Kind = "new_structure_type" if framework is None else "substitution"
        return KindOfNew(kind, framework)

    def _type_index(self, pattern: Pattern, n_sites: int, rows: NDArray[np.int64]) -> KnownCrystals:
        """Return the reduced cells of the library's crystals of one pattern and size."""
        key = pattern, n_sites
        if key not in self._types:
            index = KnownCrystals(settings=self._settings)
            for row in rows:
                with suppress(ReductionError):
                    index.add_cell(self.library.id_of(row), self.library.cell(row))
            self._types[key] = index
            while len(self._types) > 1 and sum(map(len, self._types.values())) > MAX_CRYSTALS:
                self._types.popitem(last=False)
        self._types.move_to_end(key)
        return self._types[key]

    def _same_positions(
        self, cell: Cell, volume_per_site: float, rows: NDArray[np.int64]
    ) -> str | None:
        """Return the smallest id of the crystals with the same space group and Wyckoff positions.

        In triclinic groups the positions say no more than how many atoms there are: no crystal is
        named for them.
        """
        own = wyckoff_positions(cell, volume_per_site)
        if own.space_group <= LAST_TRICLINIC:
            return None
        rows = rows[self.library.spacegroup[rows] == own.space_group]
        for row in sorted(rows.tolist(), key=self.library.id_of):
            if row not in self._positions:
                self._positions[row] = self._wyckoff_positions_of(row)
            if self._positions[row] == own:
                return self.library.id_of(row)
        return None

    def _wyckoff_positions_of(self, row: int) -> WyckoffPositions | None:
        try:
            cell = self.library.cell(row)
        except ReductionError:
            return None
        return wyckoff_positions(cell, self.library.volume_per_site(row))


@lru_cache(maxsize=2)
def identifier(settings: MatcherSettings = DEFAULT_SETTINGS) -> Identifier:
    """Return what compares with the library that ships, one per process and tolerances."""
    return Identifier(library(), settings)


def find_known(
    structures: Sequence["Structure"], known: KnownLibrary | None = None
) -> list[str | None]:
    """Return for each crystal the smallest id of the known ones that match it, or None."""
    return _identifier(known).find_known(structures)


def kinds_of_new(
    structures: Sequence["Structure"], known: KnownLibrary | None = None
) -> list[KindOfNew]:
    """Return what each crystal is to those of a library; see `Identifier.kinds_of_new`."""
    return _identifier(known).kinds_of_new(structures)


def wyckoff_positions(cell: Cell, volume_per_site: float) -> WyckoffPositions:
    """Return space group and Wyckoff positions of a reduced cell.

    volume_per_site: of the crystal, Å^3; reduced cells have one.
    """
    from pccd_workflows.generators.pccd.standard import standard_cell

    numbers = np.repeat([atomic_number(s) for s, _ in cell.species], [n for _, n in cell.species])
    found = standard_cell(cell.matrix * volume_per_site ** (1 / 3), numbers, cell.coords)
    return WyckoffPositions(found.space_group, found.structure_type)


def _identifier(known: KnownLibrary | None) -> Identifier:
    return identifier() if known is None else Identifier(known)


def _in_lowest_terms(structure: "Structure") -> Composition:
    amounts: dict[str, int] = {}
    for site in structure:
        symbol = site.specie.symbol
        amounts[symbol] = amounts.get(symbol, 0) + 1
    unit = gcd(*amounts.values()) if amounts else 1
    return tuple(sorted((symbol, count // unit) for symbol, count in amounts.items()))


def _pattern(cell: Cell) -> Pattern:
    counts = [count for _, count in cell.species]
    return tuple(sorted(count // gcd(*counts) for count in counts))
