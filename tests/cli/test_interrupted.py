"""Ctrl-C, SIGTERM and campaigns without a crystal: one sentence and the right exit code."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import faulty_parts
import pytest
import yaml

from pccd_workflows import operations
from pccd_workflows.cli import live, main
from pccd_workflows.core.errors import Interrupted
from pccd_workflows.execution import launchpad

HERE = Path(faulty_parts.__file__).parent


class Stubborn(live.Workers):
    """Workers that take long to put their jobs back."""

    def __init__(self) -> None:
        super().__init__("c-0123456789", Path())
        self.killed = False
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1
        if self.stops == 1:
            time.sleep(30)

    def kill(self) -> None:
        self.killed = True


@pytest.mark.parametrize(("first", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_wait_and_shows_no_traceback(first, code):
    workers = Stubborn()

    def interrupt() -> None:
        for signum in (first, signal.SIGINT):
            time.sleep(0.5)
            os.kill(os.getpid(), signum)

    before = signal.getsignal(signal.SIGINT)
    threading.Thread(target=interrupt).start()
    resume = "pccd campaign resume c-0123456789"
    with pytest.raises(Interrupted, match=resume) as raised, live._stopping(workers):
        time.sleep(30)
    assert raised.value.exit_code == code
    assert raised.value.__suppress_context__
    assert workers.killed
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_worker_that_is_stopped_says_so(settings, tmp_path, signum, code):
    command = [sys.executable, "-m", "pccd_workflows", "worker", "--forever"]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    launchpad.launchpad(settings)
    time.sleep(8)
    worker.send_signal(signum)
    _, printed = worker.communicate(timeout=60)
    assert worker.returncode == code, printed
    assert printed.strip().splitlines()[-1].startswith(f"pccd: Stopped by {signum.name}")
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "None of the 6 samples is a crystal (no_sites 6)."),
        (
            {"screen": {"charge_neutral": "ignore", "min_distance": 4.9}},
            "None of the 6 crystals passed the screen (too_close 6).",
        ),
    ],
)
def test_a_campaign_without_a_crystal_is_no_success(
    settings, tmp_path, monkeypatch, capsys, changed, sentence
):
    monkeypatch.setenv(faulty_parts.FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
    monkeypatch.chdir(tmp_path)
    if not changed:
        (tmp_path / "undecodable").touch()
    known = faulty_parts.write_metals(tmp_path / "known")
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(faulty_parts.campaign(known, **changed)))
    with pytest.raises(SystemExit) as ended:
        main(["campaign", "run", str(path), "--workers", "1"])
    printed = capsys.readouterr()
    assert ended.value.code == 1, printed
    assert f"pccd: {sentence}" in printed.err
    assert operations.campaign_document("faulty", settings)
    assert list(tmp_path.glob("faulty-*.html"))


@pytest.mark.parametrize(
    "command",
    [
        ("campaign", "status", "nope"),
        ("campaign", "resume", "nope"),
        ("campaign", "report", "nope"),
        ("campaign", "cost", "nope"),
        ("campaign", "rescore", "nope", "--references", "x"),
        ("candidate", "list", "--campaign", "nope"),
        ("candidate", "export", "--format", "csv", "--out", "x.csv", "--campaign", "nope"),
        ("job", "list", "--campaign", "nope"),
        ("job", "failures", "--campaign", "nope"),
        ("job", "rerun", "--campaign", "nope"),
        ("worker", "--campaign", "nope"),
    ],
)
def test_a_campaign_that_is_not_there_is_the_same_mistake_everywhere(settings, capsys, command):
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    printed = capsys.readouterr().err
    assert ended.value.code == 2, printed
    assert "There is no campaign 'nope'" in printed
    assert len(printed.strip().splitlines()) == 1
