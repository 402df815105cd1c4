"""Every block of every document runs, or says in a comment why not."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import ledger_factory as factory
import pytest
import yaml
from document import CLONE, RUN, SHOWN, Block, pages, read

from pccd_workflows import stages
from pccd_workflows.campaign import Campaign
from pccd_workflows.cli import main
from pccd_workflows.core.sections import FOLDER
from pccd_workflows.engines import levels
from pccd_workflows.execution import mongo
from pccd_workflows.generators.pccd.config import TrainConfig
from pccd_workflows.settings import get_settings

PAGES = {str(path.relative_to(CLONE)): read(path) for path in pages()}
LINKED = ("db_config", "flows", "model", "tests", "benchmarks", "docs")
"""Folders of the clone that blocks may name."""
BASE = {"name": "base", "generate": {"elements": ["Mg", "O"]}, "rungs": [{"level": "chgnet"}]}
"""What a part of a campaign file is put into."""
NOTES = {"not run", "tested with", "output", "exit code", "checked as", "failure", "prints"}
COMMAND = re.compile(r"^\s*(?:\$ )?(?:pccd \w+|python|pip|make|eval|export) [\w-]", re.MULTILINE)
WARNING = re.compile(r"\b\w*Warning: ")


def runnable(page: str) -> list[Block]:
    return [b for b in PAGES[page] if b.language in RUN and not b.not_run]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for block in PAGES[page]:
        where = f"{page}:{block.line}"
        assert block.language in (*RUN, *SHOWN), f"{where}: name the block's language"
        if block.language in SHOWN:
            assert not COMMAND.search(block.text) or "output" in block.notes, (
                f"{where}: a command in a block that is not run"
            )
        if "not run" in block.notes:
            assert len(block.not_run) > 15, f"{where}: say why it is not run"
        assert {*block.notes} <= NOTES, f"{where}: an unknown comment"


def test_no_page_has_indented_blocks():
    """They look like blocks and would escape."""
    for page, found in PAGES.items():
        text = (CLONE / page).read_text()
        for block in found:
            text = text.replace(block.text, "")
        assert not re.search(r"\n\n    (?:pccd|python|pip|make) ", text), page


@pytest.fixture
def clone(tmp_path, monkeypatch, settings):
    """A folder that looks like a clone, with a database that has a campaign, `quickstart`."""
    for name in LINKED:
        (tmp_path / name).symlink_to(CLONE / name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(CLONE))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_examples(tmp_path)
    store_quickstart(mongo.database(settings))
    known = {*sys.modules}
    forget()
    yield tmp_path
    forget()
    for name in {*sys.modules} - known:
        if name.startswith("my_"):
            del sys.modules[name]


def forget() -> None:
    """Have installed packages looked for again."""
    levels._imported.cache_clear()
    levels._installed.cache_clear()
    stages._installed.cache_clear()
    get_settings.cache_clear()


def write_examples(folder: Path) -> None:
    """Write what a reader has already: crystals of another generator, known ones."""
    crystal, _ = factory.crystal("MgO")
    for name in ("from-mattergen", "results"):
        (folder / name).mkdir()
        crystal.to(filename=str(folder / name / "0.cif"))
    (folder / "known.jsonl").write_text(factory.crystal("MnO")[0].to(fmt="json") + "\n")


@cache
def quickstart() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the documents of a made-up campaign under the name that pages use."""
    return factory.stored("quickstart")


def store_quickstart(database) -> None:
    """Store the made-up campaign."""
    campaign, rows = quickstart()
    mongo.ensure_indexes(database)
    database["campaigns"].insert_one(campaign)
    database["candidates"].insert_many(rows)
    mongo.put_reference_set(database, factory.reference_set())


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_the_blocks_of_a_page_run(page, clone, monkeypatch):
    install(page, clone)
    names: dict[str, Any] = {}
    for block in runnable(page):
        get_settings.cache_clear()
        where = f"{page}:{block.line}"
        if block.language == "python" and block.file is None:
            exec(compile("\n" * (block.line - 1) + block.as_tested, page, "exec"), names)  # noqa: S102
        elif block.language == "yaml":
            check_yaml(block, clone)
        elif block.language == "sh":
            run_shell(block, where, monkeypatch)
    if page == "docs/python.md":
        check_notebook(names)


