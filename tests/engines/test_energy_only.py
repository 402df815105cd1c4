"""Energies without forces are those of single points."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.energy_only import energy_only
from pccd_workflows.engines.potential import calculator_of, single_point

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.3), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


@pytest.mark.parametrize("level", ["chgnet", "7net-l3i5"])
def test_the_energy_is_that_of_a_single_point(level: str) -> None:
    moved = ROCK_SALT.copy()
    moved.perturb(0.1)
    for structure in (ROCK_SALT, moved):
        expected = single_point(structure, level)
        assert energy_only(structure, level) == pytest.approx(expected, abs=2e-6)
    # forces are still there for whoever asks the same potential for them
    assert "forces" in calculator_of(level).implemented_properties
    assert single_point(moved, level) == pytest.approx(energy_only(moved, level), abs=2e-6)


def test_elements_that_the_potential_does_not_know() -> None:
    polonium = Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]])
    with pytest.raises(InputError, match="chgnet was not trained on Po"):
        energy_only(polonium, "chgnet")
