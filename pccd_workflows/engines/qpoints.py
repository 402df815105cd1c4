"""q-points at which phonons are judged: a path, a mesh, and those that a supercell resolves."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.kpaths import SYMPREC, plain_label

POINTS_PER_SEGMENT = 51
"""q-points of one leg of the band path."""
MESH_LENGTH = 25.0
"""Å; points of a mesh along an axis per length of its reciprocal vector. 8x8x8 of silicon."""
ROUNDING = 1e-6


@dataclass(frozen=True)
class BandPath:
    """A path between points of high symmetry.

    qpoints: (n_q, 3), reduced. distances: (n_q,), along the path, 1/Å (without 2π).
    legs: the points of each leg. labels: the names of each leg's two ends.
    """

    qpoints: NDArray[np.float64]
    distances: NDArray[np.float64]
    legs: list[slice]
    labels: list[list[str]]


def standard_path(primitive: Structure) -> BandPath:
    """Return pymatgen's path of a standard primitive cell."""
    from pymatgen.symmetry.bandstructure import HighSymmKpath

    path = HighSymmKpath(primitive, symprec=SYMPREC).kpath
    reciprocal = primitive.lattice.reciprocal_lattice_crystallographic.matrix
    steps, along = np.linspace(0, 1, POINTS_PER_SEGMENT), 0.0
    lines, distances, labels = [], [], []
    for branch in path["path"]:
        for left, right in itertools.pairwise(branch):
            first, last = (np.array(path["kpoints"][name]) for name in (left, right))
            length = float(np.linalg.norm((last - first) @ reciprocal))
            lines.append(first + steps[:, None] * (last - first))
            distances.append(along + steps * length)
            labels.append([plain_label(left), plain_label(right)])
            along += length
    starts = range(0, len(steps) * len(lines), len(steps))
    legs = [slice(start, start + len(steps)) for start in starts]
    return BandPath(np.concatenate(lines), np.concatenate(distances), legs, labels)


def mesh_of(lattice: Lattice) -> list[int]:
    """Return the numbers of points of the mesh of a primitive cell, along each reciprocal axis.

    They are even, so that a mesh that holds Γ holds the borders of the zone, too.
    """
    lengths = np.array(lattice.reciprocal_lattice_crystallographic.abc)
    return [2 * max(1, int(half)) for half in np.ceil(MESH_LENGTH * lengths / 2 - ROUNDING)]


def resolved(qpoint: ArrayLike, supercell: ArrayLike) -> bool:
    """Return whether a supercell holds whole waves of a q-point.

    There frequencies follow from the forces; between such points they are interpolated.

    Parameters
    ----------
    qpoint
        Shape (3,), reduced.
    supercell
        Shape (3, 3), rows are its vectors in those of the primitive cell.
    """
    waves = np.asarray(supercell) @ np.asarray(qpoint)
    return bool(np.allclose(waves, np.rint(waves), atol=ROUNDING))
