"""Levels: rows, entry points, and calculators of one's own by ``module:callable``."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from jobflow import Flow, run_locally
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_references
from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.core.storage import store_crystals
from pccd_workflows.engines import levels
from pccd_workflows.engines.engine import Task, Work, engine_of, relax
from pccd_workflows.engines.levels import Level, get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.storage import use_storage
from pccd_workflows.jobs.compute import compute_jobs
from pccd_workflows.known.prototypes import build_reference_set
from pccd_workflows.settings import get_settings
from pccd_workflows.stages.rung import Rung

MINE = """
from ase.calculators.emt import EMT

def make():
    return EMT()

make.convention = "as_computed"

def plain():
    return EMT()

number = 3

def odd():
    return EMT()

odd.convention = "guessed"
"""


@pytest.fixture
def my_calculator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of somebody's own on the path."""
    path = tmp_path / "my_calculator.py"
    path.write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    levels._imported.cache_clear()
    yield path
    sys.modules.pop("my_calculator", None)
    levels._imported.cache_clear()


def test_a_calculator_of_ones_own_is_a_level(my_calculator):
    level = get_level("my_calculator:make")
    assert (level.name, level.engine, level.convention) == (
        "my_calculator:make",
        "potential",
        "as_computed",
    )
    assert get_level("my_calculator:plain").convention == "uncorrected"
    engine_of(level).check(level, ["Cu"], get_settings())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_calculator:nothing", "cannot be imported .*has no attribute 'nothing'.*PYTHONPATH"),
        ("no_such_module:make", "cannot be imported .*No module named.*PYTHONPATH"),
        ("my_calculator:number", "is neither a Level nor makes"),
        ("my_calculator:odd", "convention 'guessed' is not one of"),
    ],
)
def test_what_cannot_be_imported_is_read_but_refused_before_it_runs(my_calculator, name, message):
    rung = Rung(level=name)
    with pytest.raises(InputError, match=message):
        get_level(rung.level)


def test_names_that_are_no_level_are_refused_as_they_are_read():
    with pytest.raises(ValueError, match=r"Unknown level 'chgnett'; use one of .*'chgnet'"):
        Rung(level="chgnett")


def test_a_changed_file_is_another_level(my_calculator):
    task, crystal = Task("relax"), Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]])
    level = get_level("my_calculator:make")
    before = engine_of(level).key(level, crystal, task)
    my_calculator.write_text(MINE + "\n# better\n")
    levels._imported.cache_clear()
    level = get_level("my_calculator:make")
    assert engine_of(level).key(level, crystal, task) != before


def test_an_installed_package_brings_levels(my_calculator, monkeypatch):
    my_calculator.write_text(
        "from pccd_workflows.engines import Level\n"
        "LEVELS = [Level(n, 'potential', 'as_computed', 'ase.calculators.emt:EMT', package='ase')"
        " for n in ('emt-a', 'emt-b')]\n"
    )
    point = EntryPoint("mine", "my_calculator:LEVELS", levels.ENTRY_POINTS)
    monkeypatch.setattr(levels, "entry_points", lambda **_: [point])
    levels._installed.cache_clear()
    try:
        assert Rung(level="emt-b").level == "emt-b"
        assert get_level("emt-a").convention == "as_computed"
        with pytest.raises(InputError, match="'emt-a', 'emt-b'"):
            get_level("emt-c")
    finally:
        levels._installed.cache_clear()


def test_a_missing_package_is_named_before_anything_runs():
    absent = Level("absent", "potential", "uncorrected", "no_such_package:X", {}, "no-such-package")
    with pytest.raises(MissingDependencyError, match="pip install 'no-such-package'"):
        engine_of(absent).check(absent, [], get_settings())
    with pytest.raises(InputError, match="unknown engine 'abacus'"):
        engine_of(Level("x", "abacus", "uncorrected"))


def test_band_structures_are_for_levels_that_compute_them():
    assert Rung(level="vasp/mp-r2scan", band_structure=True).band_structure
    with pytest.raises(ValueError, match="band_structure needs the level vasp/mp-gga or vasp"):
        Rung(level="gpaw/pbe", band_structure=True)


def test_a_rung_of_ones_own_relaxes_and_is_placed_on_a_hull_of_its_own_phases(my_calculator):
    level, storage = "my_calculator:make", MemoryStorage()
    relaxes = Task("relax", "reference", fmax=0.02, steps=100)
    work = Work(storage, "mine")
    references = build_reference_set(
        "Au-Cu", level, relax=lambda structure: relax(structure, level, work, relaxes)
    )
    assert (references.level, references.convention) == (level, "as_computed")
    ordered = Structure(Lattice.tetragonal(2.8, 3.7), ["Cu", "Au"], [[0] * 3, [0.5] * 3])
    apart = Structure(Lattice.cubic(9), ["Cu", "Au"], [[0] * 3, [0.5] * 3])
    refs = store_crystals(storage, [("mine-0", ordered), ("mine-1", apart)])
    (job,) = compute_jobs(refs, level, Task("relax"), campaign_id="mine", batch=8)
    assert job.name == "relax my_calculator:make 1/1"
    with use_storage(storage):
        outputs = run_locally(Flow([job]), log=False, ensure_success=True)
    assert outputs[job.uuid][1].output == 2
    rows = {row.candidate_id: row for row in storage.rows("mine", f"relax:{level}")}
    assert set(rows) == {"mine-0", "mine-1"}
    found = rows["mine-0"].read(Relaxation)
    assert (found.verdict, rows["mine-0"].goes_on, rows["mine-0"].index) == ("converged", True, 0)
    assert storage.get_structures([rows["mine-0"].key])[rows["mine-0"].key] == found.structure
    query = HullQuery(
        id="mine-0",
        composition=found.structure.composition,
        energy=found.energy,
        convention=found.convention,
        level=level,
    )
    (placed,) = Hull(correct_references(references)).place([query])
    # EMT's CuAu (L1_0) is stable, or its prototype is the very phase that it competes with
    assert placed.energy_above_hull == pytest.approx(0, abs=0.01)
    assert placed.formation_energy_per_atom < 0
