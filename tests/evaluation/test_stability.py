"""The hull at a potential's level, and what missing phases flatter; energies made by hand."""

import pytest
from pymatgen.core import Composition, Lattice, Structure

from pccd_workflows.engines.records import Relaxation
from pccd_workflows.evaluation.stability import (
    competing_phases,
    disagreement,
    flattery,
    hull_at_level,
    is_within,
    place,
)


def row(identifier, species, above=None, field="energy_above_hull"):
    n = len(species)
    frac = [[i / n, i / n, i / n] for i in range(n)]
    found = {"id": identifier, "species": species, "lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}
    return {**found, "frac_coords": frac, **({} if above is None else {field: above})}


ROWS = [
    row("na", ["Na"], 0.0),
    row("na-high", ["Na", "Na"], 0.4),
    row("cl", ["Cl"]),
    row("k", ["K"], 0.0),
    row("nacl", ["Na", "Cl"], 0.0, "energy_above_hull_legacy_derived"),
    row("nacl-high", ["Cl", "Na"], 0.2),
    row("nacl2", ["Na", "Cl", "Cl"]),
    row("kcl", ["K", "Cl"], 0.0),
]
ENERGY = {"Na": -1.0, "Cl2": -2.0, "NaCl": -3.0, "NaCl2": -2.4}
"""eV/atom."""


def single_point(structure):
    """Cl2 is how pymatgen writes chlorine."""
    return ENERGY.get(structure.composition.reduced_formula)


def relaxed(structure, per_atom, verdict="converged"):
    return Relaxation(
        level="chgnet",
        key="k",
        verdict=verdict,
        structure=structure,
        energy=per_atom * len(structure),
        convention="mp2020",
    )


def test_what_competes():
    phases = competing_phases(ROWS, [("Na", "Cl"), ("Na",)])
    assert [p.id for p in phases] == ["na", "na-high", "cl", "nacl", "nacl2"]
    assert phases[3].energy_above_hull == 0.0
    assert phases[4].energy_above_hull is None


def test_phases_near_the_hull_are_relaxed_and_only_those():
    asked = []

    def relax(structure):
        asked.append(structure.composition.reduced_formula)
        lower = 0.1 if "Na" in structure.composition else -0.5
        return relaxed(structure, single_point(structure) - lower)

    known = hull_at_level(
        competing_phases(ROWS, [("Na", "Cl")]), "chgnet", single_point=single_point, relax=relax
    )
    assert sorted(asked) == ["Cl2", "Na", "Na", "NaCl"]  # NaCl2 is 0.2 eV/atom above Cl + NaCl
    energies = {e.entry_id: e.energy_per_atom for e in known.entries}
    assert energies["nacl"] == pytest.approx(-3.1)
    assert energies["nacl2"] == pytest.approx(-2.4)
    assert energies["cl"] == pytest.approx(-2.0)  # it went uphill: the start counts


def test_crystals_are_placed_on_it():
    known = hull_at_level(
        competing_phases(ROWS, [("Na", "Cl")]), "chgnet", single_point=single_point
    )
    salt = Structure(Lattice.cubic(3), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    foreign = Structure(Lattice.cubic(3), ["Na", "K"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    failed = Relaxation(level="chgnet", key="k", verdict="diverged")
    above = place([relaxed(salt, -2.9), relaxed(foreign, -1.0), failed, relaxed(salt, -3.2)], known)
    assert above[0] == pytest.approx(0.1)
    assert above[1] is None  # no phase of K
    assert above[2] is None
    assert above[3] == pytest.approx(-0.2)


def test_a_phase_the_potential_cannot_compute_is_left_out():
    phases = competing_phases(ROWS, [("K", "Na")])
    known = hull_at_level(phases, "chgnet", single_point=single_point)
    assert {e.entry_id for e in known.entries} == {"na", "na-high"}


def test_missing_phases_flatter():
    table = [
        {"id": "mp-1", "formula": "NaCl", "formation_energy_per_atom": -2.0},
        {"id": "mp-2", "formula": "NaCl3", "formation_energy_per_atom": -1.5},
        {"id": "mp-3", "formula": "KCl", "formation_energy_per_atom": -2.0},
        {"id": "mp-4", "formula": "Na2Cl", "formation_energy_per_atom": None},
    ]
    crystals = [(Composition("NaCl3"), 0.0), (Composition("NaCl"), 0.0)]
    found = flattery(table, {"mp-1"}, crystals)
    # without NaCl3 the hull there is that of NaCl + 2 Cl, -1 eV/atom instead of -1.5
    assert found["shift"]["largest"] == pytest.approx(0.5)
    assert found["raised"]["value"] == 0.5
    assert (found["phases_in_table"], found["phases_at_hand"]) == (2, 1)
    assert found["verdicts_lost"]["stable_250"]["value"] == 0.5
    whole = flattery(table, {"mp-1", "mp-2"}, crystals)
    assert whole["shift"]["largest"] == pytest.approx(0.0)


def test_disagreement_counts_verdicts_not_energies():
    found = disagreement([0.05, 0.09, 0.30, None, -0.1], [0.07, 0.07, 0.20, 0.0, 0.02])
    assert found["judged_by_both"] == 4
    assert found["rate"]["stable_80"]["value"] == pytest.approx(1 / 4)
    assert found["rate"]["stable_250"]["value"] == pytest.approx(1 / 4)
    assert found["rate"]["stable_0"]["value"] == pytest.approx(1 / 4)
    assert found["mean_absolute_difference"] == pytest.approx((0.02 + 0.02 + 0.1 + 0.12) / 4)
    assert disagreement([None], [0.1])["rate"]["stable_0"]["value"] is None


def test_on_the_hull_is_stable_despite_rounding():
    assert is_within(1e-9, 0.0)
    assert not is_within(1e-3, 0.0)
    assert not is_within(None, 1.0)
