"""Bases of one lattice that resemble the reduced cell of another, for many pairs at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

CHUNK = 1_000_000
"""Elements of the largest temporary arrays: smaller ones are dominated by the calls themselves."""


@dataclass(frozen=True)
class Lattices:
    """Cells of one volume per site.

    matrices: lattice vectors as rows, shape (m, 3, 3). lengths, angles (degrees): shape (m, 3).
    """

    matrices: FloatArray
    lengths: FloatArray
    angles: FloatArray


@dataclass(frozen=True)
class Pairs:
    """Lattices to compare.

    sources, targets: indices, shape (p,).
    stretch: largest ratio of lengths, shape (p,). bend: largest difference of angles, degrees,
    shape (p,).
    """

    sources: IntArray
    targets: IntArray
    stretch: FloatArray
    bend: FloatArray

    def of(self, chosen: slice | IntArray) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(
            self.sources[chosen], self.targets[chosen], self.stretch[chosen], self.bend[chosen]
        )


@dataclass(frozen=True)
class Mappings:
    """Bases of source lattices that resemble target cells.

    pair: index of the pair, shape (q,). inverse: takes fractional coordinates of the source cell
    into the basis, shape (q, 3, 3). lengths, angles (degrees): of the mean of the basis and the
    target cell, shape (q, 3).
    """

    pair: IntArray
    inverse: FloatArray
    lengths: FloatArray
    angles: FloatArray


def make_lattices(matrices: FloatArray) -> Lattices:
    """Return lattices with their lengths and angles; `matrices` has shape (m, 3, 3)."""
    lengths = np.linalg.norm(matrices, axis=2)
    a, b, c = np.moveaxis(matrices / lengths[:, :, None], 1, 0)
    cosines = np.stack([_dot(b, c), _dot(a, c), _dot(a, b)], axis=1)
    return Lattices(matrices, lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1))))


def find_mappings(lattices: Lattices, pairs: Pairs) -> Iterator[Mappings]:
    """Yield all bases of each source lattice that resemble its target cell, in portions.

    A basis resembles a cell if its lengths divided by the cell's lie between 1 / stretch and
    stretch and its angles differ by at most bend, as in pymatgen's Lattice.find_all_mappings.
    """
    # pairs of one source stand together: its lattice vectors are found once
    order = np.argsort(pairs.sources, kind="stable")
    pairs = pairs.of(order)
    for part in _portions(lattices, pairs):
        found = _find_mappings(lattices, pairs.of(part))
        yield Mappings(order[part.start + found.pair], found.inverse, found.lengths, found.angles)


def volume_and_areas(lengths: FloatArray, angles: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return volumes, shape (s,), and the areas |b×c|, |c×a| and |a×b|, shape (s, 3)."""
    cosines = np.cos(np.radians(angles))
    root = 1 - (cosines**2).sum(axis=1) + 2 * cosines.prod(axis=1)
    product_of_lengths = lengths.prod(axis=1)
    volume = product_of_lengths * np.sqrt(np.maximum(root, 1e-12))
    areas = product_of_lengths[:, None] / lengths * np.sin(np.radians(angles))
    return volume, areas


def metrics(lengths: FloatArray, angles: FloatArray) -> FloatArray:
    """Return metric tensors, shape (s, 3, 3)."""
    x, y, z = np.cos(np.radians(angles)).T
    one = np.ones_like(x)
    cosines = np.moveaxis(np.array([[one, z, y], [z, one, x], [y, x, one]]), 2, 0)
    return np.asarray(cosines * lengths[:, :, None] * lengths[:, None, :])


def expand(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Return for `counts` items per row the row of each item and its number in the row."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def _portions(lattices: Lattices, pairs: Pairs) -> Iterator[slice]:
    """Yield slices of the pairs that need about CHUNK trials.

    A half shell between l / s and l s holds about 2 pi l^3 (s^3 - 1 / s^3) / 3V lattice vectors.
    """
    volume = np.abs(np.linalg.det(lattices.matrices))[pairs.targets]
    width = (pairs.stretch**3 - pairs.stretch**-3) * 2 * np.pi / 3 / volume
    shells = 2 + width[:, None] * lattices.lengths[pairs.targets] ** 3
    # of the triples about one in five pairs of a and b passes the test of their angle
    cost = np.cumsum(shells.prod(axis=1) * 4 / 5)
    start = 0
    while start < len(cost):
        done = cost[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(cost, done + CHUNK)))
        yield slice(start, stop)
        start = stop


@dataclass(frozen=True)
class _Vectors:
    """Lattice vectors of the sources by source and length; v and -v stand together.

    integers, shape (t, 3). units: directions, shape (3, t). lengths: shape (t,).
    first, count: range of the vectors with a length near each target length, shape (p, 3).
    """

    integers: FloatArray
    units: FloatArray
    lengths: FloatArray
    first: IntArray
    count: IntArray


