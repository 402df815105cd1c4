"""One description per crystal in the primitive setting of its space group, one name per type.

Which origin and which equivalent axes spglib takes depends on small differences of the crystal, so
that one structure type gets several names. Here all descriptions that the normaliser of the space
group allows are compared, and the one that sorts first is taken.
"""

import hashlib
import itertools
import os
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.generators.pccd.chemistry import electronegativity_rank
from pccd_workflows.generators.pccd.space_groups import Descriptions, descriptions, space_group
from pccd_workflows.generators.pccd.ties import (
    Ties,
    cell_parameters,
    find_ties,
    symmetric_metric,
)

os.environ.setdefault("SPGLIB_WARNING", "OFF")  # of crystals without symmetry, which is no fault
SYMPRECS = (0.1, 0.03, 0.01, 0.001)
"""Å, tried in turn; published structures miss their symmetry by less than the first."""
GRID = 48
"""Coordinates are compared on a grid that has the fractions 1/2, 1/3, 1/4, 1/6 and 1/8."""
SHORTER = 1.05
"""Other axes are taken only if the sum of their squares is not larger by more than this factor."""
STEPS = itertools.product(range(3), range(-2, 3), range(-2, 3))
PLANES = np.array([hkl for hkl in STEPS if hkl > (0, 0, 0)])
"""Lattice planes whose phases tell Wyckoff positions apart."""


@dataclass(frozen=True)
class StandardCell:
    """A crystal in the primitive setting of its space group, with that symmetry exactly.

    Attributes
    ----------
    space_group
    numbers
        Shape (n,). Atomic numbers: electropositive elements first, orbits together.
    frac_coords
        Shape (n, 3). In [-1/96, 95/96).
    lengths, angles
        Shape (3,). Å, degrees.
    structure_type
        63-bit number of space group and Wyckoff positions of the elements (by number of atoms,
        then electropositive first), the same for all descriptions of the crystal.
    """

    space_group: int
    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]
    structure_type: int


def standard_cell(
    lattice: NDArray[np.float64], numbers: NDArray[np.int64], frac_coords: NDArray[np.float64]
) -> StandardCell:
    """Write a crystal in the primitive setting of its space group.

    Where the symmetry that spglib finds within SYMPREC would put two atoms on one place or asks
    for a smaller cell, less is tolerated; a crystal without any such symmetry stays in P1.

    Parameters
    ----------
    lattice
        Shape (3, 3). Lattice vectors in rows, Å.
    numbers
        Shape (n,). Atomic numbers.
    frac_coords
        Shape (n, 3).
    """
    import spglib

    for symprec in SYMPRECS:
        found = spglib.get_symmetry_dataset((lattice, frac_coords, numbers), symprec=symprec)
        if found is None:
            continue
        axes = space_group(found.number).axes
        to_primitive = np.linalg.solve(axes, found.transformation_matrix)
        shift = np.linalg.solve(axes, found.origin_shift)
        cell = _in_group(found.number, to_primitive, shift, lattice, numbers, frac_coords)
        if cell is not None:
            return cell
    cell = _in_group(1, np.eye(3), np.zeros(3), lattice, numbers, frac_coords)
    if cell is None:
        raise ValueError("A crystal has the identity.")
    return cell


def _in_group(
    number: int,
    to_primitive: NDArray[np.float64],
    shift: NDArray[np.float64],
    lattice: NDArray[np.float64],
    numbers: NDArray[np.int64],
    frac_coords: NDArray[np.float64],
) -> StandardCell | None:
    """Return a crystal in a space group, x -> T x + p being its coordinates there."""
    if abs(abs(np.linalg.det(to_primitive)) - 1) > 1e-3:  # the cell is not primitive
        return None
    group = space_group(number)
    axes = np.linalg.inv(to_primitive).T @ lattice
    frac = frac_coords @ to_primitive.T + shift
    ties = find_ties(group.rotations, group.translations, axes, numbers, frac)
    if ties is None:
        return None
    matrix, offset = ties.projection()
    frac = (matrix @ frac.ravel() + offset).reshape(-1, 3)
    metric = symmetric_metric(group.rotations, axes @ axes.T)
    return _first(number, metric, numbers, frac, ties)


def _first(
    number: int,
    metric: NDArray[np.float64],
    numbers: NDArray[np.int64],
    frac: NDArray[np.float64],
    ties: Ties,
) -> StandardCell:
    """Return the description that sorts first."""
    ways = _short_ways(number, metric)
    labels = _labels(number, ties, frac)[ways]
    rank = electronegativity_rank()
    names = [_name(number, numbers, of_way, rank) for of_way in labels]
    name = min(names)
    choices = [
        (*_ordered(moved, numbers, labels[place], ties, rank), moved, int(way))
        for place, way in enumerate(ways)
        if names[place] == name
        for moved in _origins(number, way, numbers, frac, labels[place], rank)
    ]
    _, order, moved, way = min(choices, key=itemgetter(0))
    back = np.linalg.inv(descriptions(number).rotations[way])
    lengths, angles = cell_parameters(back.T @ metric @ back)
    digest = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
    return StandardCell(number, numbers[order], moved[order], lengths, angles, digest)


