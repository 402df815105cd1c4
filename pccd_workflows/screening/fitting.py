"""Whether one reduced cell fits another: StructureMatcher's verdict, for many pairs at once.

The algorithm is that of pymatgen's StructureMatcher (ordered crystals, scaled volumes, no
supercells), carried out in three stages that each work on arrays of all pairs and leave fewer
possibilities to the next one:

1. *lattices*: all bases of the source lattice whose lengths (within ltol) and angles (within
   angle_tol) are those of the target cell;
2. *sites*: for each such basis and each source site the target's anchor may sit on, whether every
   target site has a source site of its species within a fractional tolerance;
3. *distances*: for those that are left, the assignment of least squared displacement; source and
   target fit if its largest displacement, on the mean lattice, after removal of the mean shift and
   in units of (volume per site)^(1/3), is less than stol.

Lengths are in units of (volume per site)^(1/3) throughout, since cells come scaled (cells.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice
from scipy.optimize import linear_sum_assignment

from pccd_workflows.campaign import MatcherSettings
from pccd_workflows.screening.cells import Cell

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

CHUNK = 2_000_000
"""Elements of the largest temporary arrays: some tens of MB."""
FORBIDDEN = 1e20
"""Squared displacement of two sites that may not be assigned to each other."""
IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)


@dataclass(frozen=True)
class Stack:
    """Cells with the same species and the same number of sites of each, as arrays.

    matrices: shape (m, 3, 3). coords: shape (3, m, n). anchors: shape (m,).
    lengths, angles (degrees) of the cells: shape (m, 3).
    blocks: the sites of each species.
    """

    matrices: FloatArray
    coords: FloatArray
    anchors: IntArray
    lengths: FloatArray
    angles: FloatArray
    blocks: tuple[slice, ...]

    @property
    def n_sites(self) -> int:
        """Sites per cell."""
        return self.coords.shape[2]


def stack(cells: Sequence[Cell]) -> Stack:
    """Return cells of one composition as arrays."""
    matrices = np.array([cell.matrix for cell in cells])
    lengths = np.linalg.norm(matrices, axis=2)
    ends = np.cumsum([count for _, count in cells[0].species]).tolist()
    return Stack(
        matrices=matrices,
        coords=np.ascontiguousarray(np.moveaxis(np.array([c.coords for c in cells]), 2, 0)),
        anchors=np.array([cell.anchor for cell in cells]),
        lengths=lengths,
        angles=np.degrees(np.arccos(_cosines(matrices / lengths[:, :, None]))),
        blocks=tuple(slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)),
    )


def fits(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings
) -> BoolArray:
    """Return whether StructureMatcher would fit each source cell to its target cell.

    Parameters
    ----------
    cells
        Cells of one composition.
    sources, targets
        Indices of the cells to compare, shape (p,). The verdict is that of
        ``StructureMatcher.fit(source, target)``, which is not symmetric.
    settings
        Tolerances.
    """
    verdicts = np.zeros(len(sources), dtype=bool)
    for chunk in _chunks(cells, sources, targets, settings):
        maps = _lattice_mappings(cells, sources[chunk], targets[chunk], settings)
        if len(maps.pair):
            verdicts[chunk] = _any_fit(cells, sources[chunk], targets[chunk], maps, settings)
    return verdicts


# stage 1: lattices -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mappings:
    """Bases of source lattices that resemble target cells.

    pair: index of the pair, shape (q,). basis: integer combinations of the source's lattice
    vectors as rows, shape (q, 3, 3). lengths, angles (degrees): of the mean of the basis and the
    target cell, shape (q, 3).
    """

    pair: IntArray
    basis: FloatArray
    lengths: FloatArray
    angles: FloatArray


@dataclass(frozen=True)
class _Vectors:
    """Lattice vectors of several cells, of each v and -v only one, by cell and length.

    integers, units (directions): shape (t, 3). lengths: shape (t,).
    first, last: range of the vectors of each cell with a length near each target length, for each
    pair and axis, shape (p, 3).
    """

    integers: FloatArray
    units: FloatArray
    lengths: FloatArray
    first: IntArray
    last: IntArray


def _chunks(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings
) -> Iterator[slice]:
    """Yield slices of the pairs whose stage 1 fits into memory.

    The number of lattice vectors in a shell around a length l is about 2 pi l^3 (1 + ltol)^3 over
    the cell's volume; stage 1 tries triples of them.
    """
    shells = 2 + 2 * np.pi / cells.n_sites * cells.lengths**3 * settings.ltol * 2
    cost = np.cumsum(np.prod(shells, axis=1)[targets])
    start = 0
    while start < len(sources):
        base = cost[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(cost, base + CHUNK)))
        yield slice(start, stop)
        start = stop


def _lattice_mappings(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings
) -> _Mappings:
    vectors = _near_vectors(cells, sources, targets, settings)
    counts = vectors.last - vectors.first
    low, high = _cosine_windows(cells.angles, settings.angle_tol)
    # a runs over half of the vectors (the others are their negatives), b and c over all
    pair, i = _expand(np.where(counts.all(axis=1), counts[:, 0], 0))
    a = vectors.first[pair, 0] + i
    row, j = _expand(2 * counts[pair, 1])
    pair, a = pair[row], a[row]
    b, b_sign = vectors.first[pair, 1] + j // 2, 1.0 - 2.0 * (j % 2)
    gamma = b_sign * _dot(vectors.units[a], vectors.units[b])
    ok = _within(gamma, low[targets[pair], 2], high[targets[pair], 2])
    pair, a, b, b_sign, gamma = pair[ok], a[ok], b[ok], b_sign[ok], gamma[ok]
    row, k = _expand(2 * counts[pair, 2])
    pair, a, b, b_sign, gamma = pair[row], a[row], b[row], b_sign[row], gamma[row]
    c, c_sign = vectors.first[pair, 2] + k // 2, 1.0 - 2.0 * (k % 2)
    beta = c_sign * _dot(vectors.units[a], vectors.units[c])
    ok = _within(beta, low[targets[pair], 1], high[targets[pair], 1])
    pair, a, b, b_sign, gamma = pair[ok], a[ok], b[ok], b_sign[ok], gamma[ok]
    c, c_sign, beta = c[ok], c_sign[ok], beta[ok]
    alpha = b_sign * c_sign * _dot(vectors.units[b], vectors.units[c])
    ok = _within(alpha, low[targets[pair], 0], high[targets[pair], 0])
    basis = np.stack(
        [
            vectors.integers[a],
            b_sign[:, None] * vectors.integers[b],
            c_sign[:, None] * vectors.integers[c],
        ],
        axis=1,
    )
    ok[ok] = np.abs(np.abs(np.linalg.det(basis[ok])) - 1) < 0.5
    pair, basis = pair[ok], basis[ok]
    target = targets[pair]
    lengths = np.stack([vectors.lengths[v[ok]] for v in (a, b, c)], axis=1)
    cosines = np.stack([alpha[ok], beta[ok], gamma[ok]], axis=1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    lengths = (lengths + cells.lengths[target]) / 2
    angles = (angles + cells.angles[target]) / 2
    return _Mappings(
        pair=np.concatenate([pair, pair]),
        basis=np.concatenate([basis, -basis]),
        lengths=np.concatenate([lengths, lengths]),
        angles=np.concatenate([angles, angles]),
    )


def _near_vectors(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings
) -> _Vectors:
    distinct, which = np.unique(sources, return_inverse=True)
    wanted = cells.lengths[targets]
    reach = np.zeros(len(distinct))
    np.maximum.at(reach, which, wanted.max(axis=1) * (1 + settings.ltol))
    lists = [_half_sphere(cells.matrices[s], r) for s, r in zip(distinct, reach, strict=True)]
    integers = np.concatenate([ints for ints, _ in lists])
    carts = np.concatenate([cart for _, cart in lists])
    lengths = np.linalg.norm(carts, axis=1)
    owner = np.repeat(np.arange(len(lists)), [len(ints) for ints, _ in lists])
    step = 2 * reach.max() + 1
    order = np.argsort(owner * step + lengths)
    integers, carts, lengths = integers[order], carts[order], lengths[order]
    keys = owner * step + lengths
    base = (which * step)[:, None]
    return _Vectors(
        integers=integers,
        units=carts / lengths[:, None],
        lengths=lengths,
        first=np.searchsorted(keys, base + wanted / (1 + settings.ltol), side="right"),
        last=np.searchsorted(keys, base + wanted * (1 + settings.ltol), side="left"),
    )


def _half_sphere(matrix: FloatArray, radius: float) -> tuple[FloatArray, FloatArray]:
    """Return the lattice vectors up to a length, one of each pair ±v: integers and Cartesian."""
    reciprocal = np.linalg.norm(np.linalg.inv(matrix), axis=0)
    x, y, z = np.floor(radius * reciprocal + 1e-9).astype(int).tolist()
    integers = _half_grid(x, y, z)
    carts = integers @ matrix
    inside = (carts * carts).sum(axis=1) <= radius * radius
    return integers[inside], carts[inside]


@lru_cache(maxsize=512)
def _half_grid(x: int, y: int, z: int) -> FloatArray:
    grid = np.array(
        [v for v in product(range(x + 1), range(-y, y + 1), range(-z, z + 1)) if v > (0, 0, 0)],
        dtype=float,
    )
    return grid.reshape(-1, 3)


def _cosine_windows(angles: FloatArray, tolerance: float) -> tuple[FloatArray, FloatArray]:
    low = np.cos(np.radians(np.minimum(angles + tolerance, 180)))
    high = np.cos(np.radians(np.maximum(angles - tolerance, 0)))
    return low, high


# stage 2: sites ----------------------------------------------------------------------------------


def _any_fit(
    cells: Stack,
    sources: IntArray,
    targets: IntArray,
    maps: _Mappings,
    settings: MatcherSettings,
) -> BoolArray:
    """Return for each pair whether one of its mappings carries the sites onto each other."""
    verdicts = np.zeros(len(sources), dtype=bool)
    size = max(1, CHUNK // (cells.n_sites * max(b.stop - b.start for b in cells.blocks)))
    for start in range(0, len(maps.pair), size):
        part = slice(start, start + size)
        some = _Mappings(maps.pair[part], maps.basis[part], maps.lengths[part], maps.angles[part])
        trials = _superpose(cells, sources, targets, some, settings)
        verdicts[_first_fits(cells, trials, settings, verdicts)] = True
    return verdicts


@dataclass(frozen=True)
class _Trials:
    """Superpositions of two crystals.

    pair: index of the pair, shape (s,). source, target: fractional coordinates in the same mean
    cell, shape (3, s, n). lengths, angles of the mean cell: shape (s, 3).
    """

    pair: IntArray
    source: FloatArray
    target: FloatArray
    lengths: FloatArray
    angles: FloatArray

    def take(self, chosen: IntArray | BoolArray) -> "_Trials":
        return _Trials(
            self.pair[chosen],
            self.source[:, chosen],
            self.target[:, chosen],
            self.lengths[chosen],
            self.angles[chosen],
        )


def _superpose(
    cells: Stack, sources: IntArray, targets: IntArray, maps: _Mappings, settings: MatcherSettings
) -> _Trials:
    """Return the superpositions in which every target site is near a source site of its kind."""
    inverse = np.rint(np.linalg.inv(maps.basis))
    source = np.einsum("iqn,qij->jqn", cells.coords[:, sources[maps.pair]], inverse)
    target_index = targets[maps.pair]
    target = cells.coords[:, target_index]
    anchors = cells.anchors[target_index]
    parts = []
    for block in cells.blocks:
        rows = np.flatnonzero((anchors >= block.start) & (anchors < block.stop))
        row = np.repeat(rows, block.stop - block.start)
        site = np.tile(np.arange(block.start, block.stop), len(rows))
        shift = source[:, row, site] - target[:, row, anchors[row]]
        trials = _Trials(
            maps.pair[row],
            source[:, row],
            target[:, row] + shift[:, :, None],
            maps.lengths[row],
            maps.angles[row],
        )
        parts.append(_near_everywhere(trials, cells.blocks, settings))
    return _join(parts)


def _join(parts: Sequence[_Trials]) -> _Trials:
    return _Trials(
        np.concatenate([p.pair for p in parts]),
        np.concatenate([p.source for p in parts], axis=1),
        np.concatenate([p.target for p in parts], axis=1),
        np.concatenate([p.lengths for p in parts]),
        np.concatenate([p.angles for p in parts]),
    )


def _near_everywhere(
    trials: _Trials, blocks: Sequence[slice], settings: MatcherSettings
) -> _Trials:
    """Keep the trials in which every target site is near some source site of its species."""
    n_sites = trials.source.shape[2]
    for block in sorted(blocks, key=lambda b: b.stop - b.start):
        volume, areas = _volume_and_areas(trials.lengths, trials.angles)
        # StructureMatcher's tolerance along each axis, as a distance between lattice planes
        reach = 2 * settings.stol * np.cbrt(volume / n_sites)
        tolerance = reach[:, None] * areas / volume[:, None]
        near = np.ones((len(trials.pair), *[block.stop - block.start] * 2), dtype=bool)
        for axis in range(3):
            gap = trials.target[axis, :, block, None] - trials.source[axis, :, None, block]
            gap -= np.rint(gap)
            near &= np.abs(gap) <= tolerance[:, axis, None, None]
        trials = trials.take(near.any(axis=2).all(axis=1))
    return trials


def _volume_and_areas(lengths: FloatArray, angles: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the volume, shape (s,), and the areas |b×c|, |c×a|, |a×b|, shape (s, 3)."""
    cosines = np.cos(np.radians(angles))
    root = 1 - (cosines**2).sum(axis=1) + 2 * cosines.prod(axis=1)
    volume = lengths.prod(axis=1) * np.sqrt(np.maximum(root, 1e-12))
    areas = lengths.prod(axis=1)[:, None] / lengths * np.sin(np.radians(angles))
    return volume, areas


