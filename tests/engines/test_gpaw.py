"""The licence-free DFT level: real PBE on cells of two atoms, where GPAW is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from jobflow import Flow
from pymatgen.core import Lattice, Structure
from vasp_fixture import engine_jobs

from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.engines import gpaw
from pccd_workflows.engines.engine import Task
from pccd_workflows.engines.levels import get_level
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.worker import run_worker

LEVEL = "gpaw/pbe"
needs_gpaw = pytest.mark.skipif(
    importlib.util.find_spec("gpaw") is None,
    reason="GPAW is not installed: `make gpaw` (needs libxc-dev and libopenblas-dev)",
)


def rock_salt(a: float = 4.3) -> Structure:
    sites = [[0, 0, 0], [0.5] * 3]
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Mg", "O"], sites)
    return cell.get_primitive_structure()


def silicon() -> Structure:
    cell = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.47), ["Si"], [[0, 0, 0]])
    return cell.get_primitive_structure()


@pytest.fixture
def coarse(monkeypatch):
    """A mesh and cutoff for seconds rather than minutes; still PBE."""
    monkeypatch.setattr(gpaw, "KPOINT_DENSITY", 1.5)
    monkeypatch.setattr(gpaw, "CUTOFF", 300.0)


@needs_gpaw
def test_pbe_gives_the_published_size_of_magnesia(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpaw, "KPOINT_DENSITY", 2.0)  # an insulator needs no more for its size
    found = gpaw.relax(rock_salt(), get_level(LEVEL), Task("relax"))
    assert (found.verdict, found.convention) == ("converged", "as_computed")
    a = (4 * found.structure.volume) ** (1 / 3)
    assert a == pytest.approx(4.261, rel=0.005)  # 10.1103/PhysRevB.79.085104
    assert found.energies[-1] < found.energies[0]
    assert found.magnetic_ordering == "NM"
    assert found.settings["n_electrons"] == 16  # Mg's 2p are valence here
    assert found.software["gpaw"]


@needs_gpaw
def test_a_job_stores_its_record_and_cost_and_never_computes_twice(settings, coarse):
    for _ in range(2):
        crystals = {"c-0": silicon()}
        flow = Flow(engine_jobs(settings, crystals, LEVEL, Task("relax"), "gpaw-test"))
        flow.update_metadata({"campaign_id": "gpaw-test"})
        launchpad.submit(flow, settings)
        run_worker(settings, category="cpu")
    database = mongo.database(settings)
    assert launchpad.campaign_states(settings, "gpaw-test") == {"COMPLETED": 2}
    (stored,) = database["results"].find({"kind": "relaxation"})
    assert stored["result"]["level"] == LEVEL
    (cost,) = database["costs"].find()
    assert cost["campaign_id"] == "gpaw-test"
    assert cost["core_hours"] == pytest.approx(cost["seconds"] / 3600)
    assert (cost["n_electrons"], cost["plan"]) == (8, "relax")


@needs_gpaw
def test_forces_pull_a_displaced_atom_back(tmp_path, monkeypatch, coarse):
    monkeypatch.chdir(tmp_path)
    cell = silicon()
    cell.translate_sites([1], [0.05, 0, 0], frac_coords=False)
    found = np.array(gpaw.forces(cell, get_level(LEVEL), Task("forces")).forces)
    assert found.shape == (2, 3)
    assert found[1, 0] < -0.1
    assert np.allclose(found.sum(axis=0), 0, atol=0.02)


@needs_gpaw
def test_missing_paw_data_is_named_with_its_place(tmp_path, monkeypatch):
    import gpaw as engine

    gpaw.check_ready(get_level(LEVEL), ["Mg", "O"])
    with pytest.raises(InputError, match=r"no PAW data for Tc .*expected .*Tc\.PBE\.gz"):
        gpaw.check_ready(get_level(LEVEL), ["Mg", "Tc"])
    monkeypatch.setattr(engine, "setup_paths", [Path(tmp_path)])
    with pytest.raises(InputError, match=rf"no PAW data for O .*{tmp_path}"):
        gpaw.check_ready(get_level(LEVEL), ["O"])


def test_without_gpaw_the_level_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="make gpaw"):
        gpaw.check_ready(get_level(LEVEL), ["Si"])


def test_open_shells_start_with_moments():
    oxygen = Structure(Lattice.cubic(8), ["O", "O"], [[0, 0, 0], [0.15, 0, 0]])
    nickel = Structure(Lattice.cubic(2.8), ["Ni"], [[0, 0, 0]])
    assert gpaw.first_moments(oxygen, None) == [1.0, 1.0]  # a triplet
    assert gpaw.first_moments(silicon(), None) == []
    assert gpaw.first_moments(nickel, None) == [5.0]
    assert gpaw.first_moments(nickel, "NM") == []
    given = nickel.copy(site_properties={"magmom": [-1.0]})
    assert gpaw.first_moments(given, "FM") == [-1.0]


def test_the_mesh_follows_the_cell():
    assert gpaw.kpoint_mesh(Structure(Lattice.cubic(3.0), ["Al"], [[0] * 3])) == (9, 9, 9)
    assert gpaw.kpoint_mesh(Structure(Lattice.tetragonal(3.0, 30.0), ["Al"], [[0] * 3])) == (
        9,
        9,
        1,
    )
