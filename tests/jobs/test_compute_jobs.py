"""The job of engines: batches, faults of the machine, budgets, costs."""

from typing import Any

import pytest
from ase.calculators.emt import EMT
from jobflow import Flow, run_locally
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import OutOfMemory
from pccd_workflows.core.storage import store_crystals
from pccd_workflows.engines import potential
from pccd_workflows.engines.engine import Task
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.storage import use_storage
from pccd_workflows.execution.stores import memory_store
from pccd_workflows.jobs.compute import compute_jobs

CAMPAIGN = "c-0123456789"


@pytest.fixture(autouse=True)
def emt(monkeypatch: pytest.MonkeyPatch) -> None:
    level = Level("emt", "potential", "uncorrected", f"{EMT.__module__}:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)


def copper(a: float, n: int = 1) -> Structure:
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Cu"], [[0, 0, 0]])
    return cell.get_primitive_structure() * (n, 1, 1)


def run(storage: MemoryStorage, structures: list[Structure], task: Task, batch: int = 8) -> Any:
    named = [(f"{CAMPAIGN}-{i}", structure) for i, structure in enumerate(structures)]
    refs = store_crystals(storage, named)
    jobs = compute_jobs(refs, "emt", task, campaign_id=CAMPAIGN, batch=batch)
    with use_storage(storage):
        responses = run_locally(Flow(jobs), log=False, raise_immediately=False)
    return jobs, responses


def test_a_batch_writes_a_row_for_each_crystal_and_hands_over_no_structure() -> None:
    storage = MemoryStorage()
    starts = [copper(3.5 + 0.05 * i) for i in range(5)]
    jobs, responses = run(storage, starts, Task("relax", fmax=0.01), batch=2)
    assert [job.name for job in jobs] == [f"relax emt {i}/3" for i in (1, 2, 3)]
    assert [responses[job.uuid][1].output for job in jobs] == [2, 2, 1]
    assert jobs[0].metadata["candidates"] == [f"{CAMPAIGN}-0", f"{CAMPAIGN}-1"]
    assert not any("lattice" in str(job.as_dict()) for job in jobs)
    rows = list(storage.rows(CAMPAIGN, "relax:emt", goes_on=True))
    assert [row.index for row in rows] == [0, 1, 2, 3, 4]
    assert {row.formula for row in rows} == {"Cu"}
    assert storage.spent(CAMPAIGN, "emt") > 0


def test_an_order_that_a_cell_cannot_have_is_a_verdict() -> None:
    storage = MemoryStorage()
    cell = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.4), ["Mn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    refs = store_crystals(storage, [(f"{CAMPAIGN}-0", cell)])
    task = Task("relax", ordering="AFM")
    jobs = compute_jobs(refs, "vasp/mp-gga", task, campaign_id=CAMPAIGN)
    with use_storage(storage):
        run_locally(Flow(jobs), log=False, raise_immediately=True)
    (row,) = storage.rows(CAMPAIGN, "relax:vasp/mp-gga")
    record = row.read(Relaxation)
    assert (record.verdict, row.goes_on) == ("error", False)
    assert (record.reason or "").startswith("AFM needs two magnetic sites, and Mn1 O1 has one")


def test_references_and_forces_hand_over_the_keys_of_their_results() -> None:
    for task in (Task("relax", "reference"), Task("forces", "phonons")):
        storage = MemoryStorage()
        jobs, responses = run(storage, [copper(3.6), copper(3.7)], task)
        keys = [responses[job.uuid][1].output for job in jobs]
        assert all(storage.get_result(key) is not None for key in keys)
        assert list(storage.rows(CAMPAIGN, "relax:emt")) == []
        assert ("candidates" in jobs[0].metadata) == (task.purpose == "phonons")


def test_the_crystal_that_does_not_fit_into_memory_fails_alone(monkeypatch) -> None:
    storage, relax = MemoryStorage(), potential.relax

    def small_memory(structure: Structure, *arguments: Any, **options: Any) -> Relaxation:
        if len(structure) > 3:
            raise OutOfMemory("MachineFault: OutOfMemoryError: CUDA out of memory")
        return relax(structure, *arguments, **options)

    monkeypatch.setattr(potential, "relax", small_memory)
    starts = [copper(3.6), copper(3.7), copper(3.6, n=4), copper(3.8), copper(3.5)]
    run(storage, starts, Task("relax"))
    rows = list(storage.rows(CAMPAIGN, "relax:emt"))
    assert [row.index for row in rows] == [0, 1, 3, 4]  # nothing is said of the large one
    monkeypatch.setattr(potential, "relax", relax)
    run(storage, starts, Task("relax"))
    assert len(list(storage.rows(CAMPAIGN, "relax:emt", goes_on=True))) == 5


def test_half_of_a_batch_answers_for_its_own_candidates_only(monkeypatch) -> None:
    def no_memory(*_: Any, **__: Any) -> Relaxation:
        raise OutOfMemory("MachineFault: OutOfMemoryError: CUDA out of memory")

    monkeypatch.setattr(potential, "relax", no_memory)
    storage = MemoryStorage()
    refs = store_crystals(storage, [(f"{CAMPAIGN}-{i}", copper(3.5 + 0.1 * i)) for i in range(4)])
    (job,) = compute_jobs(refs, "emt", Task("relax"), campaign_id=CAMPAIGN, batch=8)
    with use_storage(storage):
        store = memory_store()
        store.connect()
        halves = job.run(store).replace.jobs
    found = [half.metadata["candidates"] for half in halves if half.name.startswith("relax")]
    assert found == [[f"{CAMPAIGN}-0", f"{CAMPAIGN}-1"], [f"{CAMPAIGN}-2", f"{CAMPAIGN}-3"]]
    assert halves[0].metadata["writes"] == "relax:emt"


def test_a_broken_device_leaves_no_verdict_and_the_next_attempt_goes_on(monkeypatch) -> None:
    storage, calculate, calls = MemoryStorage(), EMT.calculate, []

    def broken(self, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("CUDA error: device-side assert triggered")
        calculate(self, *args, **kwargs)

    monkeypatch.setattr(EMT, "calculate", broken)
    starts = [copper(3.5 + 0.05 * i) for i in range(4)]
    jobs, responses = run(storage, starts, Task("relax", fmax=0.01))
    assert jobs[0].uuid not in responses
    before = len(list(storage.rows(CAMPAIGN, "relax:emt")))
    assert 0 < before < 4
    monkeypatch.setattr(EMT, "calculate", calculate)
    run(storage, starts, Task("relax", fmax=0.01))
    rows = list(storage.rows(CAMPAIGN, "relax:emt"))
    assert [row.read(Relaxation).verdict for row in rows] == ["converged"] * 4


def test_a_spent_budget_is_a_verdict_of_candidates_only(monkeypatch) -> None:
    storage = MemoryStorage()
    monkeypatch.setattr(storage, "budget", lambda *_: 1e-9)
    storage.note_cost({"campaign_id": CAMPAIGN, "level": "emt", "core_hours": 1.0})
    run(storage, [copper(3.6)], Task("relax"))
    (row,) = storage.rows(CAMPAIGN, "relax:emt")
    assert row.read(Relaxation).verdict == "budget"
    assert (row.goes_on, row.key) == (False, None)
    jobs, responses = run(storage, [copper(3.6)], Task("relax", "reference"))
    stored = storage.get_result(responses[jobs[0].uuid][1].output)
    assert stored is not None
    assert stored["verdict"] == "converged"
