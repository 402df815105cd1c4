"""Competing phases at a potential's level; energies made by hand."""

import pytest

from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.phases import (
    NEAR_AT_LEVEL,
    NEAR_IN_SOURCE,
    complete_elements,
    compute_phases,
    phases_near_hull,
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
    row("nacl-near", ["Na", "Cl"], NEAR_IN_SOURCE),
    row("nacl-high", ["Cl", "Na"], NEAR_IN_SOURCE + 0.01),
    row("nacl2", ["Na", "Cl", "Cl"]),
    row("kcl", ["K", "Cl"], 0.0),
]
ENERGY = {"Na": -1.0, "Cl2": -2.0, "NaCl": -3.0, "NaCl2": -2.4}
"""eV/atom; Cl2 is how pymatgen writes chlorine."""


class Engine:
    """Looks energies up; relaxing lowers them by `lower`, eV/atom."""

    level = "chgnet"

    def __init__(self, lower=0.1):
        self.lower, self.relaxed = lower, []

    def energy_per_atom(self, structure):
        return ENERGY.get(structure.composition.reduced_formula)

    def relax(self, structure):
        self.relaxed.append(structure.composition.reduced_formula)
        lower = self.lower if "Na" in structure.composition else -0.5
        return Relaxation(
            level="chgnet",
            key="k",
            verdict="converged",
            structure=structure,
            energy=(self.energy_per_atom(structure) - lower) * len(structure),
            convention="mp2020",
        )


def near_nacl(*systems):
    return phases_near_hull(ROWS, systems or [("Na", "Cl")])


def test_what_competes():
    phases = near_nacl(("Na", "Cl"), ("Na",))
    assert [p.id for p in phases] == ["na", "na-high", "cl", "nacl", "nacl-near", "nacl2"]
    assert phases[3].energy_above_hull == 0.0
    assert phases[5].energy_above_hull is None


def test_phases_near_the_hull_are_relaxed_and_only_those():
    engine = Engine()
    known = compute_phases(near_nacl(), engine)
    # NaCl2 is 0.27 eV/atom above Cl + NaCl
    assert sorted(engine.relaxed) == ["Cl2", "Na", "Na", "NaCl", "NaCl"]
    energies = {e.entry_id: e.energy_per_atom for e in known.entries}
    assert energies["nacl"] == pytest.approx(-3.1)
    assert energies["nacl2"] == pytest.approx(-2.4)
    assert energies["cl"] == pytest.approx(-2.0)  # it went uphill: the start counts
    assert known.chemsys == "Cl-Na"


@pytest.mark.parametrize(("offset", "relaxed"), [(-1e-4, True), (1e-3, False)])
def test_near_the_hull_at_the_level_has_one_limit(monkeypatch, offset, relaxed):
    # on the line from Cl to NaCl: (2 x -3 + -2) / 3
    monkeypatch.setitem(ENERGY, "NaCl2", -8 / 3 + NEAR_AT_LEVEL + offset)
    engine = Engine()
    compute_phases(near_nacl(), engine)
    assert ("NaCl2" in engine.relaxed) is relaxed


def test_phases_may_be_left_as_they_are():
    engine = Engine()
    known = compute_phases(near_nacl(), engine, relax=False)
    assert engine.relaxed == []
    assert {e.data["geometry"] for e in known.entries} == {"as it is"}


def test_a_phase_the_potential_cannot_compute_is_left_out():
    known = compute_phases(near_nacl(("K", "Na")), Engine(), relax=False)
    assert {e.entry_id for e in known.entries} == {"na", "na-high"}


def test_phases_of_an_element_without_an_elemental_phase_have_no_hull(monkeypatch):
    monkeypatch.delitem(ENERGY, "Cl2")
    engine = Engine()
    known = compute_phases(near_nacl(), engine)
    assert known.chemsys == "Na"
    assert {e.entry_id for e in known.entries} == {"na", "na-high"}


def test_elements_that_the_data_lacks_come_from_known_structure_types(monkeypatch):
    monkeypatch.setattr(
        "pccd_workflows.engines.potential.supported_elements", lambda _: frozenset({"Na", "Cl"})
    )
    built = []

    def build(element, level, *, relax):
        built.append((element, level, relax))
        return compute_phases(near_nacl(("Na",)), engine, relax=False)

    monkeypatch.setattr("pccd_workflows.known.prototypes.build_reference_set", build)
    engine = Engine()
    (phase,) = phases_near_hull([row("nacl", ["Na", "Cl"])], [("Na", "Cl")])
    found = complete_elements([phase], [frozenset({"Na", "Cl", "Fm"})], engine)
    # sodium and chlorine are lacking, fermium cannot be computed; chlorine is molecular too
    assert [element for element, _, _ in built] == ["Cl", "Na"]
    assert found[0] is phase
    assert sum(p.id.startswith("dimer-") for p in found) == 2