def check_notebook(names: dict[str, Any]) -> None:
    """See that what the page computes is what it says."""
    assert len(names["crystals"]) == 2
    assert names["relaxed"].usable
    assert names["place"].energy_above_hull < 0.05
    assert names["verdict"].novel is False
    assert names["campaign"].campaign_id in names["flow"].name
    assert {"generate 1/1", "references chgnet", "deduplicate", "rung chgnet"} <= {
        firework.name for firework in names["workflow"].fws
    }


def install(page: str, folder: Path) -> None:
    """Write the files that a page's Python blocks are, and its entry points."""
    points: dict[str, dict[str, str]] = {}
    for block in runnable(page):
        if block.language == "python" and block.file is not None:
            (folder / block.file).write_text(block.as_tested)
        elif block.language == "toml":
            project = tomllib.loads(block.as_tested)["project"]
            for group, named in project["entry-points"].items():
                points.setdefault(group, {}).update(named)
    if points:
        installed = folder / "mine-1.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Name: mine\nVersion: 1\n")
        lines = [
            line
            for group, named in points.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()))
        ]
        (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    forget()


def check_yaml(block: Block, folder: Path) -> None:
    """Read a block as (part of) a campaign file, and write it where its page says."""
    text = block.as_tested
    given = yaml.safe_load(text)
    if block.notes.get("checked as") == "training file":
        TrainConfig.model_validate(given)
    else:
        Campaign.model_validate(BASE | given, context={FOLDER: folder})
    if block.file is not None:
        (folder / block.file).write_text(text)


def run_shell(block: Block, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the lines of a block: `pccd` here, everything else by bash."""
    expected = int(block.notes.get("exit code", 0))
    lines = [shlex.split(line, comments=True) for line in joined(block.as_tested)]
    plain = all(not line or is_plain(line) for line in lines)
    done = run_here(lines) if plain else run_bash(block.as_tested, monkeypatch)
    assert done.returncode == expected, f"{where}: exit {done.returncode}\n{done.stderr}"
    for words in filter(None, block.notes.get("prints", "").split("; ")):
        assert words in done.stdout, f"{where}: {words!r} is not in\n{done.stdout}"
    assert "Traceback" not in done.stdout + done.stderr, where
    assert not WARNING.search(done.stderr), f"{where}: {done.stderr}"


def joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def is_plain(words: list[str]) -> bool:
    return words[0] == "pccd" and not {*words} & {"|", ">", ">>", "&&", ";", "<"}


def run_here(lines: list[list[str]]) -> subprocess.CompletedProcess[str]:
    """Run `pccd` commands in this process, which has imported what takes long, until one fails."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    for words in filter(None, lines):
        get_settings.cache_clear()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(words[1:])
            except SystemExit as ended:
                code = int(ended.code or 0)
        if code:
            break
    return subprocess.CompletedProcess([], code, out.getvalue(), err.getvalue())


def run_bash(text: str, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    """Run a block with bash; what it exports holds for the blocks that follow."""
    script = f"set -eo pipefail\n{text}\nenv -0 > .environment\n"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)  # noqa: S607
    if done.returncode == 0:
        pairs = Path(".environment").read_text().split("\0")
        for name, _, value in (pair.partition("=") for pair in pairs if pair):
            if os.environ.get(name) != value and name not in {"_", "SHLVL", "PWD", "OLDPWD"}:
                monkeypatch.setenv(name, value)
                tell_pymatgen(name, value, monkeypatch)
    return done


def tell_pymatgen(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a setting that pymatgen read when it was imported changed in this process, too."""
    if name.startswith("PMG_"):
        from pymatgen.core import SETTINGS

        monkeypatch.setitem(SETTINGS, name, value)
