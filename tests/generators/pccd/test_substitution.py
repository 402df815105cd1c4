"""The control of structure prediction: known structures with other elements."""

from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.cli.evaluation import chosen_parts
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.prediction import Facts
from pccd_workflows.evaluation.substitution import predict_by_substitution
from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.checkpoint import read_model_info
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.pointcloud.elements import atomic_number

DISTANCE = np.full((104, 104), 2.0, dtype=np.float16)
np.fill_diagonal(DISTANCE, 0)
for pair in (("Na", "K"), ("Cl", "Br"), ("Cs", "Rb")):
    a, b = (atomic_number(name) for name in pair)
    DISTANCE[a, b] = DISTANCE[b, a] = 0.1
CESIUM_CHLORIDE = ([0.5, 0.5, 0.5], np.eye(3))
LAYERS = ([0.5, 0.5, 0], np.diag([1, 1, 2.5]))
"""Position of the second atom, and the cell, in units of its shortest edge."""


class Known:
    """Coordinates of four crystals: two of the type of CsCl, two of another."""

    crystals = (
        ("Cs", "Cl", CESIUM_CHLORIDE, 1, 221),
        ("Cs", "Br", CESIUM_CHLORIDE, 1, 221),
        ("Na", "Cl", LAYERS, 2, 123),
        ("K", "Cl", LAYERS, 2, 123),
    )

    def template(self, row):
        metal, halogen, second, _, group = self.crystals[row]
        numbers = np.array([atomic_number(metal), atomic_number(halogen)])
        return Template(group, numbers, np.array([[0, 0, 0], second[0]]), 4.1 * second[1])


def model():
    columns = list(zip(*Known.crystals, strict=True))
    unknown = np.full(4, np.nan, dtype=np.float16)
    names = zip(columns[0], columns[1], strict=True)
    analogues = Analogues(
        cells=np.array([[1, 1]]),
        cell=np.zeros(4, dtype=np.int32),
        elements=np.array([[atomic_number(n) for n in pair] for pair in names], dtype=np.uint8),
        space_group=np.array(columns[4], dtype=np.int16),
        structure_type=np.array(columns[3], dtype=np.int32),
        band_gap=unknown,
        energy_above_hull=unknown,
        ordering=np.full(4, -1, dtype=np.int8),
        distance=DISTANCE,
    )
    info = SimpleNamespace(name="known")
    return SimpleNamespace(analogues=analogues, templates=Known(), info=info)


def crystal(species, second, a):
    return Structure(a * second[1], species, [[0, 0, 0], second[0]])


def test_the_most_alike_crystal_lends_its_structure():
    targets = [
        crystal(["K", "Br"], LAYERS, 4.6),
        crystal(["Rb", "Br"], CESIUM_CHLORIDE, 4.4),
        Structure(Lattice.tetragonal(3, 15), ["K", "Cl"], [[0, 0, 0], [0.5] * 3]),  # not found
    ]
    found = predict_by_substitution(model(), targets)
    formulas = [s.composition.reduced_formula for s in found.made[0]]
    assert formulas == ["KBr", "RbBr", "KCl"]
    assert np.isfinite(found.rmse[0]).tolist() == [True, True, False]
    assert found.summary()["match_rate"]["value"] == 2 / 3


def test_each_guess_is_of_another_type_and_the_elements_own_crystals_do_not_count():
    # of K and Cl there is a crystal of the second type, but NaCl is the nearest other one
    targets = [crystal(["K", "Cl"], CESIUM_CHLORIDE, 4.6), crystal(["K", "Cl"], LAYERS, 4.6)]
    found = predict_by_substitution(model(), targets, attempts=3)
    assert np.isfinite(found.rmse).tolist() == [[False, True], [True, False], [False, False]]
    assert found.made[2] == [None, None]
    assert found.summary()["best_of"]["match_rate"]["value"] == 1


def test_any_polymorph_counts_apart_and_so_do_crystals_near_the_hull():
    targets = [crystal(["Rb", "Br"], LAYERS, 4.4), crystal(["Rb", "Br"], CESIUM_CHLORIDE, 4.4)]
    polymorphs = [[targets[1]], []]
    facts = Facts(np.array([0.2, np.nan]), polymorphs)
    found = predict_by_substitution(model(), targets, facts=facts).summary()
    assert found["match_rate"]["value"] == 0.5
    assert found["match_rate_any_polymorph"]["value"] == 1
    of_energy = {name: one["value"] for name, one in found["by_energy_above_hull"].items()}
    assert of_energy == {"near": None, "above": 0, "unknown": 1}


def test_no_crystal_with_the_same_numbers_of_atoms():
    target = Structure(Lattice.cubic(5), ["Na", "Na", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0, 0]])
    found = predict_by_substitution(model(), [target])
    assert found.made == [[None]]
    assert found.summary()["match_rate"]["value"] == 0


def test_a_model_without_crystals_is_refused():
    bare = SimpleNamespace(analogues=None, templates=None, info=SimpleNamespace(name="bare"))
    with pytest.raises(InputError, match="Model bare holds no training crystals"):
        predict_by_substitution(bare, [crystal(["Na", "Cl"], LAYERS, 4.0)])


def test_it_is_measured_by_default():
    info = read_model_info(resource("model", "pccd-default"))
    assert "substitution" in chosen_parts(None, info)
    assert "substitution" not in chosen_parts(None, info.model_copy(update={"symmetry": None}))
