"""`pccd campaign` against bad input and a bad database: one sentence, an exit code, no traces."""

import json
from pathlib import Path

import pytest
import yaml
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri
from vasp_fixture import use_standin

from pccd_workflows.campaign import load_campaign
from pccd_workflows.cli import main
from pccd_workflows.core.resources import resource
from pccd_workflows.execution.queue import launch_lines, read_template
from pccd_workflows.settings import get_settings

FLOWS = resource("flows")
TEMPLATES = FLOWS.with_name("db_config")
MINIMAL = {
    "name": "cli",
    "generate": {"elements": ["Mg", "Mn", "O"], "samples": 4},
    "rungs": [{"level": "chgnet"}],
}


def write(tmp_path: Path, **changes) -> str:
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | changes))
    return str(path)


def pccd(capsys, *arguments: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def refused(capsys, code: int, *arguments: str) -> str:
    """Run a command that must fail with `code` and one sentence; return the sentence."""
    found, _, err = pccd(capsys, *arguments)
    assert found == code, err
    assert err.startswith("pccd: ")
    assert err.count("\n") == 1, f"more than one line: {err}"
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate": {"elements": ["Mg", "Qq"]}}, "'Qq' is not a chemical element"),
        ({"generate": {"elments": ["Mg"]}}, "did you mean 'elements'?"),
        ({"name": "../../etc"}, "name:"),
        ({"name": "$gt"}, "name:"),
        ({"rungs": [{"level": "chgnet", "keep": {"energy_above_hull": -1}}]}, "greater than"),
        ({"generate": {"elements": ["Mg"], "model": "no-such-model"}}, "no-such-model"),
        ({"generate": {"elements": ["Mg"], "model": "/nowhere"}}, "/nowhere"),
        ({"references": {"source": "file", "path": "/nowhere.jsonl"}}, "/nowhere.jsonl"),
    ],
)
def test_bad_campaigns_are_refused_before_anything_is_stored(
    capsys, tmp_path, settings, changes, message
):
    assert message in refused(capsys, 2, "campaign", "run", write(tmp_path, **changes))
    with MongoClient(settings.mongodb_uri.get_secret_value()) as client:
        assert settings.database not in client.list_database_names()


def test_too_many_elements_for_the_model_are_refused(capsys, tmp_path, settings):
    elements = ["Li", "Mg", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "O"]
    text = refused(
        capsys, 2, "campaign", "submit", write(tmp_path, generate={"elements": elements})
    )
    assert "at most" in text


def test_truncated_weights_are_refused(capsys, tmp_path, settings, monkeypatch):
    import shutil

    shutil.copytree(settings.model_dir / "pccd-default", tmp_path / "broken")
    weights = tmp_path / "broken" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    generate = {"elements": ["Mg", "O"], "model": str(tmp_path / "broken"), "samples": 1}
    text = refused(capsys, 2, "campaign", "submit", write(tmp_path, generate=generate))
    assert "weights" in text


def test_dry_run_prints_the_campaign_as_a_file_and_stores_nothing(capsys, tmp_path, settings):
    code, out, _ = pccd(capsys, "campaign", "run", write(tmp_path), "--dry-run")
    assert code == 0
    assert yaml.safe_load(out)["screen"]["min_distance"] == 0.7
    printed = tmp_path / "printed.yaml"
    printed.write_text(out)
    assert load_campaign(printed).campaign_id in out.splitlines()[0]
    assert load_campaign(printed).hash == load_campaign(write(tmp_path)).hash
    with MongoClient(settings.mongodb_uri.get_secret_value()) as client:
        assert settings.database not in client.list_database_names()


def use_database(monkeypatch, uri: str) -> None:
    monkeypatch.setenv("PCCD_MONGODB_URI", uri)
    monkeypatch.setenv("PCCD_DATABASE_TIMEOUT", "1")
    get_settings.cache_clear()


def test_a_database_that_is_down(capsys, tmp_path, monkeypatch):
    use_database(monkeypatch, "mongodb://someone:secret-word@127.0.0.1:9/")
    text = refused(capsys, 1, "campaign", "submit", write(tmp_path))
    assert "127.0.0.1:9" in text
    assert "secret-word" not in text


def test_a_wrong_password(capsys, tmp_path, monkeypatch, mongod_uri):
    host, port = parse_uri(mongod_uri)["nodelist"][0]
    use_database(monkeypatch, f"mongodb://pccd:wrong-word@{host}:{port}/?authSource=admin")
    text = refused(capsys, 1, "campaign", "list")
    assert "password" in text
    assert "wrong-word" not in text


