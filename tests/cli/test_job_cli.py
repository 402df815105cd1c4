"""`pccd job`: failures as a table, rerun by class, undo, and 10,000 jobs within a second."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import launchpad_jobs as jobs
import pytest
from jobflow import Flow, JobConfig, OnMissing

from pccd_workflows.cli import main
from pccd_workflows.core.storage import CrystalRef
from pccd_workflows.engines.engine import Task
from pccd_workflows.execution import launchpad, mongo, reruns
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.jobs.compute import compute_jobs

CAMPAIGN = "table-0123456789"


def pccd(capsys, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return out


def table(capsys, *arguments: str) -> dict:
    return json.loads(pccd(capsys, "job", *arguments, "--json"))


def submit_and_run(settings, *, marker=None) -> list[int]:
    """Run a flow in which one of two candidates fails and a third job gathers them."""
    lost, kept = jobs.broken(marker), jobs.add(1, 2)
    lost.update_metadata({"candidates": ["c-1"]})
    kept.update_metadata({"candidates": ["c-2"]})
    gather = jobs.total_of_what_is_there([lost.output, kept.output])
    gather.update_config(JobConfig(on_missing_references=OnMissing.NONE))
    flow = Flow([lost, kept, gather])
    flow.update_metadata({"campaign_id": CAMPAIGN})
    ids = launchpad.submit(flow, settings)
    run_worker(settings)
    return ids


def snapshot(settings) -> list[dict]:
    database = mongo.database(settings)
    fields = {"_id": 0, "fw_id": 1, "state": 1, "launches": 1, "archived_launches": 1}
    rows = list(database["fireworks"].find({}, fields).sort("fw_id", 1))
    return [*rows, *database["workflows"].find({}, {"_id": 0, "fw_states": 1, "state": 1})]


def test_rerun_and_undo(capsys, settings):
    submit_and_run(settings)
    found = table(capsys, "failures")
    (failure,) = found["failures"]
    assert failure["error_class"] == "python"
    assert failure["evidence"] == "ValueError: no such crystal"
    assert failure["candidates"] == ["c-1"]
    assert found["groups"][0]["jobs"] == 1
    assert "pccd job rerun --error-class python" in pccd(capsys, "job", "failures")
    assert table(capsys, "failures", "--candidate", "c-2")["failures"] == []
    before = snapshot(settings)
    assert table(capsys, "rerun", "--error-class", "python", "--dry-run")["rerun"] == [
        failure["fw_id"]
    ]
    assert snapshot(settings) == before
    assert table(capsys, "rerun", "--error-class", "python")["rerun"] == [failure["fw_id"]]
    states = launchpad.campaign_states(settings, CAMPAIGN)
    assert states == {"COMPLETED": 1, "READY": 1, "WAITING": 1}
    assert table(capsys, "rerun", "--error-class", "python")["rerun"] == []
    restored = table(capsys, "undo", str(failure["fw_id"]))["restored"]
    assert len(restored) == 2
    assert snapshot(settings) == before
    assert table(capsys, "failures")["failures"] == [failure]


def test_evidence_is_shown_as_it_is(capsys, monkeypatch):
    """The file that it comes from stands in brackets, which are no markup here."""
    unknown = dict.fromkeys(("campaign_id", "folder", "worker"))
    failure = reruns.Failure(
        **unknown,
        fw_id=1,
        name="relax 1",
        candidates=[],
        error_class="disk",
        evidence="[std_err.txt] forrtl: No space left on device",
        cure="",
        attempts=1,
    )
    monkeypatch.setattr(reruns, "job_failures", lambda *_, **__: [failure])
    monkeypatch.setenv("COLUMNS", "160")
    assert failure.evidence in pccd(capsys, "job", "failures")


def test_a_rerun_is_done_once_and_not_for_ever(capsys, settings):
    submit_and_run(settings)
    (failure,) = reruns.job_failures(settings)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: reruns.rerun(settings, [failure]), range(4)))
    assert sum(len(outcome.rerun) for outcome in outcomes) == 1
    run_worker(settings)
    (again,) = reruns.job_failures(settings)
    assert again.attempts == 2
    outcome = reruns.rerun(settings, [again], max_attempts=2)
    assert outcome.refused == {again.fw_id: "it failed 2 times already"}
    with pytest.raises(SystemExit) as ended:
        main(["job", "undo", str(again.fw_id)])
    assert ended.value.code == 2
    assert "has started already" in capsys.readouterr().err


def test_incar_tags_reach_vasp_runs_only(capsys, settings):
    submit_and_run(settings)
    (failure,) = reruns.job_failures(settings)
    refused = reruns.rerun(settings, [failure], incar={"ALGO": "All"}).refused
    assert "no VASP run" in refused[failure.fw_id]
    (run,) = compute_jobs([CrystalRef("c-3", "no crystal")], "vasp/mp-gga", Task("relax"))
    run.update_metadata({"campaign_id": CAMPAIGN, "candidates": ["c-3"]})
    launchpad.submit(run, settings)
    run_worker(settings)
    assert table(capsys, "rerun", "--candidate", "c-3", "--set", "INCAR.ALGO=All")["rerun"] == [4]
    kwargs = mongo.database(settings)["fireworks"].find_one({"fw_id": 4})["spec"]["_tasks"][0][
        "job"
    ]
    assert kwargs["function_kwargs"]["restart"] == {"from_contcar": False, "incar": {"ALGO": "All"}}
    table(capsys, "undo", "4")
    kwargs = mongo.database(settings)["fireworks"].find_one({"fw_id": 4})["spec"]["_tasks"][0][
        "job"
    ]
    assert "restart" not in kwargs["function_kwargs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rerun"], "Say which"),
        (["rerun", "--error-class", "wal"], "use one of"),
        (["rerun", "--error-class", "scf", "--set", "ALGO=All"], "INCAR.ALGO=All"),
        (["list", "--state", "lost"], "use one of"),
        (["failures", "--candidate", "$gt"], "no campaign name"),
        (["undo", "77"], "nothing to undo"),
    ],
)
def test_bad_requests_are_refused(capsys, settings, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(["job", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_ten_thousand_jobs_are_shown_within_a_second(settings):
    opened = launchpad.launchpad(settings)
    reruns.ensure_indexes(opened)
    numbers = range(1, 10_001)
    spec = {"campaign_id": CAMPAIGN, "_tasks": [{"job": {"function_args": ["x" * 2000]}}]}
    opened.db["fireworks"].insert_many(
        {
            "fw_id": n,
            "name": f"relax 1 vasp/mp-gga {n}",
            "state": "FIZZLED" if n % 3 == 0 else "COMPLETED",
            "launches": [n],
            "archived_launches": [],
            "spec": spec | {"candidates": [f"c-{n}"]},
        }
        for n in numbers
    )
    opened.db["launches"].insert_many(
        {
            "launch_id": n,
            "fw_id": n,
            "state": "FIZZLED",
            "launch_dir": f"runs/{n}",
            "fworker": {"name": "w"},
            "action": {"stored_data": {"_exception": {"_stacktrace": "y" * 4000}}},
            "failure": {"error_class": ["scf", "walltime"][n % 2], "evidence": "edddav"},
        }
        for n in numbers
    )
    began = time.process_time()
    found = reruns.job_failures(settings, campaign_id=CAMPAIGN)
    assert len(found) == 3333
    assert time.process_time() - began < 1.0
    assert len(reruns.job_failures(settings, candidate="c-3")) == 1
