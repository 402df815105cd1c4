"""Near copies: crystals that are nearly the same in the same cell, found without full matching.

They need not be compared one by one with all other crystals: what the tests of fitting.py refuse
for one of them with tolerances widened by their differences, they refuse for all.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from pccd_workflows.matching.fitting import Blur, Stack
from pccd_workflows.matching.lattices import BoolArray, FloatArray, IntArray, expand

MAX_STRAIN = 0.01
"""Largest relative change of a length between copies: adds 1.1° and 2 % to the tolerances."""
MAX_SHIFT = 0.1
"""Largest difference of the shifts of two sites between copies, in units of (volume per
site)^(1/3): about 0.25 Å."""


def _axes() -> FloatArray:
    """Return the 48 ways to permute and reverse three axes, shape (48, 3, 3)."""
    signs = product((1.0, -1.0), repeat=3)
    return np.array([np.eye(3)[list(p)] * s for s in signs for p in permutations(range(3))])


AXES = _axes()


@dataclass(frozen=True)
class Families:
    """Cells sorted into near copies of leaders.

    leader: index of each cell's leader, shape (m,). blur: how far copies are from the leader, 0
    for cells that lead none.
    """

    leader: IntArray
    blur: Blur

    def members(self, leaders: IntArray) -> tuple[IntArray, IntArray]:
        """Return the members of these leaders' families: number of the leader, member."""
        order = np.argsort(self.leader, kind="stable")
        first = np.searchsorted(self.leader[order], leaders)
        last = np.searchsorted(self.leader[order], leaders, side="right")
        row, number = expand(last - first)
        return row, order[first[row] + number]


def find_families(cells: Stack) -> Families:
    """Return the near copies among cells of one composition.

    The first cell that belongs to no family leads a new one; all later cells of the same reduced
    lattice (up to order and direction of the axes, within MAX_STRAIN) and the same sites (up to
    origin, within MAX_SHIFT) belong to it.
    """
    m = len(cells.sizes)
    leader = np.arange(m)
    strain, shift = np.zeros(m), np.zeros(m)
    lone = np.ones(m, dtype=bool)
    for first in range(m):
        if not lone[first]:
            continue
        lone[first] = False
        others = np.flatnonzero(lone)
        copies = _copies(cells, first, others)
        members = others[copies.member]
        lone[members] = False
        leader[members] = first
        strain[first] = copies.strain.max(initial=0.0)
        shift[first] = copies.shift.max(initial=0.0)
    return Families(leader, Blur(strain, shift))


@dataclass(frozen=True)
class _Copies:
    """Near copies of a leader, one row per copy.

    member: number among the cells that were tried. strain, shift: as in Blur.
    """

    member: IntArray
    strain: FloatArray
    shift: FloatArray

    def of(self, rows: IntArray | BoolArray) -> "_Copies":
        return _Copies(
            self.member[rows],
            self.strain[rows],
            self.shift[rows],
        )


def _copies(cells: Stack, leader: int, others: IntArray) -> _Copies:
    member, axes, strain = _same_lattices(cells, leader, others)
    numbers = np.arange(cells.n_sites[leader])
    sites = cells.starts[others[member], None] + numbers
    coords = np.einsum("isn,sij->jsn", cells.coords[:, sites], axes)
    anchor = cells.anchor[others[member]]
    offsets, sizes = cells.offsets[leader], cells.sizes[leader]
    block = np.searchsorted(offsets, anchor, side="right") - 1
    row, number = expand(sizes[block])
    site = offsets[block[row]] + number
    origin = cells.coords[:, cells.starts[leader] + site] - coords[:, row, anchor[row]]
    shift = _differences(cells, leader, coords[:, row] + origin[:, :, None])
    found = _Copies(member[row], strain[row], shift)
    found = found.of(shift <= MAX_SHIFT)
    found = found.of(np.argsort(found.shift))
    return found.of(np.unique(found.member, return_index=True)[1])


def _same_lattices(
    cells: Stack, leader: int, others: IntArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return the ways in which other lattices are the leader's but for a small strain.

    Returns
    -------
    member
        Number in `others`, shape (s,).
    axes
        Takes fractional coordinates into the leader's axes, shape (s, 3, 3).
    strain
        Largest relative change of a length, shape (s,).
    """
    lattices = cells.lattices
    lengths = np.sort(lattices.lengths[others], axis=1) / np.sort(lattices.lengths[leader])
    cosines = np.abs(np.cos(np.radians(lattices.angles)))
    angles = np.sort(cosines[others], axis=1) - np.sort(cosines[leader])
    # a strain e changes an angle by at most 2 arcsin(e)
    near = (np.abs(lengths - 1) <= MAX_STRAIN) & (np.abs(angles) <= 2.1 * MAX_STRAIN)
    member = np.flatnonzero(near.all(axis=1))
    matrices = lattices.matrices[others[member]]
    turned = AXES @ (matrices @ matrices.transpose(0, 2, 1))[:, None] @ AXES.transpose(0, 2, 1)
    own = lattices.matrices[leader] @ lattices.matrices[leader].T
    limit = ((1 + MAX_STRAIN) ** 2 - 1) * np.outer(*[lattices.lengths[leader]] * 2)
    row, way = np.nonzero((np.abs(turned - own) <= limit).all(axis=(2, 3)))
    inverse = np.linalg.inv(lattices.matrices[leader])
    # eigenvalues: squares of the principal stretches from the leader to the other lattice
    stretches = np.sqrt(np.linalg.eigvalsh(inverse @ turned[row, way] @ inverse.T))
    strain = np.abs(stretches - 1).max(axis=1)
    near = strain <= MAX_STRAIN
    row, way = row[near], way[near]
    return member[row], AXES[way].transpose(0, 2, 1), strain[near]


def _differences(cells: Stack, leader: int, coords: FloatArray) -> FloatArray:
    """Return how far sites are shifted against each other relative to the leader's.

    Parameters
    ----------
    coords
        Fractional coordinates in the leader's cell, shape (3, s, n).

    Returns
    -------
    shift
        Largest difference of two shifts in space, shape (s,); infinite where the sites do not
        correspond.
    """
    matrix = cells.lattices.matrices[leader]
    shifts = np.empty_like(coords)
    distinct = np.ones(coords.shape[1], dtype=bool)
    sites = cells.coords[:, cells.starts[leader] :]
    for first, size in zip(cells.offsets[leader], cells.sizes[leader], strict=True):
        block = slice(first, first + size)
        gaps = coords[:, :, block, None] - sites[:, None, None, block]
        gaps -= np.rint(gaps)
        squares = (np.moveaxis(gaps, 0, 3) @ matrix) ** 2
        nearest = squares.sum(axis=3).argmin(axis=2)
        distinct &= (np.diff(np.sort(nearest, axis=1), axis=1) != 0).all(axis=1)
        shifts[:, :, block] = np.take_along_axis(gaps, nearest[None, :, :, None], axis=3)[..., 0]
    between = np.moveaxis(shifts[:, :, :, None] - shifts[:, :, None, :], 0, 3) @ matrix
    shift = np.sqrt((between**2).sum(axis=3).max(axis=(1, 2)))
    return np.where(distinct, shift, np.inf)
