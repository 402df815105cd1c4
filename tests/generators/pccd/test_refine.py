"""Local regression over the crystals of a structure type."""

import numpy as np
import pytest

from pccd_workflows.generators.pccd.chemistry import covalent_radii
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.refine import refine

METALS, ANIONS = (22, 40, 50, 23), (8, 16, 34)


def size(z: int) -> float:
    return float(np.log(covalent_radii()[z]))


def rutile(metal: int, anion: int) -> Template:
    """Rutile whose cell and free coordinate are straight lines of the radii."""
    a = 4.6 * np.exp(0.4 * (size(metal) - size(22)) + 0.4 * (size(anion) - size(8)))
    u = 0.305 + 0.02 * (size(anion) - size(8))
    plus = [[u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], *plus]) % 1.0
    numbers = np.array([metal] * 2 + [anion] * 4)
    return Template(136, numbers, frac, np.diag([a, a, 0.65 * a]))


class Known:
    def __init__(self, templates):
        self.templates = templates

    def template(self, row):
        return self.templates[row]


def test_what_depends_on_the_elements_is_found_between_the_known_crystals():
    known = Known([rutile(m, x) for m in METALS for x in ANIONS if (m, x) != (50, 16)])
    n = len(known.templates)
    rows, votes = np.arange(n), np.full(n, 0.7)
    votes[0] = 1.0
    truth, copied = rutile(50, 16), rutile(22, 8)
    made = refine(known, rows, votes, {50: 2, 16: 4})
    assert made.numbers.tolist() == truth.numbers.tolist()
    assert abs(made.lattice[0, 0] - truth.lattice[0, 0]) < 0.05
    assert abs(copied.lattice[0, 0] - truth.lattice[0, 0]) > 0.5
    apart = made.frac_coords - truth.frac_coords
    assert np.abs(apart - np.rint(apart)).max() < 0.003
    assert made.lattice[0, 0] == pytest.approx(made.lattice[1, 1])
    assert np.abs(made.lattice - np.diag(np.diag(made.lattice))).max() < 1e-9


def test_one_known_crystal_is_copied():
    made = refine(Known([rutile(22, 8)]), np.array([0]), np.array([1.0]), {50: 2, 16: 4})
    assert np.allclose(made.lattice, rutile(22, 8).lattice)
    assert np.allclose(made.frac_coords, rutile(22, 8).frac_coords)


def test_other_branches_of_a_type_do_not_count():
    other = rutile(40, 8)
    far = other.frac_coords + np.array([[0, 0, 0]] * 2 + [[0.2, 0.2, 0]] * 4)
    strange = Template(136, other.numbers, far, other.lattice)
    made = refine(Known([rutile(22, 8), strange]), np.arange(2), np.ones(2), {50: 2, 16: 4})
    assert np.allclose(made.frac_coords, rutile(22, 8).frac_coords)
