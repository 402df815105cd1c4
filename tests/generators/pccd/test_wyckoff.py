"""Wyckoff positions from the operations of the space groups."""

import numpy as np
import pytest

from pccd_workflows.generators.pccd.chemistry import electronegativity_rank
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.known_types import fewest_first, orbits_of, uncoloured
from pccd_workflows.generators.pccd.new_types import NewType, draw_template
from pccd_workflows.generators.pccd.pair_distances import fit_distances
from pccd_workflows.generators.pccd.space_groups import space_group
from pccd_workflows.generators.pccd.wyckoff import placed_orbits, wyckoff_table

# Number of Wyckoff positions, International Tables for Crystallography A
POSITIONS = {1: 1, 2: 9, 14: 5, 62: 4, 139: 15, 166: 9, 194: 12, 206: 5, 225: 12, 227: 9, 230: 8}


@pytest.mark.parametrize(("number", "positions"), POSITIONS.items())
def test_space_groups_have_the_positions_of_the_international_tables(number, positions):
    assert len(wyckoff_table(number)) == positions


def test_multiplicities_and_freedoms_of_spinels_space_group():
    table = wyckoff_table(227)  # 8a 8b 16c 16d 32e 48f 96g 96h 192i, four primitive cells
    assert (4 * table.multiplicity).tolist() == [8, 8, 16, 16, 32, 48, 96, 96, 192]
    assert sorted(table.freedom.tolist()) == [0, 0, 0, 0, 1, 1, 1, 2, 3]
    # the two descriptions that differ by the origin exchange 8a and 8b, 16c and 16d
    exchanged = [image for image in table.images.tolist() if image != list(range(9))]
    assert exchanged == [[1, 0, 3, 2, 4, 5, 6, 7, 8]]


def rutile(metal: int, anion: int, shift: float = 0.0) -> Template:
    u = 0.305
    plus = [[u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], *plus]
    frac = np.array(sites) + np.array([0, 0, shift])
    numbers = np.array([metal] * 2 + [anion] * 4)
    return Template(136, numbers, frac % 1.0, np.diag([4.6, 4.6, 2.96]))


def test_one_type_whatever_the_origin():
    first, second = rutile(22, 8), rutile(50, 9, shift=0.5)
    table = wyckoff_table(136)
    keys = {table.canonical(orbits_of(crystal)) for crystal in (first, second)}
    assert len(keys) == 1
    (key,) = keys
    assert [len(of_element) for of_element in key] == [1, 1]
    assert uncoloured(136, key) == uncoloured(136, key[::-1])
    assert placed_orbits(136, first.numbers[::-1], first.frac_coords, first.lattice) is None


def test_elements_of_few_atoms_come_first():
    assert fewest_first(np.array([8, 8, 8, 22, 38])) == [38, 22, 8]
    assert electronegativity_rank()[38] < electronegativity_rank()[22]


@pytest.mark.parametrize("number", [2, 12, 62, 166, 194, 216])
def test_a_drawn_crystal_has_the_type_that_was_asked_for(number):
    table = wyckoff_table(number)
    most_free = int(np.argmax(table.freedom * (table.multiplicity < 9)))
    aim = NewType(number, (22, 8), ((0,), (most_free,)), 0.0)
    drawn = draw_template(aim, fit_distances([rutile(22, 8)]), seed=1)
    assert orbits_of(drawn) == aim.orbits
    assert sorted(drawn.numbers.tolist()) == sorted(aim.numbers)
    metric = drawn.lattice @ drawn.lattice.T
    for rotation in space_group(number).rotations:
        assert np.allclose(rotation.T @ metric @ rotation, metric)
