"""Whether one reduced cell fits another: StructureMatcher's verdict, for many pairs at once.

The algorithm is that of pymatgen's StructureMatcher (volumes scaled, no supercells, no subsets),
carried out in stages that each treat all pairs together and leave less to the next one:

1. lattices: the bases of the source lattice that resemble the target cell (lattices.py);
2. boxes: for each basis and each source site that the target's anchor is put on, whether every
   target site has a source site of its species within a fractional tolerance;
3. shifts: a fit needs every displacement within stol of their mean. Put on the source site that
   it is finally assigned to, the anchor has displacement 0. The mean is then within stol of 0,
   every displacement within stol of the mean and so within 2 stol of 0. Hence every target site
   has a source site of its species within 2 stol (`_in_spheres`), and along each axis of space
   some number within stol of 0 is within stol of one of these displacements for every site
   (`_around_one_shift`). A basis for which no position of the anchor passes cannot lead to a fit;
4. assignment: for what is left, the assignment of least squared displacement; source and target
   fit if its largest displacement from the mean, on the mean lattice, is less than stol.

Stage 3 is not part of StructureMatcher; it only spares work, and is done before stage 2. `may_fit`
does it for crystals and all their near copies at once. Let the mean lattice's squared lengths
change by at most a fraction x (`_relative_changes`) between a pair and its copies. Displacements on
the pair's lattice are then shorter than those on the copies' by at most 1 / sqrt(1 - x), the
tolerance differs by at most sqrt(1 + x), and every displacement relative to the anchor's by at most
the copies' own shifts. These are known on the pair's own lattices; `_stretches` bounds how much
longer they are on the mean one.

Lengths are in units of (volume per site)^(1/3), since cells come scaled (cells.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from scipy.optimize import linear_sum_assignment

from pccd_workflows.matching.cells import Cell
from pccd_workflows.matching.lattices import (
    CHUNK,
    BoolArray,
    FloatArray,
    IntArray,
    Lattices,
    Mappings,
    Pairs,
    expand,
    find_mappings,
    make_lattices,
    metrics,
    volume_and_areas,
)
from pccd_workflows.matching.settings import MatcherSettings

IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)
AT_ONCE = 50_000
"""Elements of arrays that are gone through many times."""


@dataclass(frozen=True)
class Stack:
    """Cells as arrays: the sites of all cells one after another.

    lattices: of the m cells. coords: fractional, shape (3, t). anchor: number of the site of
    each cell that is put on source sites first, shape (m,). sizes: number of sites of each
    species, rarest first, 0 where a cell has no more species, shape (m, b).
    """

    lattices: Lattices
    coords: FloatArray
    anchor: IntArray
    sizes: IntArray

    @cached_property
    def n_sites(self) -> IntArray:
        """Sites of each cell, shape (m,)."""
        return np.asarray(self.sizes.sum(axis=1))

    @cached_property
    def starts(self) -> IntArray:
        """The first site of each cell, shape (m,)."""
        return np.cumsum(self.n_sites) - self.n_sites

    @cached_property
    def offsets(self) -> IntArray:
        """The first site of each species, counted from the first one of its cell, shape (m, b)."""
        return np.cumsum(self.sizes, axis=1) - self.sizes


@dataclass(frozen=True)
class Blur:
    """How much the crystals that each of m cells stands for may differ from it.

    strain: largest relative change of a length, shape (m,). shift: largest difference between the
    shifts of two sites, in units of (volume per site)^(1/3), shape (m,).
    """

    strain: FloatArray
    shift: FloatArray

    def of(self, chosen: IntArray) -> "Blur":
        """Return the blur of some of the cells."""
        return Blur(self.strain[chosen], self.shift[chosen])


def no_blur(size: int) -> Blur:
    """Return the blur of cells that stand for themselves alone."""
    return Blur(np.zeros(size), np.zeros(size))


def stack(cells: Sequence[Cell]) -> Stack:
    """Return cells as arrays."""
    sizes = np.zeros((len(cells), max(len(cell.species) for cell in cells)), dtype=np.intp)
    for row, cell in zip(sizes, cells, strict=True):
        row[: len(cell.species)] = [count for _, count in cell.species]
    return Stack(
        lattices=make_lattices(np.array([cell.matrix for cell in cells])),
        coords=np.ascontiguousarray(np.concatenate([cell.coords for cell in cells]).T),
        anchor=np.array([cell.anchor for cell in cells]),
        sizes=sizes,
    )


def fits(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings
) -> BoolArray:
    """Return ``StructureMatcher.fit(source, target)``, which is not symmetric, shape (p,).

    Parameters
    ----------
    cells
        Where the pairs come from; both cells of a pair have the same numbers of like sites.
    sources, targets
        Indices of the cells to compare, shape (p,).
    settings
        Tolerances.
    """
    verdicts = np.zeros(len(sources), dtype=bool)
    sharp = no_blur(len(sources))
    for overlays in _overlays(cells, sources, targets, settings, (sharp, sharp)):
        for part in overlays.portions(cells):
            trials = _all_trials(cells, part, ~verdicts[part.pair])
            trials = trials.of(np.isin(trials.mapping, trials.mapping[trials.close]))
            trials = trials.of(_in_boxes(cells, part, trials, settings.stol))
            verdicts[_fitting_pairs(cells, part, trials, settings.stol)] = True
    return verdicts


def may_fit(
    cells: Stack,
    sources: IntArray,
    targets: IntArray,
    settings: MatcherSettings,
    blurs: tuple[Blur, Blur],
) -> BoolArray:
    """Return False where nothing the source stands for can fit anything the target stands for.

    Stages 1 and 3 with tolerances widened by the blurs of sources and targets, each of p cells;
    other parameters as of `fits`.
    """
    verdicts = np.zeros(len(sources), dtype=bool)
    for overlays in _overlays(cells, sources, targets, settings, blurs):
        for part in overlays.portions(cells):
            trials = _all_trials(cells, part, ~verdicts[part.pair])
            verdicts[part.pair[trials.mapping[trials.close]]] = True
    return verdicts


@dataclass(frozen=True)
class _Overlays:
    """Lattice mappings with all that the tests of the sites need.

    pair, target: index of the pair and of the target cell, shape (q,).
    source: fractional coordinates of the sources' sites in the targets' bases, one mapping's
    after another's, shape (3, t). starts: the first one of each mapping, shape (q,).
    matrix: of the mean lattice, shape (q, 3, 3). unit: its (V/n)^(1/3), shape (q,).
    spacings: of its planes, shape (q, 3). reach, radius: tolerances of stage 3, shape (q,).
    """

    pair: IntArray
    target: IntArray
    source: FloatArray
    starts: IntArray
    matrix: FloatArray
    unit: FloatArray
    spacings: FloatArray
    reach: FloatArray
    radius: FloatArray

    @property
    def short(self) -> BoolArray:
        """The axes along which the sphere reaches beyond half the cell, shape (q, 3).

        Along the others, vectors in the sphere have fractional coordinates in [-1/2, 1/2].
        """
        return np.asarray(2 * self.radius[:, None] > self.spacings)

    def portions(self, cells: Stack) -> Iterator["_Overlays"]:
        """Yield overlays whose trials fit into memory."""
        # anchors are of a species with fewest sites
        cost = np.cumsum((cells.sizes[:, 0] * cells.sizes.max(axis=1))[self.target])
        part = np.searchsorted(cost, np.arange(1, cost[-1] // CHUNK + 1) * CHUNK)
        bounds = np.unique([0, *part, len(cost)]).tolist()
        for start, stop in pairwise(bounds):
            chosen = slice(start, stop)
            yield _Overlays(
                self.pair[chosen],
                self.target[chosen],
                self.source,
                self.starts[chosen],
                self.matrix[chosen],
                self.unit[chosen],
                self.spacings[chosen],
                self.reach[chosen],
                self.radius[chosen],
            )


@dataclass(frozen=True)
class _Trials:
    """Shifts of the target in overlays.

    mapping: index of the overlay, shape (s,). shift: fractional, shape (3, s). close: whether
    stage 3 is passed, shape (s,).
    """

    mapping: IntArray
    shift: FloatArray
    close: BoolArray

    def of(self, chosen: IntArray | BoolArray) -> "_Trials":
        return _Trials(self.mapping[chosen], self.shift[:, chosen], self.close[chosen])


def _overlays(
    cells: Stack,
    sources: IntArray,
    targets: IntArray,
    settings: MatcherSettings,
    blurs: tuple[Blur, Blur],
) -> Iterator[_Overlays]:
    strain = blurs[0].strain + blurs[1].strain
    pairs = Pairs(
        sources,
        targets,
        stretch=(1 + settings.ltol) * (1 + strain) / (1 - strain),
        # a strain e turns a vector by at most arcsin(e), in source and target
        bend=settings.angle_tol + 2 * np.degrees(np.arcsin(strain)),
    )
    for maps in find_mappings(cells.lattices, pairs):
        if len(maps.pair):
            yield _overlay(cells, pairs, maps, settings.stol, blurs)


def _overlay(
    cells: Stack, pairs: Pairs, maps: Mappings, stol: float, blurs: tuple[Blur, Blur]
) -> _Overlays:
    source, target = pairs.sources[maps.pair], pairs.targets[maps.pair]
    volume, areas = volume_and_areas(maps.lengths, maps.angles)
    n_sites = cells.n_sites[source]
    unit = np.cbrt(volume / n_sites)
    metric = metrics(maps.lengths, maps.angles)
    reach = stol * unit * (1 + 1e-9)
    radius = 2 * reach
    of_source, of_target = (blur.of(maps.pair) for blur in blurs)
    largest = np.maximum(of_source.strain + of_source.shift, of_target.strain + of_target.shift)
    if len(some := np.flatnonzero(largest)):
        one, other, inverse = of_source.of(some), of_target.of(some), maps.inverse[some]
        x = _relative_changes(metric[some], one.strain, other.strain)
        reach[some] *= np.sqrt((1 + x) / np.maximum(1 - x, 1e-9))
        in_source = inverse @ metric[some] @ inverse.transpose(0, 2, 1)
        shift = one.shift * _stretches(cells.lattices, source[some], in_source)
        shift += other.shift * _stretches(cells.lattices, target[some], metric[some])
        radius[some] = 2 * reach[some] + shift
    row, number = expand(n_sites)
    coords = cells.coords[:, cells.starts[source][row] + number]
    inverse = np.repeat(maps.inverse.transpose(1, 2, 0).copy(), n_sites, axis=2)
    return _Overlays(
        pair=maps.pair,
        target=target,
        source=np.asarray(sum(coords[i] * inverse[i] for i in range(3))),
        starts=np.cumsum(n_sites) - n_sites,
        # rows of the Cholesky factor of a metric tensor are lattice vectors with that metric
        matrix=np.asarray(np.linalg.cholesky(metric)),
        unit=unit,
        spacings=volume[:, None] / areas,
        reach=reach,
        radius=radius,
    )


def _relative_changes(metric: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """Return by how much squared lengths on mean lattices change at most, relatively, shape (q,).

    If the two lattices are strained by up to e and f. The lengths of the mean lattice's vectors
    then change by up to g = max(e, f), its angles by up to d = arcsin(e) + arcsin(f), hence its
    metric tensor, in units of the lengths, by a matrix with entries of up to 2g + g^2 on the
    diagonal and (2g + g^2) (|cosine| + d) + d elsewhere. The largest sum of a row bounds its
    norm, which is compared with the least eigenvalue of the metric tensor.
    """
    lengths = np.sqrt(np.diagonal(metric, axis1=1, axis2=2))
    cosines = metric / lengths[:, :, None] / lengths[:, None, :]
    g = np.maximum(one, other)
    d = np.arcsin(one) + np.arcsin(other)
    rows = np.abs(cosines).sum(axis=2).max(axis=1)
    norm = (2 * g + g**2) * (rows + 2 * d) + 2 * d
    # eigenvalues of a unit diagonal and three cosines: 1 + roots of t^3 - p t - 2 q
    x, y, z = cosines[:, 1, 2], cosines[:, 0, 2], cosines[:, 0, 1]
    third = np.sqrt((x**2 + y**2 + z**2) / 3 + 1e-12)
    phase = np.arccos(np.clip(x * y * z / third**3, -1, 1))
    least = 1 + 2 * third * np.cos((phase + 2 * np.pi) / 3)
    return np.asarray(norm / np.maximum(least, 1e-9))


def _stretches(lattices: Lattices, index: IntArray, metric: FloatArray) -> FloatArray:
    """Return an upper bound of lengths on other metric tensors, relative to the lattices' own."""
    inverse = np.linalg.inv(lattices.matrices)[index]
    relative = inverse @ metric @ inverse.transpose(0, 2, 1)
    return np.asarray(np.sqrt(1 + np.linalg.norm(relative - np.eye(3), axis=(1, 2))))


