"""A database for the explorer: a made-up campaign with jobs, and a crystal with real phonons."""

from functools import lru_cache
from typing import Any

import ledger_factory as factory
from pymatgen.core import Structure

from pccd_workflows import collect, columns
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.engines.engine import Work
from pccd_workflows.engines.phonons import compute_phonons
from pccd_workflows.execution import mongo
from pccd_workflows.execution.mongo_storage import MongoStorage

CAMPAIGN = factory.campaign()
REAL = 89
"""Index of the crystal whose forces are stored."""
JOBS = (  # name, state, the jobs that it waits for
    ("generate 1/2", "COMPLETED", ()),
    ("generate 2/2", "COMPLETED", ()),
    ("deduplicate", "COMPLETED", (0, 1)),
    ("start rung chgnet", "COMPLETED", (2,)),
    ("relax chgnet 1/2", "COMPLETED", (3,)),
    ("relax chgnet 2/2", "FIZZLED", (3,)),
    ("references Mg-Mn-O chgnet", "COMPLETED", (2,)),
    ("hull chgnet", "RUNNING", (4, 5, 6)),
    ("start phonons", "WAITING", (7,)),
    *((f"phonons chgnet {CAMPAIGN.candidate_id(i)}", "WAITING", (8,)) for i in range(3)),
)
STARTED = ("COMPLETED", "RUNNING", "FIZZLED")
FAILED, EARLIER, STARTS = 5, 99, 100
"""The job that failed; its first start, whose worker died; number of the first of the others."""


def fill(database: Any, *docs: CandidateDoc) -> None:
    """Store a campaign of some 160 crystals with its jobs, and further crystals."""
    columns.ensure_indexes(database)
    rows = [*_made_up(), *map(_row, docs)]
    database["candidates"].insert_many([row | {"_id": row["candidate_id"]} for row in rows])
    database["campaigns"].insert_one(factory.campaign_document())
    mongo.put_reference_set(database, factory.reference_set())
    store_jobs(database)


@lru_cache(maxsize=1)
def _made_up() -> list[dict[str, Any]]:
    return [_row(doc) for doc in factory.demo(n_judged=30)]


def _row(doc: CandidateDoc) -> dict[str, Any]:
    return doc.model_dump(mode="json") | {"reached": collect.reached(CAMPAIGN, doc.records)}


def store_jobs(database: Any) -> None:
    """Store jobs as FireWorks does."""
    links: dict[str, list[int]] = {str(number): [] for number in range(len(JOBS))}
    parents = {str(number): list(before) for number, (_, _, before) in enumerate(JOBS)}
    for number, (_, _, before) in enumerate(JOBS):
        for parent in before:
            links[str(parent)].append(number)
    nodes = [*range(len(JOBS))]
    workflow = {"nodes": nodes, "links": links, "parent_links": parents}
    database["workflows"].insert_one(workflow)
    database["fireworks"].insert_many(
        {
            "fw_id": number,
            "name": name,
            "state": state,
            "updated_on": "2026-11-22T15:59:07.120000",
            "launches": [STARTS + number] if state in STARTED else [],
            "archived_launches": [EARLIER] if number == FAILED else [],
            "spec": {
                "campaign_id": CAMPAIGN.campaign_id,
                "candidates": [CAMPAIGN.candidate_id(160)] if number == FAILED else [],
            },
        }
        for number, (name, state, _) in enumerate(JOBS)
    )
    database["launches"].insert_many(
        _launch(STARTS + number, state)
        for number, (_, state, _) in enumerate(JOBS)
        if state in STARTED
    )
    database["launches"].insert_one(_launch(EARLIER, "ARCHIVED") | {"released": "died"})


def _launch(number: int, state: str) -> dict[str, Any]:
    """Return a start of a job; one that ended took two minutes and a half."""
    history = [{"state": "RUNNING", "created_on": "2026-11-22T15:56:37.000000"}]
    if state != "RUNNING":
        history.append({"state": state, "created_on": "2026-11-22T15:59:07.000000"})
    trace = (
        "Traceback (most recent call last):\n"
        '  File "pccd_workflows/engines/potential.py", line 88, in relax_batch\n'
        "    forces = model(batch)\nMemoryError: 12 GB are not enough"
    )
    exception = {"_exception": {"_stacktrace": trace}} if state == "FIZZLED" else {}
    return {
        "launch_id": number,
        "state": state,
        "state_history": history,
        "host": "node3",
        "fworker": {"name": "node3:4711:9c1f-88231"},
        "launch_dir": f"/scratch/pccd/runs/{number}",
        "action": {"stored_data": exception},
    }


def real_crystal(database: Any, structure: Structure, level: str) -> CandidateDoc:
    """Return a candidate whose phonons were computed, with their forces in the database."""
    section = CAMPAIGN.phonons
    assert section is not None
    settings = section.model_copy(update={"level": level})
    record = compute_phonons(structure, settings, Work(MongoStorage(database)))
    assert record.bands, record.reason
    doc = factory.judged(REAL, "MgO", above=0.0, novel=False)
    relaxation = doc.relaxations[0].model_copy(update={"structure": structure})
    update = {
        "structure": structure,
        "formula_pretty": structure.composition.reduced_formula,
        "chemsys": structure.chemical_system,
        "elements": sorted(element.symbol for element in structure.elements),
        "spacegroup": structure.get_space_group_info()[0],
        "relaxations": [relaxation],
        "phonons": [record],
    }
    made = doc.model_copy(update=update)
    return made.model_copy(update={"values": columns.sortable(made.records)})
