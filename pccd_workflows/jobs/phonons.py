"""Dynamical stability of the best crystals, one flow for each.

With a potential all displacements run in one job; with DFT each is a job of its own, so that a lost
one is run again alone. An ambiguous verdict is settled at the level of `confirm`.
"""

import time
from collections.abc import Sequence
from typing import Any

from jobflow import Flow, Job, Response

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.core.errors import PccdError
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Phonons, Relaxation
from pccd_workflows.jobs.common import branching_job, stage_database
from pccd_workflows.jobs.dft import dft_job
from pccd_workflows.jobs.relax import relax_once
from pccd_workflows.stages.hull import Stability
from pccd_workflows.stages.phonons import PhononsSection


@branching_job
def start_phonons(campaign: Campaign, judged: StageOutput) -> Response[StageOutput] | StageOutput:
    """Start the phonons of the lowest crystals that qualify, a flow each."""
    section = campaign.phonons
    if section is None:
        return StageOutput(stage="phonons:none")
    empty = StageOutput(stage=_stage(section))
    ordering = campaign.generate.conditions.magnetic_ordering
    flows = [_start(crystal, section, ordering) for crystal in choose(judged, section)]
    return Response(output=empty, addition=Flow(flows)) if flows else empty


def _start(crystal: Crystal, section: PhononsSection, ordering: str | None) -> Job:
    """Return the first job of a crystal's phonons."""
    job = candidate_phonons(crystal, section, ordering)
    job.name = f"phonons {section.level} {crystal.candidate_id}"
    job.update_metadata({"candidates": [crystal.candidate_id]})
    return job


def choose(judged: StageOutput, section: PhononsSection) -> list[Crystal]:
    """Return the crystals worth a phonon calculation, lowest energy above hull first."""

    def qualifies(crystal: Crystal) -> bool:
        record = judged.records[crystal.candidate_id]
        if not isinstance(record, Stability) or record.energy_above_hull is None:
            return False
        new = record.novelty is not None and record.novelty.novel
        near = record.energy_above_hull <= section.max_energy_above_hull
        return near and (new or not section.novel_only)

    return [crystal for crystal in judged.survivors if qualifies(crystal)][: section.candidates]


@branching_job
def candidate_phonons(
    crystal: Crystal, section: PhononsSection, ordering: str | None = None
) -> Response[StageOutput] | StageOutput:
    """Relax one crystal tightly and compute its phonons, unless they are stored already."""
    from pccd_workflows.engines.phonons import phonon_flow, phonon_key, tight_cell
    from pccd_workflows.execution.mongo import get_result

    key = phonon_key(crystal.structure, section.level, section, ordering)
    if (stored := get_result(stage_database(), key)) is not None:
        record = Phonons.model_validate(stored)
        return _settled(crystal, section, record, ordering)
    if get_level(section.level).kind == "dft":
        return Response(replace=_dft_phonons(crystal, section, ordering, key))
    began = time.time()
    try:
        tight = tight_cell(crystal.structure, section.level, relax=relax_once)
        flow = phonon_flow(tight, section.level, section)
    except PccdError as error:
        record = Phonons(
            level=section.level,
            verdict="error",
            reason=str(error),
            tolerance=section.tolerance_thz,
            seconds=time.time() - began,
        )
        return _output(crystal.candidate_id, section, record)
    verdict = record_phonons(crystal, key, flow.output, section, began, ordering)
    verdict.name = f"phonons verdict {crystal.candidate_id}"
    whole = Flow([flow, verdict], output=verdict.output)
    whole.update_metadata({"candidates": [crystal.candidate_id]})
    return Response(replace=whole)


@branching_job
def record_phonons(
    crystal: Crystal,
    key: str,
    document: Any,
    section: PhononsSection,
    began: float,
    ordering: str | None,
) -> Response[StageOutput] | StageOutput:
    """Judge a finished phonon calculation and store the verdict under its content's address.

    began: when the calculation started, s since the epoch.
    """
    from pccd_workflows.engines.phonons import phonon_record
    from pccd_workflows.execution.mongo import put_result

    seconds = time.time() - began
    record = phonon_record(document, section.level, section, seconds=seconds)
    put_result(stage_database(), key, "phonons", record.model_dump(mode="json"))
    return _settled(crystal, section, record, ordering)


