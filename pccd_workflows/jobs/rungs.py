"""One rung: relax what reaches it, place it on the hull; band structures beside the next rung.

ML potentials relax crystals in batches, DFT one by one: a failing crystal holds back no other.
"""

from typing import Any

from jobflow import Flow, Job, Maker, Response

from pccd_workflows.analysis.magnetism import MagneticOrdering
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.storage import ALL, CrystalRef, Share, Storage, load_crystals
from pccd_workflows.engines.engine import Task, engine_of
from pccd_workflows.jobs.common import gathered, job_storage, named, plain_job, taking, tolerant
from pccd_workflows.jobs.compute import compute_jobs
from pccd_workflows.jobs.metadata import CANDIDATES, OPTIONAL, RUNS_ANYWAY, WRITES
from pccd_workflows.jobs.stages import hull
from pccd_workflows.stages import bands, relax, sharing
from pccd_workflows.stages.rung import Rung


@plain_job
def start_rung(
    campaign: Campaign,
    rung: Rung,
    references: Any,  # noqa: ARG001
    relax_maker: Maker | None = None,
    after: Any = None,  # noqa: ARG001
) -> Response[int]:
    """Relax what the budget allows of the crystals that reach a rung, best first, and judge it.

    Crystals whose competing phases were lost fail at the hull, not before.

    relax_maker: makes the job that relaxes a structure, instead of the level's engine.
    """
    with job_storage() as storage:
        whole = Share(places=(0, relax.count_chosen(campaign, rung, storage)))
        jobs = _relax_jobs(campaign, rung, whole, storage, relax_maker)
    verdict = tolerant(hull(campaign, rung, None, [job.output for job in jobs]))
    named(verdict, f"hull {rung.level}")
    taking(verdict, relax.stage_before(campaign, rung), ALL, f"hull:{rung.level}")
    return Response(replace=Flow([*jobs, verdict], output=verdict.output))


@plain_job
def relax_share(
    campaign: Campaign, rung: Rung, share: Share, relax_maker: Maker | None = None
) -> Response[int]:
    """Start the jobs that relax a share of the crystals that reach a rung."""
    with job_storage() as storage:
        jobs = _relax_jobs(campaign, rung, share, storage, relax_maker)
    return gathered(jobs, f"relaxed {_label(share)} {rung.level}")


def _relax_jobs(
    campaign: Campaign, rung: Rung, share: Share, storage: Storage, relax_maker: Maker | None
) -> list[Any]:
    """Return the jobs that relax a share of crystals; for very many, those that start such jobs."""
    first, end = share.places or (0, 0)
    each = rung.batch if engine_of(rung.level).batched and relax_maker is None else 1
    if end - first > sharing.BRANCHES * each:
        before = relax.stage_before(campaign, rung)
        shares = sharing.by_place(first, end, each)
        shares = storage.located(campaign.campaign_id, before, shares, share)
        starts = [relax_share(campaign, rung, part, relax_maker) for part in shares]
        for start, part in zip(starts, shares, strict=True):
            taking(start, before, part, f"relax:{rung.level}")
            named(start, f"relax {_label(part)} {rung.level}")
        return starts
    refs = relax.choose(campaign, rung, storage, share)
    if relax_maker is None:
        return _engine_jobs(campaign, rung, refs)
    structures = load_crystals(storage, refs)
    return [
        step
        for ref, structure in zip(refs, structures, strict=True)
        for step in _maker_jobs(campaign, rung, ref, relax_maker.make(structure))
    ]


def _label(share: Share) -> str:
    first, end = share.places or (0, 0)
    return f"{first + 1}-{end}"


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
    """Return the job of somebody's own Maker, and the one that records what it found.

    If one of them is lost, those that take its output fail, too: the hull waits for all of them.
    """
    record = named(
        record_relaxation(campaign.campaign_id, ref, rung.level, made.output),
        f"record {rung.level} {ref.id}",
    )
    for step in (record, made):
        step.update_metadata(
            {CANDIDATES: [ref.id], WRITES: f"relax:{rung.level}", RUNS_ANYWAY: True}
        )
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
