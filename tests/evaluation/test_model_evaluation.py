"""The seed's error measures and matching, on cases whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.evaluation.crystals import match_all
from pccd_workflows.evaluation.prediction import Prediction
from pccd_workflows.evaluation.reconstruction import (
    Reconstruction,
    box_plots,
    count_ceiling,
    paired_coordinates,
    whiskers,
)

CELL = Lattice.orthorhombic(4.0, 5.0, 6.0)


def crystal(coordinates, lattice=CELL):
    """One Mg, then O."""
    return Structure(lattice, ["Mg", *["O"] * (len(coordinates) - 1)], coordinates)


TARGET = crystal([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.5, 0.9]])


def test_efficiency_is_the_share_within_the_whiskers():
    values = np.concatenate([np.linspace(-1, 1, 96), [50.0, 60.0, -70.0, 80.0]])
    result = box_plots({"a": values})
    assert result["efficiency"]["a"]["value"] == pytest.approx(0.96)
    assert result["limits"]["a"] == [-1, 1]
    # the seed's whiskers of a: -5.12 % to 3.81 %
    inside = ((values >= -0.0512) & (values <= 0.0381)).mean()
    assert result["within_seed_limits"]["a"]["value"] == pytest.approx(inside)
    assert whiskers(np.empty(0)) is None


def test_atoms_are_paired_by_nearest_image_whatever_their_order():
    made = crystal([[0.26, 0.5, 0.9], [0.0, 0.01, 0.995], [0.5, 0.48, 0.5]])
    before, after = paired_coordinates(TARGET, made)
    assert after - before == pytest.approx(
        np.array([[0, 0.01, -0.005], [0, -0.02, 0], [0.01, 0, 0]]), abs=1e-9
    )


def test_seed_errors_see_no_periodicity_and_periodic_ones_do():
    made = crystal([[0.98, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.5, 0.9]])
    result = Reconstruction([TARGET], [made], match_all([made], [TARGET]))
    assert np.abs(result.errors(periodic=False)["x"]).max() == pytest.approx(0.98)
    assert np.abs(result.errors(periodic=True)["x"]).max() == pytest.approx(0.02)
    assert result.summary()["match_rate"]["value"] == 1.0


def test_errors_are_taken_where_the_number_of_atoms_is_right():
    longer = crystal(TARGET.frac_coords, Lattice.orthorhombic(4.2, 5.0, 5.4))
    fewer = crystal(TARGET.frac_coords[:2])
    made = [longer, fewer, None, TARGET]
    result = Reconstruction([TARGET] * 4, made, match_all(made, [TARGET] * 4))
    assert result.summary()["atom_count_accuracy"]["value"] == 0.5
    errors = result.errors(periodic=True)
    assert errors["a"] == pytest.approx([0.05, 0])
    assert errors["c"] == pytest.approx([-0.1, 0])
    assert len(errors["x"]) == 6
    assert result.summary()["composition_accuracy"]["value"] == 0.5


def test_the_ceiling_is_the_commonest_count_of_equal_conditions():
    # Mg and O twice with one gap: 2 or 4 atoms; once with another gap; MgF2 without a gap
    crystals = SimpleNamespace(
        numbers=np.array([[12, 8, 0, 0], [12, 12, 8, 8], [12, 12, 8, 8], [12, 9, 9, 0]]),
        n_sites=np.array([2, 4, 4, 3]),
        band_gap=np.array([4.0, 4.0002, 5.0, np.nan]),
        ordering=np.array([-1, -1, -1, -1]),
    )
    assert count_ceiling(crystals)["value"] == 0.75


def test_nothing_decoded_is_no_accident():
    summary = Reconstruction([TARGET], [None], np.array([np.nan])).summary()
    assert summary["atom_count_accuracy"]["value"] == 0
    assert summary["efficiency"]["a"]["value"] is None


def test_matches_are_those_of_the_literature():
    near = crystal(TARGET.frac_coords + np.array([[0, 0, 0], [0.02, 0, 0], [0, 0, 0]]))
    other = crystal(TARGET.frac_coords, Lattice.orthorhombic(2.5, 2.5, 19.2))
    renamed = Structure(CELL, ["Ca", "O", "O"], TARGET.frac_coords)
    rmse = match_all([TARGET, near, other, renamed, None], [TARGET] * 5)
    assert np.isfinite(rmse).tolist() == [True, True, False, False, False]
    assert rmse[0] == pytest.approx(0, abs=1e-6)
    # one of three atoms 0.08 Å off: after the mean shift is removed, in units of (V/N)^(1/3)
    by_hand = 0.08 * np.sqrt(2 / 9) / (120 / 3) ** (1 / 3)
    assert rmse[1] == pytest.approx(by_hand, rel=0.05)


def test_prediction_counts_first_and_best_attempts():
    touching = crystal([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.51]])
    rmse = np.array([[0.2, np.nan, np.nan], [0.1, 0.3, np.nan]])
    made = [[TARGET, None, touching], [TARGET, TARGET, None]]
    summary = Prediction([TARGET] * 3, made, rmse).summary()
    assert summary["match_rate"]["value"] == pytest.approx(1 / 3)
    assert summary["rmse"]["value"] == pytest.approx(0.2)
    assert summary["best_of"]["match_rate"]["value"] == pytest.approx(2 / 3)
    assert summary["best_of"]["rmse"]["value"] == pytest.approx(0.2)
    assert summary["by_sites"]["1-4"]["n"] == 3
    assert summary["by_sites"]["13+"]["value"] is None
