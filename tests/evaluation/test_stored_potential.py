"""Results of potentials on disk: computed once, whole or not there."""

import json
import os
import signal
import time

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.potential import relaxation_key
from pccd_workflows.evaluation.stored_potential import StoredPotential, stored_potential
from pccd_workflows.execution.memory import FolderStorage
from pccd_workflows.settings import Settings

COPPER = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Cu"], [[0, 0, 0]])
URANIUM = Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]])


class Counted(FolderStorage):
    """Counts what is stored."""

    written = 0

    def put_result(self, key, kind, result):
        self.written += 1
        super().put_result(key, kind, result)


@pytest.fixture(autouse=True)
def emt(monkeypatch):
    level = Level("emt", "potential", "mp2020", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)


def potential(folder):
    return StoredPotential("emt", Counted(folder))


def test_nothing_is_computed_twice(tmp_path):
    first = potential(tmp_path)
    relaxation = first.relax(COPPER)
    energy = first.energy_per_atom(COPPER)
    assert relaxation.energy_per_atom < energy
    assert first.storage.written == 2
    again = potential(tmp_path)
    assert again.relax(COPPER) == relaxation
    assert again.energy_per_atom(COPPER) == energy
    assert again.storage.written == 0


def test_results_of_earlier_versions_are_found(tmp_path):
    """They lie where they have always lain: two digits of the key, then the key."""
    stored = potential(tmp_path / "new").relax(COPPER).model_copy(update={"n_steps": 7777})
    key = relaxation_key(COPPER, "emt", fmax=0.05, steps=300)
    path = tmp_path / "old" / key[:2] / f"{key}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stored.model_dump(mode="json")))
    old = potential(tmp_path / "old")
    assert old.relax(COPPER).n_steps == 7777
    assert old.storage.written == 0


def test_a_single_point_is_stored_as_earlier_versions_did(tmp_path):
    made = potential(tmp_path)
    made.energy_per_atom(COPPER)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(json.dumps({"energy_per_atom": -123.0}))
    assert made.energy_per_atom(COPPER) == -123.0


def test_a_cut_off_file_is_computed_again(tmp_path):
    made = potential(tmp_path)
    energy = made.energy_per_atom(COPPER)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:7])
    assert made.energy_per_atom(COPPER) == energy
    assert made.storage.written == 2


def test_what_a_potential_cannot_do_is_noted(tmp_path):
    made = potential(tmp_path)
    assert made.energy_per_atom(URANIUM) is None
    assert made.energy_per_atom(URANIUM) is None
    assert made.storage.written == 1
    assert made.relax(URANIUM).verdict == "error"


def test_a_kill_costs_the_crystal_in_flight(tmp_path):
    cells = [COPPER.apply_strain(x, inplace=False) for x in (0.0, 0.01, 0.02, 0.03, 0.04)]
    child = os.fork()
    if child == 0:
        for cell in cells:
            potential(tmp_path).relax(cell)
        os._exit(0)
    while len(list(tmp_path.rglob("*.json"))) < 2:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = len(list(tmp_path.rglob("*.json")))
    assert kept >= 2
    again = potential(tmp_path)
    assert all(again.relax(cell).verdict == "converged" for cell in cells)
    assert again.storage.written == len(cells) - kept


def test_phonons_need_no_database_and_are_computed_once(tmp_path, monkeypatch):
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    first = potential(tmp_path).phonons(copper)
    assert first.verdict == "stable"
    assert first.n_displacements == 1
    for name in ("relax", "forces"):
        monkeypatch.setattr(f"pccd_workflows.engines.potential.{name}", None)
    assert potential(tmp_path).phonons(copper) == first


def test_results_lie_in_the_folder_of_the_settings(tmp_path):
    made = stored_potential("emt", Settings(data_dir=tmp_path))
    made.energy_per_atom(COPPER)
    assert len(list((tmp_path / "results").glob("??/*.json"))) == 1


@pytest.mark.parametrize("level", ["vasp/mp-gga", "no-such-level"])
def test_what_is_no_potential_is_refused(level, tmp_path):
    with pytest.raises(InputError, match=level):
        stored_potential(level, Settings(data_dir=tmp_path))