# stages 2 and 3 ----------------------------------------------------------------------------------


def _in_boxes(cells: Stack, overlays: _Overlays, trials: _Trials, stol: float) -> BoolArray:
    """Return whether every target site is near a source site of its species: stage 2."""
    inside = np.ones(len(trials.mapping), dtype=bool)
    boxes = 2 * stol * overlays.unit[:, None] / overlays.spacings
    for block in range(cells.sizes.shape[1]):
        left = np.flatnonzero(inside)
        for rows in _by_size(cells, overlays, trials.of(left), block, 2):
            some = left[rows]
            gaps = np.abs(_gaps(cells, overlays, trials.of(some), block))
            box = boxes[trials.mapping[some]].T[:, None, None]
            near = np.all(gaps <= box, axis=0)
            inside[some] = np.all(near.any(axis=1), axis=0)
    return inside


def _all_trials(cells: Stack, overlays: _Overlays, wanted: BoolArray) -> _Trials:
    """Return the anchor of the target on every source site of its species."""
    mapping = np.flatnonzero(wanted)
    target = overlays.target[mapping]
    anchor = cells.anchor[target]
    block = (cells.offsets[target] <= anchor[:, None]).sum(axis=1) - 1
    # absent species stand last, with offsets beyond the last site
    row, number = expand(cells.sizes[target, block])
    mapping, target = mapping[row], target[row]
    site = overlays.starts[mapping] + cells.offsets[target, block[row]] + number
    shift = overlays.source[:, site] - cells.coords[:, cells.starts[target] + anchor[row]]
    trials = _Trials(mapping, shift, np.ones(len(mapping), dtype=bool))
    return _Trials(mapping, shift, _close(cells, overlays, trials))


