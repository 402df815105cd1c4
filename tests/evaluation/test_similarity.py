"""The six similarity metrics on pairs whose answer is known."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.evaluation.similarity import (
    METRICS,
    BondGraph,
    bond_graph,
    compare_pairs,
    distances,
    graph_edit_distance,
    neighbour_shells,
    orbital_field_matrix,
    superpose,
    valence_vector,
)

PEROVSKITE = Structure(
    Lattice.cubic(3.9),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
)
ROCK_SALT = Structure(Lattice.rhombohedral(3.0, 60), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CAESIUM_CHLORIDE = Structure(Lattice.cubic(2.7), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def energy(structure):
    """A stand-in for a potential: depends on the volume alone."""
    return 0.1 * structure.volume / len(structure)


def scaled(structure, factor):
    return Structure(
        structure.lattice.scale(structure.volume * factor**3),
        structure.species,
        structure.frac_coords,
    )


def permuted(structure, seed=0):
    order = np.random.default_rng(seed).permutation(len(structure))
    return Structure.from_sites([structure[i] for i in order])


@pytest.mark.parametrize("structure", [PEROVSKITE, ROCK_SALT])
def test_identical_and_permuted_crystals_are_at_distance_zero(structure):
    for other in (structure.copy(), permuted(structure, 3)):
        found = distances(structure, other, energy)
        assert set(found) == set(METRICS)
        for name in METRICS:
            assert found[name] == pytest.approx(0, abs=2e-4), name


def test_another_origin_is_the_same_crystal():
    moved = PEROVSKITE.copy()
    moved.translate_sites(range(5), [0.3, 0.1, -0.2])
    found = distances(PEROVSKITE, moved, energy)
    for name in METRICS:
        assert found[name] == pytest.approx(0, abs=2e-4), name


def test_scaling_is_seen_by_energy_and_distances_only():
    larger = scaled(PEROVSKITE, 1.05)
    found = distances(PEROVSKITE, larger, energy)
    for name in ("crystal_nn_fingerprint", "superpose", "rms_anonymous", "graph_edit"):
        assert found[name] == pytest.approx(0, abs=2e-4), name
    volume = PEROVSKITE.volume / 5
    assert found["energy"] == pytest.approx(0.1 * volume * (1.05**3 - 1))
    matrix = orbital_field_matrix(PEROVSKITE)  # each entry goes with 1/distance
    assert found["orbital_field_matrix"] == pytest.approx(
        np.linalg.norm(matrix) * (1 - 1 / 1.05), rel=1e-3
    )


def test_different_structures_of_one_composition():
    found = distances(ROCK_SALT, CAESIUM_CHLORIDE, energy)
    for name in ("orbital_field_matrix", "crystal_nn_fingerprint", "graph_edit"):
        assert found[name] > 0.1, name
    # 6 bonds of each pair in rock salt, 8 in CsCl (CrystalNN may add the 6 second neighbours)
    assert found["graph_edit"] >= 2


def test_other_elements_same_structure():
    sodium = ROCK_SALT.copy()
    sodium.replace_species({"Mg": "Na", "O": "Cl"})
    found = distances(ROCK_SALT, sodium, energy)
    assert found["crystal_nn_fingerprint"] == pytest.approx(0, abs=1e-3)
    assert found["rms_anonymous"] == pytest.approx(0, abs=1e-3)
    assert found["graph_edit"] == 2  # two atoms renamed, no bond changed
    assert np.isnan(found["superpose"])
    assert found["orbital_field_matrix"] > 0.01


def test_superpose_is_the_distance_that_is_left_after_the_best_motion():
    shifted = PEROVSKITE.copy()
    shifted.translate_sites([2], [0.1, 0, 0])
    by_hand = np.zeros(5)
    by_hand[2] = 0.39
    left = superpose(PEROVSKITE, shifted)
    # a rotation, a translation and a scaling can only make it smaller than the common origin does
    assert 0.5 * 0.39 / np.sqrt(5) < left < np.sqrt((by_hand**2).mean()) + 1e-9
    rotated = Structure(
        Lattice.from_parameters(*PEROVSKITE.lattice.parameters, vesta=True),
        PEROVSKITE.species,
        PEROVSKITE.frac_coords,
    )
    assert superpose(PEROVSKITE, rotated) == pytest.approx(0, abs=1e-6)


def test_valence_vectors():
    labels = [
        f"{k}{e}" for k, n in zip("spdf", (2, 6, 10, 14), strict=True) for e in range(1, n + 1)
    ]
    shown = {
        z: [label for label, on in zip(labels, valence_vector(z), strict=True) if on]
        for z in (1, 8, 12, 26, 64)
    }
    assert shown[1] == ["s1"]
    assert shown[8] == ["s2", "p4"]
    assert shown[12] == ["s2"]
    assert shown[26] == ["s2", "d6"]
    assert shown[64] == ["s2", "d1", "f7"]


def test_graph_edit_distance_by_hand():
    def graph(numbers, bonds):
        matrix = np.zeros((len(numbers), len(numbers)))
        for i, j in bonds:
            matrix[i, j] += 1
            if i != j:
                matrix[j, i] += 1
        return BondGraph(np.array(numbers), matrix)

    ring = graph([6] * 6, [(i, (i + 1) % 6) for i in range(6)])
    shuffle = [3, 0, 5, 2, 4, 1]
    same = graph([6] * 6, [(shuffle[i], shuffle[(i + 1) % 6]) for i in range(6)])
    assert graph_edit_distance(ring, same) == 0
    chain = graph([6] * 6, [(i, i + 1) for i in range(5)])
    assert graph_edit_distance(ring, chain) == 1
    assert graph_edit_distance(chain, ring) == 1
    shorter = graph([6] * 5, [(i, i + 1) for i in range(4)])
    assert graph_edit_distance(chain, shorter) == 2  # one atom and its bond
    assert graph_edit_distance(shorter, chain) == 2
    renamed = graph([6] * 5 + [7], [(i, i + 1) for i in range(5)])
    assert graph_edit_distance(chain, renamed) == 1
    self_bonded = graph([6], [(0, 0), (0, 0)])
    assert graph_edit_distance(self_bonded, graph([6], [])) == 2


def test_bond_graph_counts_images():
    graph = bond_graph(ROCK_SALT, neighbour_shells(ROCK_SALT))
    assert graph.bonds[0, 1] == graph.bonds[1, 0] == 6
    assert graph.bonds[0, 0] == 0
    cell = ROCK_SALT * [2, 1, 1]
    assert bond_graph(cell, neighbour_shells(cell)).bonds.sum() == 2 * graph.bonds.sum()


def test_summary_leaves_out_what_is_not_defined():
    sodium = ROCK_SALT.copy()
    sodium.replace_species({"Mg": "Na", "O": "Cl"})
    result = compare_pairs([(ROCK_SALT, ROCK_SALT), (ROCK_SALT, sodium)]).summary()
    assert "energy" not in result
    assert result["superpose"]["n"] == 1
    assert result["graph_edit"]["n"] == 2
    assert result["graph_edit"]["value"] == 1


def test_a_cell_without_neighbours_is_no_accident():
    sparse = Structure(Lattice.cubic(60), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    found = distances(ROCK_SALT, sparse, energy)
    assert np.isnan(found["orbital_field_matrix"])  # no Voronoi neighbour within its cutoff
    assert found["energy"] > 1
