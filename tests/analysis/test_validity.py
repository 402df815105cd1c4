"""Screening: each rejection for its own reason, real crystals pass."""

import math

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis import validity
from pccd_workflows.analysis.screening import Screen
from pccd_workflows.analysis.validity import charge_balance, periodic_distances, screen

SCREEN = Screen()


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    """Return a rock salt cell of two atoms; `a` is the cubic lattice constant, Å."""
    return Structure(
        Lattice.cubic(a).matrix @ [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        [cation, anion],
        [[0, 0, 0], [0.5, 0.5, 0.5]],
    )


def test_a_real_crystal_passes_with_its_numbers() -> None:
    """MgO: 4.21 Å, so Mg-O 2.105 Å, 3.58 g/cm^3 and 9.33 Å^3 per atom."""
    record = screen(rock_salt("Mg", "O", 4.21), elements=["O", "Mg"], settings=SCREEN)
    assert record.passed
    assert record.min_distance == pytest.approx(2.105)
    assert record.density == pytest.approx(3.59, abs=0.02)
    assert record.volume_per_atom == pytest.approx(4.21**3 / 8)
    assert record.charge_balanced is True
    assert record.oxidation_states == {"Mg": 2.0, "O": -2.0}


@pytest.mark.parametrize(
    ("structure", "elements", "reason_class", "words"),
    [
        (rock_salt("Mg", "O", 2.2), ["Mg", "O"], "too_close", "Mg and O are 1.10 Å"),
        (rock_salt("Mg", "O", 12.0), ["Mg", "O"], "density", "0.1"),
        (rock_salt("Mg", "O", 40.0), ["Mg", "O"], "volume", "Å^3 per atom"),
        (rock_salt("Mg", "O", 4.2), ["Mg", "Mn", "O"], "elements", "Mn is missing"),
        (rock_salt("Mg", "S", 5.2), ["Mg", "O"], "elements", "S was not asked for"),
        (rock_salt("Mg", "F", 4.2), ["Mg", "F"], "charge", "MgF"),
        (Structure(Lattice.cubic(3), ["Na"], [[0, 0, math.nan]]), ["Na"], "not_finite", "finite"),
    ],
)
def test_each_fault_is_named(
    structure: Structure, elements: list[str], reason_class: str, words: str
) -> None:
    """The class is for counting, the sentence for reading."""
    settings = Screen(charge_neutral="require", density=(0.2, 30.0))
    record = screen(structure, elements=elements, settings=settings)
    assert not record.passed
    assert record.reason_class == reason_class
    assert words in str(record.reason)
    assert str(record.reason).endswith(".")


def test_an_atom_is_not_too_close_to_its_own_image_only_by_luck() -> None:
    """A thin skewed cell of one atom: the shortest translation, 1 Å, is not a lattice vector."""
    lattice = Lattice([[8, 0, 0], [7, 1, 0], [0, 0, 9]])
    chain = Structure(lattice, ["Cu"], [[0.1, 0.2, 0.3]])
    assert periodic_distances(chain)[0, 0] == pytest.approx(math.sqrt(2))
    assert screen(chain, elements=["Cu"], settings=SCREEN).reason_class == "too_close"


@pytest.mark.parametrize(
    ("formula", "neutral"),
    [
        ("NaCl", True),
        ("Mn3O4", True),  # mixed valence, +8/3
        ("MgMn2O4", True),
        ("BaTiO3", True),
        ("NaCl2", False),
        ("MgF", False),
        ("LiMg6", None),  # alloy
        ("O2", None),
    ],
)
def test_charge_balance(formula: str, neutral: bool | None) -> None:
    """Known compounds balance; where oxidation states say nothing the answer is None."""
    assert charge_balance(formula).neutral is neutral


def test_charge_modes() -> None:
    """prefer records, ignore does not look."""
    structure = rock_salt("Mg", "F", 4.2)
    preferred = screen(structure, elements=["Mg", "F"], settings=SCREEN)
    ignored = screen(structure, elements=["Mg", "F"], settings=Screen(charge_neutral="ignore"))
    assert preferred.passed
    assert preferred.charge_balanced is False
    assert ignored.passed
    assert ignored.charge_balanced is None


@pytest.mark.parametrize(
    ("average", "states", "between"),
    [
        (2.5, [2, 3], True),
        (8 / 3, [3, 2], True),
        (5.0, [2, 3], False),
        (0.5, [-1, 1], False),
        (-1.5, [-2, -1], True),
        (2.5, [2], False),
    ],
)
def test_an_average_state_lies_between_two_of_one_sign(average, states, between) -> None:
    assert validity._between_neighbours(average, states) is between
