"""PBE without a licence: GPAW in plane waves, one crystal in, one record out.

The only module that knows GPAW. Its energies share no zero with VASP's, so that everything on a
hull, competing phases too, is computed here. Runs on one core: GPAW's MPI needs its own launcher.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.analysis.magnetism import (
    MAGNETIC,
    MagneticOrdering,
    ordering_of,
    starting_moments,
)
from pccd_workflows.core.errors import InputError, MachineFault, MissingDependencyError, PccdError
from pccd_workflows.core.faults import first_line, machine_fault
from pccd_workflows.engines.engine import Category, Task, Work
from pccd_workflows.engines.geometry import content_key, structure_content
from pccd_workflows.engines.levels import Level, TaskKind
from pccd_workflows.engines.optimize import optimizer_settings, relax_atoms, to_atoms
from pccd_workflows.engines.records import Forces, Relaxation, SinglePoint
from pccd_workflows.engines.shared import OneRun, put_record

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from pccd_workflows.settings import Settings

ALGORITHM = 1
"""Raised when results change for the same settings: part of every key."""
CUTOFF = 800.0
"""eV. At 600 eV the stress of MgO still misses that of a full basis by 5 GPa, at 800 by 0.6."""
KPOINT_DENSITY = 4.0
"""Points per 1/Å, 2π included: as dense as MP's relaxations (64 per Å^-3)."""
SMEARING = 0.05
"""eV, Fermi-Dirac; energies are extrapolated to none."""
MOLECULAR_OXYGEN = 1.0
"""μB per atom that elemental oxygen starts from: O2 is a triplet."""
EFFORT: dict[TaskKind, tuple[float, int]] = {"relax": (0.02, 60), "tight": (0.005, 60)}
"""Largest force, eV/Å, and most steps."""


def check_ready(level: Level, elements: Sequence[str]) -> None:
    """See that GPAW and PAW data of each element are there.

    Raises
    ------
    MissingDependencyError, InputError
        One sentence that says what to install, or names the element and the expected path.
    """
    if importlib.util.find_spec("gpaw") is None:
        raise MissingDependencyError(
            f"Level {level.name!r} needs GPAW: `make gpaw`, or pip install 'pccd-workflows[gpaw]' "
            "(it is compiled against libxc and a BLAS; see docs/dft.md)."
        )
    import gpaw

    folders = [Path(folder) for folder in gpaw.setup_paths]
    for element in elements:
        names = (f"{element}.PBE", f"{element}.PBE.gz")
        if not any((folder / name).is_file() for folder in folders for name in names):
            expected = (folders[0] if folders else Path("$GPAW_SETUP_PATH")) / names[1]
            raise InputError(
                f"There is no PAW data for {element} at {level.name!r}: expected {expected}."
            )


def result_key(structure: Structure, level: Level, task: Task) -> str:
    """Return the content address of what a task computes of a crystal."""
    content = {
        "level": [level.name, ALGORITHM, CUTOFF, KPOINT_DENSITY, SMEARING],
        "plan": [task.kind, *EFFORT.get(task.kind, ())],
        "magnetic_ordering": task.ordering,
        "magmom": structure.site_properties.get("magmom"),
    }
    return content_key({**structure_content(structure), **content})


def relax(structure: Structure, level: Level, task: Task) -> Relaxation:
    """Relax cell and sites; a crystal that cannot be relaxed gets a verdict.

    Parameters
    ----------
    structure
        Ordered crystal; site property ``magmom`` overrides the task's ordering.
    task
        How far (its kind, see EFFORT), and the magnetic ordering to start from; without one open
        shells start up.

    Raises
    ------
    MachineFault
        The machine failed, not the crystal.
    """
    start = time.perf_counter()
    fmax, steps = EFFORT[task.kind]
    moments = first_moments(structure, task.ordering)
    atoms = _atoms(structure, moments, tight=False)
    engine = atoms.calc
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # whatever GPAW says that is not known of machines, it says of the crystal
        found = relax_atoms(structure, atoms, fmax=fmax, steps=steps, crystal_errors=(Exception,))
    usable = found.get("structure") is not None
    ends = np.round(atoms.get_magnetic_moments(), 3).tolist() if moments and usable else []
    return Relaxation(
        level=level.name,
        key=result_key(structure, level, task),
        convention=level.convention,
        **found,
        software={name: version(name) for name in ("gpaw", "gpaw-data", "ase")},
        settings={
            **optimizer_settings(fmax=fmax, steps=steps),
            "cutoff": CUTOFF,
            "smearing": SMEARING,
            "kpoints": list(kpoint_mesh(structure)),
            "n_kpoints": len(engine.get_ibz_k_points()) if usable else None,
            "n_electrons": _n_electrons(engine) if usable else None,
            "moments": ends,
            "magnetic_ordering": task.ordering,
        },
        magnetic_ordering=ordering_of(ends) if ends else "NM",
        seconds=_since(start),
    )


