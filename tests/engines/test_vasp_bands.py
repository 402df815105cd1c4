"""Band structures: the gap that the stand-in was told to have, failures, reruns, magnetic cells."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jobflow import Flow
from pymatgen.core import Lattice, Structure
from vasp_fixture import engine_jobs, inject, use_standin

from pccd_workflows import operations
from pccd_workflows.analysis.kpaths import path_name
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.cli import main
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.storage import StageRow, store_crystals
from pccd_workflows.engines.engine import Task, engine_of
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Bands
from pccd_workflows.engines.vasp.bands import RunBands, band_gap, magnetic_cell
from pccd_workflows.execution import launchpad, mongo, reruns
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.execution.stores import job_store
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.generators.request import Generation
from pccd_workflows.pipeline import DiscoveryMaker
from pccd_workflows.query import find_candidate

GGA, R2SCAN = "vasp/mp-gga", "vasp/mp-r2scan"


def rock_salt(cation: str, a: float = 4.2) -> Structure:
    sites = [[0, 0, 0], [0.5] * 3]
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, "O"], sites)
    return cell.get_primitive_structure()


def two_units() -> Structure:
    """Return two formula units of MnO, which can be antiferromagnetic."""
    cell = rock_salt("Mn", 4.4)
    cell.make_supercell([1, 1, 2])
    return cell


@pytest.fixture
def standin(settings, tmp_path, monkeypatch):
    """Settings under which VASP is the stand-in."""
    from pccd_workflows.settings import get_settings

    use_standin(monkeypatch, tmp_path, vasp_continuations=0)
    return get_settings()


def submit(settings, structure: Structure, level: str, ordering: str | None = None) -> str:
    """Submit what follows a rung that kept one crystal; return the campaign's id."""
    cells = {"c-0": magnetic_cell(structure, ordering)}
    flow = Flow(engine_jobs(settings, cells, level, Task("bands"), "bands-0"))
    flow.update_metadata({"campaign_id": "bands-0"})
    launchpad.submit(flow, settings)
    return "bands-0"


def record(settings) -> Bands:
    (row,) = mongo.database(settings)["results"].find({"kind": "bands"})
    return Bands.model_validate(row["result"])


def ledger(settings) -> list[str]:
    rows = mongo.database(settings)["costs"].find().sort("at", 1)
    return [row["run"].removeprefix("bands ") + "!" * (row["outcome"] != "done") for row in rows]


def inputs(folder: Path, run: str) -> dict:
    """Return the INCAR of a run as the stand-in read it."""
    from pymatgen.io.vasp.inputs import Incar

    (path,) = folder.rglob(f"*{run}*/INCAR.gz")
    return dict(Incar.from_file(path))


def whole_campaign(settings) -> Campaign:
    """Submit a campaign whose one sample is antiferromagnetic MnO, drawn already."""
    conditions = {"magnetic_ordering": "AFM", "band_gap": 1.5}
    whole = Campaign.model_validate(
        {
            "name": "whole",
            "generate": {"elements": ["Mn", "O"], "samples": 1, "conditions": conditions},
            "novelty": {"against": ["references"]},
            "references": {"source": "materials_project"},
            "rungs": [{"level": GGA, "keep": {"energy_above_hull": 10}, "band_structure": True}],
        }
    )
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    generation = Generation(
        model="m",
        weights_sha256="0",
        seed=0,
        index=0,
        elements=["Mn", "O"],
        conditions=whole.generate.conditions.model_dump(),
    )
    head = {"schema_version": SCHEMA_VERSION, "campaign_id": whole.campaign_id}
    storage = MongoStorage(database)
    (ref,) = store_crystals(storage, [(whole.candidate_id(0), two_units())])
    drawn = generation.model_dump(mode="json")
    row = StageRow(
        whole.campaign_id, ref.id, 0, "generate", drawn, key=ref.key, goes_on=True, formula="MnO"
    )
    storage.put_rows([row])
    elements = [ReferenceEntry(entry_id=name, formula=name, energy=-1.0) for name in ("Mn1", "O1")]
    known = ReferenceSet(
        source="materials_project",
        chemsys="Mn-O",
        level=GGA,
        convention="mp2020",
        entries=elements,
    )
    mongo.put_reference_set(database, known)
    document = {"_id": whole.campaign_id, "name": whole.name, "submitted_at": datetime.now(UTC)}
    database["campaigns"].insert_one(head | document | {"campaign": whole.resolved()})
    launchpad.submit(DiscoveryMaker().make(whole, ["0"]), settings)
    return whole


