"""Any number of drivers on one campaign: one workflow, one ledger, nothing twice."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pymatgen.core import Lattice, Structure

from pccd_workflows.execution import mongo

SOURCE = """
from pymatgen.core import Lattice, Structure

from pccd_workflows.generators import Generated, Generation, GeneratorInfo, SourceOptions


class Options(SourceOptions):
    elements: list[str] = ["Cu", "Au"]


class Alloys:
    options_type = Options

    def __init__(self, options):
        self.options = options

    def info(self):
        return GeneratorInfo(name="alloys", version="1")

    def check(self):
        pass

    def generate(self, indices):
        for index in indices:
            cell = Lattice.tetragonal(2.9 + 0.1 * (index % 9), 3.2)
            crystal = Structure(cell, self.options.elements, [[0, 0, 0], [0.5, 0.5, 0.5]])
            how = Generation(
                source=self.options.source,
                model="alloys",
                weights_sha256="1",
                index=index,
                elements=self.options.elements,
            )
            yield Generated(index, crystal, how)
"""
SAMPLES = 12


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> Path:
    """A campaign file whose source and level are in folders of PYTHONPATH."""
    (tmp_path / "alloys_source.py").write_text(SOURCE)
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    paths = [str(benchmarks), str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    known = tmp_path / "known"
    known.mkdir()
    for symbol in ("Cu", "Au"):
        phase = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4), [symbol], [[0, 0, 0]])
        phase.to(filename=str(known / f"{symbol}.cif"))
    campaign = {
        "name": "drivers",
        "generate": {"source": "alloys_source:Alloys", "samples": SAMPLES, "shard": 2},
        "references": {"source": "file", "path": str(known)},
        "screen": {"charge_neutral": "ignore"},
        "novelty": {"against": ["references"]},
        "rungs": [
            {"level": "trivial_engine:LEVEL", "batch": 2, "keep": {"energy_above_hull": 2.0}}
        ],
    }
    path = tmp_path / "drivers.yaml"
    path.write_text(yaml.safe_dump(campaign))
    return path


def pccd(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pccd_workflows", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_drivers_on_one_campaign_at_once_leave_one_workflow_and_one_ledger(
    settings, file, tmp_path
):
    first = pccd("campaign", "run", str(file), "--workers", "1", cwd=tmp_path)
    other = pccd("campaign", "run", str(file), "--report", "b.html", "--workers", "1", cwd=tmp_path)
    third = pccd("campaign", "submit", str(file), cwd=tmp_path)
    told = [process.communicate(timeout=600)[0] for process in (first, other, third)]
    assert [p.returncode for p in (first, other, third)] == [0, 0, 0], "\n".join(told)
    late = [
        pccd("campaign", "resume", "drivers", "--report", "c.html", cwd=tmp_path),
        pccd("campaign", "status", "drivers", "--json", cwd=tmp_path),
    ]
    told = [process.communicate(timeout=600)[0] for process in late]
    assert [process.returncode for process in late] == [0, 0], "\n".join(told)

    database = mongo.database(settings)
    assert database["campaigns"].count_documents({}) == 1
    assert database["workflows"].count_documents({}) == 1
    names = Counter(row["name"] for row in database["fireworks"].find({}, {"name": 1}))
    assert names["deduplicate"] == names["rung trivial_engine:LEVEL"] == 1
    assert [n for name, n in names.items() if name.startswith("generate")] == [1] * (SAMPLES // 2)
    assert database["fireworks"].count_documents({"state": {"$ne": "COMPLETED"}}) == 0
    # every job was taken once, every crystal computed once
    assert database["launches"].count_documents({}) == sum(names.values())
    relaxed = database["costs"].count_documents({"plan": "relax"})
    assert relaxed == database["stage_records"].count_documents({"stage": {"$regex": "^relax:"}})
    ledger = list(database["candidates"].find({}, {"index": 1, "status": 1, "reason_class": 1}))
    assert sorted(row["index"] for row in ledger) == [*range(SAMPLES)]
    # crystals 9, 10 and 11 repeat the first three
    outcomes = {row["index"]: (row["status"], row["reason_class"]) for row in ledger}
    assert {outcomes[index] for index in (9, 10, 11)} == {("rejected", "duplicate")}
    assert relaxed == sum(outcome == ("passed", None) for outcome in outcomes.values()) > 0