def single_point(structure: Structure, level: Level, task: Task) -> SinglePoint:
    """Return the energy of `structure` as it is; moments start as in `relax`."""
    began = time.perf_counter()
    moments = first_moments(structure, task.ordering)
    atoms = _atoms(structure, moments, tight=False)
    try:
        energy = float(_ask(level, atoms.get_potential_energy)) / len(structure)
    except MachineFault:
        raise
    except PccdError as error:
        return SinglePoint(reason=str(error), seconds=_since(began))
    return SinglePoint(energy_per_atom=energy, seconds=_since(began))


def forces(structure: Structure, level: Level, task: Task) -> Forces:  # noqa: ARG001
    """Return the forces on the atoms of `structure` as it is.

    Starts from its site property ``magmom`` if it has one.

    Raises
    ------
    PccdError
        The electrons did not converge.
    """
    began = time.perf_counter()
    moments = structure.site_properties.get("magmom") or []
    atoms = _atoms(structure, moments, tight=True)
    found: NDArray[np.float64] = _ask(level, atoms.get_forces)
    return Forces(forces=found.tolist(), seconds=_since(began))


def _atoms(structure: Structure, moments: Sequence[float], *, tight: bool) -> "Atoms":
    """Return a crystal's atoms with GPAW as their calculator."""
    atoms = to_atoms(structure)
    if moments:
        atoms.set_initial_magnetic_moments(moments)
    atoms.calc = calculator(structure, spins=2 if moments else 1, tight=tight)
    return atoms


def _ask(level: Level, question: Callable[[], Any]) -> Any:
    """Return what GPAW answers; PccdError if the electrons do not converge."""
    import gpaw

    try:
        return question()
    except gpaw.KohnShamConvergenceError as error:
        raise PccdError(
            f"{level.name}: the electrons did not converge ({first_line(error)})."
        ) from error
    except Exception as error:
        if (fault := machine_fault(error)) is not None:
            raise fault from error
        raise


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def calculator(structure: Structure, *, spins: int, tight: bool = False) -> "Calculator":
    """Return GPAW at this level for a crystal; its k-points stay while the cell moves.

    tight: forces to 1e-4 eV/Å, for phonons.
    """
    from gpaw import GPAW, PW, FermiDirac

    options: dict[str, Any] = {"convergence": {"forces": 1e-4}} if tight else {}
    return GPAW(
        mode=PW(CUTOFF),
        xc="PBE",
        kpts={"size": kpoint_mesh(structure), "gamma": True},
        occupations=FermiDirac(SMEARING),
        spinpol=spins == 2,
        txt="gpaw.txt",
        **options,
    )


def kpoint_mesh(structure: Structure) -> tuple[int, int, int]:
    """Return the divisions of the k-point mesh."""
    lengths = structure.lattice.reciprocal_lattice.abc
    x, y, z = (max(1, int(np.ceil(KPOINT_DENSITY * length - 1e-9))) for length in lengths)
    return x, y, z


def first_moments(structure: Structure, ordering: MagneticOrdering | None) -> list[float]:
    """Return the moments to start from, μB per site; none for a closed-shell calculation."""
    given = structure.site_properties.get("magmom")
    symbols = {site.specie.symbol for site in structure}
    if given:
        return list(given)
    if ordering == "NM":
        return []
    if symbols == {"O"}:
        return [MOLECULAR_OXYGEN] * len(structure)
    if ordering is None and not symbols & MAGNETIC.keys():
        return []
    return starting_moments(structure, ordering or "FM")


def _n_electrons(engine: Any) -> float:
    return float(engine.get_number_of_electrons())


DOES: dict[TaskKind, Callable[[Structure, Level, Task], Relaxation | SinglePoint | Forces]] = {
    "relax": relax,
    "tight": relax,
    "static": single_point,
    "forces": forces,
}


class Gpaw(OneRun):
    """GPAW in plane waves, one crystal a job."""

    category: Category = "cpu"
    batched = False

    def check(
        self,
        level: Level,
        elements: Sequence[str],
        settings: "Settings",  # noqa: ARG002
    ) -> None:
        """See that GPAW and PAW data of each element are there."""
        check_ready(level, elements)

    def key(self, level: Level, structure: Structure, task: Task) -> str:
        """Return the content address of a task's result."""
        return result_key(structure, level, task)

    def run_next(self, level: Level, structure: Structure, task: Task, work: Work) -> None:
        """Compute the task and store its result."""
        record = DOES[task.kind](structure, level, task)
        settings: dict[str, Any] = getattr(record, "settings", {})
        (run,) = self.runs(level, task)
        work.note_cost(
            level,
            task,
            run=run,
            seconds=record.seconds,
            n_atoms=len(structure),
            n_electrons=settings.get("n_electrons"),
            n_kpoints=settings.get("n_kpoints"),
            n_spins=2 if settings.get("moments") else 1,
            n_steps=getattr(record, "n_steps", 0) + 1,
        )
        put_record(work.storage, self.key(level, structure, task), task, record)


ENGINE = Gpaw()
