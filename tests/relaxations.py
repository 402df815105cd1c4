"""Relaxations as an engine would return them, made up for tests."""

from pymatgen.core import Structure

from pccd_workflows.engines.records import Relaxation


def relaxation(
    structure: Structure, energy_per_atom: float, verdict: str = "converged"
) -> Relaxation:
    """Return a relaxation at CHGNet that ended with a crystal and an energy, eV/atom."""
    return Relaxation(
        level="chgnet",
        key="k",
        verdict=verdict,
        structure=structure,
        energy=energy_per_atom * len(structure),
        energy_per_atom=energy_per_atom,
        convention="mp2020",
    )
