"""What a user does with a campaign: check, submit, follow, resume. Repeatable after any kill."""

import importlib.util
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pccd_workflows.campaign import Campaign
from pccd_workflows.collect import Collector, Ledger
from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.engines.levels import engine, get_level
from pccd_workflows.execution import launchpad, mongo, reruns
from pccd_workflows.jobs.common import CPU, GPU, OPTIONAL
from pccd_workflows.pipeline import DiscoveryMaker
from pccd_workflows.settings import Settings

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.checkpoint import ModelInfo

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


def preflight(campaign: Campaign, settings: Settings) -> "ModelInfo":
    """Check everything a campaign needs on this machine before anything is stored.

    Raises
    ------
    InputError, MissingDependencyError
        One sentence: the model, an element, a level or a file is missing or does not fit.
    """
    from pccd_workflows.generators.pccd.checkpoint import check_weights, find_model, read_model_info

    folder = find_model(campaign.generate.model, settings)
    info = read_model_info(folder)
    check_weights(folder, info)
    _check_elements(campaign, info)
    levels = [rung.level for rung in campaign.rungs]
    if campaign.phonons is not None:
        levels += filter(None, [campaign.phonons.level, campaign.phonons.confirm])
    for name in levels:
        level = get_level(name)
        if importlib.util.find_spec(level.calculator.partition(":")[0].split(".")[0]) is None:
            raise MissingDependencyError(
                f"Level {name!r} needs a package that is not installed: "
                f"pip install {level.package!r}."
            )
    _check_dft(campaign, settings)
    path = campaign.references.path
    if path is not None and not path.exists():
        raise InputError(f"references.path: there is no file or folder {path}.")
    check_known_materials(campaign, settings)
    return info


def check_known_materials(campaign: Campaign, settings: Settings) -> None:
    """See that imported sets are there, and that MP can be asked or was asked before."""
    if campaign.novelty.sets:
        from pccd_workflows.known.sets import check_known_sets

        check_known_sets(mongo.database(settings), campaign.novelty.sets)
    if campaign.references.source == "materials_project":
        from pccd_workflows.known.mp_client import NO_KEY, has_api_key
        from pccd_workflows.known.snapshots import MongoSnapshot

        if not has_api_key() and not MongoSnapshot(mongo.database(settings)).versions():
            raise InputError(NO_KEY)


def _check_dft(campaign: Campaign, settings: Settings) -> None:
    """See that the program of each DFT level is there, and what it needs for each element."""
    section = campaign.phonons
    levels = [rung.level for rung in campaign.rungs]
    levels += filter(None, [section.level, section.confirm] if section else [])
    for level in sorted(set(levels)):
        if get_level(level).kind == "dft":
            check_engine(level, sorted(_elements(campaign)), settings)
    if campaign.references.path is not None:
        _check_reference_file(campaign, campaign.references.path)


def _check_reference_file(campaign: Campaign, path: Path) -> None:
    """Refuse a file whose energies are not those of every DFT rung: nothing computes them here."""
    from pccd_workflows.known.reference_files import load_reference_set

    chemsys = "-".join(sorted(_elements(campaign)))
    for rung in campaign.rungs:
        level = get_level(rung.level)
        if level.kind == "dft":
            load_reference_set(path, chemsys, level.name, level.convention)


def check_engine(level: str, elements: list[str], settings: Settings) -> None:
    """See that the program of a DFT level is there, with what it needs for each element."""
    if engine(level) == "gpaw":
        from pccd_workflows.engines import gpaw

        gpaw.check_ready(level, elements)
    else:
        from pccd_workflows.engines import vasp

        vasp.check_ready(level, elements, settings)


def _elements(campaign: Campaign) -> set[str]:
    """Return every element that a campaign's crystals may hold."""
    request = campaign.generate
    if request.draw is not None:
        return {*request.draw.elements, *request.draw.always}
    sets = request.element_sets or [request.elements or []]
    return {symbol for elements in sets for symbol in elements}


