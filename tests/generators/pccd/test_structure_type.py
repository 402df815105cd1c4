"""Names and numbers of structure types."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.generators.pccd.canonical import canonical_cell
from pccd_workflows.generators.pccd.structure_type import hash_type, number_types, structure_type


def named(structure: Structure) -> str:
    primitive = structure.get_primitive_structure().get_reduced_structure()
    cell = canonical_cell(
        primitive.lattice.matrix, np.array(primitive.atomic_numbers), primitive.frac_coords
    )
    lattice = Lattice.from_parameters(*cell.lengths, *cell.angles).matrix
    return structure_type(lattice, cell.numbers, cell.frac_coords)


def rock_salt(first: str, second: str, a: float) -> Structure:
    cubic = Lattice.cubic(a)
    return Structure.from_spacegroup("Fm-3m", cubic, [first, second], [[0, 0, 0], [0.5] * 3])


def test_a_type_is_the_same_for_other_elements_and_sizes():
    assert named(rock_salt("Na", "Cl", 5.6)) == named(rock_salt("O", "Mg", 4.2)) == "225:a,b"


def test_other_positions_are_other_types():
    zinc_blende = Structure.from_spacegroup(
        "F-43m", Lattice.cubic(5.4), ["Zn", "S"], [[0, 0, 0], [0.25] * 3]
    )
    caesium_chloride = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3]
    )
    names = {named(s) for s in (zinc_blende, caesium_chloride, rock_salt("Na", "Cl", 5.6))}
    assert len(names) == 3


@pytest.mark.parametrize("swapped", [False, True])
def test_elements_stand_by_their_number_of_atoms(swapped):
    """Fluorite and antifluorite are one type: which element is electropositive does not count."""
    species = ["O", "Li"] if swapped else ["Ca", "F"]
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.4), species, [[0, 0, 0], [0.25] * 3]
    )
    assert named(structure) == "225:a,cc"


def test_types_are_numbered_by_their_frequency_in_the_training_crystals():
    often, seldom, unseen = (hash_type(name) for name in ("225:a,b", "221:a,b", "1:a"))
    types = np.array([seldom, often, often, unseen, unseen, unseen, hash_type("")])
    train = np.array([True, True, True, False, False, False, True])
    assert number_types(types, train).tolist() == [2, 1, 1, 0, 0, 0, 0]
    assert number_types(types, np.zeros(7, dtype=bool)).tolist() == [0] * 7
