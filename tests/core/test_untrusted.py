"""Documents and folders that others wrote run nothing when they are read."""

import os
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError
from pymatgen.core import Lattice, Structure

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli import live
from pccd_workflows.core.plain_structures import Unreadable, attempt
from pccd_workflows.core.reference_set import ReferenceEntry
from pccd_workflows.core.storage import structure_key
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution.mongo import database
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.stages.relax import read_relaxation


class Marked:
    """A class that a document may name; making one is what must not happen."""

    made = 0

    def __init__(self) -> None:
        Marked.made += 1

    @classmethod
    def from_dict(cls, _document):
        return cls()


@pytest.fixture
def poisoned(monkeypatch):
    monkeypatch.setattr(Marked, "made", 0)
    crystal = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    document = crystal.as_dict()
    document["sites"][0]["properties"] = {
        "note": {"@module": __name__, "@class": "Marked"},
        "magmom": 1.5,
    }
    return document


def test_no_record_makes_the_class_that_a_stored_structure_names(poisoned):
    relaxed = Relaxation(level="chgnet", key="", verdict="converged", structure=poisoned)
    assert relaxed.structure.site_properties["magmom"][0] == 1.5
    ReferenceEntry(entry_id="x", formula="MgO", energy=-1.0, structure=poisoned)
    with pytest.raises(ValidationError):
        CandidateDoc.model_validate({"structure": poisoned})
    assert Marked.made == 0


def test_no_document_of_a_relaxing_maker_makes_the_class_that_it_names(poisoned):
    document = {
        "structure": poisoned,
        "output": {"energy": -12.0},
        "is_force_converged": True,
    }
    start = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    relaxed = read_relaxation(document, start, "chgnet")
    assert (relaxed.verdict, relaxed.energy_per_atom, len(relaxed.structure)) == (
        "converged",
        -6,
        2,
    )
    assert Marked.made == 0


def test_no_stored_structure_makes_the_class_that_it_names(poisoned, settings):
    found = database(settings)
    found["structures"].insert_one({"_id": "k", "structure": poisoned})
    assert len(MongoStorage(found).get_structures(["k"])["k"]) == 2
    assert Marked.made == 0


def test_structures_of_our_own_come_back_whole():
    crystal = Structure(Lattice.cubic(4.2), ["Mg2+", "Mn3+,spin=4"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crystal.add_site_property("magmom", [0.0, 4.0])
    stored = Relaxation(level="chgnet", key="", verdict="converged", structure=crystal)
    read = Relaxation.model_validate(stored.model_dump(mode="json")).structure
    assert structure_key(read) == structure_key(crystal)
    assert read == crystal


def test_a_damaged_structure_is_one_sentence(poisoned):
    del poisoned["sites"][0]["abc"]
    with pytest.raises(ValidationError, match="it is no structure: 'abc' is missing"):
        Relaxation(level="chgnet", key="", verdict="converged", structure=poisoned)


def test_a_worker_imports_nothing_from_the_folder_it_is_started_in(tmp_path):
    (tmp_path / "smact.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    python, *options = live.WORKER_COMMAND[: live.WORKER_COMMAND.index("-m")]
    command = [python, *options, "-c", "import smact"]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env=clean, check=False, capture_output=True)
    assert not (tmp_path / "ran").exists()
    assert Path(python).exists()


def test_programs_that_a_worker_starts_do_not_import_from_the_current_folder(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(live.subprocess, "Popen", lambda *_, env, **__: asked.update(env))
    live.Workers("mine-0123456789", tmp_path).start(1)
    assert asked["PYTHONSAFEPATH"] == "1"


def test_a_crystal_that_nests_too_deeply_is_unreadable():
    def nested():
        return nested()

    assert isinstance(attempt(nested), Unreadable)
