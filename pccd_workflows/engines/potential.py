"""Machine-learned potentials: one crystal in, one relaxation record out; bad ones get a verdict."""

import contextlib
import hashlib
import importlib
import io
import json
import time
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pymatgen.core import Element, Structure

from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.core.units import EV_PER_A3_TO_GPA
from pccd_workflows.engines.levels import Level, get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

ALGORITHM = 2
"""Raised when `relax` changes in a way that changes its results: part of every key."""
ROUGH_FMAX = 5.0
"""FIRE takes overlapping atoms apart while a force exceeds it (eV/Å), BFGS does the rest.

LBFGS takes as many steps as BFGS and no eigenvalues, but walks uphill where the energy curves
down: it ended on a saddle of MgO2, 0.24 eV/atom above the minimum that BFGS and FIRE find."""
MAX_STEP = 0.2
"""Longest move of an atom in one BFGS step, Å; FIRE takes half of it."""
STIFFNESS = 35.0
"""BFGS's first guess of the curvature, eV/Å^2: half of ASE's cautious 70 saves 30 % of the steps
on crystals displaced by 0.1 and by 0.5 Å, and no end energy differs."""
VOLUME_RANGE = (0.25, 4.0)
"""V / V_start outside of it is a collapse or an explosion."""
MIN_VOLUME_PER_ATOM = 1.5
"""Å^3; the densest crystal at ambient pressure, diamond, has 5.7."""
MIN_ENERGY_PER_ATOM = -25.0
"""eV/atom; real crystals stay above -15: anything deeper is a hole in the potential."""
ABSURD_FORCE = 1.0e4
"""eV/Å."""

Failure = Literal["diverged", "not_a_number", "error"]


@lru_cache(maxsize=4)
def _make_calculator(path: str, options: str, device: str, package: str) -> "Calculator":
    module, _, name = path.partition(":")
    arguments = json.loads(options)
    arguments |= {key: device for key in ("device", "use_device") if key in arguments}
    try:
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise MissingDependencyError(
            f"The potential {path} cannot be imported ({error}); install {package}."
        ) from None
    with contextlib.redirect_stdout(io.StringIO()):
        return factory(**arguments)


def calculator(level: Level) -> "Calculator":
    """Return this process's ASE calculator of `level`; the model is loaded once.

    Raises
    ------
    InputError
        If the level is not a potential.
    MissingDependencyError
        If its package is not installed; names what to install.
    """
    if level.kind != "potential":
        raise InputError(f"Level {level.name!r} is not a potential that runs in this process.")
    options = json.dumps(level.options, sort_keys=True)
    return _make_calculator(level.calculator, options, _device(), level.package)


def calculator_of(level: str) -> "Calculator":
    """Return the calculator of the level with this name; what other packages are pointed to."""
    return calculator(get_level(level))


def _device() -> str:
    import torch

    wanted = get_settings().device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        # small crystals gain nothing from threads, and torch's spin-waiting threads make a busy
        # machine 30-100 times slower
        torch.set_num_threads(1)
    return wanted


def runs_on_gpu() -> bool:
    """Return whether potentials run on a GPU here."""
    return _device() == "cuda"


def supported_elements(level: Level) -> frozenset[str] | None:
    """Return the symbols the potential was trained on; None if it does not say."""
    engine = calculator(level)
    numbers = getattr(engine, "atomic_numbers", None) or getattr(engine, "type_map", None)
    return frozenset(Element.from_Z(int(z)).symbol for z in numbers) if numbers else None


def software(level: Level) -> dict[str, str]:
    """Return the versions that fix a result: the potential's package, its model, ase and torch."""
    found = {name: _version(name) for name in (_package(level), "ase", "torch")}
    model = level.options.get("model") or getattr(calculator(level), "model_name", level.name)
    return {**found, "model": str(model)}


def _package(level: Level) -> str:
    """Return the distribution that holds a potential's model."""
    package = level.calculator.partition(":")[0].partition(".")[0]
    return level.package if package == __name__.partition(".")[0] else package


def _version(package: str) -> str:
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return "unknown"


