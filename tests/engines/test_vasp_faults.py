"""VASP's failures: rows of docs/vasp-faults.md repeated, and a cure that is applied."""

from pathlib import Path

import pytest
from test_vasp import rock_salt, submit
from vasp_fixture import inject, use_standin  # puts the stand-in's modules on the path

from fault_table import FAULTS, row, run_faults  # isort: skip

from pccd_workflows.execution import mongo, reruns
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.settings import get_settings

TABLE = Path(__file__).resolve().parents[2] / "docs" / "vasp-faults.md"
SOME = ("edddav", "disk", "segfault", "empty_contcar")


def documented() -> dict[str, str]:
    """Return the rows of the table by fault."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def test_the_table_names_every_fault():
    assert tuple(documented()) == FAULTS


@pytest.mark.slow
def test_faults_end_as_the_table_says(tmp_path, monkeypatch):
    use_standin(monkeypatch, tmp_path)
    results = run_faults(tmp_path / "runs", SOME)
    assert {fault: row(*pair) for fault, pair in results.items()} == {
        fault: documented()[fault] for fault in SOME
    }


def test_a_cure_reaches_vasp_and_the_record(settings, tmp_path, monkeypatch):
    """What `pccd job rerun --error-class scf --from-contcar --set INCAR.ALGO=All` does."""
    use_standin(monkeypatch, tmp_path)
    found = get_settings()
    inject(tmp_path, {"folder": "relax-1", "fault": "edddav", "times": 99})
    whole = submit(found, [rock_salt()])
    run_worker(found, campaign_id=whole.campaign_id)
    (failure,) = reruns.job_failures(found, error_class="scf")
    assert (failure.candidates, failure.attempts) == (["c-0"], 1)

    inject(tmp_path)
    outcome = reruns.rerun(found, [failure], from_contcar=True, incar={"ALGO": "All"})
    assert outcome.rerun == [failure.fw_id]
    run_worker(found, campaign_id=whole.campaign_id)
    database = mongo.database(found)
    relaxation = database["results"].find_one({"kind": "relaxation"})["result"]
    assert relaxation["verdict"] == "converged"
    first, *others = relaxation["settings"]["runs"]
    assert (first["continued"], first["incar"]) == (True, {"ALGO": "All"})
    assert [(run["continued"], run["incar"]) for run in others] == [(False, {})] * 2
    outputs = list(database["job_outputs"].find({"metadata.candidates": "c-0"}))
    assert {output["metadata"]["campaign_id"] for output in outputs} == {whole.campaign_id}
