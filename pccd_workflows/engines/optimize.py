"""Cell and sites brought to rest with any ASE calculator; bad crystals get a verdict."""

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.core.errors import PccdError
from pccd_workflows.core.faults import first_line
from pccd_workflows.core.units import EV_PER_A3_TO_GPA
from pccd_workflows.engines.faults import CRYSTAL_ERRORS, fault_behind
from pccd_workflows.engines.geometry import lost_volume, rms_displacement

if TYPE_CHECKING:
    from ase import Atoms

ALGORITHM = 2
"""Raised when `relax_atoms` changes in a way that changes its results: part of every key."""
ROUGH_FMAX = 5.0
"""FIRE takes overlapping atoms apart while a force exceeds it (eV/Å), BFGS does the rest.

LBFGS takes as many steps as BFGS and no eigenvalues, but walks uphill where the energy curves
down: it ended on a saddle of MgO2, 0.24 eV/atom above the minimum that BFGS and FIRE find."""
MAX_STEP = 0.2
"""Longest move of an atom in one BFGS step, Å; FIRE takes half of it."""
STIFFNESS = 35.0
"""BFGS's first guess of the curvature, eV/Å^2: half of ASE's cautious 70 saves 30 % of the steps
on crystals displaced by 0.1 and by 0.5 Å, and no end energy differs."""
MIN_VOLUME_PER_ATOM = 1.5
"""Å^3; the densest crystal at ambient pressure, diamond, has 5.7."""
MIN_ENERGY_PER_ATOM = -25.0
"""eV/atom; real crystals stay above -15: anything deeper is a hole in the potential."""
ABSURD_FORCE = 1.0e4
"""eV/Å."""

Failure = Literal["diverged", "not_a_number", "error"]


@dataclass
class _Path:
    """What a walk downhill has seen so far."""

    energies: list[float] = field(default_factory=list)
    failure: Failure | None = None
    reason: str | None = None
    converged: bool = False

    @property
    def n_steps(self) -> int:
        """Steps that the relaxation took."""
        return max(len(self.energies) - 1, 0)


def optimizer_settings(*, fmax: float, steps: int) -> dict[str, Any]:
    """Return what a record says about `relax_atoms`."""
    return {
        "fmax": fmax,
        "steps": steps,
        "optimizer": f"FIRE above {ROUGH_FMAX:g} eV/Å, then BFGS",
        "alpha": STIFFNESS,
        "max_step": MAX_STEP,
        "filter": "FrechetCellFilter",
        "algorithm": ALGORITHM,
    }


def relax_atoms(
    structure: Structure,
    atoms: "Atoms",
    *,
    fmax: float,
    steps: int,
    crystal_errors: tuple[type[Exception], ...] = CRYSTAL_ERRORS,
) -> dict[str, Any]:
    """Relax `atoms`, `structure` with a calculator; return verdict, energy and geometry.

    The fields are those of a Relaxation. What the crystal causes is a verdict.

    Parameters
    ----------
    crystal_errors
        As in `faults.fault_behind`.

    Raises
    ------
    MachineFault
        The machine failed, not the crystal.
    """
    path = _Path()
    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            # of the cell's deformation: an estimate above 2e-13, which moves no atom
            warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
            _descend(atoms, path, fmax=fmax, steps=steps)
        if not path.failure:
            found = _outcome(structure, atoms)
    except PccdError:
        raise
    except Exception as error:
        if (fault := fault_behind(error, atoms, crystal_errors)) is not None:
            raise fault from error
        path.failure, path.reason = "error", f"{first_line(error)}."
    if not (path.failure or path.converged):
        path.reason = f"Forces are not below {fmax:g} eV/Å after {steps} steps."
    return {
        **found,
        "verdict": path.failure or ("converged" if path.converged else "unconverged"),
        "reason": path.reason,
        "n_steps": path.n_steps,
        "energies": path.energies,
    }


def to_atoms(structure: Structure) -> "Atoms":
    """Return a crystal as ASE's atoms."""
    from ase import Atoms

    return Atoms(
        numbers=[site.specie.Z for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
        pbc=True,
    )


def _descend(atoms: "Atoms", path: _Path, *, fmax: float, steps: int) -> None:
    """Walk `atoms` downhill, noting each step in `path`; stops at a failure."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    movable = FrechetCellFilter(atoms)
    volume = atoms.get_volume()
    # FIRE limits the norm of the whole step, BFGS that of each atom
    rough = FIRE(movable, logfile=None, maxstep=MAX_STEP / 2 * np.sqrt(len(atoms)))
    fine = BFGS(movable, logfile=None, maxstep=MAX_STEP, alpha=STIFFNESS)
    for optimizer, target in ((rough, max(ROUGH_FMAX, fmax)), (fine, fmax)):
        for converged in optimizer.irun(fmax=target, steps=steps - path.n_steps):
            first_of_fine = optimizer is fine and optimizer.nsteps == 0
            if not first_of_fine:
                path.energies.append(round(float(atoms.get_potential_energy()) / len(atoms), 6))
            path.converged = converged and target == fmax
            path.failure, path.reason = _check(atoms, start_volume=volume)
            if path.failure:
                return


def _check(atoms: "Atoms", *, start_volume: float) -> tuple[Failure | None, str | None]:
    """Say whether a step left the realm of crystals, and how."""
    energy = atoms.get_potential_energy() / len(atoms)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(stress).all()):
        return "not_a_number", "The potential returned a value that is not a number."
    volume = atoms.get_volume()
    if lost := lost_volume(volume / start_volume):
        return "diverged", f"{lost}."
    if volume / len(atoms) < MIN_VOLUME_PER_ATOM:
        return "diverged", f"The cell is left with {volume / len(atoms):.2f} Å^3 per atom."
    if energy < MIN_ENERGY_PER_ATOM:
        return "diverged", f"{energy:.1f} eV/atom is deeper than any real crystal."
    force = float(np.linalg.norm(forces, axis=1).max())
    if force > ABSURD_FORCE:
        return "diverged", f"A force of {force:.3g} eV/Å is beyond reason."
    return None, None


def _outcome(start: Structure, atoms: "Atoms") -> dict[str, Any]:
    """Return the fields of a Relaxation that describe where it ended."""
    energy = float(atoms.get_potential_energy())
    end = Structure(
        np.array(atoms.cell),
        [site.specie.symbol for site in start],
        atoms.get_scaled_positions(wrap=False),
    )
    return {
        "structure": end,
        "energy": energy,
        "energy_per_atom": energy / len(atoms),
        "max_force": float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
        "max_stress": float(np.abs(atoms.get_stress()).max()) * EV_PER_A3_TO_GPA,
        "volume_change": end.volume / start.volume - 1,
        "rms_displacement": rms_displacement(start, end),
    }
