"""VASP runs, with the stand-in: results, restarts, verdicts, and what is refused beforehand."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from jobflow import Flow
from pymatgen.core import Lattice, Structure
from vasp_fixture import engine_jobs, inject, standin_environment, use_standin

from pccd_workflows import checks, operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.storage import StageRow, store_crystals
from pccd_workflows.engines.engine import Task, engine_of
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.phonons import phonon_record
from pccd_workflows.engines.supercells import displaced_cells
from pccd_workflows.engines.vasp.inputs import check_ready, deviations
from pccd_workflows.engines.vasp.run import Attempt, VaspFailed, last_geometry, run
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.jobs.phonons import candidate_phonons
from pccd_workflows.known.reference_files import write_reference_set
from pccd_workflows.stages.phonons import PhononsSection

LEVEL = "vasp/mp-gga"
R2SCAN = "vasp/mp-r2scan"


def rock_salt(cation: str = "Mn", a: float = 4.2) -> Structure:
    """Return one formula unit, a little off its symmetric place."""
    lattice = Lattice.cubic(a)
    cell = Structure.from_spacegroup("Fm-3m", lattice, [cation, "O"], [[0, 0, 0], [0.5] * 3])
    return cell.get_primitive_structure()


def two_units(a: float = 4.2) -> Structure:
    """Return two formula units of MnO, which can be antiferromagnetic."""
    cell = rock_salt(a=a)
    cell.make_supercell([1, 1, 2])
    return cell


def campaign(ordering: str | None = None) -> Campaign:
    return Campaign.model_validate(
        {
            "name": "dft",
            "generate": {
                "elements": ["Mn", "O"],
                "samples": 2,
                "conditions": {"magnetic_ordering": ordering},
            },
            "references": {"source": "materials_project"},
            "rungs": [{"level": LEVEL}],
        }
    )


def submit(
    settings, structures: list[Structure], ordering: str | None = None, level: str = LEVEL
) -> Campaign:
    whole = campaign(ordering)
    named = {f"c-{i}": structure for i, structure in enumerate(structures)}
    task = Task("relax", ordering=ordering)
    flow = Flow(engine_jobs(settings, named, level, task, whole.campaign_id))
    flow.update_metadata({"campaign_id": whole.campaign_id})
    launchpad.submit(flow, settings)
    return whole


def results(settings, kind: str) -> list[dict]:
    return [row["result"] for row in mongo.database(settings)["results"].find({"kind": kind})]


def check(campaign: Campaign, settings) -> None:
    """Check what `checks.preflight` does of levels and reference files."""
    for name in checks.levels_of(campaign):
        engine_of(name).check(get_level(name), campaign.elements, settings)
    if campaign.references.path is not None:
        checks.check_reference_file(campaign, campaign.references.path)


@pytest.fixture
def standin(settings, tmp_path, monkeypatch):
    """Settings under which VASP is the stand-in."""
    from pccd_workflows.settings import get_settings

    use_standin(monkeypatch, tmp_path, vasp_continuations=0)
    return get_settings()


def test_a_crystal_is_relaxed_at_the_levels_settings(standin, tmp_path):
    from pair_potential import evaluate

    start = two_units()
    whole = submit(standin, [start], "AFM")
    run_worker(standin, campaign_id=whole.campaign_id, category="cpu")
    assert launchpad.campaign_states(standin, whole.campaign_id) == {"COMPLETED": 4}
    (relaxation,) = results(standin, "relaxation")
    assert relaxation["verdict"] == "converged"
    end = Structure.from_dict(relaxation["structure"])
    symbols = [site.specie.symbol for site in end]
    found = evaluate(end.lattice.matrix, end.frac_coords, symbols)
    assert relaxation["energy"] == pytest.approx(found.energy, abs=1e-4)
    assert relaxation["convention"] == "uncorrected"
    assert relaxation["energies"][0] > relaxation["energies"][-1]
    assert relaxation["volume_change"] == pytest.approx(end.volume / start.volume - 1)
    assert relaxation["settings"]["run_type"] == "GGA+U"
    assert relaxation["settings"]["hubbards"]["Mn"] == pytest.approx(3.9)
    assert sorted(relaxation["settings"]["moments"]) == [-4.5, 0.0, 0.0, 4.5]
    assert relaxation["magnetic_ordering"] == "AFM"
    documents = list(mongo.database(standin)["job_outputs"].find({"output.run_type": "GGA+U"}))
    assert [d["name"].split(" vasp")[0] for d in documents] == ["relax 1", "relax 2", "static"]
    parameters = [d["output"]["input"]["parameters"] for d in documents]
    assert [p["ENMAX"] for p in parameters] == [520.0] * 3
    assert [p["NSW"] for p in parameters] == [99, 99, 0]
    # the same crystal again: nothing is computed
    folders = len(list((tmp_path / "data").rglob("vasprun.xml.gz")))
    assert folders == 3
    submit(standin, [start], "AFM")
    run_worker(standin, campaign_id=whole.campaign_id)
    assert len(list((tmp_path / "data").rglob("vasprun.xml.gz"))) == folders


def test_r2scan_is_a_level_of_its_own(standin):
    whole = submit(standin, [rock_salt("Mg")], level=R2SCAN)
    run_worker(standin, campaign_id=whole.campaign_id)
    (relaxation,) = results(standin, "relaxation")
    assert (relaxation["verdict"], relaxation["level"]) == ("converged", R2SCAN)
    assert relaxation["convention"] == "as_computed"
    assert relaxation["settings"]["run_type"] == "r2SCAN"
    assert relaxation["settings"]["hubbards"] == {}
    query = {"output.vasp_version": {"$exists": True}}
    documents = list(mongo.database(standin)["job_outputs"].find(query))
    assert [d["name"].split(" vasp")[0] for d in documents] == ["pre-relax", "relax", "static"]
    tags = [d["output"]["input"]["incar"] for d in documents]
    assert [t["ENCUT"] for t in tags] == [680.0] * 3
    assert [(t.get("GGA"), t.get("METAGGA")) for t in tags] == [
        ("Ps", None),
        (None, "R2scan"),
        (None, "R2scan"),
    ]
    ledger = list(mongo.database(standin)["costs"].find({"level": R2SCAN}).sort("at", 1))
    assert [row["run"] for row in ledger] == ["pre-relax", "relax", "static"]
    assert all(row["core_hours"] > 0 and row["n_kpoints"] and row["n_electrons"] for row in ledger)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"ENCUT": 400}, "ENCUT is 400"),
        ({"GGA": "PS"}, "GGA is P"),
        ({"LDAUU": {"Mn": 0}}, "LDAUU"),
    ],
)
def test_energies_of_other_settings_are_refused_before_they_are_computed(standin, tags, found):
    attempt = Attempt(incar=tags)
    with pytest.raises(VaspFailed, match=f"{found}.* shares no hull with {LEVEL}"):
        run(rock_salt(), get_level(LEVEL), "static", settings=standin, attempt=attempt)


def test_tags_that_change_no_energy_are_no_deviation():
    expected = {"ENCUT": 520.0, "GGA": "Pe", "LDAUU": [3.9, 0], "LASPH": True}
    harmless = {"ENCUT": 600, "GGA": "PE", "LDAUU": [3.9, 0.0], "LASPH": True, "ALGO": "All"}
    assert deviations(harmless | {"LDAU": False}, expected) == []
    assert deviations(harmless | {"METAGGA": "R2SCAN"}, expected) == ["METAGGA is R2SCAN, not None"]


def test_a_failing_crystal_holds_back_no_other(standin, tmp_path):
    inject(
        tmp_path,
        {"folder": "relax-1.*c-0", "fault": "segfault"},
        {"folder": "relax-1.*c-1", "fault": "collapse"},
    )
    whole = submit(standin, [rock_salt(a=a) for a in (4.1, 4.2)])
    run_worker(standin, campaign_id=whole.campaign_id, category="cpu")
    (lost,) = launchpad.failures(standin, whole.campaign_id)
    assert lost["metadata"]["candidates"] == ["c-0"]
    assert "ValidationError" in lost["error"]
    assert "[OUTCAR]" in lost["traceback"]
    (collapsed,) = results(standin, "relaxation")
    assert collapsed["verdict"] == "diverged"
    assert "collapsed to 0.1" in collapsed["reason"]


def test_vasp_is_stopped_at_the_walltime_and_goes_on(settings, tmp_path, monkeypatch):
    from pccd_workflows.settings import get_settings

    alive = time.time() - psutil.Process().create_time()
    use_standin(
        monkeypatch,
        tmp_path,
        vasp_walltime=alive + 1,  # so near that VASP is stopped after its first step
        custodian_check=0.4,
        vasp_continuations=1,
    )
    inject(tmp_path, {"folder": "relax-1", "fault": "walltime", "times": 2})
    found = get_settings()
    whole = submit(found, [rock_salt()])
    run_worker(found, campaign_id=whole.campaign_id)
    (failure,) = launchpad.failures(found, whole.campaign_id)
    assert "WalltimeReached" in failure["error"]
    assert launchpad.campaign_states(found, whole.campaign_id) == {"COMPLETED": 1, "FIZZLED": 1}
    assert results(found, "relaxation") == []
    monkeypatch.delenv("PCCD_VASP_WALLTIME")
    get_settings.cache_clear()
    operations.restart(whole.campaign_id, found, 5)
    run_worker(get_settings(), campaign_id=whole.campaign_id)
    (relaxation,) = results(found, "relaxation")
    assert relaxation["verdict"] == "converged"
    assert [r["continued"] for r in relaxation["settings"]["runs"]] == [True, False, False]
    assert list(mongo.database(found)["checkpoints"].find()) == []


def test_no_vasp_is_left_behind_when_a_worker_is_stopped(settings, tmp_path, monkeypatch):
    environment = standin_environment(tmp_path)
    inject(tmp_path, {"folder": "relax-1", "fault": "silent"})
    whole = submit(settings, [rock_salt()])
    command = [sys.executable, "-m", "pccd_workflows", "worker", "--campaign", whole.campaign_id]
    with subprocess.Popen(command, env=os.environ | environment) as worker:
        deadline = time.monotonic() + 240
        children: list[psutil.Process] = []
        while not children and time.monotonic() < deadline:
            time.sleep(0.2)
            tree = psutil.Process(worker.pid).children(recursive=True)
            children = [c for c in tree if "standin_vasp.py" in " ".join(c.cmdline())]
        assert children, "VASP never ran"
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert launchpad.campaign_states(settings, whole.campaign_id) == {"READY": 1}
    (checkpoint,) = mongo.database(settings)["checkpoints"].find()
    assert checkpoint["resume"]
    assert Path(checkpoint["folder"].rpartition(":")[2]).is_dir()
    # the next attempt says what this one cost
    use_standin(monkeypatch, tmp_path)
    inject(tmp_path)
    run_worker(settings, campaign_id=whole.campaign_id)
    ledger = list(mongo.database(settings)["costs"].find().sort("at", 1))
    assert [row["outcome"] for row in ledger] == ["killed", "done", "done", "done"]
    assert ledger[0]["run"] == "relax 1"
    assert 0 < ledger[0]["seconds"] < 240
    assert mongo.database(settings)["checkpoints"].count_documents({}) == 0


def test_a_lost_displacement_is_computed_again_alone(standin, tmp_path):
    from pair_potential import evaluate

    inject(tmp_path, {"folder": "forces-2", "fault": "segfault", "times": 1})
    section = PhononsSection(level=LEVEL, min_length=5.5)
    storage = MongoStorage(mongo.database(standin))
    mongo.ensure_indexes(storage.database)
    (ref,) = store_crystals(storage, [("c-0", rock_salt("Mg"))])
    storage.put_rows([StageRow("phonons", "c-0", 0, "generate", {}, key=ref.key)])
    flow = Flow([candidate_phonons("phonons", ref, section)])
    flow.update_metadata({"campaign_id": "phonons"})
    launchpad.submit(flow, standin)
    run_worker(standin)
    (lost,) = launchpad.failures(standin, "phonons")
    assert lost["name"].startswith("forces 2/2")
    assert results(standin, "phonons") == []
    done = mongo.database(standin)["costs"].count_documents({"outcome": "done"})
    assert done == 2  # at rest, and the other displacement
    operations.restart("phonons", standin, 5)
    run_worker(standin)
    assert mongo.database(standin)["costs"].count_documents({"outcome": "done"}) == done + 1
    (record,) = results(standin, "phonons")
    (tight,) = results(standin, "relaxation")
    # the same from the stand-in's energies directly
    cell = Structure.from_dict(tight["structure"])
    cells = displaced_cells(cell, section)
    assert record["n_displacements"] == len(cells) == 2
    symbols = [site.specie.symbol for site in cells[0]]
    forces = [evaluate(c.lattice.matrix, c.frac_coords, symbols).forces for c in cells]
    expected = phonon_record(cell, forces, section, software_versions={})
    assert record["verdict"] == expected.verdict
    assert record["min_frequency"] == pytest.approx(expected.min_frequency, abs=0.05)
    assert record["bands"]["labels"][0] == ["Γ", "X"]
    assert len(record["bands"]["frequencies"][0]) == 6


def test_a_contcar_that_makes_no_sense_is_not_used(tmp_path):
    like = rock_salt()
    contcar = tmp_path / "CONTCAR"
    assert last_geometry(str(tmp_path), like) is None
    for text in ("", "x\n1.0\n1 0 0\n"):
        contcar.write_text(text)
        assert last_geometry(str(tmp_path), like) is None
    rock_salt("Mg").to(filename=str(contcar), fmt="poscar")
    assert last_geometry(str(tmp_path), like) is None
    like.copy().scale_lattice(like.volume * 0.1).to(filename=str(contcar), fmt="poscar")
    assert last_geometry(str(tmp_path), like) is None
    moved = like.copy().scale_lattice(like.volume * 1.1)
    moved.to(filename=str(contcar), fmt="poscar")
    found = last_geometry(f"host:{tmp_path}", like)
    assert found is not None
    assert np.isclose(found.volume, moved.volume)
    assert "magmom" not in found.site_properties
    moments = [5.0, -5.0, *[0.6] * (len(like) - 2)]
    found = last_geometry(str(tmp_path), like.copy(site_properties={"magmom": moments}))
    assert found is not None
    assert found.site_properties["magmom"] == moments


def test_what_is_missing_is_named_before_submission(standin, tmp_path, monkeypatch):
    check_ready(get_level(LEVEL), ["Mg", "O"], standin)
    with pytest.raises(InputError, match=r"no POTCAR for Fe \(Fe_pv\): expected .*Fe_pv/POTCAR"):
        check_ready(get_level(LEVEL), ["Fe", "O"], standin)
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"no folder .*POT_GGA_PAW_PBE"):
        check_ready(get_level(LEVEL), ["Mg"], standin)
    broken = standin.model_copy(update={"vasp_command": "no-such-vasp -np 4"})
    with pytest.raises(MissingDependencyError, match="no-such-vasp is not on PATH"):
        check_ready(get_level(LEVEL), ["Mg"], broken)


def test_the_standin_knows_every_error_that_custodian_knows():
    from custodian.vasp.handlers import VaspErrorHandler
    from faults import MESSAGES

    known = VaspErrorHandler.error_msgs
    assert set(MESSAGES) == set(known)
    for name, message in MESSAGES.items():
        assert any(text in message for text in known[name]), name


def test_references_of_another_level_are_refused_before_submission(standin, tmp_path):
    mine = ReferenceSet(
        source="file",
        chemsys="Mn-O",
        level=LEVEL,
        convention="mp2020",
        entries=[
            ReferenceEntry(entry_id=name, formula=name, energy=-5.0) for name in ("Mn1", "O1")
        ],
    )
    path = tmp_path / "set.json.gz"
    write_reference_set(path, mine)
    change = {"references": {"source": "file", "path": str(path)}}
    whole = Campaign.model_validate(campaign().resolved() | change)
    check(whole, standin)  # MP's own, corrected: the same on a hull
    other = Campaign.model_validate(whole.resolved() | {"rungs": [{"level": R2SCAN}]})
    with pytest.raises(InputError, match=f"energies of level '{LEVEL}', not .*{R2SCAN}"):
        check(other, standin)
    path.unlink()
    with pytest.raises(InputError, match="there is no file or folder"):
        check(whole, standin)


def test_vasp_that_is_missing_on_the_node_is_named(standin):
    broken = standin.model_copy(update={"vasp_command": "no-such-vasp"})
    with pytest.raises(MissingDependencyError, match="no-such-vasp is not on PATH"):
        run(rock_salt(), get_level(LEVEL), "static", settings=broken, attempt=Attempt())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generate": {"elements": ["Fe", "O"]}}, r"no POTCAR for Fe \(Fe_pv\)"),
        (
            {
                "generate": {"elements": ["Fe", "O"]},
                "rungs": [{"level": "chgnet"}],
                "phonons": {"confirm": R2SCAN},
            },
            r"no POTCAR for Fe \(Fe_pv\): expected .*POT_GGA_PAW_PBE_54/Fe_pv/POTCAR",
        ),
    ],
)
def test_a_campaign_that_cannot_climb_is_refused(standin, change, message):
    broken = Campaign.model_validate(campaign().resolved() | change)
    with pytest.raises(InputError, match=message):
        check(broken, standin)
