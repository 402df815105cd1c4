"""Harmonic phonons around a tightly relaxed, symmetric cell.

With a potential through atomate2's flow, all displacements in one job; with DFT from forces that
were computed one job each, so that a lost displacement is run again alone.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jobflow import Flow
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.dynamics import AMBIGUOUS_FACTOR, PhononVerdict, judge_phonons
from pccd_workflows.analysis.kpaths import (
    SYMPREC,
    labels_of,
    legs_of,
    plain_label,
    symmetric_cell,
)
from pccd_workflows.core.errors import PccdError
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.potential import relax, relaxation_key, software
from pccd_workflows.engines.records import Phonons, Relaxation
from pccd_workflows.stages.phonons import PhononsSection

if TYPE_CHECKING:
    from phonopy import Phonopy
    from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine

TIGHT_FMAX = 0.003
"""eV/Å: forces that a displacement of 0.01 Å exceeds at least tenfold."""
TIGHT_STEPS = 200
POINTS_PER_SEGMENT = 51
"""q-points of one leg of the band path."""
MAX_MULTIPLE = 8
"""Most cells along one axis of a supercell."""
ROUNDING = 1e-6
ALGORITHM = 3
"""Raised when verdicts may change for the same settings: part of every key."""


def phonon_flow(tight: Structure, level: str, settings: PhononsSection) -> Flow:
    """Return the flow whose output is atomate2's PhononBSDOSDoc of a crystal at rest at `level`.

    tight: as `tight_cell` returns it; its symmetry keeps the displaced supercells few. All of
    these run in one job.
    """
    from atomate2.forcefields.flows.phonons import PhononMaker
    from atomate2.forcefields.jobs import ForceFieldStaticMaker

    displaced = ForceFieldStaticMaker(
        force_field_name={
            "@module": "pccd_workflows.engines.potential",
            "@callable": "calculator_of",
        },
        calculator_kwargs={"level": level},
        relax_kwargs={"final_atoms_object_file": None},
        name=f"displacements {level}",
    )
    maker = PhononMaker(
        bulk_relax_maker=None,
        static_energy_maker=None,
        phonon_displacement_maker=displaced,
        socket=True,  # all displacements in one job
        min_length=settings.min_length,
        displacement=settings.displacement,
        create_thermal_displacements=False,
        generate_frequencies_eigenvectors_kwargs={
            "npoints_band": POINTS_PER_SEGMENT,
            "tol_imaginary_modes": settings.tolerance_thz,
            "kpoint_density_dos": 1000,
            "tstep": 100,
        },
    )
    matrix = supercell_matrix(tight, settings.min_length).tolist()
    return maker.make(tight, supercell_matrix=matrix)


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
    ndarray
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


class Relax(Protocol):
    """Relaxes a structure at a level; the caller's may look a result up before computing it."""

    def __call__(
        self, structure: Structure, level: str, *, fmax: float, steps: int
    ) -> Relaxation: ...


def tight_cell(structure: Structure, level: str, *, relax: Relax = relax) -> Structure:
    """Return the primitive cell of `structure` at rest, symmetric to SYMPREC.

    Raises
    ------
    PccdError
        If the potential cannot relax the crystal.
    """
    relaxed = _at_rest(structure, level, relax)
    symmetric = symmetric_cell(relaxed)
    return symmetric if len(symmetric) == 1 else _at_rest(symmetric, level, relax)


def _at_rest(structure: Structure, level: str, relax: Relax) -> Structure:
    relaxation = relax(structure, level, fmax=TIGHT_FMAX, steps=TIGHT_STEPS)
    if not relaxation.usable or relaxation.structure is None:
        raise PccdError(f"No phonons: the relaxation {relaxation.verdict}. {relaxation.reason}")
    return relaxation.structure


def displaced_cells(
    tight: Structure, settings: PhononsSection, moments: Sequence[float] = ()
) -> list[Structure]:
    """Return the supercells whose forces determine the force constants.

    Parameters
    ----------
    tight
        Primitive cell at rest.
    moments
        Of its sites, μB; repeated in the supercells as site property ``magmom``.

    Raises
    ------
    PccdError
        The supercell would be too large.
    """
    from pymatgen.io.phonopy import get_pmg_structure

    phonon = _displaced(tight, settings)
    cells = [get_pmg_structure(cell) for cell in phonon.supercells_with_displacements]
    plain = [Structure(c.lattice, [s.specie.symbol for s in c], c.frac_coords) for c in cells]
    if len(moments) > 0:
        first = phonon.supercell.u2u_map
        of_site = [float(moments[first[i]]) for i in phonon.supercell.s2u_map]
        for cell in plain:
            cell.add_site_property("magmom", of_site)
    return plain


