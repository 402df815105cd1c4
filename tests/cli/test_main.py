"""The `pccd` command itself."""

import subprocess
import sys

import pytest

from pccd_workflows.cli import NOUNS, main


def run(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0), "".join(capsys.readouterr())


@pytest.mark.parametrize("argv", [["pccd"], ["pytest", "-q"], ["pccd", "--help"]])
def test_the_help_page_lists_every_noun_whatever_started_the_process(capsys, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    code, text = run(capsys, "--help")
    assert code == 0
    assert all(noun in text for noun in NOUNS)


@pytest.mark.parametrize("argv", [["pccd"], ["pytest", "-q"], ["pccd", "--help"]])
def test_a_noun_has_its_own_commands_whatever_started_the_process(capsys, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    code, text = run(capsys, "campaign", "--help")
    assert code == 0
    assert all(verb in text for verb in ("run", "submit", "status", "resume", "report", "list"))


def test_unknown_nouns_are_refused(capsys):
    code, text = run(capsys, "nonsense")
    assert code == 2
    assert "nonsense" in text


WARNS = """
import sys, warnings
from pccd_workflows import cli
cli.app = lambda arguments: warnings.warn("No Pauling electronegativity for Ar")
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("options", "arguments", "shown"),
    [
        ([], ["model", "sample"], False),
        ([], ["--debug", "model", "sample"], True),
        ([], ["worker"], True),
        (["-W", "default"], ["model", "sample"], True),
    ],
)
def test_warnings_of_libraries_are_for_those_who_ask(options, arguments, shown):
    command = [sys.executable, *options, "-c", WARNS, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ("electronegativity" in done.stderr) is shown
