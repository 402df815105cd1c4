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


class Slurm:
    """Daemons of one node, which can be killed and started again."""

    def __init__(self, folder: Path, configuration: Path) -> None:
        self.folder = folder
        self.configuration = configuration
        self.environment = os.environ | {"SLURM_CONF": str(configuration)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *options: str) -> None:
        """Start slurmctld or slurmd."""
        command = [f"/usr/sbin/{name}", "-D", *options, "-f", str(self.configuration)]
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )

    def kill(self, name: str) -> None:
        """End a daemon as a crash would."""
        self.daemons[name].kill()
        self.daemons[name].wait()

    def ask(self, *command: str) -> str:
        """Return what one of Slurm's commands prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        ).stdout.strip()

    def node_state(self) -> str:
        """Return the state of the node, e.g. idle or drained."""
        return self.ask("sinfo", "-h", "-N", "-o", "%T")

    def jobs(self) -> dict[str, str]:
        """Return the state of each job in the queue by its id."""
        lines = self.ask("squeue", "-h", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)


@contextmanager
def slurm(folder: Path, port: int) -> Iterator[Slurm]:
    """Run Slurm with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, next_port=port + 1))
    munged = _munged(folder)
    server = Slurm(folder, configuration)
    try:
        wait_for((folder / "munge.socket").exists, "munged did not start")
        server.start("slurmctld")
        server.start("slurmd", "-N", "localhost")
        wait_for(lambda: server.node_state() == "idle", "slurmd did not start")
        yield server
    finally:
        for process in (*reversed(server.daemons.values()), munged):
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


def wait_for(condition: Callable[[], object], failing: str, seconds: float = 60) -> None:
    """Wait until a condition holds; TimeoutError says what failed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{failing} within {seconds:g} s")
        time.sleep(0.3)


def wait_until_empty(server: Slurm, seconds: float) -> None:
    """Wait until no job is queued or running."""
    wait_for(lambda: not server.jobs(), "jobs are still in the queue", seconds)
