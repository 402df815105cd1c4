"""Databases of earlier versions: what has to change so that their campaigns go on.

Documents of version 1 are read as they are. What version 1 cannot do here is run: its jobs name
functions that are gone. So each campaign's records become rows of stages, and a campaign that is
not finished gets a workflow of today, which finds all that was computed under its content address.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pymatgen.core import Structure

from pccd_workflows import columns
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.collect import reached
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.storage import Document, StageRow, Storage, structure_key
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.operations import stored_campaign, submit_workflow
from pccd_workflows.query import to_candidate
from pccd_workflows.settings import Settings
from pccd_workflows.stages.generate import row_of_sample
from pccd_workflows.stages.hull import Stability

TOGETHER = 100
"""Candidates converted at once."""
OLDER: Document = {"schema_version": {"$lt": SCHEMA_VERSION}}


@dataclass(frozen=True)
class Step:
    """What a migration does, or would do, with one campaign.

    Attributes
    ----------
    campaign_id
        Which.
    candidates
        Number of its documents that are converted.
    unfinished
        Jobs of the former workflow that are replaced by a new one; 0: it had come to its end.
    """

    campaign_id: str
    candidates: int
    unfinished: int


@dataclass
class Migration:
    """What is to be done in a database.

    Attributes
    ----------
    steps
        One for each campaign of an older version.
    running
        Names of the jobs that living workers run.
    """

    steps: list[Step] = field(default_factory=list)
    running: list[str] = field(default_factory=list)


def plan(settings: Settings) -> Migration:
    """Return what a migration would do; changes nothing."""
    database = mongo.database(settings)
    steps = []
    for document in database["campaigns"].find(OLDER, {"_id": 1}).sort("_id", 1):
        campaign_id = document["_id"]
        states = launchpad.campaign_states(settings, campaign_id)
        steps.append(
            Step(
                campaign_id,
                database["candidates"].count_documents({"campaign_id": campaign_id}),
                sum(number for state, number in states.items() if state != "COMPLETED"),
            )
        )
    return Migration(steps, launchpad.running_jobs(settings))


def migrate(settings: Settings) -> Migration:
    """Convert every campaign of an older version; return what was done.

    Can be repeated after a kill. Back the database up before.

    Raises
    ------
    InputError
        Workers are running.
    """
    found = plan(settings)
    if found.running:
        raise InputError(
            f"Workers are running {len(found.running)} jobs ({found.running[0]}, ...): stop them "
            "first, then migrate."
        )
    columns.ensure_indexes(mongo.database(settings))
    for step in found.steps:
        _migrate_campaign(step, settings)
    return found


def _migrate_campaign(step: Step, settings: Settings) -> None:
    database = mongo.database(settings)
    document = database["campaigns"].find_one({"_id": step.campaign_id})
    if document is None:
        return
    storage = MongoStorage(database)
    query = {"campaign_id": step.campaign_id}
    rows = database["candidates"].find(query, {"_id": 0}).sort("index", 1)
    candidates = (to_candidate(row) for row in rows)
    while batch := list(islice(candidates, TOGETHER)):
        _convert(batch, storage, database)
    _convert_samples(step.campaign_id, storage, database)
    campaign = stored_campaign(document)
    database["candidates"].update_many(query, {"$set": {"schema_version": SCHEMA_VERSION}})
    for row in database["candidates"].find({**query, "reached": {"$exists": False}}, {"_id": 0}):
        steps = reached(campaign, to_candidate(row).records)
        key = {"_id": row["candidate_id"]}
        database["candidates"].update_one(key, {"$set": {"reached": steps, "further": {}}})
    done: Document = {"schema_version": SCHEMA_VERSION}
    if step.unfinished:
        launchpad.delete_workflows(settings, step.campaign_id)
        done["state"] = "submitting"
    database["campaigns"].update_one({"_id": step.campaign_id}, {"$set": done})
    if step.unfinished:
        submit_workflow({**document, **done}, settings)


def _convert(candidates: list[CandidateDoc], storage: Storage, database: Any) -> None:
    """Store candidates' records as rows, their crystals by content."""
    ids = [candidate.candidate_id for candidate in candidates]
    samples = {
        row["_id"]: plain_structure(row["structure"])
        for row in database["samples"].find({"_id": {"$in": ids}})
        if row["structure"] is not None
    }
    structures: dict[str, Structure] = {}
    rows: list[StageRow] = []
    for candidate in candidates:
        rows += _rows(candidate, samples.get(candidate.candidate_id), structures)
    storage.put_structures(structures)
    storage.put_rows(rows)


def _convert_samples(campaign_id: str, storage: Storage, database: Any) -> None:
    """Store the samples that no candidate was written for yet: the jobs were cut off."""
    written = {row.index for row in storage.rows(campaign_id, "generate")}
    for sample in database["samples"].find({"campaign_id": campaign_id}):
        if sample["index"] in written:
            continue
        row, structure = row_of_sample(sample)
        if structure is not None:
            storage.put_structures({row.ref.key: structure})
        storage.put_rows([row])


def _rows(
    candidate: CandidateDoc, sample: Structure | None, structures: dict[str, Structure]
) -> Iterator[StageRow]:
    """Yield the rows of a candidate's records; add the crystals they name to `structures`."""
    structure = sample
    for name, record in candidate.records.items():
        if isinstance(record, Relaxation) and record.structure is not None:
            structure = record.structure
        key = None if structure is None else structure_key(structure)
        if structure is not None and key is not None:
            structures[key] = structure
        yield StageRow(
            campaign_id=candidate.campaign_id,
            candidate_id=candidate.candidate_id,
            index=candidate.index,
            stage=name,
            record=record.model_dump(mode="json"),
            key=key,
            goes_on=_goes_on(name, record, candidate),
            rank=_rank(record),
            formula=candidate.formula_pretty,
            job=candidate.jobs.get(name),
        )


def _goes_on(name: str, record: Any, candidate: CandidateDoc) -> bool:
    passed = getattr(record, "passed", None)
    if passed is not None:
        return bool(passed)
    if isinstance(record, Relaxation):
        return record.usable
    if name == "generate":
        return record.error_class is None
    later = [stage for stage in candidate.records if stage not in ("generate", "screen", name)]
    return bool(later) or (name == "deduplicate" and candidate.status == "pending")


def _rank(record: Any) -> float:
    return (record.energy_above_hull or 0.0) if isinstance(record, Stability) else 0.0


def check_migrated(settings: Settings, campaign_id: str | None = None) -> None:
    """Refuse to run campaigns that an older version stored and did not finish.

    Raises
    ------
    InputError
        One sentence with the command that makes them go on.
    """
    query = OLDER if campaign_id is None else {**OLDER, "_id": campaign_id}
    for document in mongo.database(settings)["campaigns"].find(query, {"_id": 1}):
        states = launchpad.campaign_states(settings, document["_id"])
        if any(state != "COMPLETED" for state in states):
            raise InputError(
                f"Campaign {document['_id']} was begun by an older version: stop all workers, then "
                "`pccd db migrate` makes it go on (it keeps a backup)."
            )
