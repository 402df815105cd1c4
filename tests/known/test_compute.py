"""Energies of a library's crystals: order, resumption, what a kill leaves, what is collected."""

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.compute import (
    Budget,
    Ledger,
    collect,
    compute_energies,
    energies_above_hull,
    relaxation_order,
    save_energies,
    single_point_order,
)
from pccd_workflows.known.library import KnownLibrary
from tests.known.made_up import make_library
from tests.relaxations import relaxation

LEVEL = "chgnet"
ENERGIES = {"Mg": -1.5, "O": -5.0, "Na": -1.3, "Cl": -1.8, "MgO": -6.0, "NaCl": -3.5, "MgO2": -5.5}
"""eV/atom of made-up crystals, by formula."""


class Potential:
    """Knows the energies above; CsCl-type MgO is 0.03 eV/atom higher."""

    def __init__(self, broken: str = "") -> None:
        self.asked: list[str] = []
        self.broken = broken

    def __call__(self, structure: Structure) -> float:
        formula = structure.composition.reduced_formula.replace("O2", "O", 1)
        formula = structure.composition.reduced_formula if len(structure) == 3 else formula
        formula = {"Cl2": "Cl"}.get(formula, formula)
        self.asked.append(formula)
        if formula == self.broken:
            raise KeyError("no such element")
        return ENERGIES[formula] + 0.03 * (structure.lattice.is_orthogonal and formula == "MgO")

    def relax(self, structure: Structure) -> Relaxation:
        return relaxation(structure, self(structure) - 0.01)


@pytest.fixture
def known(tmp_path: Path) -> KnownLibrary:
    return make_library(tmp_path / "library")


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def run(known: KnownLibrary, path: Path, potential: Potential, **budget: float) -> int:
    engines = (potential, potential.relax)
    return compute_energies(known, LEVEL, Ledger(path), engines=engines, budget=Budget(**budget))


def test_elements_first_then_by_stated_height_and_far_ones_not(known: KnownLibrary) -> None:
    order = [known.id_of(row) for row in single_point_order(known)]
    assert set(order[:4]) == {"mp-1", "mp-2", "mp-3", "mp-4"}
    # mp-11 is stated to lie 0.3 eV/atom high; of wbm-1 nothing is stated
    assert order[4:] == ["mp-10", "mp-20", "wbm-1"]


def test_everything_near_is_computed_and_relaxed(known: KnownLibrary, ledger_path: Path) -> None:
    potential = Potential()
    # 7 single points; relaxed: 4 elements, MgO, NaCl (MgO2 lies 0.17 eV/atom above MgO and O)
    assert run(known, ledger_path, potential) == 13
    energies = collect(known, LEVEL, Ledger(ledger_path))
    row = known.row_of("mp-10")
    assert (energies.single_point[row], energies.relaxed[row]) == (-6.0, -6.01)
    assert np.isnan(energies.best[known.row_of("mp-11")])
    assert np.isnan(energies.relaxed[known.row_of("wbm-1")])
    assert (energies.n_computed, energies.n_relaxed, energies.coverage) == (7, 6, 7 / 8)
    above = energies_above_hull(known, energies)
    # hull at 1/3 Mg, 2/3 O between MgO and O, both relaxed
    assert above[known.row_of("wbm-1")] == pytest.approx(-5.5 - (-6.01 * 2 - 5.01) / 3)


def test_nothing_is_computed_twice(known: KnownLibrary, ledger_path: Path) -> None:
    first = Potential()
    assert run(known, ledger_path, first, crystals=3) == 3
    assert len(first.asked) == 3
    second = Potential()
    assert run(known, ledger_path, second) == 10
    assert run(known, ledger_path, Potential()) == 0


def test_stored_energies_are_not_computed_again(known: KnownLibrary, ledger_path: Path) -> None:
    """A new ledger goes on from what is beside the library."""
    run(known, ledger_path, Potential(), crystals=5)
    save_energies(known, LEVEL, Ledger(ledger_path), {"chgnet": "1"})
    fresh = ledger_path.with_name("fresh.jsonl")
    assert run(known, fresh, Potential()) == 8
    saved = save_energies(known, LEVEL, Ledger(fresh), {})
    assert (saved.n_computed, saved.software) == (7, {"chgnet": "1"})
    assert known.energies(LEVEL).n_computed == 7


def test_a_kill_costs_the_last_crystal(known: KnownLibrary, ledger_path: Path) -> None:
    run(known, ledger_path, Potential())
    whole = ledger_path.read_bytes()
    ledger_path.write_bytes(whole[:-10])
    assert len(Ledger(ledger_path)) == 12
    assert run(known, ledger_path, Potential()) == 1
    assert ledger_path.read_bytes() == whole


def test_a_crystal_that_fails_is_noted_with_its_reason(
    known: KnownLibrary, ledger_path: Path
) -> None:
    run(known, ledger_path, Potential(broken="NaCl"))
    lines = [json.loads(line) for line in ledger_path.read_text().splitlines()]
    (failed,) = [line for line in lines if line["energy_per_atom"] is None]
    assert (failed["id"], failed["reason"]) == ("mp-20", "KeyError: 'no such element'")
    assert run(known, ledger_path, Potential()) == 0
    assert np.isnan(collect(known, LEVEL, Ledger(ledger_path)).best[known.row_of("mp-20")])


def test_time_and_size_limits(known: KnownLibrary, ledger_path: Path) -> None:
    assert run(known, ledger_path, Potential(), seconds=0) == 0
    run(known, ledger_path, Potential(), max_sites=2)
    assert np.isnan(collect(known, LEVEL, Ledger(ledger_path)).best[known.row_of("wbm-1")])


def test_results_of_another_geometry_are_left_out(known: KnownLibrary, ledger_path: Path) -> None:
    run(known, ledger_path, Potential())
    ledger_path.write_text(ledger_path.read_text().replace(known.get("mp-1").geometry.digest, "0"))
    energies = collect(known, LEVEL, Ledger(ledger_path))
    assert np.isnan(energies.best[known.row_of("mp-1")])
    assert energies.n_computed == 6


def test_elements_and_binaries_are_relaxed_first(known: KnownLibrary, ledger_path: Path) -> None:
    run(known, ledger_path, Potential(), crystals=7)
    order = relaxation_order(known, LEVEL, Ledger(ledger_path))
    assert {known.id_of(row) for row in order} == {"mp-1", "mp-2", "mp-3", "mp-4", "mp-10", "mp-20"}
    n_elements = [int(known.n_elements[row]) for row in order]
    assert n_elements == sorted(n_elements)
    assert {known.id_of(row) for row in order[:4]} == {"mp-1", "mp-2", "mp-3", "mp-4"}


def test_bad_ledgers(known: KnownLibrary, ledger_path: Path) -> None:
    ledger_path.write_text("not a result\n")
    with pytest.raises(InputError, match=r"ledger.jsonl, line 1: not a result"):
        Ledger(ledger_path)
    folder = ledger_path.parent / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        run(known, folder, Potential())
