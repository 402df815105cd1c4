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
from dataclasses import replace
from functools import partial
from itertools import chain
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from pymatgen.core import Structure
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pccd_workflows.campaign import MatcherSettings
from pccd_workflows.screening.cells import Cell, reduce_structure
from pccd_workflows.screening.copies import Families, find_families
from pccd_workflows.screening.fitting import Stack, fits, may_fit, stack
from pccd_workflows.screening.lattices import BoolArray, IntArray

DEFAULT_SETTINGS = MatcherSettings()
Species = tuple[tuple[str, int], ...]
T = TypeVar("T")
R = TypeVar("R")
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
    tasks = [[cells[index] for index in bucket] for bucket in buckets.values()]
    labels = _map(partial(label_cells, settings=settings), tasks, processes)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (bucket, label) in enumerate(zip(buckets.values(), labels, strict=True)):
        for index, component in zip(bucket, label.tolist(), strict=True):
            groups[number, component].append(index)
    return sorted(groups.values())


def label_cells(cells: Sequence[Cell], settings: MatcherSettings) -> IntArray:
    """Return the number of each cell's group, shape (m,), for cells of one composition.

    Near copies are gathered in families. A pair of families whose leaders cannot fit even with
    tolerances widened by the families' extent needs no further comparison; of the others, all
    pairs of members that are not connected yet are compared.
    """
    stacked = stack(cells)
    families = find_families(stacked)
    graph = _Graph(stacked, settings)
    copies = np.flatnonzero(families.leader != np.arange(len(cells)))
    graph.compare(families.leader[copies], copies)
    first, second = _possible_families(stacked, families, settings)
    graph.compare(first, second)
    for one, other in _member_pairs(families, first, second, graph):
        graph.compare(one, other)
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
            apart = self.labels[one] != self.labels[other]
            one, other = one[apart], other[apart]
            i, j = one[:PAIRS_AT_ONCE], other[:PAIRS_AT_ONCE]
            found = match(self._cells, i, j, self._settings)
            self._connect(i[found], j[found])
            one, other = one[PAIRS_AT_ONCE:], other[PAIRS_AT_ONCE:]

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


def _possible_families(
    cells: Stack, families: Families, settings: MatcherSettings
) -> tuple[IntArray, IntArray]:
    """Return the pairs of leaders whose families may hold a match."""
    leaders = np.unique(families.leader)
    blurred = replace(cells, anchors=families.anchors)
    i, j = np.triu_indices(len(leaders), k=1)
    one, other = leaders[i], leaders[j]
    possible = may_fit(blurred, one, other, settings, families.blur)
    rest = np.flatnonzero(~possible)
    possible[rest] = may_fit(blurred, other[rest], one[rest], settings, families.blur)
    return one[possible], other[possible]


def _member_pairs(
    families: Families, first: IntArray, second: IntArray, graph: _Graph
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield all pairs of cells, one of each family or both of one, that are not connected."""
    order = np.argsort(families.leader, kind="stable")
    leaders, starts = np.unique(families.leader[order], return_index=True)
    members = dict(zip(leaders.tolist(), np.split(order, starts[1:]), strict=True))
    pending: list[tuple[IntArray, IntArray]] = []
    count = 0
    between = zip(first.tolist(), second.tolist(), strict=True)
    for f, g in chain(between, ((leader, leader) for leader in members)):
        i, j = np.meshgrid(members[f], members[g], indexing="ij")
        apart = graph.labels[i] != graph.labels[j]
        pending.append((i[apart], j[apart]))
        count += len(pending[-1][0])
        if count >= 20_000:
            yield _concatenated(pending)
            pending, count = [], 0
    if pending:
        yield _concatenated(pending)


def _concatenated(pairs: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def _map(function: Callable[[T], R], items: Sequence[T], processes: int) -> list[R]:
    if processes == 1 or len(items) < 2:
        return [function(item) for item in items]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, items, chunksize=max(1, len(items) // (8 * processes))))
