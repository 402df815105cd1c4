"""Queue templates: the shipped ones make scripts with a walltime; bad ones are refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.execution.queue import launch_lines, read_template

DB_CONFIG = resource("db_config")
DIRECTIVES = {
    "slurm_cpu": ["#SBATCH --time=24:00:00", "#SBATCH --ntasks=32", "--category cpu"],
    "slurm_gpu": ["#SBATCH --time=04:00:00", "#SBATCH --gres=gpu:1", "--category gpu"],
    "pbs_cpu": ["#PBS -l walltime=24:00:00", "#PBS -l nodes=1:ppn=32", "--category cpu"],
    "sge_cpu": ["#$ -l h_rt=24:00:00", "#$ -pe mpi 32", "--category cpu"],
}


@pytest.mark.parametrize("name", DIRECTIVES)
def test_a_shipped_template_makes_a_script(name, tmp_path):
    path = DB_CONFIG / f"{name}.yaml"
    template = read_template(path)
    assert template.category == name.partition("_")[2]
    script = CommonAdapter.from_dict(yaml.safe_load(path.read_text())).get_script_str(tmp_path)
    for directive in DIRECTIVES[name]:
        assert directive in script
    lines = script.splitlines()
    source = next(i for i, line in enumerate(lines) if "source" in line)
    worker = next(i for i, line in enumerate(lines) if "pccd worker" in line)
    assert source < worker
    assert "mongodb://" not in script


def test_the_worker_starts_no_job_that_the_walltime_would_cut():
    for path in DB_CONFIG.glob("slurm_*.yaml"):
        data = yaml.safe_load(path.read_text())
        hours = int(data["walltime"].split(":")[0])
        minutes = int(data["rocket_launch"].split("--minutes")[1].split()[0])
        assert 60 * (hours - 2) < minutes <= 60 * hours - 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"walltime": None}, "no walltime"),
        ({"rocket_launch": "rlaunch rapidfire"}, "must start `pccd worker`"),
        ({"_fw_q_type": None}, "_fw_q_type"),
    ],
)
def test_a_bad_template_is_refused(tmp_path, change, message):
    data = yaml.safe_load((DB_CONFIG / "slurm_cpu.yaml").read_text()) | change
    path = tmp_path / "queue.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=message):
        read_template(path)


def test_files_that_are_no_templates_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no queue template"):
        read_template(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(InputError, match="is not valid YAML"):
        read_template(broken)


def test_the_printed_lines_work_in_cron(monkeypatch, tmp_path):
    """They are run by /bin/sh, which knows nothing but HOME; flock and mkdir are the system's."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    (tmp_path / "my queue.yaml").write_text((DB_CONFIG / "slurm_cpu.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    template = read_template(Path("my queue.yaml"))
    pad, worker = tmp_path / "pad.yaml", tmp_path / "worker.yaml"
    lines = launch_lines(template, pad, worker)
    assert lines.crontab == f"*/10 * * * * {lines.now.strip('()')}"
    qlaunch = tmp_path / "qlaunch"
    qlaunch.write_text('#!/bin/sh\necho "$PATH"; echo "$@"\n')
    qlaunch.chmod(0o755)
    line = lines.now.replace(str(Path(sys.executable).with_name("qlaunch")), str(qlaunch))
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-c", line], env=environment, check=True, cwd="/")
    path, words = (tmp_path / "pccd-queue" / "my queue.log").read_text().splitlines()
    assert path.startswith(f"{program.parent}:")
    files = f"-l {pad} -w {worker} -q {tmp_path / 'my queue.yaml'}"
    assert words == f"{files} rapidfire -m 20 --timeout 60"
