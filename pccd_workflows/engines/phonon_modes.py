"""Modes of a crystal's phonons, from forces that are stored: nothing is computed anew.

The record of a crystal's phonons holds frequencies. How the atoms move in a mode follows from the
force constants, and these from the forces in the displaced supercells, which the storage keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Structure

from pccd_workflows.analysis.kpaths import symmetric_cell
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.storage import Document, Results
from pccd_workflows.engines.engine import Task, engine_of
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.qpoints import standard_path
from pccd_workflows.engines.records import Forces, Relaxation
from pccd_workflows.engines.supercells import (
    PhononSettings,
    displaced_cells,
    displacements,
    with_displacements,
)

if TYPE_CHECKING:
    from phonopy import Phonopy

    from pccd_workflows.analysis.magnetism import MagneticOrdering

LOST = "The forces that its phonons were computed from are not stored any more."


@dataclass(frozen=True)
class Mode:
    """How the atoms of the primitive cell move in one mode.

    Attributes
    ----------
    qpoint
        Reduced wave vector, shape (3,).
    frequency
        THz, imaginary as negative.
    band
        From 0, lowest frequency first.
    amplitudes
        Complex displacements, shape (n, 3); the largest has length 1. The atom at r (reduced, in
        any cell) moves by the real part of amplitude * exp(i (2 pi q r - w t)).
    """

    qpoint: NDArray[np.float64]
    frequency: float
    band: int
    amplitudes: NDArray[np.complex128]


@dataclass(frozen=True)
class Lattice:
    """A crystal whose atoms can be asked how they move.

    Attributes
    ----------
    cell
        Primitive cell at rest.
    phonon
        With its force constants, the acoustic sum rule imposed, as verdicts rest on.
    """

    cell: Structure
    phonon: "Phonopy"

    def mode(self, qpoint: ArrayLike, frequency: float) -> Mode:
        """Return the mode at a wave vector whose frequency (THz) is nearest."""
        q = np.asarray(qpoint, dtype=float)
        self.phonon.run_qpoints([q], with_eigenvectors=True)
        found = self.phonon.get_qpoints_dict()
        frequencies = found["frequencies"][0]
        band = int(np.abs(frequencies - frequency).argmin())
        vectors = found["eigenvectors"][0][:, band].reshape(-1, 3)
        amplitudes = vectors / np.sqrt(self.phonon.primitive.masses)[:, None]
        largest = float(np.linalg.norm(amplitudes, axis=1).max())
        return Mode(q, float(frequencies[band]), band, amplitudes / largest)

    def nearest_qpoint(self, distance: float) -> NDArray[np.float64]:
        """Return the point of the band path at a distance along it (as bands are drawn)."""
        path = standard_path(self.cell)
        return np.asarray(path.qpoints[int(np.abs(path.distances - distance).argmin())])


def stored_lattice(
    structure: Structure,
    settings: PhononSettings,
    results: Results,
    ordering: "MagneticOrdering | None" = None,
) -> Lattice:
    """Return a crystal with its force constants, from stored results.

    Parameters
    ----------
    structure
        As its phonons were asked for: relaxed at the last rung.
    ordering
        Magnetic order that the campaign asks for, where the level knows it.

    Raises
    ------
    InputError
        A result is not stored (any more).
    """
    cell, forces = _stored_forces(structure, settings, _ReadOnly(results), ordering)
    phonon = with_displacements(cell, settings.min_length, settings.displacement)
    phonon.forces = np.array(forces)
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    return Lattice(cell, phonon)


def _stored_forces(
    structure: Structure,
    settings: PhononSettings,
    results: Results,
    ordering: "MagneticOrdering | None",
) -> tuple[Structure, list[list[list[float]]]]:
    """Return the cell at rest and the forces in each of its displaced supercells."""
    level = get_level(settings.level)
    engine = engine_of(level)
    if engine.batched:  # as phonons.compute_phonons does it
        cell = _at_rest(structure, settings.level, Task("tight", "phonons"), results)
        symmetric = symmetric_cell(cell)
        if len(symmetric) > 1:
            cell = _at_rest(symmetric, settings.level, Task("tight", "phonons"), results)
        else:
            cell = symmetric
        task = Task("forces", "phonons")
        asked = [(displaced, task) for displaced in displaced_cells(cell, settings)]
    else:  # as jobs.phonons does it
        task = Task("tight", "phonons", ordering=ordering)
        cell = _at_rest(symmetric_cell(structure), settings.level, task, results)
        asked = [
            (cell, Task("forces", "phonons", displacement=moved))
            for moved in displacements(cell, settings)
        ]
    found = [engine.finished(level, crystal, task, results) for crystal, task in asked]
    forces = [record.forces for record in found if isinstance(record, Forces)]
    if len(forces) < len(asked):
        raise InputError(LOST)
    return cell, forces


def _at_rest(structure: Structure, level: str, task: Task, results: Results) -> Structure:
    of = get_level(level)
    found = engine_of(of).finished(of, structure, task, results)
    if not isinstance(found, Relaxation) or found.structure is None:
        raise InputError(LOST)
    cell = found.structure.copy()
    if moments := found.settings.get("moments"):
        cell.add_site_property("magmom", moments)
    return cell


@dataclass(frozen=True)
class _ReadOnly:
    """Results that stay as they are, whatever a reader would mend."""

    results: Results

    def get_result(self, key: str) -> Document | None:
        """Return the result stored under `key`."""
        return self.results.get_result(key)

    def put_result(self, key: str, kind: str, result: Document) -> None:
        """Store nothing."""

    def drop_results(self, keys: Sequence[str]) -> None:
        """Forget nothing."""
