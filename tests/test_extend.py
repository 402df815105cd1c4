"""docs/extend.md beyond its blocks, which tests/docs runs: what wrong parts are answered with."""

import sys
import tomllib
from dataclasses import replace

import pytest
from document import DOCS, blocks, read

from pccd_workflows import columns, stages
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.engines import levels
from pccd_workflows.engines.engine import engine_of
from pccd_workflows.engines.levels import Level
from pccd_workflows.settings import get_settings
from pccd_workflows.stages import hull
from pccd_workflows.stages.stage import Column

PAGE = read(DOCS / "extend.md")
FILES = {block.file: block.text for block in PAGE if block.language == "python" and block.file}
PLAIN = {"name": "a", "generate": {"elements": ["Mg", "O"]}, "rungs": [{"level": "chgnet"}]}


def forget() -> None:
    levels._imported.cache_clear()
    levels._installed.cache_clear()
    stages._installed.cache_clear()


@pytest.fixture
def my_package(tmp_path, monkeypatch):
    """The files of the document, installed with its entry points."""
    for name, block in FILES.items():
        (tmp_path / name).write_text(block)
    points = {}
    for block in blocks("extend.md", "toml"):
        points |= tomllib.loads(block)["project"]["entry-points"]
    lines = [
        line
        for group, named in points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()))
    ]
    installed = tmp_path / "mine-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: mine\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    forget()
    yield tmp_path
    forget()
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_line_of_the_column_is_all_it_takes(monkeypatch):
    (line,) = [block for block in blocks("extend.md", "text") if block.startswith("Column(")]
    column = eval(line.strip().rstrip(","), {"Column": Column})  # noqa: S307
    changed = replace(hull.STAGE, columns=(*hull.STAGE.columns, column))
    own = tuple(changed if stage.kind == "hull" else stage for stage in stages.STAGES)
    monkeypatch.setattr(stages, "STAGES", own)
    record = hull.Stability(
        level="chgnet", passed=True, energy_above_hull=0.1, decomposition={"MgO": 1.0}
    )
    assert columns.values({"hull:chgnet": record}, shown=True)["phases"] == 1


def test_a_stage_that_is_asked_for_is_part_of_the_hash(my_package):
    asked = Campaign.model_validate(PLAIN | {"stages": {"density": {"highest": 3}}})
    plain = Campaign.model_validate(PLAIN)
    assert stages.names(asked) == [*stages.names(plain), "density"]
    assert "stages" not in plain.resolved()
    assert asked.hash != plain.hash
    assert Campaign.model_validate(asked.resolved()) == asked


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"densty": {}}, "There is no stage 'densty'; use one of generate, .*density"),
        ({"density": {"highst": 3}}, "highst"),
        ({"density": {"highest": -1}}, "greater than 0"),
        ({"relax": {}}, "stage 'relax' takes no options here"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_as_the_file_is_read(my_package, given, message):
    with pytest.raises(ValueError, match=message):
        Campaign.model_validate(PLAIN | {"stages": given})


def test_a_stage_that_cannot_be_loaded_is_named(my_package):
    (my_package / "my_stage.py").write_text("STAGE = 3\n")
    with pytest.raises(InputError, match="'density' \\(my_stage:STAGE\\) is no Stage"):
        stages.all_stages()


def test_an_engine_of_ones_own_checks_what_it_needs(my_package):
    level = levels.get_level("my_code:LEVEL")
    with pytest.raises(InputError, match="no pseudopotential of Fe"):
        engine_of(level).check(level, ["Cu", "Fe"], get_settings())
    lost = Level("x", "my_code:NOTHING", "as_computed")
    with pytest.raises(InputError, match="engine 'my_code:NOTHING' cannot be imported"):
        engine_of(lost)
