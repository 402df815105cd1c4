"""Machine-learned potentials, and any other ASE calculator that makes one: many crystals a job."""

import contextlib
import importlib
import importlib.util
import io
import json
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from pccd_workflows.core.errors import (
    InputError,
    MachineFault,
    MissingDependencyError,
    PccdError,
)
from pccd_workflows.core.faults import first_line, machine_fault
from pccd_workflows.engines.energy_only import energy_of
from pccd_workflows.engines.engine import Category, Task, Work, engine_of
from pccd_workflows.engines.faults import fault_behind
from pccd_workflows.engines.geometry import content_key, structure_content, text_key
from pccd_workflows.engines.levels import Level, TaskKind, get_level
from pccd_workflows.engines.optimize import ALGORITHM, optimizer_settings, relax_atoms, to_atoms
from pccd_workflows.engines.records import Forces, Relaxation, SinglePoint
from pccd_workflows.engines.shared import OneRun, put_record
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from pccd_workflows.settings import Settings

EFFORT: dict[TaskKind, tuple[float, int]] = {"relax": (0.05, 300), "tight": (0.003, 200)}
"""Largest force, eV/Å, and most steps where a task leaves them open. Tight: forces that a
displacement of 0.01 Å exceeds at least tenfold."""


# --- calculators -----------------------------------------------------------------------------


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
    MachineFault
        If the device or the disk fails while the model is loaded.
    """
    if engine_of(level) is not ENGINE:
        raise InputError(f"Level {level.name!r} is not a potential that runs in this process.")
    options = json.dumps(level.options, sort_keys=True)
    try:
        return _make_calculator(level.calculator, options, _device(), level.package)
    except PccdError:
        raise
    except Exception as error:
        if (fault := machine_fault(error)) is not None:
            raise fault from error
        raise


def calculator_of(level: str) -> "Calculator":
    """Return the calculator of the level with this name; what other packages are pointed to."""
    return calculator(get_level(level))


@contextlib.contextmanager
def _of_healthy_machines() -> Any:
    """Forget the calculators of this process when the machine fails under one of them."""
    try:
        yield
    except MachineFault:
        _make_calculator.cache_clear()
        raise


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
    return calculator_elements(calculator(level)) if level.elements is None else level.elements


def calculator_elements(engine: "Calculator") -> frozenset[str] | None:
    """Return the symbols a calculator says that it knows; None if it says nothing."""
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


# --- keys ------------------------------------------------------------------------------------


def relaxation_key(structure: Structure, level: str, *, fmax: float, steps: int) -> str:
    """Return the content address of a relaxation: sha256 of structure, level and settings.

    Lattice and fractional coordinates count to 1e-6; loads no potential.
    """
    settings = {"fmax": fmax, "steps": steps, "algorithm": ALGORITHM}
    return _key(structure, get_level(level), settings)


def _key(structure: Structure, level: Level, settings: dict[str, Any]) -> str:
    of = [level.name, level.address, level.options, _version(_package(level))]
    return content_key({**structure_content(structure), "level": of, "settings": settings})


def _relaxation_key(structure: Structure, level: Level, task: Task) -> str:
    fmax, steps = _effort(task)
    return relaxation_key(structure, level.name, fmax=fmax, steps=steps)


def _static_key(structure: Structure, level: Level, _task: Task) -> str:
    plain = relaxation_key(structure, level.name, fmax=0.0, steps=0)
    return text_key(f"single point {plain}")


def _forces_key(structure: Structure, level: Level, _task: Task) -> str:
    return _key(structure, level, {"forces": 1})


def _effort(task: Task) -> tuple[float, int]:
    fmax, steps = EFFORT[task.kind]
    return (fmax if task.fmax is None else task.fmax, steps if task.steps is None else task.steps)


# --- what is computed --------------------------------------------------------------------------


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
    MachineFault
        The machine failed, not the crystal.
    """
    start = time.perf_counter()
    of = get_level(level)
    with _of_healthy_machines():
        record: dict[str, Any] = {
            "level": level,
            "key": relaxation_key(structure, level, fmax=fmax, steps=steps),
            "convention": of.convention,
            "software": software(of),
            "settings": optimizer_settings(fmax=fmax, steps=steps),
        }
        if not structure.is_ordered:
            return Relaxation(**record, verdict="error", reason="Sites are partially occupied.")
        if foreign := _foreign(structure, of):
            reason = f"{level} was not trained on {', '.join(foreign)}."
            return Relaxation(**record, verdict="unsupported_element", reason=reason)
        found = relax_atoms(structure, _atoms(structure, of), fmax=fmax, steps=steps)
    return Relaxation(**record, **found, seconds=round(time.perf_counter() - start, 3))


def _foreign(structure: Structure, level: Level) -> list[str]:
    """Return the elements of a structure that a potential was not trained on."""
    known = supported_elements(level)
    return [] if known is None else sorted({e.symbol for e in structure.elements} - known)


def _atoms(structure: Structure, level: Level) -> "Atoms":
    atoms = to_atoms(structure)
    atoms.calc = calculator(level)
    return atoms


