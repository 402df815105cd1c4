"""Harmonic phonons around a tightly relaxed, symmetric cell, from forces in displaced supercells.

With an engine of many crystals a job everything is done in one process; with others each
displacement is a job of its own, so that a lost one is run again alone. Stored are forces:
displaced cells are made again from the cell at rest and the number of the displacement.
"""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Structure

from pccd_workflows.analysis.dynamics import AMBIGUOUS_FACTOR, PhononVerdict, judge_phonons
from pccd_workflows.analysis.kpaths import SYMPREC, plain_label, symmetric_cell
from pccd_workflows.core.errors import (
    InputError,
    MachineFault,
    MissingDependencyError,
    PccdError,
)
from pccd_workflows.core.storage import Results
from pccd_workflows.engines.engine import Task, Work, engine_of, forces, relax
from pccd_workflows.engines.geometry import text_key
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.potential import EFFORT, relaxation_key, software
from pccd_workflows.engines.records import Forces, Phonons, Relaxation
from pccd_workflows.engines.shared import read_result
from pccd_workflows.engines.supercells import (
    PhononSettings,
    displaced_cells,
    displacements,
    supercell_matrix,
    with_displacements,
)

if TYPE_CHECKING:
    from phonopy import Phonopy

POINTS_PER_SEGMENT = 51
"""q-points of one leg of the band path."""
MESH_LENGTH = 40.0
"""Å; the q-mesh of the density of states is that of a supercell with edges of at least this."""
ALGORITHM = 3
"""Raised when verdicts may change for the same settings: part of every key."""


def tight_cell(structure: Structure, level: str, work: Work) -> Structure:
    """Return the primitive cell of `structure` at rest, symmetric to SYMPREC; in this process.

    Raises
    ------
    PccdError
        If the crystal cannot be relaxed.
    """
    relaxed = _at_rest(structure, level, work)
    symmetric = symmetric_cell(relaxed)
    return symmetric if len(symmetric) == 1 else _at_rest(symmetric, level, work)


def _at_rest(structure: Structure, level: str, work: Work) -> Structure:
    found = relax(structure, level, work, Task("tight", "phonons"))
    if not found.usable or found.structure is None:
        raise PccdError(f"No phonons: the relaxation {found.verdict}. {found.reason}")
    return found.structure


def compute_phonons(structure: Structure, settings: PhononSettings, work: Work) -> Phonons:
    """Return the phonon verdict of a crystal: stored already, or computed now in this process.

    What cannot be computed of the crystal is a verdict ``error``, which is not stored.

    Raises
    ------
    InputError, MissingDependencyError
        The level is unknown, computes no forces, or its package is missing.
    MachineFault
        The machine failed, not the crystal.
    """
    level, began = settings.level, time.monotonic()
    key = phonon_key(structure, level, settings)
    if (stored := stored_phonons(key, work.storage)) is not None:
        return stored
    try:
        tight = tight_cell(structure, level, work)
        found = [forces(cell, level, work).forces for cell in displaced_cells(tight, settings)]
    except (MachineFault, InputError, MissingDependencyError):
        raise
    except PccdError as error:
        return Phonons(
            level=level, verdict="error", reason=str(error), tolerance=settings.tolerance_thz
        )
    record = phonon_record(tight, found, settings, software_versions=software(get_level(level)))
    record = record.model_copy(update={"seconds": round(time.monotonic() - began, 3)})
    work.storage.put_result(key, "phonons", record.model_dump(mode="json"))
    return record


def stored_phonons(key: str, results: Results) -> Phonons | None:
    """Return the verdict stored under a `phonon_key`; None if there is none that can be read."""
    return read_result(results, key, Phonons)


def cell_to_displace(tight: Relaxation, settings: PhononSettings) -> tuple[Structure, int]:
    """Return the cell whose atoms are displaced, moments as site property, and how often.

    tight: the relaxation that brought it to rest.

    Raises
    ------
    PccdError
        The supercell would be too large, or there is no cell.
    """
    if tight.structure is None:
        raise PccdError(f"No phonons: the relaxation is {tight.verdict}. {tight.reason or ''}")
    cell = tight.structure.copy()
    if moments := tight.settings.get("moments"):
        cell.add_site_property("magmom", moments)
    return cell, len(displacements(cell, settings))


def judge_displacements(
    tight: Relaxation, found: Sequence[Forces], settings: PhononSettings
) -> Phonons:
    """Judge a crystal by the forces in its displaced supercells.

    Parameters
    ----------
    tight
        The relaxation that brought it to rest.
    found
        Forces in each of the displaced cells, in their order.

    Raises
    ------
    PccdError
        There is no cell, or the number of forces does not fit.
    """
    cell, _ = cell_to_displace(tight, settings)
    of_cells = [one.forces for one in found]
    record = phonon_record(cell, of_cells, settings, software_versions=tight.software)
    seconds = tight.seconds + sum(one.seconds for one in found)
    return record.model_copy(update={"seconds": seconds})


