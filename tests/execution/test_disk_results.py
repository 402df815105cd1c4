"""Results of potentials on disk: computed once, whole or not there."""

import os
import signal
import time

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.execution import disk_results
from pccd_workflows.execution.disk_results import DiskResults

COPPER = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Cu"], [[0, 0, 0]])
URANIUM = Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]])


@pytest.fixture(autouse=True)
def emt(monkeypatch):
    level = Level("emt", "potential", "mp2020", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)


def test_nothing_is_computed_twice(tmp_path, monkeypatch):
    first = DiskResults(tmp_path)
    relaxation = first.relax(COPPER, "emt")
    energy = first.single_point(COPPER, "emt")
    assert relaxation.energy_per_atom < energy
    assert (first.computed, first.found) == (2, 0)

    def broken(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(disk_results, "relax", broken)
    monkeypatch.setattr(disk_results, "single_point", broken)
    again = DiskResults(tmp_path)
    assert again.relax(COPPER, "emt") == relaxation
    assert again.single_point(COPPER, "emt") == energy
    assert (again.computed, again.found) == (0, 2)


def test_other_settings_are_other_results(tmp_path):
    DiskResults(tmp_path, steps=1).relax(COPPER, "emt")
    other = DiskResults(tmp_path, steps=2)
    other.relax(COPPER, "emt")
    assert other.computed == 1


def test_a_cut_off_file_is_computed_again(tmp_path):
    results = DiskResults(tmp_path)
    energy = results.single_point(COPPER, "emt")
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:7])
    assert results.single_point(COPPER, "emt") == energy
    assert results.computed == 2


def test_what_a_potential_cannot_do_is_noted(tmp_path):
    results = DiskResults(tmp_path)
    assert results.single_point(URANIUM, "emt") is None
    assert results.single_point(URANIUM, "emt") is None
    assert results.computed == 1
    assert results.relax(URANIUM, "emt").verdict == "error"


def test_a_kill_costs_the_crystal_in_flight(tmp_path):
    cells = [COPPER.apply_strain(x, inplace=False) for x in (0.0, 0.01, 0.02, 0.03, 0.04)]
    child = os.fork()
    if child == 0:
        for cell in cells:
            DiskResults(tmp_path).relax(cell, "emt")
        os._exit(0)
    while len(list(tmp_path.rglob("*.json"))) < 2:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = len(list(tmp_path.rglob("*.json")))
    assert kept >= 2
    again = DiskResults(tmp_path)
    assert all(again.relax(cell, "emt").verdict == "converged" for cell in cells)
    assert (again.found, again.computed) == (kept, len(cells) - kept)
