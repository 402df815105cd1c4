"""Reduced cells: one description per crystal that matching can compare without pymatgen objects.

The reduction is that of pymatgen's StructureMatcher (Niggli cell, then the primitive cell within
0.25 Å), so that both see the same cells.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.errors import PccdError
from pccd_workflows.matching.primitive import find_smaller_cell

FloatArray = NDArray[np.float64]
Vector = tuple[float, float, float]

NIGGLI_TOLERANCE = 1e-5
"""As in pymatgen: in units of volume^(1/3)."""
MAX_STEPS = 100
"""Reductions of cells with edges up to 1e6 times too long end within some tens of steps. A cell
that lies between two forms, which rounding swaps for ever, is taken as it is then, as by
pymatgen."""


class ReductionError(PccdError):
    """A cell that has no reduced form: flat, or not made of finite numbers."""


@dataclass(frozen=True)
class Cell:
    """A primitive Niggli cell, scaled to a volume of 1 Å^3 per site (matching ignores scale).

    matrix: lattice vectors as rows, shape (3, 3), Å.
    coords: fractional coordinates in [0, 1), shape (n, 3), sites of one species together.
    species: (species, number of sites) in the order of `coords`: rarest first, so that crystals
    of different composition share as many patterns as possible.
    anchor: the site StructureMatcher puts on the other crystal first: the first one, in the order
    of the input, of the species with fewest sites.
    """

    matrix: FloatArray
    coords: FloatArray
    species: tuple[tuple[str, int], ...]
    anchor: int

    @property
    def n_sites(self) -> int:
        """Sites per cell."""
        return len(self.coords)


def reduce_structure(structure: Structure) -> Cell:
    """Return the reduced cell of a structure.

    Oxidation states, magnetic moments and other properties of sites are ignored; partial
    occupancies are kept as species of their own.

    Raises
    ------
    ReductionError
        If the cell has no volume or holds numbers that are not finite.
    """
    return reduce_sites(structure, species_labels(structure))


def reduce_sites(structure: Structure, labels: Sequence[str]) -> Cell:
    """Return the reduced cell of a structure whose species have these labels; see above."""
    matrix = np.asarray(structure.lattice.matrix, dtype=float)
    return reduce_arrays(matrix, np.asarray(structure.frac_coords, dtype=float), labels)


def reduce_arrays(matrix: FloatArray, coords: FloatArray, labels: Sequence[str]) -> Cell:
    """Return the reduced cell of sites without a structure around them.

    Parameters
    ----------
    matrix
        Shape (3, 3). Lattice vectors as rows, Å.
    coords
        Shape (n, 3). Fractional coordinates.
    labels
        What stands for the species of each site.

    Raises
    ------
    ReductionError
        If the cell has no volume or holds numbers that are not finite.
    """
    if not labels or not (np.isfinite(matrix).all() and np.isfinite(coords).all()):
        raise ReductionError("A structure without sites or with infinite numbers has no cell.")
    if abs(np.linalg.det(matrix)) < 1e-3:
        raise ReductionError("A structure with a flat cell cannot be compared.")
    labels = list(labels)
    matrix, coords = _into_niggli_cell(matrix, coords)
    while smaller := find_smaller_cell(matrix, coords, labels):
        matrix, coords, labels = smaller
        matrix, coords = _into_niggli_cell(matrix, coords)
    return _cell(matrix, coords, labels)


def species_labels(structure: Structure) -> list[str]:
    """Return what stands for the species of each site: a symbol, or a formula if it is mixed."""
    return [_label(site) for site in structure]


def formula_key(labels: Sequence[str]) -> frozenset[tuple[str, int]]:
    """Return the composition of sites in lowest terms: equal for all cells of a crystal."""
    counts = Counter(labels)
    unit = math.gcd(*counts.values())
    return frozenset((label, count // unit) for label, count in counts.items())


def _label(site: Any) -> str:
    species = site.species
    kinds = [*species]
    if len(kinds) == 1 and species.num_atoms == 1:
        return str(kinds[0].symbol)
    return str(species.element_composition.formula)


def _cell(matrix: FloatArray, coords: FloatArray, labels: list[str]) -> Cell:
    counts = Counter(labels)
    species = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    rank = {label: number for number, (label, _) in enumerate(species)}
    order = sorted(range(len(labels)), key=lambda i: rank[labels[i]])
    fewest = min(counts.values())
    first = next(i for i, label in enumerate(labels) if counts[label] == fewest)
    scale = (len(labels) / abs(np.linalg.det(matrix))) ** (1 / 3)
    return Cell(
        matrix=matrix * scale,
        coords=(coords - np.floor(coords))[order],
        species=tuple(species),
        anchor=order.index(first),
    )


def _into_niggli_cell(matrix: FloatArray, coords: FloatArray) -> tuple[FloatArray, FloatArray]:
    reduced = niggli(matrix)
    return reduced, coords @ (matrix @ np.linalg.inv(reduced))


def niggli(matrix: FloatArray) -> FloatArray:
    """Return the Niggli-reduced lattice vectors as rows, shape (3, 3), Å.

    The algorithm of Grosse-Kunstleve, Sauter and Adams (10.1107/S010876730302186X) with
    pymatgen's tolerances, after a reduction by pairs, which shortens very skewed cells quickly.
    """
    a, b, c = _reduce_pairs(*(_vector(row) for row in matrix))
    e = NIGGLI_TOLERANCE * abs(float(np.linalg.det(matrix))) ** (1 / 3)
    for _ in range(MAX_STEPS):
        a, b, c, done = _niggli_step(a, b, c, e)
        if done:
            break
    return np.array([a, b, c])


def _niggli_step(a: Vector, b: Vector, c: Vector, e: float) -> tuple[Vector, Vector, Vector, bool]:
    aa, bb, cc, xi, eta, zeta = _gruber(a, b, c)
    if bb + e < aa or (abs(aa - bb) < e and abs(xi) > abs(eta) + e):
        a, b, c = _minus(b), _minus(a), _minus(c)
        aa, bb, cc, xi, eta, zeta = _gruber(a, b, c)
    if cc + e < bb or (abs(bb - cc) < e and abs(eta) > abs(zeta) + e):
        return _minus(a), _minus(c), _minus(b), False
    i, j, k = _signs(xi, eta, zeta, e)
    a, b, c = _times(i, a), _times(j, b), _times(k, c)
    xi, eta, zeta = j * k * xi, i * k * eta, i * j * zeta
    if abs(xi) > bb + e or (abs(xi - bb) < e < zeta - 2 * eta) or (abs(xi + bb) < e < -zeta):
        return a, b, _plus(c, -math.copysign(1, xi), b), False
    if abs(eta) > aa + e or (abs(aa - eta) < e < zeta - 2 * xi) or (abs(aa + eta) < e < -zeta):
        return a, b, _plus(c, -math.copysign(1, eta), a), False
    if abs(zeta) > aa + e or (abs(aa - zeta) < e < eta - 2 * xi) or (abs(aa + zeta) < e < -eta):
        return a, _plus(b, -math.copysign(1, zeta), a), c, False
    total = xi + eta + zeta + aa + bb
    if total < -e or (abs(total) < e < zeta + (aa + eta) * 2):
        return a, b, _plus(_plus(c, 1, a), 1, b), False
    return a, b, c, True


def _signs(xi: float, eta: float, zeta: float, e: float) -> tuple[int, int, int]:
    """Return the signs of a, b and c that make all angles acute, or none."""
    x, y, z = (0 if abs(v) < e else int(math.copysign(1, v)) for v in (xi, eta, zeta))
    if x * y * z == 1:
        return (-1 if x == -1 else 1), (-1 if y == -1 else 1), (-1 if z == -1 else 1)
    i, j, k = (-1 if x == 1 else 1), (-1 if y == 1 else 1), (-1 if z == 1 else 1)
    if i * j * k == -1:
        if z == 0:
            k = -1
        elif y == 0:
            j = -1
        elif x == 0:
            i = -1
    return i, j, k


def _reduce_pairs(a: Vector, b: Vector, c: Vector) -> tuple[Vector, Vector, Vector]:
    """Shorten the longer of two vectors by the shorter one until nothing becomes shorter."""
    for _ in range(MAX_STEPS):
        a, b, c = sorted((a, b, c), key=lambda v: _dot(v, v))
        new_b = _plus(b, -round(_dot(a, b) / _dot(a, a)), a)
        new_c = _plus(c, -round(_dot(a, c) / _dot(a, a)), a)
        new_c = _plus(new_c, -round(_dot(new_b, new_c) / _dot(new_b, new_b)), new_b)
        if _dot(new_b, new_b) + _dot(new_c, new_c) >= (_dot(b, b) + _dot(c, c)) * (1 - 1e-9):
            break
        b, c = new_b, new_c
    return a, b, c


def _gruber(a: Vector, b: Vector, c: Vector) -> tuple[float, float, float, float, float, float]:
    """Return a·a, b·b, c·c, 2b·c, 2a·c and 2a·b, Å^2."""
    return _dot(a, a), _dot(b, b), _dot(c, c), 2 * _dot(b, c), 2 * _dot(a, c), 2 * _dot(a, b)


def _vector(row: FloatArray) -> Vector:
    x, y, z = row.tolist()
    return x, y, z


def _dot(u: Vector, v: Vector) -> float:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def _plus(u: Vector, factor: float, v: Vector) -> Vector:
    return u[0] + factor * v[0], u[1] + factor * v[1], u[2] + factor * v[2]


def _minus(u: Vector) -> Vector:
    return -u[0], -u[1], -u[2]


def _times(sign: int, u: Vector) -> Vector:
    return u if sign == 1 else _minus(u)
