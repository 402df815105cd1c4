"""`pccd doctor`: what it says of machines that lack something."""

import json
import re
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from pccd_workflows.cli import doctor
from pccd_workflows.cli.doctor import Check, app
from pccd_workflows.execution import mongod
from pccd_workflows.settings import Settings

SEVENN = Check("potential sevenn", True, "0.13", needed=True)
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def bare(monkeypatch) -> Settings:
    """Settings on a machine without key, VASP, POTCARs and Slurm."""
    for name in ("MP_API_KEY", "PMG_MAPI_KEY", "PCCD_VASP_COMMAND", "PMG_VASP_PSP_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "_pymatgen_setting", lambda _: None)
    return Settings()


def executable(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_whole_examination(bare, settings, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", KEY)
    # its import takes as long as all the rest
    monkeypatch.setattr(doctor, "check_sevenn", lambda _: SEVENN)
    result = CliRunner().invoke(app, ["--json"])
    told = json.loads(result.output)
    checks = {row["name"]: row for row in told["checks"]}
    assert checks["Python"]["ok"]
    assert "answers; MongoDB " in checks["database"]["found"]
    assert checks["potential chgnet"]["ok"]
    assert checks["Materials Project key"] == {
        "name": "Materials Project key",
        "ok": True,
        "found": "in MP_API_KEY",
        "cost": "",
        "needed": False,
    }
    needed = {name for name, row in checks.items() if row["needed"]}
    assert needed == {
        *("Python", "data folder", "database", "FireWorks"),
        *("shipped files", "model", "potential chgnet", "potential sevenn"),
    }
    assert told["ok"] == all(checks[name]["ok"] for name in needed)
    assert result.exit_code == (0 if told["ok"] else 1)
    secret = settings.mongodb_uri.get_secret_value().split(":")[2].partition("@")[0]
    assert secret not in result.output
    assert KEY not in result.output


@pytest.mark.parametrize(("needed", "code"), [(True, 1), (False, 0)])
def test_only_what_is_needed_fails(monkeypatch, needed, code):
    row = Check("thing", False, "is not here", "it costs you dearly", needed=needed)
    monkeypatch.setattr(doctor, "examine", lambda _: [row])
    result = CliRunner().invoke(app, [])
    assert result.exit_code == code
    assert ("MISSING thing: is not here" in result.output) is needed
    assert "it costs you dearly" in result.output


def test_a_bare_machine_is_told_the_cost_of_each_thing(bare, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for check in (doctor.check_mp_key, doctor.check_vasp, doctor.check_potcars, doctor.check_slurm):
        row = check(bare)
        assert not row.ok
        assert not row.needed
        assert len(row.cost) > 40


def test_threads(bare, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor.check_threads(bare).ok
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "80 times slower" in doctor.check_threads(bare).cost


def test_the_database_is_missing(bare, tmp_path, monkeypatch, free_tcp_port):
    here = bare.model_copy(update={"data_dir": tmp_path})
    assert "started when needed" in doctor.check_database(here).found
    broken = here.model_copy(update={"mongod": tmp_path / "nothing"})
    assert "is not an executable file" in doctor.check_database(broken).found
    uri = SecretStr(f"mongodb://me:s3cret@127.0.0.1:{free_tcp_port}/")
    row = doctor.check_database(
        here.model_copy(update={"mongodb_uri": uri, "database_timeout": 0.3})
    )
    assert not row.ok
    assert "does not answer" in row.found
    assert "s3cret" not in row.found


def test_the_data_folder(bare, tmp_path, monkeypatch):
    assert doctor.check_folder(bare.model_copy(update={"data_dir": tmp_path / "new" / "x"})).ok
    (tmp_path / "file").touch()
    row = doctor.check_folder(bare.model_copy(update={"data_dir": tmp_path / "file"}))
    assert "cannot be written" in row.found
    monkeypatch.setattr(doctor, "FREE_BYTES", shutil.disk_usage(tmp_path).total)
    row = doctor.check_folder(bare.model_copy(update={"data_dir": tmp_path}))
    assert not row.ok
    assert "PCCD_DATA_DIR" in row.cost


def test_the_model(bare, tmp_path):
    row = doctor.check_model(bare.model_copy(update={"model_dir": tmp_path}))
    assert not row.ok
    assert row.needed
    source = bare.model_dir / doctor.DEFAULT_MODEL
    if not (source / "weights.safetensors").is_file():
        pytest.skip("model/pccd-default is not trained yet")
    assert doctor.check_model(bare).ok
    copy = tmp_path / doctor.DEFAULT_MODEL
    shutil.copytree(source, copy)
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    row = doctor.check_model(bare.model_copy(update={"model_dir": tmp_path}))
    assert "truncated or changed" in row.found


def test_a_potential_that_does_not_import(monkeypatch):
    row = doctor._potential("chgnet", "chgnet.no_such_module")
    assert not row.ok
    assert "ModuleNotFoundError" in row.found
    assert "pip install 'chgnet'" in row.cost


def test_the_mp_key(bare, monkeypatch):
    monkeypatch.setattr(doctor, "_pymatgen_setting", lambda _: KEY)
    assert doctor.check_mp_key(bare).found == "in pymatgen's settings"
    monkeypatch.setenv("MP_API_KEY", "too-short-secret")
    row = doctor.check_mp_key(bare)
    assert not row.ok
    assert "16 characters instead of 32" in row.found
    assert "too-short-secret" not in row.found + row.cost


def test_vasp(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    there = bare.model_copy(update={"vasp_command": "srun -n 4 vasp_std"})
    assert "srun is not on PATH" in doctor.check_vasp(there).found
    executable(tmp_path, "srun")
    assert "vasp_std is not on PATH" in doctor.check_vasp(there).found
    executable(tmp_path, "vasp_std")
    assert doctor.check_vasp(there).ok
    broken = bare.model_copy(update={"vasp_command": "'unbalanced"})
    assert "is not on PATH" in doctor.check_vasp(broken).found


def test_gpaw(bare, monkeypatch):
    from importlib import metadata

    monkeypatch.setattr(metadata, "version", lambda _: "26.7.0")
    assert doctor.check_gpaw(bare).found == "26.7.0"

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert "make gpaw" in doctor.check_gpaw(bare).cost


def test_potcars(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path))
    assert not doctor.check_potcars(bare).ok
    (tmp_path / "POT_GGA_PAW_PBE" / "Mg").mkdir(parents=True)
    row = doctor.check_potcars(bare)
    assert row.ok
    assert row.found.startswith("1 potentials in")


def test_slurm(bare, tmp_path, monkeypatch):
    executable(tmp_path, "sbatch")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_slurm(bare).ok


def test_pymatgen_settings_are_read():
    assert doctor._pymatgen_setting("NO_SUCH_SETTING") is None


def test_a_server_that_an_earlier_version_started_is_named(
    bare, tmp_path, monkeypatch, free_tcp_port
):
    own = bare.model_copy(update={"data_dir": tmp_path / "own", "mongod_port": free_tcp_port})
    options = mongod.NO_COMPRESSION
    monkeypatch.setattr(mongod, "NO_COMPRESSION", ("--networkMessageCompressors", "zlib"))
    mongod.start(own)
    monkeypatch.setattr(mongod, "NO_COMPRESSION", options)
    try:
        row = doctor.check_database(own)
        assert (row.ok, row.needed) == (False, False)
        assert "compression of messages is on" in row.found
        assert "CVE-2025-14847" in row.cost
        mongod.stop(own)
        mongod.start(own)
        row = doctor.check_database(own)
        assert row.ok
        assert re.search(r"MongoDB \d+\.\d+\.\d+, no compression of messages", row.found)
    finally:
        mongod.stop(own)
