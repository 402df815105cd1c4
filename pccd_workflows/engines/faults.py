"""Whose fault an error is: the crystal's, which is a verdict, or the machine's, which is none."""

from typing import TYPE_CHECKING

import numpy as np

from pccd_workflows.core.errors import MachineFault
from pccd_workflows.core.faults import machine_fault, unexplained

if TYPE_CHECKING:
    from ase import Atoms

CRYSTAL_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    ArithmeticError,
    LookupError,
    AssertionError,
    NotImplementedError,
)
"""What calculators raise of a cell they cannot take."""


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
    return unexplained(error)


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
