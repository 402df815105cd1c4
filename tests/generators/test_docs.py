"""docs/generators.md: the worked example runs, named by its module and by an entry point."""

import re
import sys

import pytest
from contract import check_contract
from document import DOCS, blocks

from pccd_workflows.campaign import load_campaign
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.generators import source_names
from pccd_workflows.generators.registry import GROUP
from pccd_workflows.stages import generate as stage

TEXT = (DOCS / "generators.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path, monkeypatch):
    (code,) = [block for block in blocks("generators.md", "python") if "class Cubes" in block]
    (tmp_path / "my_generator.py").write_text(code)
    installed = tmp_path / "cubes-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: cubes\nVersion: 1\n")
    (point,) = re.findall(r"^cubes = \"(.*)\"$", TEXT, flags=re.MULTILINE)
    assert f'"{GROUP}"' in TEXT
    (installed / "entry_points.txt").write_text(f"[{GROUP}]\ncubes = {point}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_generator", None)


@pytest.mark.parametrize("source", ["my_generator:Cubes", "cubes"])
def test_your_own_generator(example, source):
    made = check_contract({"source": source, "elements": ["Cs", "Cl"], "samples": 6})
    lengths = [g.structure.lattice.a for g in made]
    assert len(set(lengths)) == 4
    assert all(3 < length < 5 for length in lengths)


def test_it_is_named_among_the_sources(example):
    assert "cubes" in source_names()


def test_the_campaign_file_of_the_example_runs(example):
    (line,) = re.findall(r"^generate: .*my_generator.*$", TEXT, flags=re.MULTILINE)
    file = example / "campaign.yaml"
    file.write_text(f"name: cubes\n{line}\nrungs: [{{level: chgnet}}]\n")
    campaign, storage = load_campaign(file), MemoryStorage()
    assert campaign.elements == ["Cl", "Cs"]
    assert stage.run(campaign, 0, 100, storage) == 100
    assert len(list(storage.rows(campaign.campaign_id, "generate", goes_on=True))) == 100
