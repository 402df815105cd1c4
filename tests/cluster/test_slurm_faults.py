"""Every way a cluster loses work, one after the other, on a real Slurm: nothing is lost.

`make test-cluster-faults` (by hand: five to ten minutes). Seven disturbances strike a
campaign while VASP runs; in the end its ledger is that of an undisturbed one.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from slurm_campaign import (
    DB_CONFIG,
    assert_equal,
    campaign,
    environment_file,
    launch,
    ledger,
    prepare,
    template,
)
from slurm_server import Slurm, missing, slurm, wait_for, wait_until_empty
from vasp_fixture import standin_environment

from pccd_workflows.cli import main
from pccd_workflows.execution import launchpad, mongo, mongod
from pccd_workflows.execution.queue import launch_lines, read_template
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.settings import Settings, get_settings

pytestmark = [
    pytest.mark.cluster_faults,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing()), reason=f"no Slurm here: {missing()}"),
]
WAIT = 300.0
"""Seconds; a busy machine takes long to start a worker."""


@pytest.fixture
def own_server(tmp_path, free_tcp_port, monkeypatch) -> Iterator[Settings]:
    """Settings of an embedded server that may be killed."""
    monkeypatch.setenv("PCCD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PCCD_MONGOD_PORT", str(free_tcp_port))
    for name, value in standin_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    own = get_settings()
    mongod.start(own)
    yield own
    mongod.stop(own)


class Disturbed:
    """The campaign under attack, as seen from outside."""

    def __init__(self, settings: Settings, campaign_id: str) -> None:
        self.settings = settings
        self.campaign_id = campaign_id
        self.began = time.monotonic()

    def note(self, text: str) -> None:
        """Say what happened when, for the log."""
        states = launchpad.campaign_states(self.settings, self.campaign_id)
        sys.stdout.write(f"{time.monotonic() - self.began:6.0f} s  {text}  {states}\n")
        sys.stdout.flush()

    def running(self) -> dict | None:
        """Return the launch of a VASP run that is in the middle of it."""
        database = mongo.database(self.settings)
        query = {"state": "RUNNING", "spec._category": "cpu"}
        for row in database["fireworks"].find(query, {"launches": 1}):
            launch_id = {"launch_id": row["launches"][-1]}
            fields = dict.fromkeys(("launch_id", "launch_dir", "fworker"), 1)
            found = database["launches"].find_one(launch_id, fields)
            steps = Path(found["launch_dir"]) / "OSZICAR"
            if steps.exists() and "F=" in steps.read_text():
                return dict(found)
        return None

    def wait_for_vasp(self) -> dict:
        """Wait until VASP is in the middle of a run; return its launch."""
        wait_for(lambda: self.failed() or self.running(), "VASP did not run", WAIT)
        assert not self.failed(), launchpad.failures(self.settings, self.campaign_id)
        found = self.running()
        return found if found is not None else self.wait_for_vasp()

    def states(self) -> dict[str, int]:
        return launchpad.campaign_states(self.settings, self.campaign_id)

    def completed(self) -> int:
        return self.states().get("COMPLETED", 0)

    def failed(self) -> int:
        return self.states().get("FIZZLED", 0)

    def vasp_processes(self) -> list[psutil.Process]:
        """Return this campaign's VASP runs; other tests may run theirs on this machine."""
        runs = str(self.settings.data_dir.expanduser().absolute())
        found = psutil.process_iter(["cmdline", "cwd"])
        here = [p for p in found if (p.info["cwd"] or "").startswith(runs)]
        return [p for p in here if "standin_vasp.py" in " ".join(p.info["cmdline"] or [])]


def pid_of(launch_document: dict) -> int:
    """Return the process id in a worker's name, host:pid:start."""
    return int(launch_document["fworker"]["name"].split(":")[1])


def run_here(**environment: str) -> None:
    """Run a worker in a process of its own until nothing is left."""
    command = [sys.executable, "-m", "pccd_workflows", "worker"]
    subprocess.run(command, env=os.environ | environment, check=True, timeout=1200)


def resume(capsys: pytest.CaptureFixture[str], campaign_id: str, *options: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["campaign", "resume", campaign_id, "--workers", "1", *options])
    assert not ended.value.code
    return capsys.readouterr().out


