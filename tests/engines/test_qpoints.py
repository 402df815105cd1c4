"""Where phonons are judged: paths in the zone, and what a supercell resolves."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.qpoints import resolved, standard_path

FACE_CENTRED = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
"""Rows: vectors of a supercell in those of the primitive cell."""


@pytest.mark.parametrize(
    ("qpoint", "supercell", "whole"),
    [
        ([0.5, 0.5, 0.5], FACE_CENTRED, True),
        ([0.5, 0.5, 0.0], FACE_CENTRED, False),
        ([1 / 3, 1 / 3, 0.0], [[1, 2, 0], [2, 1, 0], [0, 0, 1]], True),
        ([1 / 3, 1 / 3, 0.0], np.diag([3, 3, 1]), True),
        ([1 / 3, 1 / 3, 0.0], np.diag([2, 2, 1]), False),
    ],
)
def test_a_supercell_resolves_the_waves_that_fit_into_it(qpoint, supercell, whole):
    assert resolved(qpoint, supercell) is whole


def test_a_path_leads_from_point_to_point():
    copper = Structure(Lattice.cubic(3.6), ["Cu"] * 4, [[0, 0, 0], *(1 - np.eye(3)) / 2])
    path = standard_path(copper.get_primitive_structure())
    assert path.labels[0] == ["Γ", "X"]
    for leg, (left, right) in zip(path.legs, path.labels, strict=True):
        points = path.qpoints[leg]
        for label, point in ((left, points[0]), (right, points[-1])):
            length = np.abs(point).max()
            assert length == pytest.approx(0) if label == "Γ" else 0.3 < length < 0.8
        steps = np.diff(points, axis=0)
        assert np.allclose(steps, steps[0])
    assert np.all(np.diff(path.distances) >= 0)
