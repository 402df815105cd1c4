"""What phases that a hull lacks would change, on tables whose answer is known."""

import pytest
from pymatgen.core import Composition

from pccd_workflows.evaluation.missing_phases import missing_phase_bias
from pccd_workflows.evaluation.thresholds import is_within

TABLE = [
    {"id": "mp-1", "formula": "NaCl", "formation_energy_per_atom": -2.0},
    {"id": "mp-2", "formula": "NaCl3", "formation_energy_per_atom": -1.5},
    {"id": "mp-3", "formula": "KCl", "formation_energy_per_atom": -2.0},
    {"id": "mp-4", "formula": "Na2Cl", "formation_energy_per_atom": None},
]
CRYSTALS = [(Composition("NaCl3"), 0.0), (Composition("NaCl"), 0.0)]


def test_missing_phases_make_crystals_look_stable():
    found = missing_phase_bias(TABLE, {"mp-1"}, CRYSTALS, name="table")
    # without NaCl3 the hull there is that of NaCl + 2 Cl, -1 eV/atom instead of -1.5
    assert found.shift.largest == pytest.approx(0.5)
    assert found.raised["value"] == 0.5
    assert (found.phases_in_table, found.phases_at_hand) == (2, 1)
    assert found.verdicts_lost["stable_250"]["value"] == 0.5
    assert set(found.as_json()) == {
        "table",
        "unit",
        "phases_in_table",
        "phases_at_hand",
        "shift",
        "raised",
        "verdicts_lost",
    }


def test_a_hull_with_all_phases_has_no_bias():
    whole = missing_phase_bias(TABLE, {"mp-1", "mp-2"}, CRYSTALS)
    assert whole.shift.largest == pytest.approx(0.0)
    assert whole.verdicts_lost["stable_0"]["value"] == 0.0


def test_a_crystal_without_a_verdict_loses_none():
    found = missing_phase_bias(TABLE, {"mp-1"}, [(Composition("NaCl3"), None)])
    assert found.shift.largest == pytest.approx(0.5)
    assert found.verdicts_lost["stable_250"]["n"] == 0


def test_on_the_hull_is_stable_despite_rounding():
    assert is_within(1e-9, 0.0)
    assert not is_within(1e-3, 0.0)
    assert not is_within(None, 1.0)
