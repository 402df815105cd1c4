"""A campaign with a potential and a VASP rung on a real Slurm, a third of the VASP jobs failing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from slurm_campaign import (
    assert_equal,
    campaign,
    environment_file,
    launch,
    ledger,
    pccd,
    prepare,
    template,
    wait_for_vasp,
)
from slurm_server import missing, slurm, wait_until_empty
from vasp_fixture import inject, standin_environment

from pccd_workflows.external import launchpad, mongo

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
CURES = {
    "crash": ["--from-contcar"],
    "memory": [],
    "scf": ["--set", "INCAR.ALGO=All"],
    "disk": [],
}


def test_failed_jobs_of_a_cluster_are_found_mended_and_leave_no_trace(
    settings, mongod_uri, tmp_path, capsys, free_tcp_port
):
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
        launch(tmp_path, templates["cpu"], server)
        wait_until_empty(server, 400)
        found = pccd(capsys, "job", "failures", "--campaign", whole.campaign_id)
        assert {g["error_class"]: g["jobs"] for g in found["groups"]} == EXPECTED
        first = ledger(settings, whole)
        lost = {whole.candidate_id(index) for index in range(4)}
        assert {key for key, row in first.items() if row["status"] == "failed"} == lost
        assert first[whole.candidate_id(4)]["status"] == "passed"
        for error_class, options in CURES.items():
            done = pccd(capsys, "job", "rerun", "--error-class", error_class, *options)
            assert len(done["rerun"]) == EXPECTED[error_class]
        launch(tmp_path, templates["cpu"], server)
        wait_until_empty(server, 400)
    try:
        assert launchpad.failures(settings, whole.campaign_id) == []
        assert set(launchpad.campaign_states(settings, whole.campaign_id)) == {"COMPLETED"}
        assert beside.wait(300) == 0
        expected = ledger(undisturbed, whole)
        assert {row["status"] for row in expected.values()} == {"passed"}
        assert_equal(ledger(settings, whole), expected)
        assert "Traceback" not in (tmp_path / "slurm" / "slurmctld.log").read_text()
    finally:
        mongo.client(undisturbed).drop_database(undisturbed.database)
