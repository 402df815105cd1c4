"""VASP ends with its worker, however that dies; what it says and how it ends is passed on."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from test_vasp import rock_salt, submit
from vasp_fixture import inject, standin_environment

from pccd_workflows.core.bound_process import bound_command
from pccd_workflows.execution import launchpad

# says who it is, starts a rank of its own, and does not listen to SIGTERM if it is told so
PROGRAM = """
import os, signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
rank = subprocess.Popen(["sleep", "60"])
print(os.getpid(), rank.pid, flush=True)
time.sleep(60)
"""


def wait_until(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 11)", 128 + signal.SIGSEGV)],
)
def test_output_and_status_are_the_programs_own(code, status):
    words = shlex.split(
        bound_command(shlex.join([sys.executable, "-c", f"print('out', flush=True); {code}"]))
    )
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, "out\n")
    said = "The program was ended by SIGSEGV\n" if status > 128 else ""
    assert ended.stderr == said


@pytest.mark.parametrize("deaf", [False, True])
def test_a_program_and_its_ranks_end_with_a_killed_parent(tmp_path, monkeypatch, deaf):
    program = [sys.executable, "-c", PROGRAM, *(["deaf"] if deaf else [])]
    # a parent that is killed; the leash starts in a session of its own, as custodian has it
    out = tmp_path / "pids"
    parent = (
        "import shlex, subprocess, sys, time\n"
        "from pccd_workflows.core import bound_process as leash\n"
        f"words = shlex.split(leash.bound_command({shlex.join(program)!r}))\n"
        f"subprocess.Popen(words, stdout=open({str(out)!r}, 'w'), start_new_session=True)\n"
        "time.sleep(60)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", parent])
    wait_until(lambda: out.exists() and out.read_text().endswith("\n"))
    pids = [int(word) for word in out.read_text().split()]
    assert not any(map(gone, pids))
    killed.kill()
    killed.wait()
    wait_until(lambda: all(map(gone, pids)), 30)


def test_a_leash_that_is_killed_takes_the_program_along(tmp_path):
    words = shlex.split(bound_command(shlex.join([sys.executable, "-c", PROGRAM])))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as leash:
        program, rank = map(int, leash.stdout.readline().split())
        leash.kill()
    wait_until(lambda: gone(program), 10)
    os.kill(rank, signal.SIGKILL)


def test_vasp_ends_with_a_worker_that_is_killed(settings, tmp_path):
    environment = standin_environment(tmp_path)
    inject(tmp_path, {"folder": "relax-1", "fault": "silent"})
    whole = submit(settings, [rock_salt()])
    command = [sys.executable, "-m", "pccd_workflows", "worker", "--campaign", whole.campaign_id]
    vasp: list[psutil.Process] = []
    with subprocess.Popen(command, env=os.environ | environment) as worker:

        def vasp_runs() -> bool:
            tree = psutil.Process(worker.pid).children(recursive=True)
            vasp[:] = [p for p in tree if Path(p.cwd()).parent.name == whole.campaign_id]
            return any("standin_vasp.py" in " ".join(p.cmdline()) for p in vasp)

        try:
            wait_until(vasp_runs)
        finally:
            worker.kill()
    wait_until(lambda: all(gone(process.pid) for process in vasp), 30)
    assert len(launchpad.release_dead_runs(settings, whole.campaign_id)) == 1
    assert launchpad.campaign_states(settings, whole.campaign_id) == {"READY": 1}
