"""Content addresses stay what they were: each stored result is found again by a later version."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines import potential
from pccd_workflows.engines.engine import Displacement, Task, engine_of
from pccd_workflows.engines.geometry import rms_displacement
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.phonons import phonon_key
from pccd_workflows.engines.supercells import displaced_cell
from pccd_workflows.engines.vasp.inputs import run_key
from pccd_workflows.stages.phonons import PhononsSection

SITES = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0.123456789]]
OXIDE = Structure(Lattice.cubic(4.25), ["Mg", "Mg", "O", "O"], SITES)
MOMENTS = OXIDE.copy(site_properties={"magmom": [1.0, -1.0, 0.0, 0.0]})
GGA, R2SCAN, GPAW = "vasp/mp-gga", "vasp/mp-r2scan", "gpaw/pbe"
VERSIONS = {"chgnet": "0.4.2", "sevenn": "0.13.0", "atomate2": "0.1.5"}

# as commit c7e1b0f printed them, with the versions above
STORED = [
    ("chgnet", OXIDE, Task("relax", fmax=0.05, steps=300), "287fcb8387c1cb7e643e02c02546c0e5"),
    ("chgnet", OXIDE, Task("tight", "phonons"), "b0137665c36396a1c0bbc9ecef0b7c3d"),
    ("7net-l3i5", OXIDE, Task("relax", "reference"), "c6db2f53dca52ad586692840c4971cf9"),
    (GGA, OXIDE, Task("relax"), "c2ac2ae458d01e5db35ab50670e549b2"),
    (GGA, OXIDE, Task("relax", ordering="AFM"), "2ef4d84514ebb20d5482f96c082017bd"),
    (GGA, OXIDE, Task("tight", ordering="FM"), "f54696f2934b5777b42b2ccb339b2fa5"),
    (GGA, MOMENTS, Task("forces"), "72c6bd3c031b5eb2504b1aa358938fc5"),
    (GGA, OXIDE, Task("bands"), "0403f9ecf25d4015a083b71669983ecd"),
    (R2SCAN, OXIDE, Task("relax"), "0399990db366527c8bc35c2a44466463"),
    (R2SCAN, OXIDE, Task("relax", ordering="AFM"), "757ae6fd7f1e06a655d86fe77e6dabd0"),
    (R2SCAN, OXIDE, Task("tight", ordering="FM"), "34b31cf152a26f90fc3ab4c1235b6cc6"),
    (R2SCAN, MOMENTS, Task("forces"), "36c5f0cad34ef2dee4e9870f150dd2e8"),
    (R2SCAN, OXIDE, Task("bands"), "647293ae8f9bd04c144d3ce5c31b47e9"),
    (GPAW, OXIDE, Task("relax"), "c46871e3ebcbce0d1a2233c1d5938a4d"),
    (GPAW, OXIDE, Task("relax", ordering="AFM"), "82d371fa7b41e964ad6c3cfd9e31fd76"),
    (GPAW, OXIDE, Task("tight", ordering="FM"), "941047b23937fc2b78cb6e9ff0a25a54"),
    (GPAW, MOMENTS, Task("forces"), "078dbf4439983d2bf86cbd95f6e430ba"),
]


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages that are part of keys, in the versions that these were computed with."""
    monkeypatch.setattr(potential, "_version", lambda package: VERSIONS.get(package, "unknown"))


@pytest.mark.parametrize(("level", "structure", "task", "key"), STORED)
def test_keys_are_those_of_stored_results(level, structure, task, key):
    assert engine_of(level).key(get_level(level), structure, task).startswith(key)


def test_keys_of_runs_and_phonons_are_those_of_stored_results():
    assert run_key("ab", 1).startswith("20748351557f722be5e0f68c985a9418")
    key = phonon_key(OXIDE, "chgnet", PhononsSection())
    assert key.startswith("4edb5f156836811698464db154c92bfd")
    key = phonon_key(OXIDE, GGA, PhononsSection(level=GGA), "FM")
    assert key.startswith("b88bf5cb80b5adfdb725bc5af5b206ba")


def test_every_task_of_every_level_has_a_key_of_its_own():
    for name in (GGA, R2SCAN, GPAW, "chgnet"):
        level = get_level(name)
        keys = {kind: engine_of(level).key(level, MOMENTS, Task(kind)) for kind in level.runs}
        assert len(set(keys.values())) == len(level.runs), name


def test_purpose_is_no_part_of_a_key():
    for name in (GGA, GPAW, "chgnet"):
        engine, level = engine_of(name), get_level(name)
        purposes = ("candidate", "reference", "phonons")
        keys = {engine.key(level, OXIDE, Task("relax", purpose)) for purpose in purposes}
        assert len(keys) == 1


def test_a_task_survives_the_job_store():
    task = Task("forces", "phonons", displacement=Displacement(3, 10.0, 0.01))
    assert Task.from_dict(task.as_dict()) == task
    from monty.json import MontyDecoder

    assert MontyDecoder().process_decoded(task.as_dict()) == task


def test_a_displaced_cell_is_the_same_whenever_it_is_made():
    primitive = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0] * 3])
    tight = primitive.get_primitive_structure()
    tight.add_site_property("magmom", [0.5])
    first, again = (displaced_cell(tight, Displacement(0, 7.0, 0.01)) for _ in range(2))
    assert first == again
    assert first.site_properties["magmom"] == [0.5] * len(first)
    keys = {engine_of(GGA).key(get_level(GGA), cell, Task("forces")) for cell in (first, again)}
    assert len(keys) == 1


def test_neither_drift_nor_whole_lattice_vectors_are_displacements():
    start = Structure(Lattice.cubic(4), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    drifted = Structure(
        start.lattice, start.species, np.add(start.frac_coords, [0.499, 0.5, 0.501])
    )
    jumped = Structure(
        start.lattice, start.species, np.add(start.frac_coords, [[0] * 3, [1, 0, -2]])
    )
    assert rms_displacement(start, drifted) == pytest.approx(0)
    assert rms_displacement(start, jumped) == pytest.approx(0)
    one = Structure(start.lattice, start.species, np.add(start.frac_coords, [[0.1, 0, 0], [0] * 3]))
    assert rms_displacement(start, one) == pytest.approx(0.2)
