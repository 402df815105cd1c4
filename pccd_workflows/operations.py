"""What a user does with a campaign: check, submit, follow, resume. Repeatable after any kill."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pccd_workflows import columns
from pccd_workflows.campaign import DEFAULTS, Campaign
from pccd_workflows.checks import preflight as preflight
from pccd_workflows.collect import Collector, count_funnel
from pccd_workflows.collect import FunnelCount as FunnelCount
from pccd_workflows.collect import stored_campaign as stored_campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.engines.engine import engine_of
from pccd_workflows.execution import launchpad, mongo, reruns
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.jobs.metadata import CPU, GPU
from pccd_workflows.losses import lost_candidates as lost_candidates
from pccd_workflows.losses import name_candidates
from pccd_workflows.settings import Settings
from pccd_workflows.stages.relax import stage_before

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.database import Database


Document = dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """Where a campaign's jobs stand.

    states: number of jobs by FireWorks state.
    failures: what was lost, one dictionary each (see launchpad.failures).
    """

    states: dict[str, int]
    failures: list[Document]

    @property
    def unfinished(self) -> int:
        """Jobs that can still run without anybody's help."""
        return sum(self.states.get(state, 0) for state in ("READY", "RESERVED", "RUNNING"))

    @property
    def completed(self) -> int:
        """Jobs that are done."""
        return self.states.get("COMPLETED", 0)


def submit(campaign: Campaign, settings: Settings) -> Document:
    """Store a campaign and its workflow once; return the campaign's document.

    A submission that was cut off is completed; one that exists already is returned as it is.

    Raises
    ------
    InputError
        The campaign does not fit this machine (see `preflight`).
    """
    database = mongo.database(settings)
    campaign = as_stored(campaign, settings)
    versions = preflight(campaign, settings)
    columns.ensure_indexes(database)
    campaigns = database["campaigns"]
    if campaigns.find_one({"_id": campaign.campaign_id}, {"_id": 1}) is None:
        mongo.insert_once(campaigns, _new_document(campaign, versions, settings))
    stored = campaign_document(campaign.campaign_id, settings)
    if stored["state"] == "submitting":
        submit_workflow(stored, settings)
        stored = campaign_document(campaign.campaign_id, settings)
    return stored


def _new_document(campaign: Campaign, versions: list[str], settings: Settings) -> Document:
    """Return what is stored of a campaign when it is submitted."""
    asks_history = "history" in campaign.novelty.against
    return {
        "_id": campaign.campaign_id,
        "schema_version": SCHEMA_VERSION,
        "name": campaign.name,
        "hash": campaign.hash,
        "campaign": campaign.resolved(),
        "defaults": DEFAULTS,
        "versions": versions,
        "history": finished_campaigns(settings) if asks_history else [],
        "submitted_at": datetime.now(UTC),
        "state": "submitting",
        "fw_ids": [],
    }


def as_stored(campaign: Campaign, settings: Settings) -> Campaign:
    """Return the campaign of a file under the id that it was stored under, if it was stored.

    A later version may know more options, and a file's id is a hash over all of them. A stored
    campaign is that of the file if both are equal with every default filled in; of options that had
    another default when it was stored, with that one.
    """
    campaigns = mongo.database(settings)["campaigns"]
    if campaigns.find_one({"_id": campaign.campaign_id}, {"_id": 1}) is not None:
        return campaign
    for document in campaigns.find({"name": campaign.name}).sort("submitted_at", -1):
        with suppress(ValidationError):  # this version cannot read it: it is not the file's
            stored = stored_campaign(document)
            if stored.hash == campaign.with_defaults(document.get("defaults", 1)).hash:
                return stored
    return campaign


