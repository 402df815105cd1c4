"""See that every chemical system a rung needs has its competing phases, at the rung's level."""

from typing import Any

from jobflow import Flow, Job, Response

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.storage import store_crystals
from pccd_workflows.engines.engine import Task
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.jobs.common import assign, job_storage, named, plain_job, tolerant
from pccd_workflows.jobs.compute import compute_jobs
from pccd_workflows.jobs.metadata import GPU, RUNS_ANYWAY
from pccd_workflows.stages import references as stage
from pccd_workflows.stages import sharing
from pccd_workflows.stages.rung import Rung


@plain_job
def prepare_references(
    campaign: Campaign,
    rung: Rung,
    after: Any = None,  # noqa: ARG001
) -> Response[list[str]] | list[str]:
    """Return the chemical systems that cover all crystals, each with a stored reference set.

    Systems that have none yet are built, one job each; no job starts more than a few of them.
    """
    with job_storage() as storage:
        systems = stage.systems_of(campaign, rung, storage)
        present = stage.settle(campaign, rung, systems, storage)
    missing = [system for system in systems if system not in present]
    if not missing:
        return systems
    return _building(campaign, rung, present, missing)


def _building(
    campaign: Campaign, rung: Rung, present: list[str], missing: list[str]
) -> Response[list[str]]:
    """Return a job for each system; for very many, those that start such jobs."""
    if len(missing) <= sharing.BRANCHES:
        builds = [_build_job(campaign, rung, system) for system in missing]
        output = [*present, *(build.output for build in builds)]
        return Response(replace=Flow([*builds], output=output))
    parts = sharing.runs(missing)
    starts = [
        named(build_some(campaign, rung, part), f"references {part[0]} ... {rung.level}")
        for part in parts
    ]
    gathered = tolerant(listed(present, [start.output for start in starts]))
    systems = named(gathered, f"systems {rung.level}")
    return Response(replace=Flow([*starts, systems], output=systems.output))


@plain_job
def build_some(campaign: Campaign, rung: Rung, systems: list[str]) -> Response[list[str]]:
    """Start the jobs that build the competing phases of some systems."""
    return _building(campaign, rung, [], systems)


@plain_job
def listed(present: list[str], built: list[list[str] | None]) -> list[str]:
    """Return the systems whose competing phases were there, and those for which they were built.

    built: None for those whose job was lost.
    """
    return [*present, *(system for systems in built for system in systems or ())]


def _build_job(campaign: Campaign, rung: Rung, system: str) -> Job:
    name = f"references {system} {rung.level}"
    if stage.recomputes(campaign, rung):
        return named(recompute_references(campaign, rung, system), name)
    return named(assign(build_references(campaign, rung, system), GPU), name)


@plain_job
def build_references(campaign: Campaign, rung: Rung, chemsys: str) -> str:
    """Compute or fetch the competing phases of `chemsys`, store them, and return `chemsys`."""
    with job_storage() as storage:
        built = stage.build(campaign, rung, chemsys, storage)
        storage.put_references(built)
        storage.settle_references(campaign.campaign_id, built)
    return chemsys


@plain_job
def recompute_references(campaign: Campaign, rung: Rung, chemsys: str) -> Response[str]:
    """Compute the phases near the known hull of `chemsys` at a DFT level; return `chemsys`.

    Where one is lost there is no hull until it is run again: without it, crystals would look
    stabler than they are.
    """
    from pccd_workflows.known.materials_project import NEAR_IN_SOURCE, choose_phases

    with job_storage() as storage:
        known = stage.known_phases(campaign, chemsys, storage)
        known_id = storage.put_references(known)
        chosen = choose_phases(known, NEAR_IN_SOURCE, rung.budget.references)
        refs = store_crystals(
            storage,
            [(entry.entry_id, entry.structure) for entry in chosen if entry.structure is not None],
        )
    task = Task("relax", "reference")
    jobs = compute_jobs(refs, rung.level, task, campaign_id=campaign.campaign_id)
    ids, keys = [ref.id for ref in refs], [job.output for job in jobs]
    gather = gather_references(rung, known_id, ids, keys, campaign.campaign_id)
    named(gather, f"references {chemsys} {rung.level}")
    gather.update_metadata({RUNS_ANYWAY: True})
    return Response(replace=Flow([*jobs, gather], output=gather.output))


@plain_job
def gather_references(
    rung: Rung,
    known_id: str,
    entry_ids: list[str],
    keys: list[str],
    campaign_id: str | None = None,
) -> str:
    """Store the recomputed phases of the reference set `known_id`; return its chemical system.

    Parameters
    ----------
    keys
        Of their relaxations.
    campaign_id
        Which campaign uses them; None in jobs of earlier versions.

    Raises
    ------
    InputError
        The reference set is not stored any more.
    """
    from pccd_workflows.known.materials_project import NEAR_IN_SOURCE, recomputed

    with job_storage() as storage:
        known = storage.get_references(known_id)
        if known is None:
            raise InputError(f"The reference set {known_id} is gone; run `pccd campaign resume`.")
        settings = {
            "max_energy_above_hull": NEAR_IN_SOURCE,
            "at_most": rung.budget.references,
        }
        relaxations = {
            entry_id: Relaxation.model_validate(storage.get_result(key))
            for entry_id, key in zip(entry_ids, keys, strict=True)
        }
        found = recomputed(known, rung.level, relaxations, settings)
        storage.put_references(found)
        if campaign_id is not None:
            storage.settle_references(campaign_id, found)
    return known.chemsys