# --- with DFT --------------------------------------------------------------------------------


def _dft_phonons(crystal: Crystal, section: PhononsSection, ordering: str | None, key: str) -> Flow:
    """Return the flow that brings a crystal to rest with DFT, then displaces its atoms."""
    from pccd_workflows.analysis.kpaths import symmetric_cell

    whole = Crystal(candidate_id=crystal.candidate_id, structure=symmetric_cell(crystal.structure))
    tight = dft_job(whole, section.level, ordering, "tight")
    displaced = displace(crystal, key, tight.output, section, ordering)
    displaced.name = f"displacements {section.level} {crystal.candidate_id}"
    flow = Flow([tight, displaced], output=displaced.output)
    flow.update_metadata({"candidates": [crystal.candidate_id]})
    return flow


@branching_job
def displace(
    crystal: Crystal,
    key: str,
    tight: Relaxation,
    section: PhononsSection,
    ordering: str | None,
) -> Response[StageOutput] | StageOutput:
    """Start a job for the forces of each displaced supercell, and the one that judges them."""
    from pccd_workflows.engines.phonons import displaced_cells

    candidate_id = crystal.candidate_id
    if tight.verdict != "converged" or tight.structure is None:
        reason = f"No phonons: the relaxation is {tight.verdict}. {tight.reason or ''}"
        return _output(candidate_id, section, _failed(section, reason))
    moments = tight.settings.get("moments") or []
    try:
        cells = displaced_cells(tight.structure, section, moments)
    except PccdError as error:
        return _output(candidate_id, section, _failed(section, str(error)))
    jobs = []
    for number, cell in enumerate(cells, start=1):
        job = dft_job(
            Crystal(candidate_id=candidate_id, structure=cell), section.level, None, "forces"
        )
        job.name = f"forces {number}/{len(cells)} {section.level} {candidate_id}"
        jobs.append(job)
    forces = [job.output for job in jobs]
    verdict = judge_forces(crystal, key, tight, forces, section, ordering)
    verdict.name = f"phonons verdict {candidate_id}"
    whole = Flow([*jobs, verdict], output=verdict.output)
    whole.update_metadata({"candidates": [candidate_id]})
    return Response(replace=whole)


@branching_job
def judge_forces(
    crystal: Crystal,
    key: str,
    tight: Relaxation,
    forces: Sequence[dict[str, Any]],
    section: PhononsSection,
    ordering: str | None,
) -> Response[StageOutput] | StageOutput:
    """Judge a crystal by the forces of all its displaced supercells and store the verdict."""
    from pccd_workflows.engines.phonons import dft_phonon_record
    from pccd_workflows.execution.mongo import put_result

    if tight.structure is None:
        raise ValueError("the cell at rest has no structure")
    record = dft_phonon_record(
        tight.structure, [row["forces"] for row in forces], section.level, section, tight.software
    )
    seconds = tight.seconds + sum(row["seconds"] for row in forces)
    record = record.model_copy(update={"seconds": seconds})
    put_result(stage_database(), key, "phonons", record.model_dump(mode="json"))
    return _settled(crystal, section, record, ordering)


def _failed(section: PhononsSection, reason: str) -> Phonons:
    return Phonons(
        level=section.level, verdict="error", reason=reason, tolerance=section.tolerance_thz
    )


def _settled(
    crystal: Crystal, section: PhononsSection, record: Phonons, ordering: str | None
) -> Response[StageOutput] | StageOutput:
    """Return the verdict; where it is ambiguous, start the calculation that settles it."""
    output = _output(crystal.candidate_id, section, record)
    if record.verdict != "ambiguous" or section.confirm is None:
        return output
    better = section.model_copy(update={"level": section.confirm, "confirm": None})
    return Response(output=output, addition=Flow([_start(crystal, better, ordering)]))


def _output(candidate_id: str, section: PhononsSection, record: Phonons) -> StageOutput:
    return StageOutput(stage=_stage(section), records={candidate_id: record})


def _stage(section: PhononsSection) -> str:
    return f"phonons:{section.level}"
