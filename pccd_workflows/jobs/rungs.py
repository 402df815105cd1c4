"""One rung: relax what reaches it, place it on the hull; band structures beside the next rung.

ML potentials relax crystals in batches, DFT one by one: a failing crystal holds back no other.
"""

from typing import Any

from jobflow import Flow, Job, Maker, Response

from pccd_workflows.analysis.magnetism import MagneticOrdering
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.storage import CrystalRef, load_crystals
from pccd_workflows.engines.engine import Task
from pccd_workflows.jobs.common import (
    CANDIDATES,
    OPTIONAL,
    WRITES,
    job_storage,
    named,
    plain_job,
    tolerant,
)
from pccd_workflows.jobs.compute import compute_jobs
from pccd_workflows.jobs.stages import hull
from pccd_workflows.stages import bands, relax
from pccd_workflows.stages.rung import Rung


@plain_job
def start_rung(
    campaign: Campaign,
    rung: Rung,
    systems: list[str],
    relax_maker: Maker | None = None,
    after: Any = None,  # noqa: ARG001
) -> Response[int]:
    """Relax what the budget allows of the crystals that reach a rung, best first, and judge it.

    relax_maker: makes the job that relaxes a structure, instead of the level's engine.
    """
    with job_storage() as storage:
        chosen, _ = relax.choose(campaign, rung, storage)
        refs = [row.ref for row in chosen]
        if relax_maker is None:
            jobs = _engine_jobs(campaign, rung, refs)
        else:
            structures = load_crystals(storage, refs)
            jobs = [
                step
                for ref, structure in zip(refs, structures, strict=True)
                for step in _maker_jobs(campaign, rung, ref, relax_maker.make(structure))
            ]
    verdict = tolerant(hull(campaign, rung, systems, [job.output for job in jobs]))
    named(verdict, f"hull {rung.level}")
    return Response(replace=Flow([*jobs, verdict], output=verdict.output))


def _engine_jobs(campaign: Campaign, rung: Rung, refs: list[CrystalRef]) -> list[Job]:
    """Return the jobs of the level's engine; crystals asked for different orders are apart."""
    by_order: dict[MagneticOrdering | None, list[CrystalRef]] = {}
    for ref in refs:
        by_order.setdefault(campaign.conditions(ref.id).magnetic_ordering, []).append(ref)
    jobs = []
    for ordering, members in by_order.items():
        task = Task("relax", fmax=rung.fmax, steps=rung.steps, ordering=ordering)
        jobs += compute_jobs(
            members, rung.level, task, campaign_id=campaign.campaign_id, batch=rung.batch
        )
    return jobs


def _maker_jobs(campaign: Campaign, rung: Rung, ref: CrystalRef, made: Job | Flow) -> list[Any]:
    """Return the job of somebody's own Maker, and the one that records what it found."""
    record = named(
        record_relaxation(campaign.campaign_id, ref, rung.level, made.output),
        f"record {rung.level} {ref.id}",
    )
    for step in (record, made):
        step.update_metadata({CANDIDATES: [ref.id], WRITES: f"relax:{rung.level}"})
    return [made, record]


@plain_job
def record_relaxation(campaign_id: str, ref: CrystalRef, level: str, document: Any) -> int:
    """Write what a Maker's relaxation found as the candidate's record of its rung."""
    with job_storage() as storage:
        (start,) = load_crystals(storage, [ref])
        record = relax.read_relaxation(document, start, level)
        return relax.store(storage, campaign_id, level, {ref.id: record})


@plain_job
def start_bands(
    campaign: Campaign,
    rung: Rung,
    after: Any = None,  # noqa: ARG001
) -> Response[int] | int:
    """Start the band structure of each crystal that survived a rung.

    What fails here holds back neither the crystal nor the next rung.
    """
    with job_storage() as storage:
        refs = bands.cells(campaign, rung, storage)
    jobs = compute_jobs(refs, rung.level, Task("bands"), campaign_id=campaign.campaign_id)
    for band_job in jobs:
        band_job.update_metadata({OPTIONAL: True})
    return Response(output=len(jobs), addition=Flow([*jobs])) if jobs else 0