def _check_elements(campaign: Campaign, info: "ModelInfo") -> None:
    request = campaign.generate
    symbols = _elements(campaign)
    if request.draw is not None:
        largest = request.draw.n_elements[1]
    else:
        largest = max(len(s) for s in request.element_sets or [request.elements or []])
    if largest > info.max_elements:
        raise InputError(
            f"generate: model {info.name!r} handles at most {info.max_elements} elements in one "
            f"crystal, not {largest}."
        )
    if foreign := sorted(symbols - set(info.elements)):
        raise InputError(f"generate: model {info.name!r} was not trained on {', '.join(foreign)}.")


def submit(campaign: Campaign, settings: Settings) -> Document:
    """Store a campaign and its workflow once; return the campaign's document.

    A submission that was cut off is completed; one that exists already is returned as it is.

    Raises
    ------
    InputError
        The campaign does not fit this machine (see `preflight`).
    """
    info = preflight(campaign, settings)
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    campaigns = database["campaigns"]
    document = {
        "schema_version": SCHEMA_VERSION,
        "name": campaign.name,
        "hash": campaign.hash,
        "campaign": campaign.resolved(),
        "weights_sha256": info.weights_sha256,
        "model": info.name,
        "submitted_at": datetime.now(UTC),
        "state": "submitting",
        "fw_ids": [],
    }
    campaigns.update_one({"_id": campaign.campaign_id}, {"$setOnInsert": document}, upsert=True)
    stored = campaign_document(campaign.campaign_id, settings)
    if stored["state"] == "submitting":
        _submit_workflow(campaign, stored, settings)
        stored = campaign_document(campaign.campaign_id, settings)
    return stored


def _submit_workflow(campaign: Campaign, document: Document, settings: Settings) -> None:
    """Add the workflow unless a submission that was cut off already did."""
    if not launchpad.campaign_states(settings, campaign.campaign_id):
        flow = DiscoveryMaker().make(campaign, document["weights_sha256"])
        launchpad.submit(flow, settings)
    mongo.database(settings)["campaigns"].update_one(
        {"_id": campaign.campaign_id}, {"$set": {"state": "submitted"}}
    )


def stages_by_category(campaign: Campaign) -> dict[str, list[str]]:
    """Return what workers of each category do for a campaign (see jobs.common.assign)."""
    stages: dict[str, list[str]] = {GPU: ["generate"], CPU: []}
    for rung in campaign.rungs:
        stages[CPU if get_level(rung.level).kind == "dft" else GPU].append(f"rung {rung.level}")
    if campaign.phonons is not None:
        stages[GPU].append("phonons")
        levels = filter(None, [campaign.phonons.level, campaign.phonons.confirm])
        stages[CPU] += [f"phonons {x}" for x in levels if get_level(x).kind == "dft"]
    return {category: names for category, names in stages.items() if names}


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
        hint = f"; there are {', '.join(known)}" if known else "; none was submitted yet"
        raise InputError(f"There is no campaign {name!r}{hint}.")
    mongo.check_schema_version(document, f"campaign {name!r}")
    return dict(document)


def stored_campaign(document: Document) -> Campaign:
    """Return the campaign of a stored document."""
    return Campaign.model_validate(document["campaign"])


def progress(campaign_id: str, settings: Settings) -> Progress:
    """Return where a campaign's jobs stand."""
    return Progress(
        states=launchpad.campaign_states(settings, campaign_id),
        failures=launchpad.failures(settings, campaign_id),
    )


def collector(document: Document, settings: Settings) -> Collector:
    """Return the collector of a campaign."""
    return Collector(mongo.database(settings), mongo.job_store(settings), stored_campaign(document))


def lost_candidates(failures: list[Document]) -> dict[str, str]:
    """Return why each candidate of a failed job is held back, by candidate_id."""
    return {
        candidate_id: f"Job {failure['name']!r} failed: {failure['error']}"
        for failure in failures
        if not failure["metadata"].get(OPTIONAL)
        for candidate_id in failure["metadata"].get("candidates", [])
    }


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
    """Return a campaign's name or id as given on the command line; refuse anything else."""
    if not SAFE_REFERENCE.fullmatch(name):
        raise InputError(f"{name!r} is no campaign name or id (letters, digits, '.', '_', '-').")
    return name


@dataclass(frozen=True)
class FunnelStep:
    """One step of the funnel.

    reached: candidates that passed it. out_of: those that were asked; None if not known yet.
    """

    name: str
    reached: int
    out_of: int | None = None