def _find_mappings(lattices: Lattices, pairs: Pairs) -> Mappings:
    vectors = _vectors_near(lattices, pairs)
    count = vectors.count
    # a runs over one of each ±v, b and c over both
    pair, number = expand(np.where(count.all(axis=1), count[:, 0] // 2, 0))
    a = vectors.first[pair, 0] + 2 * number
    windows = _cosine_windows(lattices.angles[pairs.targets], pairs.bend[:, None])
    row, b, gamma = _at_angle(vectors, pair, a, 1, windows[:, :, 2])
    useful = np.unique(row)
    row_c, c, beta = _at_angle(vectors, pair[useful], a[useful], 2, windows[:, :, 1])
    # every b with every c of the same a
    counts = np.zeros(len(a), dtype=np.intp)
    counts[useful] = np.bincount(row_c, minlength=len(useful))
    with_b, number = expand(counts[row])
    with_c = (np.cumsum(counts) - counts)[row[with_b]] + number
    row, b, gamma = row[with_b], b[with_b], gamma[with_b]
    c, beta = c[with_c], beta[with_c]
    x, y, z = vectors.units
    alpha = x[b] * x[c] + y[b] * y[c] + z[b] * z[c]
    low, high = windows[:, pair[row], 0]
    ok = (alpha >= low) & (alpha <= high)
    row, b, c = row[ok], b[ok], c[ok]
    alpha, beta, gamma = alpha[ok], beta[ok], gamma[ok]
    basis = vectors.integers[np.stack([a[row], b, c], axis=1)]
    ok = np.abs(np.abs(np.linalg.det(basis)) - 1) < 0.5
    row, b, c = row[ok], b[ok], c[ok]
    inverse = np.rint(np.linalg.inv(basis[ok]))
    target = pairs.targets[pair[row]]
    lengths = vectors.lengths[np.stack([a[row], b, c], axis=1)]
    cosines = np.stack([alpha[ok], beta[ok], gamma[ok]], axis=1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return Mappings(
        pair=np.tile(pair[row], 2),
        inverse=np.concatenate([inverse, -inverse]),
        lengths=np.tile((lengths + lattices.lengths[target]) / 2, (2, 1)),
        angles=np.tile((angles + lattices.angles[target]) / 2, (2, 1)),
    )


def _at_angle(
    vectors: _Vectors, pair: IntArray, a: IntArray, axis: int, windows: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the vectors for an axis that are at the right angle to a: row of a, vector, cosine.

    windows: least and largest cosine for each pair, shape (2, p).
    """
    counts = vectors.count[pair, axis]
    row, number = expand(counts)
    v = np.repeat(vectors.first[pair, axis], counts) + number
    cosine = np.zeros(len(v))
    for along in vectors.units:
        cosine += np.repeat(along[a], counts) * along[v]
    low, high = np.repeat(windows[:, pair], counts, axis=1)
    ok = (cosine >= low) & (cosine <= high)
    return row[ok], v[ok], cosine[ok]


def _vectors_near(lattices: Lattices, pairs: Pairs) -> _Vectors:
    distinct, which = np.unique(pairs.sources, return_inverse=True)
    wanted = lattices.lengths[pairs.targets]
    stretch = pairs.stretch[:, None]
    reach = np.zeros(len(distinct))
    np.maximum.at(reach, which, wanted.max(axis=1) * pairs.stretch)
    owner, integers, carts = _half_spheres(lattices.matrices[distinct], reach)
    lengths = np.linalg.norm(carts, axis=1)
    # one sorted array for all sources: each has its own range of keys
    step = 2 * float(reach.max()) + 1
    keys = owner * step + lengths
    order = np.argsort(keys)
    base = (which * step)[:, None]
    first = np.searchsorted(keys[order], base + wanted / stretch, side="right")
    last = np.searchsorted(keys[order], base + wanted * stretch, side="left")
    # v and -v
    order = np.repeat(order, 2)
    sign = 1.0 - 2.0 * (np.arange(len(order)) % 2)
    return _Vectors(
        integers=sign[:, None] * integers[order],
        units=(sign / lengths[order]) * carts[order].T,
        lengths=lengths[order],
        first=2 * first,
        count=2 * np.maximum(last - first, 0),
    )


def _half_spheres(
    matrices: FloatArray, radii: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return the vectors of lattices up to a length each, of each ±v only one.

    Returns
    -------
    owner
        Number of the lattice, shape (t,).
    integers, carts
        The vectors in units of the lattice vectors and in space, shape (t, 3).
    """
    reciprocal = np.linalg.norm(np.linalg.inv(matrices), axis=1)
    boxes = (radii[:, None] * reciprocal + 1e-9).astype(np.intp)
    kinds, which = np.unique(boxes, axis=0, return_inverse=True)
    owners, integers, carts = [], [], []
    for kind, box in enumerate(kinds.tolist()):
        members = np.flatnonzero(which == kind)
        grid = _half_grid(*box)
        for start in range(0, len(members), size := 1 + CHUNK // (3 * len(grid) + 1)):
            some = members[start : start + size]
            vectors = grid @ matrices[some]
            inside = (vectors**2).sum(axis=2) <= radii[some, None] ** 2
            row, number = np.nonzero(inside)
            owners.append(some[row])
            integers.append(grid[number])
            carts.append(vectors[inside])
    return np.concatenate(owners), np.concatenate(integers), np.concatenate(carts)


@lru_cache(maxsize=512)
def _half_grid(x: int, y: int, z: int) -> FloatArray:
    grid = product(range(x + 1), range(-y, y + 1), range(-z, z + 1))
    return np.array([v for v in grid if v > (0, 0, 0)], dtype=float).reshape(-1, 3)


def _cosine_windows(angles: FloatArray, bend: FloatArray) -> FloatArray:
    """Return the least and the largest cosine of angles within `bend`, shape (2, p, 3)."""
    low = np.cos(np.radians(np.minimum(angles + bend, 180)))
    high = np.cos(np.radians(np.maximum(angles - bend, 0)))
    return np.array([low, high])


def _dot(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", u, v))
