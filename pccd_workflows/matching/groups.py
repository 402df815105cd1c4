"""Which crystals are the same: groups inside a campaign.

Two crystals match if pymatgen's StructureMatcher fits the first to the second or the second to
the first, each as its reduced cell. Groups are the connected components of that relation. They
depend neither on the order of the input nor on that of a pair, unlike the groups of
``StructureMatcher.group_structures``. Volumes are scaled: an isotropically scaled crystal is the
same, and so is its mirror image. Oxidation states and magnetic moments are ignored.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from pymatgen.core import Structure
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pccd_workflows.matching.cells import Cell, reduce_structure
from pccd_workflows.matching.copies import find_families
from pccd_workflows.matching.fitting import Blur, Stack, fits, may_fit, no_blur, stack
from pccd_workflows.matching.lattices import BoolArray, IntArray
from pccd_workflows.matching.settings import MatcherSettings

DEFAULT_SETTINGS = MatcherSettings()
Species = tuple[tuple[str, int], ...]
T = TypeVar("T")
R = TypeVar("R")
LEADERS_AT_ONCE = 50_000
"""Pairs of leaders looked at before the possible ones are compared."""
PAIRS_AT_ONCE = 500
"""Pairs compared before it is looked which of the others are connected by now."""


def group(
    structures: Sequence[Structure],
    *,
    settings: MatcherSettings = DEFAULT_SETTINGS,
    processes: int = 1,
) -> list[list[int]]:
    """Return groups of matching crystals: sorted indices, groups by their first member.

    Parameters
    ----------
    structures
        The crystals.
    settings
        Tolerances of the matcher.
    processes
        Worker processes, among which crystals and then compositions are shared out.

    Raises
    ------
    ReductionError
        If a structure has no atoms, infinite numbers or a flat cell.
    """
    cells = _map(reduce_structure, structures, processes)
    buckets: dict[Species, list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        buckets[cell.species].append(index)
    largest_first = sorted(buckets.values(), key=len, reverse=True)  # no process waits for the last
    tasks = [[cells[index] for index in bucket] for bucket in largest_first]
    labels = _map(partial(label_cells, settings=settings), tasks, processes)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (bucket, label) in enumerate(zip(largest_first, labels, strict=True)):
        for index, component in zip(bucket, label.tolist(), strict=True):
            groups[number, component].append(index)
    return sorted(groups.values())


def label_cells(cells: Sequence[Cell], settings: MatcherSettings) -> IntArray:
    """Return the number of each cell's group, shape (m,), for cells of one composition.

    Near copies are gathered in families. A pair of families whose leaders cannot fit even with
    tolerances widened by the families' extents needs no further comparison. Of the others, the
    members of one are compared in the same way with the leader of the other, then with those of
    its members that may fit and are not connected yet. Last come those that do not fit their own
    leader, with its other copies.
    """
    stacked = stack(cells)
    families = find_families(stacked)
    graph = _Graph(stacked, settings)
    copies = np.flatnonzero(families.leader != np.arange(len(cells)))
    graph.compare(families.leader[copies], copies)
    leaders = np.flatnonzero(families.leader == np.arange(len(cells)))
    blur, sharp = families.blur, no_blur(len(cells))
    left = []
    for pairs in _all_pairs(leaders):
        possible = _possible(stacked, (blur, blur), *graph.apart(*pairs), settings)
        graph.compare(*possible)
        left.append(possible)
    one, other = graph.apart(*_concatenated(left))
    row, one = families.members(one)
    one, other = graph.apart(one, other[row])
    one, other = _possible(stacked, (sharp, blur), one, other, settings)
    row, other = families.members(other)
    graph.compare(one[row], other)
    loose = np.flatnonzero(graph.labels != graph.labels[families.leader])
    row, other = families.members(families.leader[loose])
    graph.compare(loose[row], other)
    return graph.labels


class _Graph:
    """Cells and the matches found between them so far.

    labels: number of each cell's connected component, shape (m,).
    """

    def __init__(self, cells: Stack, settings: MatcherSettings) -> None:
        self._cells = cells
        self._settings = settings
        self.labels: IntArray = np.arange(len(cells.sizes))

    def compare(self, one: IntArray, other: IntArray) -> None:
        """Connect those of the pairs that match; pairs that are connected are spared."""
        while len(one):
            one, other = self.apart(one, other)
            i, j = one[:PAIRS_AT_ONCE], other[:PAIRS_AT_ONCE]
            found = match(self._cells, i, j, self._settings)
            self._connect(i[found], j[found])
            one, other = one[PAIRS_AT_ONCE:], other[PAIRS_AT_ONCE:]

    def apart(self, one: IntArray, other: IntArray) -> tuple[IntArray, IntArray]:
        """Return those of the pairs that are not connected yet."""
        apart = self.labels[one] != self.labels[other]
        return one[apart], other[apart]

    def _connect(self, one: IntArray, other: IntArray) -> None:
        size = len(self.labels)
        edges = coo_array(
            (np.ones(len(one)), (self.labels[one], self.labels[other])), shape=(size, size)
        )
        self.labels = connected_components(edges, directed=False)[1][self.labels]


def match(cells: Stack, one: IntArray, other: IntArray, settings: MatcherSettings) -> BoolArray:
    """Return whether cells fit in one direction or the other, shape (p,)."""
    found = fits(cells, one, other, settings)
    rest = np.flatnonzero(~found)
    found[rest] = fits(cells, other[rest], one[rest], settings)
    return found


def _all_pairs(leaders: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield all pairs, about LEADERS_AT_ONCE at once."""
    for rows in np.array_split(np.arange(len(leaders)), 1 + len(leaders) ** 2 // LEADERS_AT_ONCE):
        i, j = np.meshgrid(rows, np.arange(len(leaders)), indexing="ij")
        yield leaders[i[i < j]], leaders[j[i < j]]


def _possible(
    cells: Stack,
    blurs: tuple[Blur, Blur],
    one: IntArray,
    other: IntArray,
    settings: MatcherSettings,
) -> tuple[IntArray, IntArray]:
    """Return the pairs that may match, in one direction or the other."""
    of_one, of_other = blurs[0].of(one), blurs[1].of(other)
    possible = may_fit(cells, one, other, settings, (of_one, of_other))
    rest = np.flatnonzero(~possible)
    swapped = (of_other.of(rest), of_one.of(rest))
    possible[rest] = may_fit(cells, other[rest], one[rest], settings, swapped)
    return one[possible], other[possible]


def _concatenated(pairs: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def _map(function: Callable[[T], R], items: Sequence[T], processes: int) -> list[R]:
    if processes == 1 or len(items) < 2:
        return [function(item) for item in items]
    chunk = max(1, len(items) // (64 * processes))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, items, chunksize=chunk))