def test_nothing_is_lost_whatever_dies(own_server, tmp_path, monkeypatch, capsys, free_tcp_port):
    whole = campaign(Path(__file__))
    undisturbed = own_server.model_copy(update={"database": "undisturbed"})
    prepare(undisturbed, whole)
    run_here(PCCD_DATABASE="undisturbed", VASP_STANDIN_SECONDS="0")
    expected = ledger(undisturbed, whole)
    assert {row["status"] for row in expected.values()} == {"passed"}

    prepare(own_server, whole)
    seen = Disturbed(own_server, whole.campaign_id)
    run_worker(own_server, category="gpu")
    assert seen.states()["READY"] == 5
    slow = {"VASP_STANDIN_SECONDS": "2", "PCCD_CONFIG_FILE": os.devnull}
    names = ("PCCD_DATA_DIR", "PCCD_MONGOD_PORT")
    environment = standin_environment(tmp_path) | {name: os.environ[name] for name in names} | slow
    env_file = environment_file(tmp_path, environment)
    uri = mongod.running_uri(own_server)
    pad = tmp_path / "my_launchpad.yaml"
    pad.write_text(yaml.safe_dump({"host": uri, "name": own_server.database, "uri_mode": True}))
    cpu = template("slurm_cpu.yaml", tmp_path, env_file)
    with slurm(tmp_path / "slurm", free_tcp_port + 7) as server, capsys.disabled():
        kill_qlaunch(server, cpu, pad, tmp_path, seen)
        kill_slurmd(server, seen)
        restart_mongod(own_server, server, seen)
        drain_and_cancel(server, cpu, tmp_path, seen)
        kill_rocket(server, seen)
        (tmp_path / "long").mkdir()
        long = environment_file(tmp_path / "long", environment | {"VASP_STANDIN_SECONDS": "600"})
        ending = template("slurm_cpu.yaml", tmp_path, long, signal="B:TERM@60")
        reach_walltime(server, ending, tmp_path, seen)
        lose_host(seen, environment)
    out = resume(capsys, whole.campaign_id)
    with capsys.disabled():
        seen.note("campaign resume: " + re.sub(r"\n.*", "", out, flags=re.DOTALL))
    assert set(seen.states()) == {"COMPLETED"}
    assert_equal(ledger(own_server, whole), expected)
    deaths = mongo.database(own_server)["launches"].count_documents({"released": "died"})
    stops = mongo.database(own_server)["launches"].count_documents({"released": "stopped"})
    with capsys.disabled():
        seen.note(f"{deaths} runs of dead workers, {stops} of stopped ones; the ledgers are equal")


def kill_qlaunch(server: Slurm, cpu: Path, pad: Path, folder: Path, seen: Disturbed) -> None:
    """The line that `pccd campaign submit` prints, its qlaunch killed after the first worker."""
    fworker = DB_CONFIG / "my_fworker_cpu.yaml"
    line = launch_lines(read_template(cpu), pad, fworker).now
    environment = server.environment | {"HOME": str(folder)}
    shell = subprocess.Popen(["/bin/sh", "-c", line], env=environment)
    wait_for(server.jobs, "qlaunch submitted nothing", WAIT)
    killed = psutil.Process(shell.pid).children(recursive=True)
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=30)
    shell.wait(30)
    seen.note("qlaunch killed (-9) after it had submitted a worker")
    # the lock died with it; had it not, flock would end with 1
    lock = ["/usr/bin/flock", "-n", str(folder / "pccd-queue" / "slurm_cpu.lock"), "true"]
    wait_for(lambda: not subprocess.call(lock), "qlaunch's lock outlived it")
    again = line.replace("--timeout 60", "--timeout 1")
    subprocess.run(["/bin/sh", "-c", again], env=environment, check=True, timeout=WAIT)
    seen.wait_for_vasp()
    first, *others = server.jobs()
    for job in others:
        server.ask("scancel", job)
    # before slurmd is killed: a job that ends without it stays in the queue
    wait_for(lambda: list(server.jobs()) == [first], "cancelled workers stay in the queue", WAIT)