def finished_campaigns(settings: Settings) -> list[str]:
    """Return the campaigns with nothing left to run, by id, their candidates collected.

    A campaign that is submitted now calls their crystals known, whatever is submitted or finishes
    later.
    """
    database = mongo.database(settings)
    finished = []
    for document in database["campaigns"].find({"state": {"$ne": "submitting"}}).sort("_id", 1):
        campaign_id = document["_id"]
        state = progress(campaign_id, settings)
        if state.unfinished or state.states.get("WAITING", 0):
            continue
        with suppress(ValidationError):  # of a version that cannot be read: as it was collected
            collect(document, state, settings)
        finished.append(campaign_id)
    return finished


def submit_workflow(document: Document, settings: Settings) -> None:
    """Add the workflow, in one step with the note that it was: of several processes one does.

    document: of the campaign, in state ``submitting``.
    """
    from pccd_workflows.pipeline import DiscoveryMaker  # jobflow: half a second

    def claim(database: "Database[Document]", session: "ClientSession | None") -> bool:
        query = {"_id": document["_id"], "state": "submitting"}
        done = {"$set": {"state": "submitted"}}
        found = database["campaigns"].find_one_and_update(query, done, session=session)
        return found is not None

    campaign = stored_campaign(document)
    flow = DiscoveryMaker().make(campaign, _versions(document))
    launchpad.submit(flow, settings, claim=claim)


def _versions(document: Document) -> list[str]:
    """Return the versions of a stored campaign's sources; version 1 had one model."""
    versions: list[str] = document.get("versions") or [document["weights_sha256"]]
    return versions


def stages_by_category(campaign: Campaign) -> dict[str, list[str]]:
    """Return what workers of each category do for a campaign (see jobs.common.assign)."""
    work: dict[str, list[str]] = {GPU: ["generate"], CPU: []}
    for rung in campaign.rungs:
        work[engine_of(rung.level).category].append(f"rung {rung.level}")
    if campaign.phonons is not None:
        work[GPU].append("phonons")
        levels = filter(None, [campaign.phonons.level, campaign.phonons.confirm])
        work[CPU] += [f"phonons {x}" for x in levels if engine_of(x).category == CPU]
    return {category: names for category, names in work.items() if names}


def campaign_document(name: str, settings: Settings) -> Document:
    """Return the document of a campaign, by id or by name (the latest of that name).

    Raises
    ------
    InputError
        There is none; the message names those that exist.
    """
    campaigns = mongo.database(settings)["campaigns"]
    query = {"$or": [{"_id": name}, {"name": name}]}
    document = campaigns.find_one(query, sort=[("submitted_at", -1)])
    if document is None:
        known = sorted({row["name"] for row in campaigns.find({}, {"name": 1}).limit(20)})
        hint = f"; submitted: {', '.join(known)}" if known else "; none was submitted yet"
        raise InputError(f"There is no campaign {name!r}{hint}.")
    mongo.check_schema_version(document, f"campaign {name!r}")
    return dict(document)


def campaign_id_of(name: str, settings: Settings) -> str:
    """Return the id of a campaign given by name or id; also of one that has jobs alone.

    Raises
    ------
    InputError
        There is neither such a campaign nor a job of one.
    """
    check_reference(name)
    if sum(launchpad.campaign_states(settings, name).values()):
        return name
    return str(campaign_document(name, settings)["_id"])


def progress(campaign_id: str, settings: Settings) -> Progress:
    """Return where a campaign's jobs stand."""
    failures = launchpad.failures(settings, campaign_id)
    name_candidates(campaign_id, failures, MongoStorage(mongo.database(settings)))
    return Progress(launchpad.campaign_states(settings, campaign_id), failures)


def collector(document: Document, settings: Settings) -> Collector:
    """Return the collector of a campaign."""
    database = mongo.database(settings)
    return Collector(database, MongoStorage(database), stored_campaign(document))


def collect(document: Document, progress: Progress, settings: Settings) -> int:
    """Fold what a campaign's jobs wrote and lost into its candidates; return how many changed."""
    lost = lost_candidates(stored_campaign(document), progress.failures)
    return collector(document, settings).update(lost)


