"""Dynamical stability of the best crystals, one flow for each.

With a potential all of it runs in one job; with DFT each displacement is a job of its own, so that
a lost one is run again alone. An ambiguous verdict is settled at the level of `confirm`.
"""

from collections.abc import Sequence
from typing import Any

from jobflow import Flow, Job, Response

from pccd_workflows.analysis.kpaths import symmetric_cell
from pccd_workflows.analysis.magnetism import MagneticOrdering, why_not
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import PccdError
from pccd_workflows.core.storage import CrystalRef, Storage, load_crystals, store_crystals
from pccd_workflows.engines import phonons as engine
from pccd_workflows.engines.engine import Displacement, Task, Work, engine_of
from pccd_workflows.engines.records import Forces, Phonons, Relaxation
from pccd_workflows.jobs.common import assign, job_storage, named, plain_job
from pccd_workflows.jobs.compute import compute_jobs
from pccd_workflows.jobs.metadata import CANDIDATES, CPU, GPU
from pccd_workflows.stages import phonons as stage
from pccd_workflows.stages.phonons import PhononsSection


@plain_job
def start_phonons(
    campaign: Campaign,
    after: Any = None,  # noqa: ARG001
) -> Response[int] | int:
    """Start the phonons of the lowest crystals that qualify, a flow each."""
    section = campaign.phonons
    if section is None:
        return 0
    with job_storage() as storage:
        refs = [row.ref for row in stage.choose(campaign, storage)]
    starts = [
        _start(campaign.campaign_id, ref, section, campaign.conditions(ref.id).magnetic_ordering)
        for ref in refs
    ]
    return Response(output=len(starts), addition=Flow([*starts])) if starts else 0


def _start(
    campaign_id: str, ref: CrystalRef, section: PhononsSection, ordering: MagneticOrdering | None
) -> Job:
    """Return the first job of a crystal's phonons."""
    first = candidate_phonons(campaign_id, ref, section, ordering)
    first.update_metadata({CANDIDATES: [ref.id]})
    category = GPU if engine_of(section.level).batched else CPU
    return named(assign(first, category), f"phonons {section.level} {ref.id}")


@plain_job
def candidate_phonons(
    campaign_id: str,
    ref: CrystalRef,
    section: PhononsSection,
    ordering: MagneticOrdering | None = None,
) -> Response[str] | str:
    """Compute one crystal's phonons, unless they are stored already; return the verdict."""
    with job_storage() as storage:
        (structure,) = load_crystals(storage, [ref])
        key = engine.phonon_key(structure, section.level, section, ordering)
        if (record := engine.stored_phonons(key, storage)) is not None:
            return _settled(storage, campaign_id, ref, section, record, ordering)
        if not engine_of(section.level).batched:
            if (reason := why_not(structure, ordering)) is not None:
                return _written(storage, campaign_id, ref, stage.failed(section, reason))
            return Response(replace=_dft_phonons(campaign_id, ref, section, ordering))
        record = engine.compute_phonons(structure, section, Work(storage, campaign_id))
        return _settled(storage, campaign_id, ref, section, record, ordering)


# --- with DFT: a job for each displacement -------------------------------------------------------


def _dft_phonons(
    campaign_id: str, ref: CrystalRef, section: PhononsSection, ordering: MagneticOrdering | None
) -> Flow:
    """Return the flow that brings a crystal to rest with DFT, then displaces its atoms."""
    with job_storage() as storage:
        (structure,) = load_crystals(storage, [ref])
        whole = store_crystals(storage, [(ref.id, symmetric_cell(structure))])
    task = Task("tight", "phonons", ordering=ordering)
    (tight,) = compute_jobs(whole, section.level, task, campaign_id=campaign_id)
    displaced = named(
        displace(campaign_id, ref, tight.output, section, ordering),
        f"displacements {section.level} {ref.id}",
    )
    flow = Flow([tight, displaced], output=displaced.output)
    flow.update_metadata({CANDIDATES: [ref.id]})
    return flow


@plain_job
def displace(
    campaign_id: str,
    ref: CrystalRef,
    tight_key: str,
    section: PhononsSection,
    ordering: MagneticOrdering | None,
) -> Response[str] | str:
    """Start a job for the forces of each displaced supercell, and the one that judges them.

    tight_key: of the relaxation that brought the crystal to rest.
    """
    with job_storage() as storage:
        tight = Relaxation.model_validate(storage.get_result(tight_key))
        if tight.verdict != "converged" or tight.structure is None:
            reason = f"No phonons: the relaxation is {tight.verdict}. {tight.reason or ''}"
            return _written(storage, campaign_id, ref, stage.failed(section, reason))
        try:
            cell, count = engine.cell_to_displace(tight, section)
        except PccdError as error:
            return _written(storage, campaign_id, ref, stage.failed(section, str(error)))
        refs = store_crystals(storage, [(ref.id, cell)])
    jobs = []
    for number in range(count):
        moved = Displacement(number, section.min_length, section.displacement)
        task = Task("forces", "phonons", displacement=moved)
        (forces,) = compute_jobs(refs, section.level, task, campaign_id=campaign_id)
        jobs.append(named(forces, f"forces {number + 1}/{count} {section.level} {ref.id}"))
    keys = [forces.output for forces in jobs]
    verdict = named(
        judge_forces(campaign_id, ref, tight_key, keys, section, ordering),
        f"phonons verdict {ref.id}",
    )
    whole = Flow([*jobs, verdict], output=verdict.output)
    whole.update_metadata({CANDIDATES: [ref.id]})
    return Response(replace=whole)


@plain_job
def judge_forces(
    campaign_id: str,
    ref: CrystalRef,
    tight_key: str,
    force_keys: Sequence[str],
    section: PhononsSection,
    ordering: MagneticOrdering | None,
) -> Response[str] | str:
    """Judge a crystal by the forces of all its displaced supercells and store the verdict."""
    with job_storage() as storage:
        (structure,) = load_crystals(storage, [ref])
        tight = Relaxation.model_validate(storage.get_result(tight_key))
        forces = [Forces.model_validate(storage.get_result(key)) for key in force_keys]
        record = engine.judge_displacements(tight, forces, section)
        key = engine.phonon_key(structure, section.level, section, ordering)
        storage.put_result(key, "phonons", record.model_dump(mode="json"))
        return _settled(storage, campaign_id, ref, section, record, ordering)


def _settled(
    storage: Storage,
    campaign_id: str,
    ref: CrystalRef,
    section: PhononsSection,
    record: Phonons,
    ordering: MagneticOrdering | None,
) -> Response[str] | str:
    """Write the verdict; where it is ambiguous, start the calculation that settles it."""
    verdict = _written(storage, campaign_id, ref, record)
    better = stage.confirmation(section, record)
    if better is None:
        return verdict
    return Response(output=verdict, addition=Flow([_start(campaign_id, ref, better, ordering)]))


def _written(storage: Storage, campaign_id: str, ref: CrystalRef, record: Phonons) -> str:
    stage.store(storage, campaign_id, ref, record)
    return record.verdict
