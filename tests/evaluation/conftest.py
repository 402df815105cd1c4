"""A model's crystals are copper and gold, a potential that costs nothing is EMT."""

import json

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.evaluation import batches, level_comparison, rediscovery
from pccd_workflows.evaluation.judge import PotentialJudge
from pccd_workflows.evaluation.samples import RawSample
from pccd_workflows.evaluation.stored_potential import StoredPotential
from pccd_workflows.execution.memory import FolderStorage

FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def fcc(a: float, species: list[str]) -> Structure:
    return Structure(Lattice.cubic(a), species, FCC)


@pytest.fixture
def cuau3():
    return fcc(4.0, ["Cu", "Au", "Au", "Au"])


@pytest.fixture
def cu3au():
    return fcc(3.72, ["Au", "Cu", "Cu", "Cu"])


@pytest.fixture
def emt(monkeypatch):
    for name in ("emt", "emt-too"):
        level = Level(name, "potential", "mp2020", "ase.calculators.emt:EMT", {}, "ase")
        monkeypatch.setitem(LEVELS, name, level)


@pytest.fixture
def data(tmp_path, cu3au):
    rows = [
        {
            "id": f"mp-{number}",
            "lattice": s.lattice.matrix.tolist(),
            "species": [site.specie.symbol for site in s],
            "frac_coords": s.frac_coords.tolist(),
        }
        for number, s in enumerate([fcc(3.6, ["Cu"] * 4), fcc(4.05, ["Au"] * 4), cu3au])
    ]
    path = tmp_path / "known.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def make_judge(tmp_path, emt):
    """Return a function that makes a judge with results in one folder."""

    def make(level="emt", **options):
        storage = FolderStorage(tmp_path / "results")
        return PotentialJudge(StoredPotential(level, storage), **options)

    return make


@pytest.fixture
def judge(make_judge):
    return make_judge()


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that makes every model draw these crystals."""

    def make(*structures):
        made = [RawSample(("Au", "Cu"), s, None if s else "shape") for s in structures]
        for module in (batches, level_comparison, rediscovery):
            monkeypatch.setattr(module, "draw_samples", lambda *_, **__: list(made))

    return make