def funnel(campaign: Campaign, settings: Settings) -> list[FunnelStep]:
    """Count a campaign's candidates step by step, inside the database."""
    group: Document = {"_id": None, "generated": {"$sum": 1}}
    conditions: dict[str, Document] = {
        "decoded": {"$eq": [{"$ifNull": ["$generation.error_class", None]}, None]},
        "screened": {"$eq": ["$screening.passed", True]},
        "unique": {
            "$and": [
                {"$ne": [{"$ifNull": ["$novelty", None]}, None]},
                {"$eq": [{"$ifNull": ["$novelty.duplicate_of", None]}, None]},
            ]
        },
    }
    for number, rung in enumerate(campaign.rungs):
        usable = {"$in": [_nth("relaxations.verdict", number), ["converged", "unconverged"]]}
        conditions[f"relaxed at {rung.level}"] = usable
        near = f"within {rung.keep.energy_above_hull * 1000:.0f} meV/atom ({rung.level})"
        conditions[near] = {"$eq": [_nth("stabilities.passed", number), True]}
    if campaign.phonons is not None:
        conditions["phonons computed"] = {"$gt": [{"$size": "$phonons"}, 0]}
        conditions["phonon-stable"] = {"$eq": ["$phonon_stable", True]}
    for name, condition in conditions.items():
        group[_key(name)] = {"$sum": {"$cond": [condition, 1, 0]}}
    pipeline = [{"$match": {"campaign_id": campaign.campaign_id}}, {"$group": group}]
    row = next(iter(mongo.database(settings)["candidates"].aggregate(pipeline)), {})
    steps = [FunnelStep("generated", row.get("generated", 0), campaign.generate.samples)]
    for name in conditions:
        steps.append(FunnelStep(name, row.get(_key(name), 0), steps[-1].reached))
    return steps


def _nth(path: str, number: int) -> Document:
    return {"$arrayElemAt": [f"${path}", number]}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def release_dead(campaign_id: str, settings: Settings) -> list[int]:
    """Free the jobs of workers that died; those of living ones are left alone."""
    return launchpad.release_dead_runs(settings, campaign_id)


def seconds_left(ledger: Ledger, steps: list[FunnelStep], workers: int) -> float | None:
    """Estimate the wall time left in the present stage from what its finished crystals took.

    None while nothing of the stage has finished, or nothing is left.
    """
    spent: dict[str, list[float]] = {"generate": [], "relax": []}
    for trail in ledger.trails.values():
        for stage, record in trail.records.items():
            kind = stage.partition(":")[0]
            if kind in spent and record.seconds:
                spent[kind].append(record.seconds)
    by_name = {step.name.split(" ")[0]: step for step in steps}
    generated = by_name["generated"]
    kind, todo = "generate", (generated.out_of or 0) - generated.reached
    if todo == 0:
        judged = sum(any(s.startswith("relax") for s in t.records) for t in ledger.trails.values())
        kind, todo = "relax", by_name["unique"].reached - judged
    if todo <= 0 or not spent[kind]:
        return None
    return todo * sum(spent[kind]) / len(spent[kind]) / workers


@dataclass(frozen=True)
class Best:
    """A row of the closing table. energy_above_hull: eV/atom."""

    candidate_id: str
    formula: str
    spacegroup: str
    energy_above_hull: float
    known_in: str
    phonons: str


def best_candidates(campaign_id: str, settings: Settings, limit: int) -> list[Best]:
    """Return the crystals that passed, lowest energy above hull first."""
    query = {"campaign_id": campaign_id, "status": "passed", "energy_above_hull": {"$ne": None}}
    fields = ["formula_pretty", "spacegroup", "energy_above_hull"]
    fields += ["stabilities.novelty.sets", "phonons.verdict"]
    rows = mongo.database(settings)["candidates"].find(query, fields)
    return [
        Best(
            candidate_id=row["_id"],
            formula=row["formula_pretty"],
            spacegroup=row["spacegroup"] or "?",
            energy_above_hull=row["energy_above_hull"],
            known_in=", ".join(
                name
                for name, verdict in row["stabilities"][-1]["novelty"]["sets"].items()
                if verdict["known"]
            ),
            phonons=row["phonons"][-1]["verdict"] if row["phonons"] else "-",
        )
        for row in rows.sort("energy_above_hull", 1).limit(limit)
    ]
