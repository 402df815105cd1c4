"""Votes of training crystals of like elements."""

import numpy as np
import pytest

from pccd_workflows.generators.pccd.analogues import SOFTNESS, Analogues, blend, measure
from pccd_workflows.generators.pccd.dataset import read_dataset
from pccd_workflows.generators.pccd.pointcloud.elements import atomic_number
from pccd_workflows.generators.request import Conditions

NA, K, MG, SC, CL, F, OXYGEN = (atomic_number(e) for e in ("Na", "K", "Mg", "Sc", "Cl", "F", "O"))
LIKE = 0.1
UNLIKE = 2.0
OPEN = Conditions()


@pytest.fixture
def analogues() -> Analogues:
    """Return KCl (225, twice), KF (221, a metal), MgF2 (136), ScO (216) and Sc2O (225)."""
    distance = np.full((104, 104), UNLIKE)
    np.fill_diagonal(distance, 0)
    for a, b in ((NA, K), (CL, F)):
        distance[a, b] = distance[b, a] = LIKE
    return Analogues(
        cells=np.array([[1, 1], [1, 2], [2, 1]]),
        cell=np.array([0, 0, 0, 1, 0, 2], dtype=np.int16),
        elements=np.array(
            [[K, CL], [K, CL], [K, F], [MG, F], [SC, OXYGEN], [SC, OXYGEN]], dtype=np.uint8
        ),
        space_group=np.array([225, 225, 221, 136, 216, 225], dtype=np.int16),
        structure_type=np.array([1, 1, 2, 3, 4, 5], dtype=np.int16),
        band_gap=np.array([5, 5, 0, np.nan, np.nan, 1], dtype=np.float16),
        energy_above_hull=np.array([0, 0, 0.3, 0, 0, 0], dtype=np.float16),
        ordering=np.array([0, 0, 1, -1, -1, -1], dtype=np.int8),
        distance=distance.astype(np.float16),
    )


def test_the_nearest_crystals_decide(analogues):
    votes = analogues.space_group_votes([NA, CL], [1, 1], OPEN)
    assert votes.sum() == pytest.approx(1)
    assert votes[225 - 1] == pytest.approx(2 / (2 + np.exp(-LIKE / SOFTNESS)), rel=1e-2)
    assert votes[216 - 1] < 1e-4
    types = analogues.structure_type_votes([NA, CL], [1, 1], OPEN)
    assert types.argmax() == 1
    assert types[3] == 0  # MgF2 has other numbers of atoms


def test_the_numbers_of_atoms_are_voted_on_by_all_of_as_many_elements(analogues):
    votes = analogues.cell_votes([MG, CL], OPEN)
    assert votes[1] > 0.9  # as MgF2
    assert analogues.cell_votes([MG, F, OXYGEN], OPEN).tolist() == [0, 0, 0]  # no ternary to ask


def test_it_does_not_matter_which_element_has_how_many_atoms(analogues):
    like_sc2o = analogues.space_group_votes([MG, CL], [1, 2], OPEN)
    assert set(np.flatnonzero(like_sc2o) + 1) == {136, 225}


def test_conditions_choose_the_voters(analogues):
    ask = analogues.space_group_votes
    metal = ask([NA, CL], [1, 1], Conditions(band_gap=0.0))
    insulator = ask([NA, CL], [1, 1], Conditions(band_gap=5.0))
    assert metal[220] > 0.9 > insulator[220]
    assert insulator[224] > 0.99
    magnet = ask([NA, CL], [1, 1], Conditions(magnetic_ordering="FM"))
    assert magnet[220] > ask([NA, CL], [1, 1], OPEN)[220]
    unstable = ask([NA, CL], [1, 1], Conditions(energy_above_hull=0.3))
    assert unstable[220] > 0.9
    assert ask([NA, CL], [1, 1], Conditions(space_group=216))[215] == 1
    assert not ask([NA, CL], [1, 1], Conditions(crystal_system="hexagonal")).any()


def test_without_votes_the_network_decides():
    network = np.array([0.5, 0.5])
    assert blend(network, np.zeros(2)).tolist() == [0.5, 0.5]
    assert blend(network, np.array([1.0, 0.0])) == pytest.approx([0.85, 0.15])


def test_known_compounds_vote_on_their_own_elements_only_when_asked_to(analogues):
    """Else they would come again, where new ones are looked for."""
    new, again = (
        analogues.space_group_votes([K, F], [1, 1], OPEN, recall=r) for r in (False, True)
    )
    assert new[225 - 1] > 0.9
    assert new[221 - 1] == 0
    assert again[221 - 1] == 1
    assert analogues.cell_votes([SC, OXYGEN], OPEN)[2] == 0
    assert analogues.cell_votes([SC, OXYGEN], OPEN, recall=True)[2] == pytest.approx(0.5)
    assert analogues.cell_votes([MG, CL], OPEN, recall=True)[1] > 0.9  # nobody knows Mg-Cl


def test_columns_survive_being_stored(analogues):
    again = Analogues.from_state(analogues.state())
    votes = analogues.space_group_votes([NA, CL], [1, 1], OPEN)
    assert again.space_group_votes([NA, CL], [1, 1], OPEN).tolist() == votes.tolist()


def test_held_out_crystals_are_told_by_network_and_votes(tiny_model, dataset_file):
    """CsMgF3 and its like, of which the training crystals hold KMgF3."""
    held_out = read_dataset(dataset_file).of_split("test")
    found = measure(tiny_model.analogues, tiny_model.symmetry, tiny_model.composition, held_out)
    assert found == {"space_group_accuracy": 1.0, "composition_accuracy": 1.0}


def test_elements_that_take_the_same_places_are_alike(tiny_model):
    distance = tiny_model.analogues.distance.astype(float)
    assert distance[NA, K] < distance[NA, F]
    assert distance[CL, F] < distance[CL, K]
