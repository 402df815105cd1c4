"""Modes from stored forces: the frequencies of the verdict, motion that fits the wave."""

import json

import explorer_demo as demo
import ledger_factory as factory
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.phonon_modes import stored_lattice
from pccd_workflows.engines.qpoints import standard_path
from pccd_workflows.execution import mongo
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.explorer.crystals import mode_scene
from pccd_workflows.explorer.pages import answer

CRYSTAL = Structure(Lattice.tetragonal(2.82, 3.8), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(autouse=True)
def emt(monkeypatch):
    """A level that costs nothing."""
    level = Level("emt", "potential", "uncorrected", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)


@pytest.fixture
def stored(settings):
    database = mongo.database(settings)
    doc = demo.real_crystal(database, CRYSTAL, "emt")
    demo.fill(database, doc)
    return database, doc


def settings_of(level="emt"):
    return demo.CAMPAIGN.phonons.model_copy(update={"level": level})


def test_modes_are_those_of_the_verdict_and_move_as_waves(stored):
    database, doc = stored
    (record,) = doc.phonons
    lattice = stored_lattice(CRYSTAL, settings_of(), MongoStorage(database))
    legs = record.bands["distances"]
    for leg, point, band in ((0, 0, 3), (0, 25, 0), (1, 50, 5), (2, 10, 2)):
        distance = legs[leg][point]
        frequency = record.bands["frequencies"][leg][band][point]
        mode = lattice.mode(lattice.nearest_qpoint(distance), frequency)
        assert mode.frequency == pytest.approx(frequency, abs=2e-4)
        assert np.linalg.norm(mode.amplitudes, axis=1).max() == pytest.approx(1)
    # acoustic at Γ: the crystal moves as a whole
    acoustic = lattice.mode([0, 0, 0], 0.0)
    assert np.allclose(acoustic.amplitudes[0], acoustic.amplitudes[1], atol=1e-3)
    # optical at Γ: the centre of mass rests
    optical = lattice.mode([0, 0, 0], 1e3)
    masses = lattice.phonon.primitive.masses
    assert np.allclose(masses @ optical.amplitudes, 0, atol=1e-3 * masses.sum())
    # it solves the equation of motion: (frequency²) m u = Φ(q) u, of a fresh dynamical matrix
    q = [0.5, 0.0, 0.0]
    mode = lattice.mode(q, 1e3)
    lattice.phonon.dynamical_matrix.run(q)
    matrix = lattice.phonon.dynamical_matrix.dynamical_matrix
    vector = (mode.amplitudes * np.sqrt(masses)[:, None]).ravel()
    value = (vector.conj() @ matrix @ vector / (vector.conj() @ vector)).real
    assert np.allclose(matrix @ vector, value * vector, atol=1e-6 * np.abs(matrix).max() * 10)


def test_at_the_zone_boundary_neighbouring_cells_move_against_each_other(stored):
    database, _ = stored
    lattice = stored_lattice(CRYSTAL, settings_of(), MongoStorage(database))
    scene = mode_scene(lattice.cell, lattice.mode([0.5, 0, 0], 1e3))
    assert len(scene.moves) == len(scene.atoms)
    a = np.linalg.norm(lattice.cell.lattice.matrix[0])
    along = lattice.cell.lattice.matrix[0] / a
    where = np.array([[x.x, x.y, x.z] for x in scene.atoms])
    pairs = [
        (i, j)
        for i in range(len(where))
        for j in range(len(where))
        if np.allclose(where[j] - where[i], a * along, atol=0.01)
    ]
    assert pairs
    for i, j in pairs:
        assert np.allclose(scene.moves[i], -np.array(scene.moves[j]), atol=2e-3)


def test_the_path_is_that_of_the_picture(stored):
    database, doc = stored
    lattice = stored_lattice(CRYSTAL, settings_of(), MongoStorage(database))
    path = standard_path(lattice.cell)
    assert path.labels == doc.phonons[0].bands["labels"]
    end = doc.phonons[0].bands["distances"][0][-1]
    assert np.allclose(lattice.nearest_qpoint(end), path.qpoints[50], atol=1e-6)


def test_the_explorer_answers_with_a_scene_that_moves(stored):
    database, doc = stored
    before = database["results"].count_documents({})
    reply = answer(database, f"/api/mode/{doc.candidate_id}", "distance=0.1&frequency=99")
    assert reply.status == 200, reply.body
    found = json.loads(reply.body)
    assert found["caption"].startswith("Mode 6 at q = (")
    assert found["frequency"] > 1
    assert len(found["scene"]["moves"]) == len(found["scene"]["atoms"])
    assert database["results"].count_documents({}) == before
    for query in ("", "distance=x&frequency=1", "distance=1"):
        assert answer(database, f"/api/mode/{doc.candidate_id}", query).status == 400


def test_forces_that_are_gone_are_one_sentence(stored):
    database, _ = stored
    with pytest.raises(InputError, match="not stored any more"):
        stored_lattice(CRYSTAL, settings_of(), MemoryStorage())
    invented = factory.judged(88, "MgO", above=0.0, phonons="stable")
    row = invented.model_dump(mode="json") | {"_id": invented.candidate_id}
    database["candidates"].insert_one(row)
    address = f"/api/mode/{invented.candidate_id}"
    reply = answer(database, address, "distance=0.1&frequency=1")
    assert reply.status == 400
    assert "not stored any more" in json.loads(reply.body)["error"]