# stage 3: distances ------------------------------------------------------------------------------


def _first_fits(
    cells: Stack, trials: _Trials, settings: MatcherSettings, known: BoolArray
) -> IntArray:
    """Return the pairs with a trial that fits; trials of a pair are spared after its first fit.

    Crystals of high symmetry that fit do so in many equivalent ways: one trial of each pair is
    looked at, then two, four and so on.
    """
    found: list[int] = np.flatnonzero(known).tolist()
    already = len(found)
    trials = trials.take(~known[trials.pair])
    take = 1
    size = max(1, CHUNK // (len(IMAGES) * cells.n_sites**2))
    while len(trials.pair):
        trials = trials.take(np.argsort(trials.pair, kind="stable"))
        _, first, counts = np.unique(trials.pair, return_index=True, return_counts=True)
        now = np.arange(len(trials.pair)) - np.repeat(first, counts) < take
        batch = trials.take(now)
        for start in range(0, len(batch.pair), size):
            part = batch.take(np.arange(start, min(start + size, len(batch.pair))))
            found.extend(part.pair[_largest_displacements(part, cells.blocks) < settings.stol])
        trials = trials.take(~now & ~np.isin(trials.pair, found))
        take *= 2
    return np.unique(np.array(found[already:], dtype=np.intp))


def _largest_displacements(trials: _Trials, blocks: Sequence[slice]) -> FloatArray:
    """Return the largest displacement of the best assignment of each trial, shape (s,).

    In units of (volume per site)^(1/3), on the mean lattice, after removal of the mean shift.
    """
    n_trials, n_sites = trials.source.shape[1:]
    matrices = _matrices(trials.lengths, trials.angles)
    moves = np.empty((n_trials, n_sites, 3))
    for block in blocks:
        vectors, squares = _shortest_vectors(trials, block, matrices)
        chosen = _assign(squares)
        moves[:, block] = np.take_along_axis(vectors, chosen[:, :, None, None], axis=2)[:, :, 0]
    moves -= moves.mean(axis=1, keepdims=True)
    volume, _ = _volume_and_areas(trials.lengths, trials.angles)
    largest = np.sqrt((moves**2).sum(axis=2).max(axis=1))
    return np.asarray(largest / np.cbrt(volume / n_sites), dtype=float)


def _shortest_vectors(
    trials: _Trials, block: slice, matrices: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the vectors from target to source sites, (s, k, k, 3), and their squared lengths."""
    gaps = trials.source[:, :, None, block] - trials.target[:, :, block, None]
    gaps -= np.rint(gaps)
    carts = np.einsum("iskl,sij->sklj", gaps, matrices)
    translations = IMAGES @ matrices
    squares = (
        2 * np.einsum("sklj,smj->sklm", carts, translations)
        + (translations**2).sum(axis=2)[:, None, None]
    )
    image = squares.argmin(axis=3)
    trial = np.arange(len(matrices))[:, None, None]
    vectors = carts + translations[trial, image]
    return vectors, (vectors**2).sum(axis=3)


def _assign(squares: FloatArray) -> IntArray:
    """Return the source site of each target site in the assignment of least sum, shape (s, k)."""
    chosen = squares.argmin(axis=2)
    k = squares.shape[1]
    if k > 1:
        clashes = np.flatnonzero((np.diff(np.sort(chosen, axis=1), axis=1) == 0).any(axis=1))
        for trial in clashes:
            chosen[trial] = linear_sum_assignment(squares[trial])[1]
    return chosen


def _matrices(lengths: FloatArray, angles: FloatArray) -> FloatArray:
    """Return lattice vectors as rows, shape (s, 3, 3), with c along z."""
    cos_a, cos_b, cos_g = np.cos(np.radians(angles)).T
    sin_a, sin_b, _ = np.sin(np.radians(angles)).T
    a, b, c = lengths.T
    cos_g_star = np.clip((cos_a * cos_b - cos_g) / (sin_a * sin_b), -1, 1)
    zero = np.zeros_like(a)
    rows = [
        [a * sin_b, zero, a * cos_b],
        [-b * sin_a * cos_g_star, b * sin_a * np.sqrt(1 - cos_g_star**2), b * cos_a],
        [zero, zero, c],
    ]
    return np.ascontiguousarray(np.moveaxis(np.array(rows), 2, 0))


# small tools -------------------------------------------------------------------------------------


def _expand(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Return for `counts` items per row the row of each item and its number in the row."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def _dot(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", u, v))


def _within(values: FloatArray, low: FloatArray, high: FloatArray) -> BoolArray:
    return np.asarray((values >= low) & (values <= high))


def _cosines(units: FloatArray) -> FloatArray:
    """Return the cosines of alpha, beta and gamma of unit lattice vectors, shape (m, 3)."""
    a, b, c = units[:, 0], units[:, 1], units[:, 2]
    return np.clip(np.stack([_dot(b, c), _dot(a, c), _dot(a, b)], axis=1), -1, 1)