def _displaced(tight: Structure, settings: PhononsSection) -> "Phonopy":
    """Return phonopy's object for a crystal, with its displacements."""
    from phonopy import Phonopy
    from pymatgen.io.phonopy import get_phonopy_structure

    matrix = supercell_matrix(tight, settings.min_length)
    # rows are vectors here, columns in phonopy
    phonon = Phonopy(get_phonopy_structure(tight), matrix.T, primitive_matrix=np.eye(3))
    phonon.generate_displacements(distance=settings.displacement)
    return phonon


def dft_phonon_record(
    tight: Structure,
    forces: Sequence[ArrayLike],
    level: str,
    settings: PhononsSection,
    software_versions: Mapping[str, str],
) -> Phonons:
    """Judge a crystal by the forces in its displaced supercells.

    Parameters
    ----------
    tight
        As for `displaced_cells`.
    forces
        One (n, 3) array for each of its cells, in their order, eV/Å.
    software_versions
        Of what computed the forces.

    Raises
    ------
    PccdError
        The number of forces does not fit.
    """
    phonon = _displaced(tight, settings)
    cells = phonon.supercells_with_displacements
    if len(forces) != len(cells):
        raise PccdError(f"There are forces for {len(forces)} of {len(cells)} displacements.")
    phonon.forces = np.array(forces)
    phonon.produce_force_constants()
    return _judged(
        phonon,
        _standard_path(tight),
        level,
        settings,
        supercell_matrix=supercell_matrix(tight, settings.min_length).tolist(),
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


def _standard_path(primitive: Structure) -> BandPath:
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


def _judged(
    phonon: "Phonopy", path: BandPath, level: str, settings: PhononsSection, **facts: Any
) -> Phonons:
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
        level=level,
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
        **facts,
    )


def _frequencies(phonon: "Phonopy", qpoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return frequencies, shape (n_q, n_bands), THz, imaginary ones negative."""
    phonon.run_qpoints(qpoints)
    return np.array(phonon.get_qpoints_dict()["frequencies"])


def phonon_key(
    structure: Structure, level: str, settings: PhononsSection, ordering: str | None = None
) -> str:
    """Return the content address of a phonon calculation: structure, level and settings."""
    start = relaxation_key(structure, level, fmax=TIGHT_FMAX, steps=TIGHT_STEPS)
    numbers = [
        settings.min_length,
        settings.displacement,
        settings.tolerance_thz,
        SYMPREC,
        ALGORITHM,
    ]
    content = ["phonons", start, *numbers]
    if get_level(level).kind == "dft":
        content += [ordering]  # potentials know no moments
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def phonon_record(
    document: Any, level: str, settings: PhononsSection, *, seconds: float = 0.0
) -> Phonons:
    """Judge a finished calculation.

    Parameters
    ----------
    document
        atomate2's PhononBSDOSDoc, or its dictionary.
    seconds
        Wall time of the whole calculation, s.
    """
    bands = _band_structure(document)
    path = BandPath(
        np.array([q.frac_coords for q in bands.qpoints]),
        np.asarray(bands.distance),
        legs_of(bands),
        labels_of(bands),
    )
    supercell = _get(document, "supercell_matrix")
    uuids = _get(_get(document, "uuids"), "displacements_uuids")
    return _judged(
        _with_force_constants(document),
        path,
        level,
        settings,
        supercell_matrix=None if supercell is None else np.rint(supercell).astype(int).tolist(),
        n_displacements=None if uuids is None else len(uuids),
        software=software(get_level(level)),
        seconds=seconds,
    )


def _with_force_constants(document: Any) -> "Phonopy":
    """Return phonopy's object for a finished calculation."""
    from phonopy import Phonopy
    from pymatgen.io.phonopy import get_phonopy_structure

    constants = _get(_get(document, "force_constants"), "force_constants")
    structure = _get(document, "structure")
    if constants is None or structure is None:
        raise PccdError("The phonon calculation left no force constants.")
    if isinstance(structure, Mapping):
        structure = Structure.from_dict(structure)
    phonon = Phonopy(
        get_phonopy_structure(structure),
        np.rint(_get(document, "supercell_matrix")).astype(int),
        primitive_matrix=_get(document, "primitive_matrix"),
    )
    phonon.force_constants = np.array(constants)
    return phonon


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


def _get(document: Any, name: str) -> Any:
    """Return a field of a model or of its dictionary; None if there is none."""
    if isinstance(document, Mapping):
        return document.get(name)
    return getattr(document, name, None)


def _band_structure(document: Any) -> "PhononBandStructureSymmLine":
    from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine

    bands = _get(document, "phonon_bandstructure")
    if bands is None:
        raise PccdError("The phonon calculation left no band structure.")
    return PhononBandStructureSymmLine.from_dict(bands) if isinstance(bands, Mapping) else bands