def kill_slurmd(server: Slurm, seen: Disturbed) -> None:
    """VASP goes on without the node's daemon, which finds it again."""
    before = seen.wait_for_vasp()
    server.kill("slurmd")
    time.sleep(5)
    assert psutil.pid_exists(pid_of(before))
    server.start("slurmd", "-N", "localhost")
    done = seen.completed()
    wait_for(lambda: seen.completed() > done, "nothing was completed without slurmd", WAIT)
    assert "RUNNING" in server.jobs().values()
    seen.note("slurmd killed (-9) and started again")


def restart_mongod(settings: Settings, server: Slurm, seen: Disturbed) -> None:
    """The run that goes on meanwhile is stored when the database is back."""
    before = seen.wait_for_vasp()
    os.kill(mongod.status(settings).pid, signal.SIGKILL)
    time.sleep(20)
    mongod.start(settings)
    done = seen.completed()
    wait_for(lambda: seen.completed() > done, "nothing was completed after the outage", WAIT)
    assert psutil.pid_exists(pid_of(before))
    seen.note("mongod killed (-9), away for 20 s")


def drain_and_cancel(server: Slurm, cpu: Path, folder: Path, seen: Disturbed) -> None:
    """A drained node ends what it runs and starts nothing; a cancelled worker puts its job back."""
    seen.wait_for_vasp()
    server.ask("scontrol", "update", "nodename=localhost", "state=drain", "reason=test")
    (job,) = server.jobs()
    server.ask("scancel", job)
    wait_until_empty(server, WAIT)
    wait_for(lambda: not seen.vasp_processes(), "VASP outlived its worker")
    assert "RUNNING" not in seen.states()
    seen.note("node drained, worker cancelled: its job is ready again")
    launch(folder, cpu, server)
    time.sleep(5)
    assert set(server.jobs().values()) == {"PENDING"}
    assert "drain" in server.node_state()
    server.ask("scontrol", "update", "nodename=localhost", "state=resume")
    seen.wait_for_vasp()
    seen.note("node resumed, the waiting worker runs")


def kill_rocket(server: Slurm, seen: Disturbed) -> None:
    """The worker dies, VASP with it; the job waits for whoever looks next."""
    os.kill(pid_of(seen.wait_for_vasp()), signal.SIGKILL)
    wait_for(lambda: not seen.vasp_processes(), "VASP outlived its worker")
    wait_until_empty(server, WAIT)
    assert seen.states()["RUNNING"] == 1
    assert len(launchpad.release_dead_runs(seen.settings)) == 1
    seen.note("worker killed (-9), VASP died with it, its job is ready again")


def reach_walltime(server: Slurm, ending: Path, folder: Path, seen: Disturbed) -> None:
    """Slurm's signal a minute before the end makes the worker put its job back."""
    began = time.monotonic()
    launch(folder, ending, server)
    before = seen.wait_for_vasp()
    (job,) = server.jobs()
    minutes = 2 + int((time.monotonic() - began) / 60)  # the walltime comes near in mid-run
    server.ask("scontrol", "update", f"jobid={job}", f"timelimit={minutes}")
    wait_until_empty(server, WAIT)
    wait_for(lambda: not seen.vasp_processes(), "VASP outlived its worker")
    assert launchpad.release_dead_runs(seen.settings) == []  # the worker had done so itself
    assert "RUNNING" not in seen.states()
    stopped = {"launch_id": before["launch_id"], "released": "stopped"}
    assert mongo.database(seen.settings)["launches"].count_documents(stopped) == 1
    seen.note("walltime reached: the worker put its job back before it ended")


def lose_host(seen: Disturbed, environment: dict[str, str]) -> None:
    """A worker on a host of another name is lost, as far as anybody here can tell."""
    program = f"hostname node7 && exec {sys.executable} -m pccd_workflows worker"
    command = ["unshare", "--uts", "sh", "-c", program]
    with subprocess.Popen(command, env=os.environ | environment) as far:
        launch_document = seen.wait_for_vasp()
        far.kill()
    assert launch_document["fworker"]["name"].startswith("node7:")
    assert launchpad.release_dead_runs(seen.settings) == []  # it may be alive
    run_out = [{"$set": {"lease": {"$subtract": ["$$NOW", 5000]}}}]
    mongo.database(seen.settings)["launches"].update_one({"_id": launch_document["_id"]}, run_out)
    seen.note("host node7 lost in the middle of a run; no sign of life for 15 minutes")