def relaxation_key(structure: Structure, level: str, *, fmax: float, steps: int) -> str:
    """Return the content address of a relaxation: sha256 of structure, level and settings.

    Lattice and fractional coordinates count to 1e-6; loads no potential.
    """
    of = get_level(level)
    content = {
        "lattice": (np.round(structure.lattice.matrix, 6) + 0.0).tolist(),
        "species": [site.species_string for site in structure],
        "frac_coords": (np.mod(np.round(structure.frac_coords, 6), 1) + 0.0).tolist(),
        "level": [of.name, of.address, of.options, _version(_package(of))],
        "settings": {"fmax": fmax, "steps": steps, "algorithm": ALGORITHM},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def single_point(structure: Structure, level: str) -> float:
    """Return the energy of `structure` as it is, eV/atom.

    Raises whatever the calculator raises.
    """
    atoms = to_atoms(structure)
    atoms.calc = calculator(get_level(level))
    return float(atoms.get_potential_energy()) / len(atoms)


@dataclass
class _Path:
    """What a walk downhill has seen so far."""

    energies: list[float] = field(default_factory=list)
    failure: Failure | None = None
    reason: str | None = None
    converged: bool = False

    @property
    def n_steps(self) -> int:
        return max(len(self.energies) - 1, 0)


def relax(structure: Structure, level: str, *, fmax: float = 0.05, steps: int = 300) -> Relaxation:
    """Relax cell and sites of `structure`; a crystal that cannot be relaxed gets a verdict.

    Parameters
    ----------
    structure
        Ordered crystal; sites keep their order.
    level
        Name of a potential in `pccd_workflows.engines.levels`.
    fmax
        Converged when every force and the virial per atom are below it, eV/Å (eV).
    steps
        Most steps; each costs one evaluation of the potential.

    Raises
    ------
    InputError, MissingDependencyError
        As `calculator`: the level is no potential, or its package is missing.
    """
    start = time.perf_counter()
    of = get_level(level)
    engine = calculator(of)
    record: dict[str, Any] = {
        "level": level,
        "key": relaxation_key(structure, level, fmax=fmax, steps=steps),
        "convention": of.convention,
        "software": software(of),
        "settings": optimizer_settings(fmax=fmax, steps=steps),
    }
    if not structure.is_ordered:
        return Relaxation(**record, verdict="error", reason="Sites are partially occupied.")
    known = supported_elements(of)
    foreign = sorted({e.symbol for e in structure.elements} - known) if known is not None else []
    if foreign:
        reason = f"{level} was not trained on {', '.join(foreign)}."
        return Relaxation(**record, verdict="unsupported_element", reason=reason)
    atoms = to_atoms(structure)
    atoms.calc = engine
    found = relax_atoms(structure, atoms, fmax=fmax, steps=steps)
    return Relaxation(**record, **found, seconds=round(time.perf_counter() - start, 3))


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


def relax_atoms(structure: Structure, atoms: "Atoms", *, fmax: float, steps: int) -> dict[str, Any]:
    """Relax `atoms`, `structure` with a calculator; return verdict, energy and geometry.

    The fields are those of a Relaxation. Whatever goes wrong is a verdict, but for memory.
    """
    path = _Path()
    found: dict[str, Any] = {}
    try:
        _descend(atoms, path, fmax=fmax, steps=steps)
        if not path.failure:
            found = _outcome(structure, atoms)
    except MemoryError:
        raise
    except Exception as error:
        path.failure, path.reason = "error", _sentence(error)
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
    low, high = VOLUME_RANGE
    if not low <= volume / start_volume <= high:
        word = "collapsed" if volume < start_volume else "exploded"
        return "diverged", f"The cell {word} to {volume / start_volume:.2f} of its first volume."
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
        "rms_displacement": _rms_displacement(start, end),
    }


def _rms_displacement(start: Structure, end: Structure) -> float:
    """RMS distance in Å the atoms moved in the starting cell, their common drift removed."""
    moved = end.frac_coords - start.frac_coords
    moved = (moved - moved.mean(axis=0)) @ start.lattice.matrix
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def _sentence(error: Exception) -> str:
    """Return the first line of an exception as one sentence."""
    text = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    return f"{type(error).__name__}: {text}." if text else f"{type(error).__name__}."