def single_point(structure: Structure, level: str) -> float:
    """Return the energy of `structure` as it is, eV/atom.

    Raises
    ------
    InputError
        The potential was not trained on one of its elements.
    MachineFault
        The machine failed; whatever else the calculator raises is the crystal's fault.
    """
    of = get_level(level)
    if foreign := _foreign(structure, of):
        raise InputError(f"{level} was not trained on {', '.join(foreign)}.")
    return float(_evaluate(structure, of, energy_of)) / len(structure)


def forces(
    structure: Structure, level: str
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the forces on the atoms of `structure` as it is, eV/Å, and its stress, eV/Å^3.

    Shapes are (n, 3) and (6,), in Voigt order. No stress where the forces come without one.

    Raises
    ------
    PccdError
        The potential cannot say.
    MachineFault
        The machine failed, not the crystal.
    """
    try:
        found, stress = _evaluate(structure, get_level(level), _forces_of)
    except PccdError:
        raise
    except Exception as error:
        raise PccdError(f"{level} gives no forces: {first_line(error)}.") from error
    if not np.isfinite(found).all():
        raise PccdError(f"{level} gives forces that are not numbers.")
    there = np.shape(stress) == (6,) and np.isfinite(stress).all()
    return np.asarray(found, dtype=float), np.asarray(stress, dtype=float) if there else None


def _forces_of(atoms: "Atoms") -> tuple[Any, Any]:
    found = atoms.get_forces()
    # most potentials have computed it by now; the others are not asked
    return found, getattr(atoms.calc, "results", {}).get("stress")


def _evaluate(structure: Structure, level: Level, ask: Callable[["Atoms"], Any]) -> Any:
    """Return what a potential says of a structure; its faults are told from the machine's."""
    with _of_healthy_machines():
        atoms = _atoms(structure, level)
        try:
            return ask(atoms)
        except PccdError:
            raise
        except Exception as error:
            if (fault := fault_behind(error, atoms)) is not None:
                raise fault from error
            raise


# --- the engine ------------------------------------------------------------------------------


def _do_relax(structure: Structure, level: Level, task: Task) -> Relaxation:
    fmax, steps = _effort(task)
    return relax(structure, level.name, fmax=fmax, steps=steps)


def _do_static(structure: Structure, level: Level, _task: Task) -> SinglePoint:
    began = time.perf_counter()
    energy: float | None = None
    reason: str | None = f"{level.name} returned a value that is not a number."
    try:
        energy, reason = single_point(structure, level.name), None
    except InputError as error:  # an element that it was not trained on
        reason = str(error)
    except PccdError:
        raise
    except Exception as error:  # a cell the potential cannot take, ...
        reason = f"{first_line(error)}."
    if energy is not None and not np.isfinite(energy):
        energy, reason = None, f"{level.name} returned a value that is not a number."
    return SinglePoint(energy_per_atom=energy, reason=reason, seconds=_since(began))


def _do_forces(structure: Structure, level: Level, _task: Task) -> Forces:
    began = time.perf_counter()
    found, stress = forces(structure, level.name)
    return Forces(
        forces=found.tolist(),
        stress=None if stress is None else stress.tolist(),
        seconds=_since(began),
    )


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


KINDS: dict[TaskKind, tuple[Callable[..., str], Callable[..., Relaxation | SinglePoint | Forces]]]
KINDS = {
    "relax": (_relaxation_key, _do_relax),
    "tight": (_relaxation_key, _do_relax),
    "static": (_static_key, _do_static),
    "forces": (_forces_key, _do_forces),
}
"""Key and computation of each kind of task."""


class Potential(OneRun):
    """ASE calculators in this process."""

    category: Category = "gpu"
    batched = True

    def check(
        self,
        level: Level,
        elements: Sequence[str],
        settings: "Settings",  # noqa: ARG002
    ) -> None:
        """See that a potential is installed, and that it knows every element asked for.

        Raises
        ------
        MissingDependencyError, InputError
            One sentence that says what to install, or names the elements.
        """
        package = level.calculator.partition(":")[0].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"Level {level.name!r} needs a package that is not installed: "
                f"pip install {level.package!r}."
            )
        known = level.elements
        if known is not None and (foreign := [e for e in elements if e not in known]):
            raise InputError(
                f"Level {level.name!r} was not trained on {', '.join(foreign)}: ask for other "
                "elements, or use another level."
            )

    def key(self, level: Level, structure: Structure, task: Task) -> str:
        """Return the content address of a task's result."""
        make_key, _ = KINDS[task.kind]
        return make_key(structure, level, task)

    def run_next(self, level: Level, structure: Structure, task: Task, work: Work) -> None:
        """Compute the task and store its result."""
        _, computes = KINDS[task.kind]
        record = computes(structure, level, task)
        (run,) = self.runs(level, task)
        work.note_cost(
            level,
            task,
            run=run,
            seconds=record.seconds,
            cores=1,
            gpus=int(runs_on_gpu()),
            n_atoms=len(structure),
            n_steps=getattr(record, "n_steps", 0) + 1,
        )
        put_record(work.storage, self.key(level, structure, task), task, record)


ENGINE = Potential()
