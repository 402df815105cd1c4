"""The control of structure prediction: known structures with other elements."""

import numpy as np
from pymatgen.core import Lattice, Structure

from pccd_workflows.cli.evaluation import chosen_parts
from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.substitution import measure_substitution
from pccd_workflows.generators.pccd.checkpoint import read_model_info
from pccd_workflows.generators.pccd.pointcloud.elements import atomic_number

DISTANCE = np.full((104, 104), 2.0)
np.fill_diagonal(DISTANCE, 0)
for pair in (("Na", "K"), ("Cl", "Br"), ("Cs", "Rb")):
    a, b = (atomic_number(name) for name in pair)
    DISTANCE[a, b] = DISTANCE[b, a] = 0.1


def crystal(species, second, a):
    return Structure(Lattice.cubic(a), species, [[0, 0, 0], second])


def as_row(structure):
    return {
        "species": [site.specie.symbol for site in structure],
        "lattice": structure.lattice.matrix,
        "frac_coords": structure.frac_coords,
    }


KNOWN = [
    as_row(crystal(["Cs", "Cl"], [0.5, 0.5, 0.5], 4.1)),
    as_row(crystal(["Na", "Cl"], [0.5, 0, 0], 4.0)),
]


def test_the_most_alike_crystal_lends_its_structure():
    targets = [
        crystal(["K", "Br"], [0.5, 0, 0], 4.6),
        crystal(["Rb", "Br"], [0.5, 0.5, 0.5], 4.4),
        Structure(Lattice.tetragonal(3, 9), ["K", "Cl"], [[0, 0, 0], [0.5] * 3]),  # not found
    ]
    found = measure_substitution(targets, KNOWN, DISTANCE)
    assert [s.composition.reduced_formula for s in found.made] == ["KBr", "RbBr", "KCl"]
    assert np.isfinite(found.rmse).tolist() == [True, True, False]
    assert found.summary()["match_rate"]["value"] == 2 / 3


def test_no_crystal_with_the_same_numbers_of_atoms():
    target = Structure(Lattice.cubic(5), ["Na", "Na", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0, 0]])
    found = measure_substitution([target], KNOWN, DISTANCE)
    assert found.made == [None]
    assert found.summary()["match_rate"]["value"] == 0


def test_it_is_left_out_where_no_coordinates_can_be_read(tmp_path):
    info = read_model_info(resource("model", "pccd-default"))
    assert "substitution" in chosen_parts(None, info, tmp_path / "crystals.jsonl.gz")
    assert "substitution" in chosen_parts(None, info, tmp_path)  # a folder of CIFs
    parts = chosen_parts(None, info, tmp_path / "crystals.npz")
    assert "csp" in parts
    assert "substitution" not in parts