def test_a_read_only_user(capsys, tmp_path, monkeypatch, mongod_uri):
    host, port = parse_uri(mongod_uri)["nodelist"][0]
    with MongoClient(mongod_uri) as client:
        role = {"role": "read", "db": "readers"}
        client["readers"].command("createUser", "reader", pwd="look", roles=[role])
    try:
        use_database(monkeypatch, f"mongodb://reader:look@{host}:{port}/?authSource=readers")
        monkeypatch.setenv("PCCD_DATABASE", "readers")
        get_settings.cache_clear()
        text = refused(capsys, 1, "campaign", "submit", write(tmp_path))
        assert "readWrite" in text
    finally:
        with MongoClient(mongod_uri) as client:
            client["readers"].command("dropUser", "reader")


def test_unknown_campaigns_are_named_with_the_known_ones(capsys, tmp_path, settings):
    assert "none was submitted yet" in refused(capsys, 2, "campaign", "status", "nothing")
    assert pccd(capsys, "campaign", "submit", write(tmp_path))[0] == 0
    assert "submitted: cli" in refused(capsys, 2, "campaign", "status", "nothing")
    assert "no campaign name" in refused(capsys, 2, "campaign", "status", "{$gt: 1}")


def test_submitting_twice_stores_once(capsys, tmp_path, settings):
    for _ in range(2):
        code, out, _ = pccd(capsys, "campaign", "submit", write(tmp_path))
        assert code == 0
        assert "Submitted cli-" in out
    _, out, _ = pccd(capsys, "campaign", "list", "--json")
    (row,) = json.loads(out)
    assert row["name"] == "cli"
    assert row["jobs"] == 4  # generate and screen, references, deduplicate, rung


def test_status_of_a_submitted_campaign(capsys, tmp_path, settings):
    pccd(capsys, "campaign", "submit", write(tmp_path))
    code, out, _ = pccd(capsys, "campaign", "status", "cli", "--json")
    assert code == 0
    status = json.loads(out)
    assert status["funnel"]["generated"] == 0
    assert status["jobs"]["READY"] == 1
    assert status["failures"] == []
    code, out, _ = pccd(capsys, "campaign", "status", "cli")
    assert "generated" in out
    assert "ready" in out


def test_submit_says_how_workers_come_and_what_none_of_them_runs(
    capsys, tmp_path, settings, monkeypatch
):
    use_standin(monkeypatch, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    rungs = [{"level": "chgnet"}, {"level": "vasp/mp-gga"}]
    file = write(tmp_path, rungs=rungs, phonons={"level": "vasp/mp-r2scan"})
    launchpad = tmp_path / ".fireworks" / "my_launchpad.yaml"

    def submit(*names: str) -> str:
        templates = [str(path) for name in names for path in ("--queue", TEMPLATES / name)]
        code, out, _ = pccd(capsys, "campaign", "submit", file, *templates)
        assert code == 0
        return out

    said = submit("slurm_gpu.yaml")
    fworker = TEMPLATES / "my_fworker_gpu.yaml"
    lines = launch_lines(read_template(TEMPLATES / "slurm_gpu.yaml"), launchpad, fworker)
    assert f"SLURM workers (gpu), now:\n  {lines.now}\n" in said
    assert f"in your crontab:\n  {lines.crontab}\n" in said
    assert f"qlaunch reads {launchpad}, which is not there" in said
    assert (
        "No template's workers take the category cpu (rung vasp/mp-gga, phonons vasp/mp-r2scan): "
        "add a --queue for it, or run `pccd worker --category cpu` somewhere." in said
    )
    assert "category gpu" not in said
    said = submit("slurm_cpu.yaml")
    assert "category gpu (generate, rung chgnet, phonons)" in said
    assert "category cpu" not in said
    both = submit("slurm_gpu.yaml", "slurm_cpu.yaml")
    assert (both.count("workers ("), both.count("*/10 * * * *")) == (2, 2)
    assert "No template's workers" not in both
    # one whose workers take everything serves both
    anything = (TEMPLATES / "slurm_cpu.yaml").read_text().replace("--category cpu", "")
    (tmp_path / "any.yaml").write_text(anything)
    said = submit(str(tmp_path / "any.yaml"))
    assert "SLURM workers (any), now:" in said
    assert "No template's workers" not in said
