"""Queues of a cluster: what a template must have, and the lines that keep workers coming."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pccd_workflows.errors import InputError

MINUTES = 10
"""How often the crontab line looks for jobs."""
IN_QUEUE = 20
"""Worker jobs in the queue at most."""
CATEGORY = re.compile(r"--category\s+(\S+)")


@dataclass(frozen=True)
class Template:
    """A queue template. category: which jobs its workers take (None: any)."""

    path: Path
    kind: str
    category: str | None


def read_template(path: Path) -> Template:
    """Read a template of db_config/ or a copy of one.

    Raises
    ------
    InputError
        It is no such file, has no walltime or starts no worker: one sentence.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no queue template {path}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Queue template {path} cannot be read: {reason}.") from None
    if not isinstance(data, dict) or not data.get("_fw_q_type"):
        raise InputError(f"Queue template {path} has no '_fw_q_type'; start from db_config/.")
    if not data.get("walltime") and "h_rt=" not in str(data.get("pre_rocket")):
        raise InputError(f"Queue template {path} has no walltime: a job would run without end.")
    command = str(data.get("rocket_launch"))
    if "pccd" not in command or "worker" not in command:
        raise InputError(f"Queue template {path}: rocket_launch must start `pccd worker`.")
    category = CATEGORY.search(command)
    return Template(path, str(data["_fw_q_type"]), category[1] if category else None)


def launch_lines(template: Template, launchpad_file: Path, fworker_file: Path) -> tuple[str, str]:
    """Return the command that submits workers now, and the crontab line that goes on doing so."""
    command = (
        f"qlaunch -l {launchpad_file} -w {fworker_file} -q {template.path} "
        f"rapidfire -m {IN_QUEUE} --nlaunches {IN_QUEUE}"
    )
    return command, f"*/{MINUTES} * * * * cd $HOME/pccd-queue && {command} >> qlaunch.log 2>&1"