def _by_size(
    cells: Stack, overlays: _Overlays, trials: _Trials, block: int, power: int
) -> Iterator[IntArray]:
    """Yield trials whose cells have the same number k of sites of the species `block`.

    As many at once as keep arrays of k^power numbers per trial small.
    """
    sizes = cells.sizes[overlays.target[trials.mapping], block]
    for k in np.unique(sizes[sizes > 0]).tolist():
        rows = np.flatnonzero(sizes == k)
        step = max(1, AT_ONCE // k**power)
        for start in range(0, len(rows), step):
            yield rows[start : start + step]


def _gaps(cells: Stack, overlays: _Overlays, trials: _Trials, block: int) -> FloatArray:
    """Return the smallest fractional vectors from target to source sites, (3, k, k, s).

    `block` is the number of the species, of which all cells have k sites.
    """
    target = overlays.target[trials.mapping]
    first = cells.offsets[target, block]
    numbers = np.arange(cells.sizes[target[0], block])[:, None]
    source = overlays.source[:, overlays.starts[trials.mapping] + first + numbers]
    sites = cells.coords[:, cells.starts[target] + first + numbers] + trials.shift[:, None]
    gaps = source[:, None] - sites[:, :, None]
    gaps -= np.rint(gaps)
    return np.asarray(gaps)


def _close(cells: Stack, overlays: _Overlays, trials: _Trials) -> BoolArray:
    """Return whether stage 3 is passed."""
    close = np.zeros(len(trials.mapping), dtype=bool)
    short = overlays.short[trials.mapping] @ (4, 2, 1)
    for code in np.unique(short).tolist():
        axes = (code & 4, code & 2, code & 1)
        # beyond half the cell the next image may be nearer
        images = np.array(list(product(*((-1, 0, 1) if axis else (0,) for axis in axes))))
        left = np.flatnonzero(short == code)
        for block in range(cells.sizes.shape[1]):
            left = left[_in_spheres(cells, overlays, trials.of(left), block, images)]
        close[left[_around_one_shift(cells, overlays, trials.of(left), images)]] = True
    return close


def _in_spheres(
    cells: Stack, overlays: _Overlays, trials: _Trials, block: int, images: IntArray
) -> BoolArray:
    """Return whether every target site of a species has a source site within the radius."""
    inside = np.ones(len(trials.mapping), dtype=bool)
    for rows in _by_size(cells, overlays, trials, block, 1):
        inside[rows] = False
        inside[rows[_within(cells, overlays, trials.of(rows), block, images)]] = True
    return inside


def _within(
    cells: Stack, overlays: _Overlays, trials: _Trials, block: int, images: IntArray
) -> IntArray:
    """Return which trials have all target sites of a species within the radius of a source site.

    Most trials fail at the first site or the second; the others are spared then.
    """
    mapping = trials.mapping
    target = overlays.target[mapping]
    k = int(cells.sizes[target[0], block])
    numbers = np.arange(k)[:, None]
    offset = cells.offsets[target, block]
    source = overlays.source[:, overlays.starts[mapping] + offset + numbers]
    sites = cells.coords[:, cells.starts[target] + offset + numbers] + trials.shift[:, None]
    matrix = overlays.matrix[mapping].transpose(1, 2, 0)
    limit = overlays.radius[mapping] ** 2
    left = np.arange(len(mapping))
    # the anchor, which is at a source site, is mostly the first site of its species
    last = k
    while last > 0 and len(left):
        first = max(0, last - max(1, AT_ONCE // (2 * k * len(left))))
        gaps = source[:, None] - sites[:, first:last, None]
        gaps -= np.rint(gaps)
        squares = _least_squares(_in_space(gaps, matrix), matrix, images)
        near = np.flatnonzero((squares.min(axis=1) <= limit).all(axis=0))
        last = first
        if len(near) < len(left):
            left, limit = left[near], limit[near]
            source, sites, matrix = (np.take(x, near, axis=2) for x in (source, sites, matrix))
    return left


def _in_space(gaps: FloatArray, matrix: FloatArray) -> FloatArray:
    """Return fractional vectors, shape (3, ..., s), in space.

    matrix: lattice vectors as rows, lower triangles, shape (3, 3, s).
    """
    vectors = np.empty_like(gaps)
    vectors[0] = gaps[0] * matrix[0, 0] + gaps[1] * matrix[1, 0] + gaps[2] * matrix[2, 0]
    vectors[1] = gaps[1] * matrix[1, 1] + gaps[2] * matrix[2, 1]
    vectors[2] = gaps[2] * matrix[2, 2]
    return vectors


def _least_squares(vectors: FloatArray, matrix: FloatArray, images: IntArray) -> FloatArray:
    """Return the least squared length of vectors moved by `images`, shape (..., s).

    vectors: shape (3, ..., s). matrix: shape (3, 3, s). images: shape (i, 3), sorted, with each
    vector its negative and in the middle the null vector.
    """
    x, y, z = vectors
    least = x**2 + y**2 + z**2
    if len(images) == 1:
        return np.asarray(least)
    change = np.zeros_like(least)
    for image in images[len(images) // 2 + 1 :]:
        # |v ± t|^2 - |v|^2 is least for the sign that makes v·t negative
        u, v, w = (sum(t * matrix[i, j] for i, t in enumerate(image) if t) for j in range(3))
        np.minimum(change, u**2 + v**2 + w**2 - 2 * np.abs(u * x + v * y + w * z), out=change)
    return np.asarray(least + change)


def _around_one_shift(
    cells: Stack, overlays: _Overlays, trials: _Trials, images: IntArray
) -> BoolArray:
    """Return whether one vector may be within reach of a displacement of every target site.

    Along each axis of space, a site limits that vector to what is within reach of one of its
    possible displacements; the anchor's is 0.
    """
    reach = overlays.reach[trials.mapping]
    span = overlays.radius[trials.mapping] - reach
    low = np.tile(-reach, (3, 1))
    high = -low
    left = np.arange(len(trials.mapping))
    for block in range(cells.sizes.shape[1]):
        for rows in _by_size(cells, overlays, trials.of(left), block, 2):
            some = left[rows]
            least, most = _extremes(cells, overlays, trials.of(some), block, images)
            low[:, some] = np.maximum(low[:, some], least - span[some])
            high[:, some] = np.minimum(high[:, some], most + span[some])
        left = left[(low[:, left] <= high[:, left]).all(axis=0)]
    return np.asarray(np.all(low <= high, axis=0))


def _extremes(
    cells: Stack, overlays: _Overlays, trials: _Trials, block: int, images: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the largest least and least largest component of a site's displacements, (3, s)."""
    matrix = overlays.matrix[trials.mapping].transpose(1, 2, 0)
    vectors = _in_space(_gaps(cells, overlays, trials, block), matrix)
    limit = overlays.radius[trials.mapping] ** 2
    least = np.full((3, len(vectors[0]), len(limit)), np.inf)
    most = -least
    for image in images:
        moved = vectors + (image @ matrix.transpose(2, 0, 1)).T[:, None, None]
        x, y, z = moved
        outside = x**2 + y**2 + z**2 > limit
        np.minimum(least, np.where(outside, np.inf, moved).min(axis=2), out=least)
        np.maximum(most, np.where(outside, -np.inf, moved).max(axis=2), out=most)
    return least.max(axis=1), most.min(axis=1)


# stage 4 -----------------------------------------------------------------------------------------


def _fitting_pairs(cells: Stack, overlays: _Overlays, trials: _Trials, stol: float) -> IntArray:
    """Return the pairs with a trial that fits; a pair's trials are spared after its first fit.

    Crystals of high symmetry fit in many equivalent ways: one trial of each pair is looked at
    first, then eight, and so on.
    """
    found: list[int] = []
    take = 1
    size = max(1, CHUNK // int(cells.n_sites.max()) ** 2)
    while len(trials.mapping):
        trials = trials.of(np.lexsort((~trials.close, overlays.pair[trials.mapping])))
        pair = overlays.pair[trials.mapping]
        _, first, counts = np.unique(pair, return_index=True, return_counts=True)
        now = np.arange(len(pair)) - np.repeat(first, counts) < take
        batch = np.flatnonzero(now)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            largest = _largest_displacements(cells, overlays, trials.of(part))
            found.extend(pair[part[largest < stol]].tolist())
        trials = trials.of(~now & ~np.isin(pair, found))
        take *= 8
    return np.array(found, dtype=np.intp)


def _largest_displacements(cells: Stack, overlays: _Overlays, trials: _Trials) -> FloatArray:
    """Return the largest displacement of the best assignment of each trial, shape (s,).

    After removal of the mean shift, on the mean lattice, in units of (V/n)^(1/3).
    """
    matrices = overlays.matrix[trials.mapping]
    limits = np.where(overlays.short.any(axis=1), 0.0, overlays.radius**2)[trials.mapping]
    target = overlays.target[trials.mapping]
    n_sites = cells.n_sites[target]
    starts = np.cumsum(n_sites) - n_sites
    moves = np.empty((int(n_sites.sum()), 3))
    for block in range(cells.sizes.shape[1]):
        for rows in _by_size(cells, overlays, trials, block, 2):
            gaps = _gaps(cells, overlays, trials.of(rows), block).transpose(3, 1, 2, 0)
            first = starts[rows] + cells.offsets[target[rows], block]
            sites = first[:, None] + np.arange(gaps.shape[1])
            moves[sites] = _best_moves(gaps, matrices[rows], limits[rows])
    mean = np.add.reduceat(moves, starts) / n_sites[:, None]
    squares = ((moves - np.repeat(mean, n_sites, axis=0)) ** 2).sum(axis=1)
    return np.sqrt(np.maximum.reduceat(squares, starts)) / overlays.unit[trials.mapping]


def _best_moves(gaps: FloatArray, matrices: FloatArray, limits: FloatArray) -> FloatArray:
    """Return the vectors of the assignment with the least sum of squares, shape (s, k, 3).

    gaps: fractional vectors from target to source sites, each component in [-1/2, 1/2], shape
    (s, k, k, 3). matrices: shape (s, 3, 3). limits: squared length up to which such a vector is
    the shortest one of its images, shape (s,).
    """
    vectors, squares, nearest = _nearest(gaps @ matrices[:, None])
    # where every target site has a nearest source site of its own, that is the assignment
    clear = _distinct(nearest) & (squares.min(axis=2).max(axis=1) <= limits)
    for start in range(0, len(gaps), size := max(1, CHUNK // (27 * gaps[0].size))):
        rest = start + np.flatnonzero(~clear[start : start + size])
        vectors[rest], squares, nearest[rest] = _nearest(
            _shortest_images(vectors[rest], matrices[rest])
        )
        for row in np.flatnonzero(~_distinct(nearest[rest])):
            nearest[rest[row]] = linear_sum_assignment(squares[row])[1]
    return np.take_along_axis(vectors, nearest[:, :, None, None], axis=2)[:, :, 0]


def _nearest(vectors: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return the vectors, their squared lengths and the nearest source of each target site."""
    squares = (vectors**2).sum(axis=3)
    return vectors, squares, squares.argmin(axis=2)


def _distinct(chosen: IntArray) -> BoolArray:
    """Return whether all numbers in a row differ, shape (s,)."""
    return np.asarray((np.diff(np.sort(chosen, axis=1), axis=1) != 0).all(axis=1))


def _shortest_images(vectors: FloatArray, matrices: FloatArray) -> FloatArray:
    """Return the shortest of the 27 nearest images of vectors, shape (s, k, k, 3)."""
    n_trials, k = vectors.shape[:2]
    flat = vectors.reshape(n_trials, k * k, 3)
    translations = IMAGES @ matrices
    # |v + t|^2 = |v|^2 + 2 v·t + |t|^2
    changes = 2 * (flat @ translations.transpose(0, 2, 1))
    changes += (translations**2).sum(axis=2)[:, None]
    image = changes.argmin(axis=2)
    shortest = flat + translations[np.arange(n_trials)[:, None], image]
    return np.asarray(shortest.reshape(vectors.shape))
