"""Energies without forces are those of single points."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.energy_only import energy_of
from pccd_workflows.engines.optimize import to_atoms
from pccd_workflows.engines.potential import calculator_of, single_point

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.3), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


@pytest.mark.parametrize("level", ["chgnet", "7net-l3i5"])
def test_the_energy_is_that_of_the_calculator(level: str) -> None:
    moved = ROCK_SALT.copy()
    moved.perturb(0.1)
    for structure in (ROCK_SALT, moved):
        atoms = to_atoms(structure)
        atoms.calc = calculator_of(level)
        energy = energy_of(atoms)
        assert single_point(structure, level) == pytest.approx(energy / len(atoms))
        # forces are still there for whoever asks the same potential for them
        assert atoms.get_forces().shape == (8, 3)
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=2e-5)


def test_elements_that_the_potential_does_not_know() -> None:
    polonium = Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]])
    with pytest.raises(InputError, match="chgnet was not trained on Po"):
        single_point(polonium, "chgnet")
