"""Supercells in which one atom is displaced: made again from a cell at rest whenever needed."""

import itertools
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.kpaths import SYMPREC
from pccd_workflows.core.errors import PccdError
from pccd_workflows.engines.engine import Displacement

if TYPE_CHECKING:
    from phonopy import Phonopy

MAX_MULTIPLE = 8
"""Most cells along one axis of a supercell."""
ROUNDING = 1e-6


class PhononSettings(Protocol):
    """How phonons are computed; a campaign's section has these fields."""

    @property
    def level(self) -> str:
        """Of theory."""

    @property
    def min_length(self) -> float:
        """Supercell lengths at least, Å."""

    @property
    def displacement(self) -> float:
        """Of one atom, Å."""

    @property
    def tolerance_thz(self) -> float:
        """Imaginary modes below it are noise, THz."""


def supercell_matrix(structure: Structure, min_length: float) -> NDArray[np.int64]:
    """Return the smallest supercell that keeps the crystal's symmetry and is long enough.

    Multiples of the primitive and of the conventional axes are tried. One that breaks the symmetry
    may have fewer atoms, but needs several times the displacements.

    Parameters
    ----------
    structure
        Primitive cell.
    min_length
        No two images of an atom are nearer than this, Å.

    Returns
    -------
    Shape (3, 3), rows are the supercell's vectors in those of `structure`.

    Raises
    ------
    PccdError
        If it would take more than MAX_MULTIPLE cells along an axis.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    symmetry = SpacegroupAnalyzer(structure, symprec=SYMPREC).get_symmetry_dataset()
    conventional = np.rint(np.linalg.inv(symmetry.transformation_matrix).T).astype(int)
    multiples = np.array(list(itertools.product(range(1, MAX_MULTIPLE + 1), repeat=3)))
    fits = []
    for basis in (np.eye(3, dtype=int), conventional):
        for multiple in multiples:
            matrix = np.diag(multiple) @ basis
            if _keeps_symmetry(matrix, symmetry.rotations):
                cell = Lattice(matrix @ structure.lattice.matrix)
                shortest = float(cell.get_niggli_reduced_lattice().a)
                if shortest >= min_length - ROUNDING:
                    fits.append((abs(round(float(np.linalg.det(matrix)))), -shortest, matrix))
    if not fits:
        raise PccdError(f"No phonons: {MAX_MULTIPLE} cells a side are shorter than {min_length} Å.")
    best: NDArray[np.int64] = min(fits, key=lambda fit: fit[:2])[2]
    return best


def _keeps_symmetry(matrix: NDArray[np.int64], rotations: NDArray[np.int64]) -> bool:
    """Return whether every rotation (of fractional coordinates) maps the supercell onto itself."""
    vectors = matrix.T  # columns, as rotations act on columns
    moved = np.linalg.inv(vectors) @ rotations @ vectors
    return bool(np.allclose(moved, np.rint(moved), atol=ROUNDING))


def displacements(tight: Structure, settings: PhononSettings) -> list[Displacement]:
    """Return the displacements whose forces determine the force constants.

    Parameters
    ----------
    tight
        Primitive cell at rest.

    Raises
    ------
    PccdError
        The supercell would be too large.
    """
    size = (settings.min_length, settings.displacement)
    number = len(with_displacements(tight, *size).supercells_with_displacements)
    return [Displacement(index, *size) for index in range(number)]


def displaced_cell(tight: Structure, displacement: Displacement) -> Structure:
    """Return one of the displaced supercells of a primitive cell at rest.

    The cell's site property ``magmom``, if there is one, is repeated.
    """
    phonon = with_displacements(tight, displacement.min_length, displacement.distance)
    return _cells(tight, phonon)[displacement.number]


def displaced_cells(tight: Structure, settings: PhononSettings) -> list[Structure]:
    """Return all displaced supercells of a primitive cell at rest, in the order of displacements.

    Raises
    ------
    PccdError
        The supercell would be too large.
    """
    return _cells(tight, with_displacements(tight, settings.min_length, settings.displacement))


def _cells(tight: Structure, phonon: "Phonopy") -> list[Structure]:
    from pymatgen.io.phonopy import get_pmg_structure

    cells = [get_pmg_structure(cell) for cell in phonon.supercells_with_displacements]
    plain = [Structure(c.lattice, [s.specie.symbol for s in c], c.frac_coords) for c in cells]
    if moments := tight.site_properties.get("magmom"):
        first = phonon.supercell.u2u_map
        of_site = [float(moments[first[i]]) for i in phonon.supercell.s2u_map]
        for cell in plain:
            cell.add_site_property("magmom", of_site)
    return plain


def with_displacements(tight: Structure, min_length: float, distance: float) -> "Phonopy":
    """Return phonopy's object for a crystal, with its displacements."""
    from phonopy import Phonopy
    from pymatgen.io.phonopy import get_phonopy_structure

    plain = Structure(tight.lattice, [s.specie.symbol for s in tight], tight.frac_coords)
    matrix = supercell_matrix(plain, min_length)
    # rows are vectors here, columns in phonopy
    phonon = Phonopy(get_phonopy_structure(plain), matrix.T, primitive_matrix=np.eye(3))
    phonon.generate_displacements(distance=distance)
    return phonon
