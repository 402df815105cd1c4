"""Queues of a cluster: what a template must have, and the lines that keep workers coming."""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pccd_workflows.core.bounded_files import read_yaml
from pccd_workflows.core.errors import InputError

MINUTES = 10
"""How often the crontab line looks for jobs."""
IN_QUEUE = 20
"""Worker jobs in the queue at most."""
SUBMITTING_SECONDS = 60
"""How long one qlaunch submits."""
FOLDER = "$HOME/pccd-queue"
"""Where qlaunch keeps its scripts and logs."""
SUBMITS = {"SLURM": "sbatch", "PBS": "qsub", "SGE": "qsub"}
"""Program that submits to a queue."""
CATEGORY = re.compile(r"--category\s+(\S+)")


@dataclass(frozen=True)
class QueueTemplate:
    """A queue template. category: which jobs its workers take (None: any)."""

    path: Path
    kind: str
    category: str | None


def read_template(path: Path) -> QueueTemplate:
    """Read a template of db_config/ or a copy of one.

    Raises
    ------
    InputError
        It is no such file, has no walltime or starts no worker: one sentence.
    """
    try:
        data = read_yaml(path, "Queue template")
    except FileNotFoundError:
        raise InputError(f"There is no queue template {path}.") from None
    if not isinstance(data, dict) or not data.get("_fw_q_type"):
        raise InputError(f"Queue template {path} has no '_fw_q_type'; start from db_config/.")
    if not data.get("walltime") and "h_rt=" not in str(data.get("pre_rocket")):
        raise InputError(f"Queue template {path} has no walltime: a job would run without end.")
    command = str(data.get("rocket_launch"))
    if "pccd" not in command or "worker" not in command:
        raise InputError(f"Queue template {path}: rocket_launch must start `pccd worker`.")
    category = CATEGORY.search(command)
    return QueueTemplate(path, str(data["_fw_q_type"]), category[1] if category else None)


@dataclass(frozen=True)
class LaunchLines:
    """now: submits workers once. crontab: the line that goes on doing so."""

    now: str
    crontab: str


def launch_lines(template: QueueTemplate, launchpad_file: Path, fworker_file: Path) -> LaunchLines:
    """Return the lines that submit workers with a template, fit for a shell and for cron.

    cron knows neither the virtual environment nor the queue's programs, and starts in $HOME: every
    path is absolute. While one qlaunch is busy the next one steps back (flock); each ends by itself
    (without --timeout it would wait for jobs for ever, and cron would start another beside it).
    """
    qlaunch = Path(sys.executable).with_name("qlaunch")
    files = ("-l", launchpad_file, "-w", fworker_file, "-q", template.path.expanduser().absolute())
    loop = ("rapidfire", "-m", IN_QUEUE, "--timeout", SUBMITTING_SECONDS)
    name = template.path.stem
    command = shlex.join(map(str, ("flock", "-n", f"{name}.lock", qlaunch, *files, *loop)))
    if (program := shutil.which(SUBMITS.get(template.kind.upper(), ""))) is not None:
        command = f"PATH={shlex.quote(str(Path(program).parent))}:$PATH {command}"
    line = f"mkdir -p {FOLDER} && cd {FOLDER} && {command} >> {shlex.quote(name)}.log 2>&1"
    return LaunchLines(f"({line})", f"*/{MINUTES} * * * * {line}")