def collected(settings, whole: Campaign) -> CandidateDoc:
    """Return the candidate's document as `pccd campaign status` makes it."""
    document = operations.campaign_document(whole.campaign_id, settings)
    progress = operations.progress(whole.campaign_id, settings)
    operations.collect(document, progress, settings)
    return find_candidate(mongo.database(settings)["candidates"], whole.candidate_id(0))


def test_a_lost_run_holds_nothing_back_and_is_done_again(standin, tmp_path, monkeypatch, capsys):
    told = {"gap": 1.37, "cbm": [0.5, 0.0, 0.5]}
    monkeypatch.setenv("VASP_STANDIN_BANDS", json.dumps(told))
    inject(tmp_path, {"folder": "bands-line", "fault": "memory", "times": 1})
    whole = whole_campaign(standin)
    candidate_id = whole.candidate_id(0)
    run_worker(standin, campaign_id=whole.campaign_id)
    (lost,) = reruns.job_failures(standin, campaign_id=whole.campaign_id)
    assert (lost.name, lost.candidates) == (f"bands line {GGA} {candidate_id}", [candidate_id])
    doc = collected(standin, whole)
    assert (doc.status, doc.stage, doc.band_gap) == ("passed", f"hull:{GGA}", None)

    def pccd(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        assert not end.value.code
        return capsys.readouterr().out

    assert "memory" in pccd("job", "failures")
    pccd("job", "rerun", "--error-class", "memory", "--set", "INCAR.ALGO=All")
    run_worker(standin, campaign_id=whole.campaign_id)
    assert ledger(standin)[3:] == ["static", "uniform", "line!", "line"]
    doc = collected(standin, whole)
    assert (doc.status, doc.stage) == ("passed", f"bands:{GGA}")
    assert doc.band_structures == [record(standin)]
    assert doc.band_gap == pytest.approx(told["gap"], abs=1e-3)
    shown = pccd("candidate", "show", candidate_id)
    assert "1.37 eV, indirect" in shown
    assert "asked for 1.50 eV" in shown

    found = record(standin)
    assert found.band_gap == pytest.approx(told["gap"], abs=1e-3)
    assert (found.is_metal, found.direct) == (False, False)
    assert (found.vbm_kpoint, found.cbm_kpoint) == ([0, 0, 0], told["cbm"])
    assert found.vbm < found.efermi < found.cbm
    assert found.kpath.startswith("Γ-")
    assert found.settings["runs"][2]["incar"] == {"ALGO": "All"}
    assert found.settings["hubbards"]["Mn"] == pytest.approx(3.9)
    assert found.settings["run_type"] == "GGA+U"
    # the magnetic cell, not the smaller one of the atoms alone
    assert sorted(site.specie.spin for site in found.structure) == [-5.0, 0.6, 0.6, 5.0]
    line = inputs(tmp_path, "bands-line")
    assert (line["ICHARG"], line["ENCUT"], line["LDAUU"]) == (11, 520, [3.9, 0])
    assert "LORBIT" not in line
    for distances, energies in zip(found.bands["distances"], found.bands["energies"], strict=True):
        assert {len(band) for channel in energies for band in channel} == {len(distances)}

    outputs = job_store(standin)
    outputs.connect()
    # everything, not only what a picture needs
    (task,) = outputs.query({"name": lost.name}, ["output"], load=True)
    bands = task["output"]["vasp_objects"]["bandstructure"]
    assert len(bands["kpoints"]) > 100
    assert len(bands["bands"]["1"]) > len(found.bands["energies"][0][0])


def test_a_meta_gga_is_self_consistent_along_the_path(standin, tmp_path, monkeypatch):
    monkeypatch.setenv("VASP_STANDIN_BANDS", json.dumps({"gap": 0.8}))
    campaign_id = submit(standin, rock_salt("Mg"), R2SCAN)
    run_worker(standin, campaign_id=campaign_id)
    assert launchpad.failures(standin, campaign_id) == []
    assert ledger(standin) == ["static", "line"]
    found = record(standin)
    assert found.band_gap == pytest.approx(0.8, abs=1e-3)
    assert (found.direct, found.vbm_kpoint, found.cbm_kpoint) == (True, [0, 0, 0], [0, 0, 0])
    assert found.settings["run_type"] == "r2SCAN"
    line = inputs(tmp_path, "bands-line")
    assert line["METAGGA"].upper() == "R2SCAN"
    assert line.get("ICHARG", 0) < 10
    assert line["ENCUT"] == 680


def test_a_density_that_was_cleared_is_computed_again(standin, tmp_path):
    inject(tmp_path, {"folder": "bands-line", "fault": "memory", "times": 1})
    campaign_id = submit(standin, rock_salt("Mg"), GGA)
    run_worker(standin, campaign_id=campaign_id)
    (density,) = (tmp_path / "data").rglob("*bands-static*/CHGCAR.gz")
    density.unlink()
    operations.restart(campaign_id, standin, 5)
    run_worker(standin, campaign_id=campaign_id)
    (lost,) = reruns.job_failures(standin, campaign_id=campaign_id)
    assert lost.error_class == "parse"
    assert "holds no CHGCAR" in lost.evidence
    operations.restart(campaign_id, standin, 5)
    run_worker(standin, campaign_id=campaign_id)
    assert ledger(standin) == ["static", "uniform", "line!", "static", "uniform", "line"]
    assert record(standin).is_metal is False


def test_bands_that_do_not_converge_are_a_failure(standin, tmp_path):
    inject(tmp_path, {"folder": "bands-static", "fault": "scf", "times": 50})
    campaign_id = submit(standin, rock_salt("Mg"), GGA)
    run_worker(standin, campaign_id=campaign_id)
    (lost,) = reruns.job_failures(standin, campaign_id=campaign_id)
    assert lost.error_class == "scf"
    assert mongo.database(standin)["results"].count_documents({}) == 0


MESH = RunBands(
    is_metal=False, efermi=1.0, vbm=0.5, cbm=2.0, vbm_kpoint=[0, 0, 0], cbm_kpoint=[0.5, 0, 0]
)
METAL = RunBands(is_metal=True, efermi=1.0)


def test_edges_are_the_outermost_of_all_runs():
    path = MESH.model_copy(
        update={"efermi": 9.0, "vbm": 0.3, "cbm": 1.6, "cbm_kpoint": [-1.0, 0, 0]}
    )
    found = band_gap([MESH, path])
    assert (found["vbm"], found["cbm"], found["band_gap"]) == (0.5, 1.6, 1.1)
    assert found["efermi"] == 1.0  # of the mesh
    assert found["direct"] is True  # equivalent points
    assert band_gap([MESH])["direct"] is False


@pytest.mark.parametrize("other", [METAL, MESH.model_copy(update={"vbm": 2.1, "cbm": 2.5})])
def test_one_run_that_finds_a_metal_is_believed(other):
    found = Bands(level=GGA, **band_gap([MESH, other]))
    assert (found.is_metal, found.band_gap, found.direct, found.vbm) == (True, 0.0, None, None)


def test_an_antiferromagnet_keeps_its_magnetic_cell():
    cell = two_units()
    assert len(magnetic_cell(cell, None)) == 2
    assert len(magnetic_cell(cell, "FM")) == 2
    assert [site.specie.spin for site in magnetic_cell(cell, "FM")] == [5.0, 0.6]
    antiferromagnetic = magnetic_cell(cell, "AFM")
    assert len(antiferromagnetic) == 4
    # its path is that of this cell: pymatgen knows spins of species, not site properties
    from pymatgen.symmetry.bandstructure import HighSymmKpath

    assert HighSymmKpath(antiferromagnetic).prim.matches(antiferromagnetic)
    cells = (cell, antiferromagnetic)
    keys = {engine_of(GGA).key(get_level(GGA), c, Task("bands")) for c in cells}
    assert len(keys) == 2


def test_paths_are_named_with_their_jumps():
    assert path_name([["Γ", "X"], ["X", "K"], ["U", "L"]]) == "Γ-X-K|U-L"


def test_the_standin_reads_lines_and_meshes(tmp_path):
    from vasp_files import read_kpoints

    lines = ["lines", "3", "Line_mode", "Reciprocal", "0 0 0 ! Γ", "0.5 0 0.5 ! X"]
    (tmp_path / "KPOINTS").write_text("\n".join(lines))
    found = read_kpoints(tmp_path, fixed=True)
    assert found.points.tolist() == [[0, 0, 0], [0.25, 0, 0.25], [0.5, 0, 0.5]]
    (tmp_path / "KPOINTS").write_text("mesh\n0\nGamma\n2 9 1\n")
    assert read_kpoints(tmp_path, fixed=True).points.shape == (8, 3)
    assert read_kpoints(tmp_path, fixed=False).points.shape == (1, 3)
