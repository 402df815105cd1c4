"""Whose fault an error is: the crystal's, which is a verdict, or the machine's, which is none."""

from typing import TYPE_CHECKING

import numpy as np

from pccd_workflows.core.errors import DeviceFault, MachineFault, OutOfMemory

if TYPE_CHECKING:
    from ase import Atoms

NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""In the texts of torch's and C++'s errors."""
DEVICE = ("cuda", "cudnn", "cublas", "cusolver", "cusparse", "nccl", "hip error", "device-side")
"""In the texts of a GPU's errors, which torch raises as RuntimeError."""
CRYSTAL_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    ArithmeticError,
    LookupError,
    AssertionError,
    NotImplementedError,
)
"""What calculators raise of a cell they cannot take."""


def machine_fault(error: BaseException) -> MachineFault | None:
    """Return the machine's fault that an error is a sign of; None if it is no such sign."""
    if isinstance(error, MachineFault):
        return error
    name, text = type(error).__name__, str(error).lower()
    # torch without CUDA asserts
    runtime = isinstance(error, RuntimeError | AssertionError)
    if isinstance(error, MemoryError) or (
        runtime and (name == "OutOfMemoryError" or any(sign in text for sign in NO_MEMORY))
    ):
        return OutOfMemory(_sentence(error))
    if runtime and (name == "AcceleratorError" or any(sign in text for sign in DEVICE)):
        return DeviceFault(_sentence(error))
    database = any(kind.__module__.startswith("pymongo") for kind in type(error).__mro__)
    if database or isinstance(error, OSError | ImportError | SystemError):
        return MachineFault(_sentence(error))
    return None


def fault_behind(
    error: Exception, atoms: "Atoms", crystal_errors: tuple[type[Exception], ...] = CRYSTAL_ERRORS
) -> MachineFault | None:
    """Return the machine's fault behind an error of a calculation; None if the crystal caused it.

    An error that says neither is the crystal's only if it recurs there while the calculator still
    computes a plain crystal of one of its elements.

    Parameters
    ----------
    atoms
        Where it happened, with the calculator.
    crystal_errors
        Kinds of error that are always the crystal's.
    """
    known = machine_fault(error)
    if known is not None or isinstance(error, crystal_errors):
        return known
    if _recurs(error, atoms) and _works(atoms):
        return None
    return MachineFault(_sentence(error))


def first_line(error: BaseException) -> str:
    """Return kind and first line of an error, without the full stop."""
    text = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _sentence(error: BaseException) -> str:
    return f"MachineFault: {first_line(error)}: this is no verdict, run the job again."


def _recurs(error: Exception, atoms: "Atoms") -> bool:
    """Return whether the same kind of error comes again where it came."""
    atoms.calc.reset()
    try:
        atoms.get_forces()
    except Exception as again:
        return type(again) is type(error)
    return False


def _works(atoms: "Atoms") -> bool:
    """Return whether the calculator still computes a simple cubic crystal of one of the elements.

    Edge: twice the covalent radius (ase.data).
    """
    from ase import Atoms
    from ase.data import covalent_radii

    for number in sorted(set(atoms.numbers.tolist())):
        plain = Atoms(numbers=[number], cell=[2 * covalent_radii[number]] * 3, pbc=True)
        plain.calc = atoms.calc
        try:
            if np.isfinite(plain.get_potential_energy()):
                return True
        except Exception:  # noqa: S112  # whatever it is: it does not work
            continue
    return False
