"""A private Slurm of one node on loopback: munged, slurmctld, slurmd."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "qlaunch")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={next_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=10
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES State=UP
"""


def missing() -> list[str]:
    """Return what a private Slurm lacks on this machine."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    lacking = [name for name in PROGRAMS[:-1] if shutil.which(name, path=path) is None]
    return [*lacking, *(["root"] if os.geteuid() != 0 else [])]


@contextmanager
def slurm(folder: Path, port: int) -> Iterator[Path]:
    """Run Slurm with its files in `folder`; yield its configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, next_port=port + 1))
    processes = [_munged(folder)]
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    try:
        _wait_for((folder / "munge.socket").exists, "munged")
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"]):
            program = f"/usr/sbin/{command[0]}"
            with (folder / f"{command[0]}.out").open("wb") as out:
                processes.append(
                    subprocess.Popen(
                        [program, *command[1:], "-f", str(configuration)],
                        env=environment,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )
        _wait_for(lambda: "idle" in _ask(["sinfo", "-h", "-o", "%T"], environment), "slurmd")
        yield configuration
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _munged(folder: Path) -> "subprocess.Popen[bytes]":
    """Start munged as root with a key of its own."""
    home = folder / "munge"
    home.mkdir(mode=0o700)
    key = home / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    options = [
        f"--socket={folder}/munge.socket",
        f"--key-file={key}",
        f"--pid-file={home}/munged.pid",
        f"--log-file={home}/munged.log",
        f"--seed-file={home}/munge.seed",
    ]
    with (folder / f"munged-{owner}.out").open("wb") as out:
        return subprocess.Popen(
            ["/usr/sbin/munged", "--foreground", "--force", *options],
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def _ask(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    ).stdout


def _wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {seconds:g} s")
        time.sleep(0.3)


def wait_until_empty(configuration: Path, seconds: float) -> None:
    """Wait until no job is queued or running."""
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    deadline = time.monotonic() + seconds
    while _ask(["squeue", "-h", "-o", "%i %T"], environment).strip():
        if time.monotonic() > deadline:
            raise TimeoutError("jobs are still in the queue")
        time.sleep(1)
