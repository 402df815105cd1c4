"""What forces and stress promise of a relaxation, against springs and against an elastic cell."""

import numpy as np
import pytest

from pccd_workflows.engines.expected_gain import BULK, SHEAR, SPRING, expected_gain

REST = np.zeros(6)


def test_a_crystal_at_rest_gains_nothing() -> None:
    assert expected_gain(-20.0, 40.0, np.zeros((4, 3)), REST) == 0.0


def test_sites_are_springs() -> None:
    """A site displaced by d feels k d and gains k d^2 / 2; so does each of two in its half."""
    displacement = 0.1
    forces = np.array([[SPRING * displacement, 0, 0], [0, -SPRING * displacement, 0]])
    gain = SPRING * displacement**2 / 2
    assert expected_gain(-12.0, 30.0, forces, REST) == pytest.approx(gain)
    assert expected_gain(-6.0, 15.0, forces[:1], REST) == pytest.approx(gain)


def test_a_cell_is_as_stiff_as_its_energy_per_volume() -> None:
    """p^2 V / 2B under pressure, tau^2 V / 2G under shear; compressed or stretched."""
    energy, volume, pressure = -12.0, 30.0, 0.02
    bulk = BULK * 12.0 / 30.0
    forces = np.zeros((2, 3))
    stress = np.array([pressure, pressure, pressure, 0, 0, 0])
    expected = pressure**2 * volume / (2 * bulk) / 2
    assert expected_gain(energy, volume, forces, stress) == pytest.approx(expected)
    assert expected_gain(energy, volume, forces, -stress) == pytest.approx(expected)
    sheared = np.array([0, 0, 0, pressure, 0, 0])
    expected = pressure**2 * volume / (2 * SHEAR * bulk) / 2
    assert expected_gain(energy, volume, forces, sheared) == pytest.approx(expected)
    # the same shear in axes turned by 45 degrees
    turned = np.array([0, pressure, -pressure, 0, 0, 0])
    assert expected_gain(energy, volume, forces, turned) == pytest.approx(expected)


def test_a_soft_cell_gains_more() -> None:
    stress = np.array([0.01, 0.01, 0.01, 0, 0, 0])
    soft, stiff = (expected_gain(e, 30.0, np.zeros((2, 3)), stress) for e in (-4.0, -16.0))
    assert soft == pytest.approx(4 * stiff)


def test_an_energy_without_a_scale_promises_everything() -> None:
    assert expected_gain(0.0, 30.0, np.zeros((2, 3)), REST) == np.inf
