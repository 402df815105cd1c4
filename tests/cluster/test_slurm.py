"""A campaign with a potential and a VASP rung on a real Slurm, a third of the VASP jobs failing.

`make test-cluster` prints when what happened, the table of failures and the ledgers side by side.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from slurm_campaign import (
    Log,
    assert_equal,
    campaign,
    comparison,
    crystals,
    environment_file,
    launch,
    ledger,
    pccd,
    pccd_json,
    prepare,
    template,
    wait_for_vasp,
)
from slurm_server import missing, slurm, wait_until_empty
from vasp_fixture import inject, standin_environment

from pccd_workflows.engines.levels import get_level
from pccd_workflows.execution import launchpad, mongo

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),  # two minutes of computing; a busy machine stretches it
    pytest.mark.skipif(bool(missing()), reason=f"no Slurm here: {missing()}"),
]
# relax 1 of two candidates, relax 2 of one and static of one; a fifth is mended by custodian
FAULTS = (
    {"folder": "relax-1.*-000000$", "fault": "segfault"},
    {"folder": "relax-1.*-000001$", "fault": "memory"},
    {"folder": "relax-2.*-000002$", "fault": "edddav", "times": 5},
    {"folder": "static.*-000003$", "fault": "disk"},
    {"folder": "relax-1.*-000004$", "fault": "eddrmm"},
)
EXPECTED = {"crash": 1, "memory": 1, "scf": 1, "disk": 1}
WAIT = 700.0
"""Seconds; two minutes suffice unless the machine is busy."""


def test_failed_jobs_of_a_cluster_are_found_mended_and_leave_no_trace(
    settings, mongod_uri, tmp_path, capsys, free_tcp_port, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "100")
    log = Log(capsys)
    whole = campaign(Path(__file__))
    environment = standin_environment(tmp_path)
    (tmp_path / "my_launchpad.yaml").write_text(
        yaml.safe_dump({"host": mongod_uri, "name": settings.database, "uri_mode": True})
    )

    undisturbed = settings.model_copy(update={"database": f"{settings.database}_undisturbed"})
    prepare(undisturbed, whole)
    quiet = {
        **environment,
        "VASP_STANDIN_FAULTS": "",
        "PCCD_DATABASE": undisturbed.database,
        "PCCD_DATA_DIR": str(tmp_path / "undisturbed"),
    }
    worker = [sys.executable, "-m", "pccd_workflows", "worker", "--campaign", whole.campaign_id]
    beside = subprocess.Popen(worker, env=os.environ | quiet, stdout=subprocess.DEVNULL)

    prepare(settings, whole)
    inject(tmp_path, *FAULTS)
    database = {name: os.environ[name] for name in ("PCCD_MONGODB_URI", "PCCD_DATABASE")}
    folders = {"PCCD_DATA_DIR": os.environ["PCCD_DATA_DIR"], "PCCD_CONFIG_FILE": os.devnull}
    env_file = environment_file(tmp_path, environment | database | folders)
    templates = {
        kind: template(f"slurm_{kind}.yaml", tmp_path, env_file) for kind in ("gpu", "cpu")
    }
    with slurm(tmp_path / "slurm", free_tcp_port) as server:
        launch(tmp_path, templates["gpu"], server)
        wait_for_vasp(settings)
        log.note("the potential's rung is done; a worker for VASP goes to the queue")
        launch(tmp_path, templates["cpu"], server)
        wait_until_empty(server, WAIT)
        struck = len(list((tmp_path / "faults.struck").glob("*.0")))
        runs = len(get_level(whole.rungs[-1].level).runs["relax"]) * len(crystals())
        assert 3 * struck >= runs
        log.note(f"the queue is empty; {struck} of {runs} VASP runs were struck")
        log.note(f"$ pccd job failures\n{pccd(capsys, 'job', 'failures')}")
        found = pccd_json(capsys, "job", "failures", "--campaign", whole.campaign_id)
        assert {g["error_class"]: g["jobs"] for g in found["groups"]} == EXPECTED
        first = ledger(settings, whole)
        lost = {whole.candidate_id(index) for index in range(4)}
        assert {key for key, row in first.items() if row["status"] == "failed"} == lost
        assert first[whole.candidate_id(4)]["status"] == "passed"
        rerun_by_class(found["groups"], capsys, log)
        launch(tmp_path, templates["cpu"], server)
        wait_until_empty(server, WAIT)
    try:
        assert launchpad.failures(settings, whole.campaign_id) == []
        assert set(launchpad.campaign_states(settings, whole.campaign_id)) == {"COMPLETED"}
        log.note(f"the queue is empty\n$ pccd job failures\n{pccd(capsys, 'job', 'failures')}")
        assert beside.wait(300) == 0
        expected = ledger(undisturbed, whole)
        assert {row["status"] for row in expected.values()} == {"passed"}
        mended = ledger(settings, whole)
        assert_equal(mended, expected)
        log.note(f"the ledgers are equal\n{comparison(first, mended, expected)}")
        assert "Traceback" not in (tmp_path / "slurm" / "slurmctld.log").read_text()
    finally:
        mongo.client(undisturbed).drop_database(undisturbed.database)


def rerun_by_class(groups: list[dict], capsys: pytest.CaptureFixture[str], log: Log) -> None:
    """Do what the table of failures suggests."""
    for group in groups:
        command = ("job", "rerun", "--error-class", group["error_class"])
        text = pccd(capsys, *command, *group["options"].split())
        assert text.startswith(f"{group['jobs']} of {group['jobs']} failed jobs are ready")
        log.note(f"$ pccd {' '.join(command)}{group['options']}\n{text}")