def phonon_record(
    tight: Structure,
    of_cells: Sequence[ArrayLike],
    settings: PhononSettings,
    *,
    software_versions: Mapping[str, str],
) -> Phonons:
    """Judge a crystal by the forces in its displaced supercells.

    Parameters
    ----------
    tight
        Primitive cell at rest.
    of_cells
        Forces, one (n, 3) array for each of its `displaced_cells`, in their order, eV/Å.
    software_versions
        Of what computed the forces.

    Raises
    ------
    PccdError
        The number of forces does not fit.
    """
    phonon = with_displacements(tight, settings.min_length, settings.displacement)
    cells = phonon.supercells_with_displacements
    if len(of_cells) != len(cells):
        raise PccdError(f"There are forces for {len(of_cells)} of {len(cells)} displacements.")
    phonon.forces = np.array(of_cells)
    phonon.produce_force_constants()
    plain = Structure(tight.lattice, [s.specie.symbol for s in tight], tight.frac_coords)
    return _judged(
        phonon,
        standard_path(plain),
        settings,
        supercell_matrix=supercell_matrix(plain, settings.min_length).tolist(),
        n_displacements=len(cells),
        software={**software_versions, "phonopy": version("phonopy")},
    )


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


def _judged(phonon: "Phonopy", path: BandPath, settings: PhononSettings, **facts: Any) -> Phonons:
    """Judge a crystal by its force constants, with the acoustic sum rule imposed on them.

    Force constants from finite displacements break translation invariance a little: float32 noise
    and odd anharmonic terms pull the acoustic branches of stable crystals to -0.2 THz at and near
    Γ. Phonopy's symmetrization restores it; where it had to mend much, "stable" is not believed.

    facts: what else the record holds.
    """
    tolerance = settings.tolerance_thz
    raw = _frequencies(phonon, path.qpoints)
    residual = judge_phonons(raw, path.qpoints, tolerance=tolerance).gamma_residual
    phonon.symmetrize_force_constants()
    frequencies = _frequencies(phonon, path.qpoints)
    verdict = judge_phonons(frequencies, path.qpoints, tolerance=tolerance)
    if verdict.verdict == "stable" and residual is not None:
        verdict = _distrust(verdict, residual, tolerance)
    return Phonons(
        level=settings.level,
        verdict=verdict.verdict,
        reason=verdict.reason,
        min_frequency=verdict.min_frequency,
        min_frequency_qpoint=None if verdict.qpoint is None else list(verdict.qpoint),
        gamma_residual=residual,
        tolerance=tolerance,
        displacement=settings.displacement,
        bands={
            "distances": [np.round(path.distances[leg], 5).tolist() for leg in path.legs],
            "frequencies": [np.round(frequencies[leg].T, 4).tolist() for leg in path.legs],
            "labels": path.labels,
        },
        dos=density_of_states(phonon),
        **facts,
    )


def density_of_states(phonon: "Phonopy") -> dict[str, list[float]]:
    """Return frequencies (THz) and states/THz of the primitive cell, by the tetrahedron method.

    phonon: with its force constants.
    """
    phonon.run_mesh(MESH_LENGTH)
    phonon.run_total_dos(use_tetrahedron_method=True)
    found = phonon.get_total_dos_dict()
    return {
        "frequencies": np.round(found["frequency_points"], 4).tolist(),
        "density": np.round(found["total_dos"], 5).tolist(),
    }


def _frequencies(phonon: "Phonopy", qpoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return frequencies, shape (n_q, n_bands), THz, imaginary ones negative."""
    phonon.run_qpoints(qpoints)
    return np.array(phonon.get_qpoints_dict()["frequencies"])


def phonon_key(
    structure: Structure, level: str, settings: PhononSettings, ordering: str | None = None
) -> str:
    """Return the content address of a phonon calculation: structure, level and settings."""
    fmax, steps = EFFORT["tight"]
    content: list[Any] = [
        "phonons",
        relaxation_key(structure, level, fmax=fmax, steps=steps),
        settings.min_length,
        settings.displacement,
        settings.tolerance_thz,
        SYMPREC,
        ALGORITHM,
    ]
    if not engine_of(level).batched:
        content.append(ordering)  # potentials know no moments
    return text_key(json.dumps(content))


def _distrust(verdict: PhononVerdict, residual: float, tolerance: float) -> PhononVerdict:
    """Return `verdict`, but ambiguous if the sum rule had to mend too much."""
    limit = AMBIGUOUS_FACTOR * tolerance
    if abs(residual) <= limit:
        return verdict
    reason = (
        f"No imaginary mode below -{tolerance:g} THz, but before the sum rule was imposed the "
        f"acoustic modes missed zero at Γ by {abs(residual):.3f} THz."
    )
    return replace(verdict, verdict="ambiguous", reason=reason)
