"""What commands print on a terminal of 80 columns, from a made-up campaign of the tests.

    python docs/_site/terminal.py

A private database is started for it and stopped again. The numbers are invented; the crystals,
their records and the program are real.
"""

import contextlib
import io
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import failures  # noqa: E402
import ledger_factory  # noqa: E402

from pccd_workflows.cli import main  # noqa: E402
from pccd_workflows.execution import mongo, mongod  # noqa: E402
from pccd_workflows.settings import Settings, get_settings  # noqa: E402

WIDTH = 80
COMMANDS = (
    "campaign list",
    "campaign status mg-mn-o",
    "candidate list --limit 6",
    "candidate show 161",
    "job failures",
    "job list",
    "reference list",
    "campaign cost quickstart.yaml",
    "model info pccd-default",
)
"""Commands that print tables of what they find."""
CLASSES = ("scf", "walltime", "node")
"""Of the failed jobs."""


def page() -> str:
    """Return the outputs in Markdown."""
    parts = []
    with example_database():
        for command in COMMANDS:
            shown = printed(command.split())
            parts.append(f"### pccd {command.split(' --')[0]} {{ #output-of-{slug(command)} }}\n")
            parts.append(f"```text\n$ pccd {command}\n{shown}```\n")
    return "\n".join(parts)


def slug(command: str) -> str:
    """Return the anchor of a command's output."""
    return "-".join(command.split()[:2])


def printed(arguments: list[str]) -> str:
    """Return what a command prints; no line is longer but for commands to copy.

    Raises ValueError if a line does not fit, or the command fails.
    """
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    if code or err.getvalue():
        raise ValueError(f"pccd {' '.join(arguments)} ended with {code}: {err.getvalue()}")
    if long := [x for x in lines if len(x) > WIDTH and not x.startswith("pccd ")]:
        raise ValueError(f"pccd {' '.join(arguments)} is wider than {WIDTH}: {long[0]}")
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def example_database() -> Iterator[None]:
    """Start a private server with a made-up campaign in it, and stop it again."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = {
            "PCCD_DATA_DIR": folder,
            "PCCD_MONGOD_PORT": str(port),
            "PCCD_CONFIG_FILE": os.devnull,
            "COLUMNS": str(WIDTH),
            "NO_COLOR": "1",
        }
        with patch.dict(os.environ, environment):
            os.environ.pop("PCCD_MONGODB_URI", None)
            get_settings.cache_clear()
            settings = get_settings()
            mongod.start(settings)
            try:
                fill(settings)
                yield
            finally:
                mongod.stop(settings)
                get_settings.cache_clear()


def fill(settings: Settings) -> None:
    """Store a campaign with every way in which a crystal can end, and failed jobs."""
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    campaign = ledger_factory.campaign()
    document, candidates = ledger_factory.stored(campaign.name)
    database["campaigns"].insert_one(document)
    database["candidates"].insert_many(candidates)
    mongo.put_reference_set(database, ledger_factory.reference_set())
    for number, name in enumerate(CLASSES, start=1):
        evidence = failures.LEFT_BEHIND[name]
        spec = {"campaign_id": campaign.campaign_id, "candidates": [campaign.candidate_id(number)]}
        database["fireworks"].insert_one(
            {
                "fw_id": number,
                "name": f"relax 1 vasp/mp-gga {campaign.candidate_id(number)}",
                "state": "FIZZLED",
                "launches": [number],
                "archived_launches": [],
                "spec": spec | {"_tasks": [{"job": {"metadata": spec}}]},
            }
        )
        database["launches"].insert_one(
            {
                "launch_id": number,
                "fw_id": number,
                "state": "FIZZLED",
                "launch_dir": f"runs/{number}",
                "fworker": {"name": "node1"},
                "action": {"stored_data": {"_exception": {"_stacktrace": evidence}}},
                "failure": {"error_class": name, "evidence": evidence},
            }
        )


if __name__ == "__main__":
    sys.stdout.write(page())
