"""Whether one reduced cell fits another: StructureMatcher's verdict, for many pairs at once.

The algorithm is that of pymatgen's StructureMatcher (volumes scaled, no supercells, no subsets),
carried out in stages that each treat all pairs together and leave less to the next one:

1. lattices: the bases of the source lattice that resemble the target cell (lattices.py);
2. boxes: for each basis and each source site that the target's anchor is put on, whether every
   target site has a source site of its species within a fractional tolerance;
3. spheres: a fit needs every displacement within stol of their mean, hence within 2 stol of the
   anchor's. Put on the source site that it is finally assigned to, the anchor has displacement 0
   and every target site a source site of its species within 2 stol. A basis for which no such
   position of the anchor exists cannot lead to a fit;
4. assignment: for what is left, the assignment of least squared displacement; source and target
   fit if its largest displacement from the mean, on the mean lattice, is less than stol.

Stage 3 is not part of StructureMatcher; it only spares work. Lengths are in units of
(volume per site)^(1/3), since cells come scaled (cells.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy.optimize import linear_sum_assignment

from pccd_workflows.campaign import MatcherSettings
from pccd_workflows.screening.cells import Cell
from pccd_workflows.screening.lattices import (
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

IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)
GROWTH = 10.0
"""Relative change of any tolerance or distance on the mean lattice per unit of strain: the sum of
the derivatives of V^(1/3), of an area and of a length is below 7 for reduced cells."""


@dataclass(frozen=True)
class Stack:
    """Cells with the same number of sites in each block of like sites, as arrays.

    lattices: of the m cells. coords: fractional, shape (3, m, n). anchors: the sites of each cell
    to be put on a source site first, shape (m, n). blocks: the sites of each species.
    """

    lattices: Lattices
    coords: FloatArray
    anchors: BoolArray
    blocks: tuple[slice, ...]

    @property
    def n_sites(self) -> int:
        """Sites per cell."""
        return int(self.coords.shape[2])


@dataclass(frozen=True)
class Blur:
    """How much the crystals that a cell stands for may differ from it.

    strain: largest relative change of a length, shape (m,). spread, shape (m, 3): largest
    difference between the shifts of two sites along each lattice vector, fractional. shift: the
    same in space, shape (m,).
    """

    strain: FloatArray
    spread: FloatArray
    shift: FloatArray


def stack(cells: Sequence[Cell]) -> Stack:
    """Return cells with the same numbers of like sites as arrays."""
    n_sites = cells[0].n_sites
    ends = np.cumsum([count for _, count in cells[0].species]).tolist()
    anchors = np.zeros((len(cells), n_sites), dtype=bool)
    anchors[np.arange(len(cells)), [cell.anchor for cell in cells]] = True
    return Stack(
        lattices=make_lattices(np.array([cell.matrix for cell in cells])),
        coords=np.ascontiguousarray(np.moveaxis(np.array([c.coords for c in cells]), 2, 0)),
        anchors=anchors,
        blocks=tuple(slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)),
    )


def fits(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings
) -> BoolArray:
    """Return ``StructureMatcher.fit(source, target)``, which is not symmetric, shape (p,).

    Parameters
    ----------
    cells
        Where the pairs come from; both cells of a pair have the same species.
    sources, targets
        Indices of the cells to compare, shape (p,).
    settings
        Tolerances.
    """
    verdicts = np.zeros(len(sources), dtype=bool)
    m = len(cells.anchors)
    sharp = Blur(np.zeros(m), np.zeros((m, 3)), np.zeros(m))
    for overlays in _overlays(cells, sources, targets, settings, sharp):
        for part in overlays.portions(cells):
            trials = _near_everywhere(cells, part, ~verdicts[part.pair])
            trials = trials.of(np.isin(trials.mapping, trials.mapping[trials.close]))
            verdicts[_fitting_pairs(cells, part, trials, settings.stol)] = True
    return verdicts


def may_fit(
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings, blur: Blur
) -> BoolArray:
    """Return False where nothing the source stands for can fit anything the target stands for.

    Stages 1 to 3 with tolerances widened by the blur of both cells; parameters as of `fits`.
    """
    verdicts = np.zeros(len(sources), dtype=bool)
    for overlays in _overlays(cells, sources, targets, settings, blur):
        for part in overlays.portions(cells):
            trials = _near_everywhere(cells, part, ~verdicts[part.pair])
            verdicts[part.pair[trials.mapping[trials.close]]] = True
    return verdicts


@dataclass(frozen=True)
class _Overlays:
    """Lattice mappings with all that the tests of the sites need.

    pair, target: index of the pair and of the target cell, shape (q,).
    source: fractional coordinates of the source's sites in the target's basis, shape (3, q, n).
    metric: of the mean lattice, shape (q, 3, 3). unit: its (V/n)^(1/3), shape (q,).
    box: tolerance of stage 2, fractional, shape (q, 3). radius: tolerance of stage 3, shape (q,).
    round: whether the sphere fits into half the cell, so that the displacement of smallest
    fractional coordinates is the shortest one within it, shape (q,).
    """

    pair: IntArray
    target: IntArray
    source: FloatArray
    metric: FloatArray
    unit: FloatArray
    box: FloatArray
    radius: FloatArray
    round: BoolArray

    def portions(self, cells: Stack) -> Iterator["_Overlays"]:
        """Yield overlays whose trials fit into memory."""
        largest = max(block.stop - block.start for block in cells.blocks)
        trials = cells.anchors[self.target].sum(axis=1) * largest
        cost = np.cumsum(trials * largest**2)
        part = np.searchsorted(cost, np.arange(1, cost[-1] // CHUNK + 1) * CHUNK)
        bounds = np.unique([0, *part, len(cost)]).tolist()
        for start, stop in pairwise(bounds):
            chosen = slice(start, stop)
            yield _Overlays(
                self.pair[chosen],
                self.target[chosen],
                self.source[:, chosen],
                self.metric[chosen],
                self.unit[chosen],
                self.box[chosen],
                self.radius[chosen],
                self.round[chosen],
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
    cells: Stack, sources: IntArray, targets: IntArray, settings: MatcherSettings, blur: Blur
) -> Iterator[_Overlays]:
    strain = blur.strain[sources] + blur.strain[targets]
    pairs = Pairs(
        sources,
        targets,
        stretch=(1 + settings.ltol) * (1 + strain) / (1 - strain),
        # a strain e turns a vector by at most arcsin(e), in source and target
        bend=settings.angle_tol + 2 * np.degrees(np.arcsin(strain)),
    )
    for maps in find_mappings(cells.lattices, pairs):
        if len(maps.pair):
            yield _overlay(cells, pairs, maps, settings.stol, blur)


def _overlay(cells: Stack, pairs: Pairs, maps: Mappings, stol: float, blur: Blur) -> _Overlays:
    source, target = pairs.sources[maps.pair], pairs.targets[maps.pair]
    volume, areas = volume_and_areas(maps.lengths, maps.angles)
    unit = np.cbrt(volume / cells.n_sites)
    growth = 1 + GROWTH * (blur.strain[source] + blur.strain[target])
    spread = blur.spread[target] + np.einsum(
        "qi,qij->qj", blur.spread[source], np.abs(maps.inverse)
    )
    spacings = volume[:, None] / areas
    reach = 2 * stol * unit * growth
    radius = (reach + blur.shift[source] + blur.shift[target]) * growth * (1 + 1e-9)
    return _Overlays(
        pair=maps.pair,
        target=target,
        source=np.einsum("iqn,qij->jqn", cells.coords[:, source], maps.inverse, optimize=True),
        metric=metrics(maps.lengths, maps.angles),
        unit=unit,
        box=reach[:, None] / spacings + spread,
        radius=radius,
        round=np.asarray(2 * radius <= spacings.min(axis=1)),
    )


# stages 2 and 3 ----------------------------------------------------------------------------------


def _near_everywhere(cells: Stack, overlays: _Overlays, wanted: BoolArray) -> _Trials:
    """Return the trials in which every target site is near a source site of its species."""
    trials = _all_trials(cells, overlays, wanted)
    for block in sorted(cells.blocks, key=lambda b: b.stop - b.start):
        size = block.stop - block.start
        near: BoolArray = np.ones((len(trials.mapping), size, size), dtype=bool)
        for axis, gaps in enumerate(_gaps(cells, overlays, trials, block)):
            near &= np.abs(gaps) <= overlays.box[trials.mapping, axis, None, None]
        trials = trials.of(np.asarray(np.any(near, axis=2).all(axis=1)))
    return _Trials(trials.mapping, trials.shift, _in_spheres(cells, overlays, trials))


def _all_trials(cells: Stack, overlays: _Overlays, wanted: BoolArray) -> _Trials:
    """Return every anchor of the target on every source site of its species."""
    ends = np.array([block.stop for block in cells.blocks])
    starts = np.array([block.start for block in cells.blocks])
    mapping, anchor = np.nonzero(cells.anchors[overlays.target] & wanted[:, None])
    block = np.searchsorted(ends, anchor, side="right")
    row, number = expand((ends - starts)[block])
    mapping, anchor, site = mapping[row], anchor[row], starts[block[row]] + number
    shift = overlays.source[:, mapping, site] - cells.coords[:, overlays.target[mapping], anchor]
    return _Trials(mapping, shift, np.ones(len(mapping), dtype=bool))


def _gaps(cells: Stack, overlays: _Overlays, trials: _Trials, block: slice) -> FloatArray:
    """Return the smallest fractional vectors from target to source sites, (3, s, k, k)."""
    source = overlays.source[:, trials.mapping, block]
    target = cells.coords[:, overlays.target[trials.mapping], block] + trials.shift[:, :, None]
    gaps = source[:, :, None, :] - target[:, :, :, None]
    gaps -= np.rint(gaps)
    return np.asarray(gaps)


def _in_spheres(cells: Stack, overlays: _Overlays, trials: _Trials) -> BoolArray:
    """Return whether every target site has a source site of its species within the radius."""
    inside = np.ones(len(trials.mapping), dtype=bool)
    for block in sorted(cells.blocks, key=lambda b: b.stop - b.start):
        open_ones = np.flatnonzero(inside & overlays.round[trials.mapping])
        some = trials.of(open_ones)
        metric = overlays.metric[some.mapping][:, :, :, None, None]
        x, y, z = _gaps(cells, overlays, some, block)
        squares = x * (metric[:, 0, 0] * x + 2 * (metric[:, 0, 1] * y + metric[:, 0, 2] * z))
        squares += y * (metric[:, 1, 1] * y + 2 * metric[:, 1, 2] * z) + metric[:, 2, 2] * z * z
        nearest = squares.min(axis=2).max(axis=1)
        inside[open_ones] = nearest <= overlays.radius[some.mapping] ** 2
    return inside


# stage 4 -----------------------------------------------------------------------------------------


def _fitting_pairs(cells: Stack, overlays: _Overlays, trials: _Trials, stol: float) -> IntArray:
    """Return the pairs with a trial that fits; a pair's trials are spared after its first fit.

    Crystals of high symmetry fit in many equivalent ways: one trial of each pair is looked at,
    then two, four and so on.
    """
    found: list[int] = []
    take = 1
    size = max(1, CHUNK // (len(IMAGES) * cells.n_sites**2))
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
        take *= 2
    return np.array(found, dtype=np.intp)


def _largest_displacements(cells: Stack, overlays: _Overlays, trials: _Trials) -> FloatArray:
    """Return the largest displacement of the best assignment of each trial, shape (s,).

    After removal of the mean shift, on the mean lattice, in units of (V/n)^(1/3).
    """
    # rows of the Cholesky factor of a metric tensor are lattice vectors with that metric
    matrices = np.asarray(np.linalg.cholesky(overlays.metric[trials.mapping]), dtype=float)
    moves = np.empty((len(trials.mapping), cells.n_sites, 3))
    for block in cells.blocks:
        vectors, squares = _shortest(_gaps(cells, overlays, trials, block), matrices)
        chosen = _assign(squares)
        moves[:, block] = np.take_along_axis(vectors, chosen[:, :, None, None], axis=2)[:, :, 0]
    moves -= moves.mean(axis=1, keepdims=True)
    largest = np.sqrt((moves**2).sum(axis=2).max(axis=1))
    return np.asarray(largest / overlays.unit[trials.mapping])


def _shortest(gaps: FloatArray, matrices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the shortest images of vectors, shape (s, k, k, 3), and their squared lengths.

    gaps: fractional, shape (3, s, k, k). matrices: shape (s, 3, 3).
    """
    _, n_trials, k, _ = gaps.shape
    carts = np.moveaxis(gaps.reshape(3, n_trials, k * k), 0, 2) @ matrices
    translations = IMAGES @ matrices
    # |v + t|^2 = |v|^2 + 2 v·t + |t|^2, least over the 27 nearest translations t
    changes = 2 * (carts @ translations.transpose(0, 2, 1))
    changes += (translations**2).sum(axis=2)[:, None]
    image = changes.argmin(axis=2)
    vectors = carts + translations[np.arange(n_trials)[:, None], image]
    vectors = vectors.reshape(n_trials, k, k, 3)
    return vectors, (vectors**2).sum(axis=3)


def _assign(squares: FloatArray) -> IntArray:
    """Return the source site of each target site in the assignment of least sum, shape (s, k)."""
    chosen = squares.argmin(axis=2)
    # where every target site has a nearest source site of its own, that is the assignment
    clash = (np.diff(np.sort(chosen, axis=1), axis=1) == 0).any(axis=1)
    for trial in np.flatnonzero(clash):
        chosen[trial] = linear_sum_assignment(squares[trial])[1]
    return np.asarray(chosen)
