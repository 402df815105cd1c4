"""Harmonic phonons around a tightly relaxed, symmetric cell, from forces in displaced supercells.

With an engine of many crystals a job everything is done in one process; with others each
displacement is a job of its own, so that a lost one is run again alone. Stored are forces:
displaced cells are made again from the cell at rest and the number of the displacement.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Structure

from pccd_workflows.analysis.dynamics import (
    AMBIGUOUS_FACTOR,
    PhononVerdict,
    judge_phonons,
    reduced_point,
)
from pccd_workflows.analysis.kpaths import SYMPREC, symmetric_cell
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
from pccd_workflows.engines.qpoints import mesh_of, resolved, standard_path
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

ALGORITHM = 4
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
    return _judged(phonon, plain, settings, software_versions)


def _judged(
    phonon: "Phonopy", primitive: Structure, settings: PhononSettings, software: Mapping[str, str]
) -> Phonons:
    """Judge a crystal by its force constants, with the acoustic sum rule imposed on them.

    Force constants from finite displacements break translation invariance a little: float32 noise
    and odd anharmonic terms pull the acoustic branches of stable crystals to -0.2 THz at and near
    Γ. Phonopy's symmetrization restores it; where it had to mend much, "stable" is not believed.

    The path alone misses instabilities off it, so a mesh and the points that the supercell
    resolves are judged with it.
    """
    tolerance = settings.tolerance_thz
    path, mesh = standard_path(primitive), mesh_of(primitive.lattice)
    raw = _frequencies(phonon, path.qpoints)
    residual = judge_phonons(raw, path.qpoints, tolerance=tolerance).gamma_residual
    phonon.symmetrize_force_constants()
    on_path = _frequencies(phonon, path.qpoints)
    elsewhere, frequencies = _off_the_path(phonon, mesh)
    verdict = judge_phonons(
        np.concatenate([on_path, frequencies]),
        np.concatenate([path.qpoints, elsewhere]),
        tolerance=tolerance,
    )
    if verdict.verdict == "stable" and residual is not None:
        verdict = _distrust(verdict, residual, tolerance)
    supercell = supercell_matrix(primitive, settings.min_length)
    evidence = _evidence(verdict, residual, supercell, mesh, len(phonon.supercell))
    return Phonons(
        level=settings.level,
        verdict=verdict.verdict,
        reason=f"{verdict.reason} {evidence}",
        min_frequency=verdict.min_frequency,
        min_frequency_qpoint=None if verdict.qpoint is None else list(verdict.qpoint),
        gamma_residual=residual,
        tolerance=tolerance,
        displacement=settings.displacement,
        supercell_matrix=supercell.tolist(),
        supercell_atoms=len(phonon.supercell),
        mesh=mesh,
        n_displacements=len(phonon.supercells_with_displacements),
        bands={
            "distances": [np.round(path.distances[leg], 5).tolist() for leg in path.legs],
            "frequencies": [np.round(on_path[leg].T, 4).tolist() for leg in path.legs],
            "labels": path.labels,
        },
        dos=density_of_states(phonon),
        software={**software, "phonopy": version("phonopy")},
    )


def density_of_states(phonon: "Phonopy") -> dict[str, list[float]]:
    """Return frequencies (THz) and states/THz of the primitive cell, by the tetrahedron method.

    phonon: after a run on a mesh.
    """
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


def _off_the_path(
    phonon: "Phonopy", mesh: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return q-points, (n_q, 3), and frequencies, (n_q, n_bands), of mesh and supercell."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    phonon.run_mesh(mesh, is_gamma_center=True)
    found = phonon.get_mesh_dict()
    commensurate = get_commensurate_points(phonon.supercell_matrix)
    qpoints = np.concatenate([commensurate, found["qpoints"]])
    return qpoints, np.concatenate([_frequencies(phonon, commensurate), found["frequencies"]])


def _evidence(
    verdict: PhononVerdict,
    residual: float | None,
    supercell: NDArray[np.int64],
    mesh: Sequence[int],
    n_atoms: int,
) -> str:
    """Return in one sentence what a verdict rests on."""
    where = ""
    if verdict.qpoint is not None:
        exact = resolved(verdict.qpoint, supercell)
        how = "which the supercell resolves" if exact else "interpolated"
        where = f"Lowest at {reduced_point(verdict.qpoint)}, {how}; "
    size = "x".join(str(n) for n in mesh)
    at_gamma = "" if residual is None else f"; Γ residual {abs(residual):.2f} THz"
    return f"{where}path and mesh of {size}, supercell of {n_atoms} atoms{at_gamma}."


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