def _short_ways(number: int, metric: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the descriptions whose axes are about as short as the shortest."""
    back = np.linalg.inv(descriptions(number).rotations)
    squares = np.einsum("kji,jl,kli->k", back, metric, back)
    return np.flatnonzero(squares <= SHORTER * squares.min())


def _name(
    number: int,
    numbers: NDArray[np.int64],
    labels: NDArray[np.int64],
    rank: NDArray[np.int64],
) -> bytes:
    """Return space group and sorted labels of the sites of each element."""
    elements, counts = np.unique(numbers, return_counts=True)
    order = sorted(zip(counts, rank[elements], elements, strict=True))
    parts = [np.sort(labels[numbers == z]).tobytes() for _, _, z in order]
    return number.to_bytes(2, "big") + b"|".join(parts)


_KNOWN: dict[tuple[int, bytes], NDArray[np.int64]] = {}
"""Labels of Wyckoff positions in all descriptions, by what `locus` says of one of their sites."""


def _labels(number: int, ties: Ties, frac: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the label of the Wyckoff position of each site in each description, (k, n)."""
    projectors = ties.site_projectors()
    of_site: dict[int, NDArray[np.int64]] = {}
    for site in np.unique(ties.orbits).tolist():
        key = (number, locus(frac[site][None], projectors[site][None]).tobytes())
        if key not in _KNOWN:
            _KNOWN[key] = label_everywhere(number, frac[site], projectors[site])
        of_site[site] = _KNOWN[key]
    return np.stack([of_site[first] for first in ties.orbits.tolist()], axis=1)


def label_everywhere(
    number: int, site: NDArray[np.float64], projector: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the label (k,) of a site's Wyckoff position in each description."""
    group, ways = space_group(number), descriptions(number)
    back = np.linalg.inv(ways.rotations)
    points = ways.rotations @ site + ways.shifts
    freedom = ways.rotations @ projector @ back
    turned = np.linalg.inv(group.rotations)
    images = np.einsum("gij,kj->kgi", group.rotations, points) + group.translations
    freedoms = group.rotations @ freedom[:, None] @ turned
    shape = images.shape[:2]
    loci = locus(images.reshape(-1, 3), freedoms.reshape(-1, 3, 3)).reshape(*shape, -1)
    smallest = [min(of_way.tobytes() for of_way in loci_of_way) for loci_of_way in loci]
    return np.array(
        [int.from_bytes(hashlib.sha256(s).digest()[:7], "big") for s in smallest], dtype=np.int64
    )


def locus(points: NDArray[np.float64], projectors: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return what fixes the points (p, 3) that may move as the projectors (p, 3, 3) say.

    Returns
    -------
    Shape (p, planes). Phase of each lattice plane, in units of 1 / GRID; -1 where it changes as the
    point moves.
    """
    phases = np.rint(points @ PLANES.T * GRID).astype(np.int64) % GRID
    moves = np.abs(np.einsum("hi,pij->phj", PLANES, projectors)).max(2) > 1e-6
    return np.where(moves, -1, phases).astype(np.int8)


def _origins(
    number: int,
    way: int,
    numbers: NDArray[np.int64],
    frac: NDArray[np.float64],
    labels: NDArray[np.int64],
    rank: NDArray[np.int64],
) -> list[NDArray[np.float64]]:
    """Return coordinates (n, 3) of a description; in polar groups, for each origin to try.

    There the origin is put on a site of the rarest element.
    """
    ways: Descriptions = descriptions(number)
    moved = frac @ ways.rotations[way].T + ways.shifts[way]
    free = space_group(number).free_shift
    if not free.any():
        return [moved]
    elements, counts = np.unique(numbers, return_counts=True)
    rarest = min(zip(counts, rank[elements], elements, strict=True))[2]
    of_element = np.flatnonzero(numbers == rarest)
    anchors = of_element[labels[of_element] == labels[of_element].min()]
    return [moved - free @ moved[anchor] for anchor in anchors]


def _ordered(
    moved: NDArray[np.float64],
    numbers: NDArray[np.int64],
    labels: NDArray[np.int64],
    ties: Ties,
    rank: NDArray[np.int64],
) -> tuple[bytes, NDArray[np.int64]]:
    """Return what descriptions are sorted by, and the order of the sites; wraps `moved`."""
    margin = 0.5 / GRID
    moved -= np.floor(moved + margin)
    cells = np.rint(moved * GRID).astype(np.int64) % GRID
    grid = (cells[:, 0] * GRID + cells[:, 1]) * GRID + cells[:, 2]
    orbits = ties.orbits
    first = np.array([grid[orbits == orbit].min() for orbit in orbits])
    order = np.lexsort((grid, orbits, first, labels, rank[numbers]))
    return grid[order].astype(">i8").tobytes(), order
