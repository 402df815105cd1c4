"""PBE without a licence: GPAW in plane waves, one crystal in, one record out.

The only module that knows GPAW. Its energies share no zero with VASP's, so that everything on a
hull, competing phases too, is computed here. Runs on one core: GPAW's MPI needs its own launcher.
"""

import hashlib
import importlib.util
import json
import time
import warnings
from collections.abc import Sequence
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
from pccd_workflows.core.errors import InputError, MissingDependencyError, PccdError
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.potential import optimizer_settings, relax_atoms, to_atoms
from pccd_workflows.engines.records import Relaxation

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

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
EFFORT = {"relax": (0.02, 60), "tight": (0.005, 60)}
"""Largest force, eV/Å, and most steps by plan."""


def check_ready(level: str, elements: Sequence[str]) -> None:
    """See that GPAW and PAW data of each element are there.

    Raises
    ------
    MissingDependencyError, InputError
        One sentence that says what to install, or names the element and the expected path.
    """
    if importlib.util.find_spec("gpaw") is None:
        raise MissingDependencyError(
            f"Level {level!r} needs GPAW: `make gpaw`, or pip install 'pccd-workflows[gpaw]' (it "
            "is compiled against libxc and a BLAS; see docs/dft.md)."
        )
    import gpaw

    folders = [Path(folder) for folder in gpaw.setup_paths]
    for element in elements:
        names = (f"{element}.PBE", f"{element}.PBE.gz")
        if not any((folder / name).is_file() for folder in folders for name in names):
            where = folders[0] if folders else Path("$GPAW_SETUP_PATH")
            raise InputError(
                f"There is no PAW data for {element} at {level!r}: expected {where / names[1]}."
            )


def result_key(
    structure: Structure, level: str, plan: str, ordering: MagneticOrdering | None
) -> str:
    """Return the content address of what `plan` computes of a crystal."""
    content = {
        "lattice": (np.round(structure.lattice.matrix, 6) + 0.0).tolist(),
        "species": [site.species_string for site in structure],
        "frac_coords": (np.mod(np.round(structure.frac_coords, 6), 1) + 0.0).tolist(),
        "level": [level, ALGORITHM, CUTOFF, KPOINT_DENSITY, SMEARING],
        "plan": [plan, *EFFORT.get(plan, ())],
        "magnetic_ordering": ordering,
        "magmom": structure.site_properties.get("magmom"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def relax(
    structure: Structure, level: str, ordering: MagneticOrdering | None, *, plan: str = "relax"
) -> Relaxation:
    """Relax cell and sites; a crystal that cannot be relaxed gets a verdict.

    Parameters
    ----------
    structure
        Ordered crystal; site property ``magmom`` overrides `ordering`.
    ordering
        Magnetic ordering to start from; None: open shells up.
    plan
        How far: one of EFFORT.
    """
    start = time.perf_counter()
    fmax, steps = EFFORT[plan]
    atoms = to_atoms(structure)
    if moments := first_moments(structure, ordering):
        atoms.set_initial_magnetic_moments(moments)
    engine = calculator(structure, spins=2 if moments else 1)
    atoms.calc = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = relax_atoms(structure, atoms, fmax=fmax, steps=steps)
    usable = found.get("structure") is not None
    ends = np.round(atoms.get_magnetic_moments(), 3).tolist() if moments and usable else []
    return Relaxation(
        level=level,
        key=result_key(structure, level, plan, ordering),
        convention=get_level(level).convention,
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
            "magnetic_ordering": ordering,
        },
        magnetic_ordering=ordering_of(ends) if ends else "NM",
        seconds=round(time.perf_counter() - start, 3),
    )


def forces(structure: Structure, level: str) -> NDArray[np.float64]:
    """Return the forces on the atoms of `structure` as it is, eV/Å, shape (n, 3).

    Starts from its site property ``magmom`` if it has one.

    Raises
    ------
    PccdError
        The electrons did not converge.
    """
    import gpaw

    atoms = to_atoms(structure)
    moments = structure.site_properties.get("magmom")
    if moments:
        atoms.set_initial_magnetic_moments(moments)
    atoms.calc = calculator(structure, spins=2 if moments else 1, tight=True)
    try:
        found: NDArray[np.float64] = atoms.get_forces()
    except gpaw.KohnShamConvergenceError as error:
        raise PccdError(f"{level}: the electrons did not converge ({error}).") from error
    return found


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
