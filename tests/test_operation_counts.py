"""How much a crystal costs in operations on the database, whatever the clock says."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launchpad_jobs
import pytest
from fireworks import LaunchPad
from jobflow import Flow, run_locally
from pymatgen.core import Lattice, Structure
from pymongo import MongoClient, monitoring
from pymongo.database import Database

from pccd_workflows import collect, export, query
from pccd_workflows.core import records
from pccd_workflows.core.storage import store_crystals
from pccd_workflows.engines.engine import Task
from pccd_workflows.execution import launchpad, mongo, mongo_storage
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.execution.storage import use_storage
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.jobs import compute

CAMPAIGN = "c-0123456789"


class Counted(monitoring.CommandListener):
    """Counts the commands of a client."""

    number = 0

    def started(self, event: Any) -> None:
        self.number += event.command_name not in ("hello", "ping", "endSessions")

    def succeeded(self, event: Any) -> None:
        """Do nothing."""

    def failed(self, event: Any) -> None:
        """Do nothing."""


@pytest.fixture
def counted(settings) -> Iterator[tuple[Database, Counted]]:
    """The database, reached by a client that counts its commands."""
    mongo.ensure_indexes(mongo.database(settings))
    counter = Counted()
    uri = settings.mongodb_uri.get_secret_value()
    with MongoClient(uri, event_listeners=[counter], tz_aware=True) as client:
        yield client[settings.database], counter


@pytest.fixture
def scale(monkeypatch) -> Any:
    """The benchmark's campaigns, for which nothing has to be computed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("scale_campaign")


def copper(number: int) -> Structure:
    return Structure(Lattice.cubic(2.5 + 0.01 * number), ["Cu"], [[0, 0, 0]])


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_relaxed_crystal_costs_two_operations_and_a_known_one_none(scale, counted, known):
    database, counter = counted

    def cost(number: int) -> int:
        storage = MongoStorage(database)
        crystals = [(f"{CAMPAIGN}-{n:06d}", copper(n)) for n in range(number)]
        refs = store_crystals(storage, crystals)
        task = Task("relax")
        before = 0
        for _ in range(2 if known else 1):
            before = counter.number
            (job,) = compute.compute_jobs(
                refs, "trivial_engine:LEVEL", task, campaign_id=CAMPAIGN, batch=number
            )
            with use_storage(storage):
                run_locally(Flow([job]), log=False, raise_immediately=True)
        return counter.number - before

    few, many = cost(4), cost(20)
    # new ones: the result and its cost; the first four are known the second time
    assert many - few == (0 if known else 2 * 16 - 2 * 4)
    # of a job: structures and results read, budget read, structures and rows written
    assert few <= 5 + (0 if known else 2 * 4)
    rows = database["stage_records"].find({"stage": "relax:trivial_engine:LEVEL"})
    assert sum(row["goes_on"] for row in rows) == 20


def test_slow_crystals_are_told_one_by_one_and_quick_ones_together(scale, counted, monkeypatch):
    storage, told = MongoStorage(counted[0]), []
    put_rows = storage.put_rows
    monkeypatch.setattr(storage, "put_rows", lambda rows: (told.append(len(rows)), put_rows(rows)))
    refs = store_crystals(storage, [(f"{CAMPAIGN}-{n:06d}", copper(n)) for n in range(3)])
    level, task = "trivial_engine:LEVEL", Task("relax")
    for hold in (compute.HOLD_SECONDS, -1.0):
        monkeypatch.setattr(compute, "HOLD_SECONDS", hold)
        (job,) = compute.compute_jobs(refs, level, task, campaign_id=CAMPAIGN, batch=3)
        with use_storage(storage):
            run_locally(Flow([job]), log=False, raise_immediately=True)
    assert told == [3, 1, 1, 1]


def test_collecting_takes_few_operations_and_makes_no_crystals(
    scale, counted, tmp_path, monkeypatch
):
    database, counter = counted
    whole = scale.campaign(700, tmp_path)
    scale.prefill(whole, MongoStorage(database), 700)

    def refuse(_document: Any) -> Structure:
        raise AssertionError("a crystal was made")

    monkeypatch.setattr(records, "plain_structure", refuse)
    monkeypatch.setattr(mongo_storage, "plain_structure", refuse)
    collector = collect.Collector(database, MongoStorage(database), whole)
    before = counter.number
    assert collector.update() == 700
    # four pages: rows, structures and documents read (a cursor may ask twice), documents written
    assert counter.number - before <= 6 + 4 * 7
    before = counter.number
    assert collector.update() == 0
    assert counter.number - before <= 6 + 4 * 7
    rows = query.find_documents(database["candidates"], query.CandidateFilter())
    docs = (query.to_candidate(row, as_stored=True) for row in rows)
    found = export.export_candidates(docs, tmp_path / "all.csv", "csv")
    assert found.n_written == 700


def test_documents_are_the_same_with_and_without_crystals(scale, counted, tmp_path):
    database, _ = counted
    whole, storage = scale.campaign(20, tmp_path), MongoStorage(counted[0])
    scale.prefill(whole, storage, 20)
    ids = [whole.candidate_id(index) for index in range(20)]
    made = list(collect.fold(whole, storage, ids))
    stored = list(collect.fold(whole, storage, ids, as_stored=True))
    assert all(isinstance(doc.structure, Structure) for doc in made)
    assert all(isinstance(doc.structure, dict) for doc in stored)
    assert [d.model_dump(mode="json") for d in made] == [d.model_dump(mode="json") for d in stored]
    assert [export.properties(doc) for doc in made] == [
        pytest.approx(export.properties(doc)) for doc in stored
    ]
    assert database["candidates"].count_documents({}) == 0


def test_looking_at_a_campaign_loads_no_workflow_library_and_no_matcher():
    heavy = {"jobflow", "maggma", "torch", "pccd_workflows.matching.fitting", "matplotlib"}
    modules = "pccd_workflows.cli.campaign, pccd_workflows.cli.live, pccd_workflows.operations"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_end_of_a_job_looks_at_its_part_of_the_workflow(settings, monkeypatch):
    """FireWorks' own way, which reads all jobs of the workflow, is left for the last one."""
    looked_at_all = []
    refresh = LaunchPad._refresh_wf
    monkeypatch.setattr(
        LaunchPad, "_refresh_wf", lambda self, i: (looked_at_all.append(i), refresh(self, i))
    )
    leaves = [launchpad_jobs.add(number, 1) for number in range(6)]
    last = launchpad_jobs.total([leaf.output for leaf in leaves])
    launchpad.submit(Flow([*leaves, last]), settings)
    assert len(run_worker(settings).completed) == 7
    assert len(looked_at_all) == 1