@dataclass(frozen=True)
class Restarted:
    """What `restart` put back (lost jobs, failed jobs) and why it left other failed ones."""

    released: list[int]
    rerun: list[int]
    refused: dict[int, str]


def restart(
    campaign_id: str, settings: Settings, max_attempts: int, *, dry_run: bool = False
) -> Restarted:
    """Make a campaign runnable again: free jobs of dead workers, rerun failed ones.

    Jobs that failed `max_attempts` times are left; `pccd job undo` takes a rerun back.
    """
    if dry_run:
        released = launchpad.find_dead(launchpad.launchpad(settings), campaign_id)
    else:
        released = launchpad.release_dead_runs(settings, campaign_id)
    failures = reruns.job_failures(settings, campaign_id=campaign_id)
    outcome = reruns.rerun(settings, failures, max_attempts=max_attempts, dry_run=dry_run)
    return Restarted(released, outcome.rerun, outcome.refused)


SAFE_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,100}")


def check_reference(name: str) -> str:
    """Return a campaign's name or id as given on the command line; refuse anything else.

    Raises
    ------
    InputError
        The text cannot be one.
    """
    if not SAFE_REFERENCE.fullmatch(name):
        raise InputError(f"{name!r} is no campaign name or id (letters, digits, '.', '_', '-').")
    return name


def funnel(campaign: Campaign, settings: Settings) -> list[FunnelCount]:
    """Count a campaign's candidates step by step, inside the database."""
    return count_funnel(campaign, mongo.database(settings)["candidates"])


def nothing_left(campaign: Campaign, settings: Settings) -> str | None:
    """Say why no crystal reached the first rung where none did; None if one did.

    To be asked once all jobs have ended: a campaign that lost every crystal before any energy was
    computed asks for something that is not to be had.
    """
    counts = {step.name: step for step in funnel(campaign, settings)}
    decoded, screened = counts["decoded to a crystal"], counts["passed the screen"]
    if screened.reached:
        return None
    steps: list[Document] = [
        {"$match": {"campaign_id": campaign.campaign_id, "reason_class": {"$ne": None}}},
        {"$group": {"_id": "$reason_class", "number": {"$sum": 1}}},
        {"$sort": {"number": -1, "_id": 1}},
    ]
    rows = mongo.database(settings)["candidates"].aggregate(steps)
    why = ", ".join(f"{row['_id']} {row['number']}" for row in rows) or "no reason is stored"
    if decoded.reached:
        return f"None of the {decoded.reached} crystals passed the screen ({why})."
    return f"None of the {campaign.n_samples} samples is a crystal ({why})."


def release_dead(campaign_id: str, settings: Settings) -> list[int]:
    """Free the jobs of workers that died; those of living ones are left alone."""
    return launchpad.release_dead_runs(settings, campaign_id)


RECENT = 200
"""Finished crystals from which the time that is left is estimated."""


def seconds_left(campaign: Campaign, settings: Settings, workers: int) -> float | None:
    """Estimate the wall time left in the present stage from what its latest crystals took.

    None while nothing of the stage has finished, or nothing is left.
    """
    database = mongo.database(settings)
    records = database["stage_records"]
    generated = records.count_documents({**_stage(campaign, "generate")})
    todo, stage = campaign.n_samples - generated, "generate"
    for rung in campaign.rungs:
        if todo > 0:
            break
        stage = f"relax:{rung.level}"
        reaching = {**_stage(campaign, stage_before(campaign, rung)), "goes_on": True}
        asked = records.count_documents(reaching)
        asked = min(asked, rung.budget.candidates or asked)
        todo = asked - records.count_documents(_stage(campaign, stage))
    rows = records.find(_stage(campaign, stage), {"record.seconds": 1}).sort("at", -1).limit(RECENT)
    spent = [row["record"]["seconds"] for row in rows]
    if todo <= 0 or not spent:
        return None
    return float(todo * sum(spent) / len(spent) / workers)


def _stage(campaign: Campaign, stage: str) -> Document:
    return {"campaign_id": campaign.campaign_id, "stage": stage}
