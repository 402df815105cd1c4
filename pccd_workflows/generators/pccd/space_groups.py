"""The space groups in one primitive setting each, and what else may describe the same crystal.

Operations are those of spglib's first setting of each space group (International Tables: unique
axis b, origin choice 1, hexagonal axes), taken to the primitive cell. A crystal has as many
descriptions in that setting as the space group has cosets in its Euclidean (affine, where its
lattice leaves axes free) normaliser: other origins, and other axes with the same operations.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GRID = 24
"""Shifts of the origin that keep all operations are multiples of 1/24."""
EXACT = 1e-6
LAST_TRICLINIC = 2
"""Up to this space group any axes would do: only the reduced ones, in any order, are tried."""
CENTRINGS = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 1 / 2, -1 / 2], [0, 1 / 2, 1 / 2]],
    "C": [[1 / 2, 1 / 2, 0], [-1 / 2, 1 / 2, 0], [0, 0, 1]],
    "I": [[-1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [1 / 2, 1 / 2, -1 / 2]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0]],
    "R": [[2 / 3, -1 / 3, -1 / 3], [1 / 3, 1 / 3, -2 / 3], [1 / 3, 1 / 3, 1 / 3]],
}
"""Primitive axes in columns, in units of the conventional ones (spglib's choice)."""


@dataclass(frozen=True)
class SpaceGroup:
    """Operations x -> W x + w of a space group on fractional coordinates of its primitive cell.

    Attributes
    ----------
    number
        1 to 230.
    axes
        Shape (3, 3). Primitive axes in columns, in units of the conventional ones.
    rotations
        Shape (m, 3, 3). W, one for each element of the point group.
    translations
        Shape (m, 3). w, in [0, 1).
    """

    number: int
    axes: NDArray[np.float64]
    rotations: NDArray[np.int64]
    translations: NDArray[np.float64]

    @property
    def free_shift(self) -> NDArray[np.float64]:
        """Projector (3, 3) on the directions along which the origin may move at will."""
        return np.asarray(self.rotations.mean(0))


@dataclass(frozen=True)
class Descriptions:
    """Maps x -> M x + t from one description of a crystal to all others, k of them.

    Attributes
    ----------
    rotations
        Shape (k, 3, 3). M; the new axes are the old ones (in columns) times its inverse.
    shifts
        Shape (k, 3). t, along no direction in which the origin may move at will.
    """

    rotations: NDArray[np.int64]
    shifts: NDArray[np.float64]


@lru_cache(maxsize=1)
def _settings() -> dict[int, int]:
    """Return spglib's number of the first setting of each space group."""
    import spglib

    first: dict[int, int] = {}
    for setting in range(1, 531):
        first.setdefault(spglib.get_spacegroup_type(setting).number, setting)
    return first


@lru_cache(maxsize=230)
def space_group(number: int) -> SpaceGroup:
    """Return a space group by its number (1 to 230)."""
    import spglib

    setting = _settings()[number]
    found = spglib.get_symmetry_from_database(setting)
    symbol = spglib.get_spacegroup_type(setting).international_short
    axes = np.array(CENTRINGS[symbol[0]], dtype=float)
    inverse = np.linalg.inv(axes)
    rotations = np.rint(inverse @ found["rotations"] @ axes).astype(np.int64)
    translations = (found["translations"] @ inverse.T + EXACT) % 1.0 - EXACT
    distinct = np.sort(np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)[1])
    return SpaceGroup(number, axes, rotations[distinct], translations[distinct])


@lru_cache(maxsize=230)
def descriptions(number: int) -> Descriptions:
    """Return the maps between the descriptions of a crystal in this space group."""
    group = space_group(number)
    rotations, shifts = [], []
    for rotation in _axis_changes(group):
        for shift in _shifts(group, rotation):
            rotations.append(rotation)
            shifts.append(shift)
    return Descriptions(np.array(rotations), np.array(shifts))


@lru_cache(maxsize=1)
def _unimodular() -> NDArray[np.int64]:
    """Return the matrices of -1, 0 and 1 with determinant 1 or -1, the identity first."""
    entries = np.array(list(itertools.product((0, 1, -1), repeat=9))).reshape(-1, 3, 3)
    found = entries[np.abs(np.abs(np.linalg.det(entries)) - 1) < EXACT]
    order = np.abs(found - np.eye(3)).sum((1, 2)).argsort(kind="stable")
    return np.asarray(found[order])


def _axis_changes(group: SpaceGroup) -> NDArray[np.int64]:
    """Return one M (j, 3, 3) of each class M P that takes the point group P to itself."""
    inverse = np.linalg.inv(group.axes)
    choices = _unimodular()
    if group.number <= LAST_TRICLINIC:
        choices = choices[np.abs(choices).sum((1, 2)) == 3]
    primitive = inverse @ choices @ group.axes
    whole = np.abs(primitive - np.rint(primitive)).max((1, 2)) < EXACT
    changes = np.rint(primitive[whole]).astype(np.int64)
    back = np.rint(np.linalg.inv(changes)).astype(np.int64)
    point_group = {rotation.tobytes() for rotation in group.rotations}
    kept, seen = [], set()
    for change, undone in zip(changes, back, strict=True):
        if change.tobytes() in seen:
            continue
        turned = change @ group.rotations @ undone
        if all(rotation.tobytes() in point_group for rotation in turned):
            kept.append(change)
            seen |= {product.tobytes() for product in change @ group.rotations}
    return np.array(kept)


def _shifts(group: SpaceGroup, rotation: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the t (i, 3) with which x -> M x + t takes the space group to itself."""
    undone = np.rint(np.linalg.inv(rotation)).astype(np.int64)
    turned = rotation @ group.rotations @ undone
    place = {w.tobytes(): j for j, w in enumerate(group.rotations)}
    target = [place[w.tobytes()] for w in turned]
    wanted = group.translations[target] - group.translations @ rotation.T
    points = grid_points()
    fits = np.ones(len(points), dtype=bool)
    for w, difference in zip(turned, wanted, strict=True):
        points = points[fits]
        misfit = points @ (np.eye(3) - w).T - difference
        fits = np.abs(misfit - np.rint(misfit)).max(1) < 1e-3
    points = points[fits]
    fixed = np.eye(3) - group.free_shift
    reduced = np.rint(points @ fixed.T * 48 * GRID).astype(np.int64)
    across = _modulo_lattice(reduced, fixed)
    return np.asarray(points[np.sort(np.unique(across, axis=0, return_index=True)[1])])


def _modulo_lattice(points: NDArray[np.int64], fixed: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the shortest of the points (i, 3) that differ by projected lattice vectors."""
    lattice = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))
    steps = np.unique(np.rint(lattice @ fixed.T * 48 * GRID).astype(np.int64), axis=0)
    images = points[:, None] + steps
    squares = (images**2).sum(-1)
    shortest = np.where(squares == squares.min(1, keepdims=True), 1, 0)[..., None]
    large = np.iinfo(np.int64).max // 4
    order = images * shortest + large * (1 - shortest)
    first = np.lexsort((order[..., 2], order[..., 1], order[..., 0]), axis=-1)[:, 0]
    return np.asarray(images[np.arange(len(images)), first])


@lru_cache(maxsize=1)
def grid_points() -> NDArray[np.float64]:
    """Return all points of [0, 1)^3 whose coordinates are multiples of 1 / GRID."""
    axis = np.arange(GRID) / GRID
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
