"""Completion for bash, zsh and fish; what a mistyped command is answered with."""

import os
import shutil
import subprocess
import sys

import pytest

from pccd_workflows.cli import COMPLETE, main


@pytest.fixture
def program(tmp_path):
    """A folder with a `pccd` of this interpreter."""
    path = tmp_path / "pccd"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'pccd'\n"
        "from pccd_workflows.cli import main\nmain()\n"
    )
    path.chmod(0o755)
    return tmp_path


def script(capsys, shell: str) -> str:
    with pytest.raises(SystemExit):
        main(["completion", shell])
    return capsys.readouterr().out


def answered(program, **variables: str) -> str:
    environment = os.environ | variables
    done = subprocess.run(
        [program / "pccd"], check=False, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pccd cam", {"campaign"}),
        ("pccd campaign re", {"resume", "report", "rescore"}),
        ("pccd candidate list --che", {"--chemsys"}),
    ],
)
def test_bash_completes(capsys, program, line, expected):
    (program / "complete.bash").write_text(script(capsys, "bash"))
    words = line.split()
    asked = (
        f"source complete.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        "_pccd_completion pccd; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = os.environ | {"PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [shutil.which("bash"), "-c", asked],
        check=True,
        capture_output=True,
        text=True,
        cwd=program,
        env=environment,
    )
    assert {*done.stdout.split()} == expected


def test_zsh_and_fish_are_answered(capsys, program):
    assert "#compdef pccd" in script(capsys, "zsh")
    assert "complete --command pccd" in script(capsys, "fish")
    zsh = {COMPLETE: "complete_zsh", "_TYPER_COMPLETE_ARGS": "pccd cam"}
    assert "campaign" in answered(program, **zsh)
    fish = {COMPLETE: "complete_fish", "_TYPER_COMPLETE_ARGS": "pccd job re"}
    assert "rerun" in answered(program, **fish, _TYPER_COMPLETE_FISH_ACTION="get-args")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["campain", "list"], "campaign"),
        (["campaign", "stauts"], "status"),
        (["candidate", "list", "--chemsystem", "Mg-O"], "--chemsys"),
    ],
)
def test_a_mistyped_command_is_answered_with_the_nearest(capsys, typed, meant):
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    assert meant in capsys.readouterr().err
