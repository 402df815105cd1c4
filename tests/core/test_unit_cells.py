"""Crystals as plain numbers say what pymatgen says of them."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from pccd_workflows.core.unit_cells import unit_cell

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
IONS = SALT.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
SKEW = Structure(
    [[3.1, 0.2, 0.1], [-0.7, 4.4, 0.3], [1.2, -0.5, 5.9]],
    ["Mg", "O", "Mn", "O"],
    [[0.1, 0.2, 0.3], [0.6, 0.7, 0.4], [1.2, -0.3, 0.9], [0.3, 0.9, 0.1]],
)


@pytest.mark.parametrize("structure", [SALT, IONS, SKEW], ids=["salt", "ions", "skew"])
@pytest.mark.parametrize("stored", [True, False], ids=["document", "structure"])
def test_facts_are_those_of_pymatgen(structure, stored):
    found = unit_cell(structure.as_dict() if stored else structure)
    assert found.parameters == pytest.approx(structure.lattice.parameters, abs=1e-9)
    assert found.volume == pytest.approx(structure.volume, rel=1e-12)
    assert found.density == pytest.approx(float(structure.density), rel=1e-6)
    assert found.composition.formula == structure.composition.reduced_formula
    assert found.composition.chemsys == structure.chemical_system
    assert [*found.composition.elements] == sorted(e.symbol for e in structure.elements)
    assert found.space_group(0.1) == SpacegroupAnalyzer(structure, 0.1).get_space_group_symbol()
    assert len(found.kinds) == len(structure)


def test_spins_and_charges_tell_sites_apart():
    ordered = SALT.copy()
    ordered.add_spin_by_site([1.0, 1.0, -1.0, -1.0] + [0.0] * 4)
    for crystal in (ordered, ordered.as_dict()):
        assert unit_cell(crystal).space_group(0.1) != "Fm-3m"


def test_a_cell_in_which_spglib_finds_no_symmetry_has_no_space_group():
    collapsed = Structure(Lattice.cubic(3), ["Mg", "Mg"], [[0] * 3, [0.001] * 3])
    assert unit_cell(collapsed).space_group(0.1) is None
    assert np.isfinite(unit_cell(collapsed).density)
