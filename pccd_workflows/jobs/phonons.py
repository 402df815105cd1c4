"""Dynamical stability of the best crystals, one flow for each."""

import time
from typing import Any

from jobflow import Flow, Response

from pccd_workflows.campaign import Campaign, PhononsSection
from pccd_workflows.candidate import Crystal, Phonons, Stability, StageOutput
from pccd_workflows.errors import PccdError
from pccd_workflows.jobs.common import branching_job, stage_database, stage_job
from pccd_workflows.jobs.relax import relax_once


@branching_job
def start_phonons(campaign: Campaign, judged: StageOutput) -> Response[StageOutput] | StageOutput:
    """Start the phonons of the lowest crystals that qualify, a flow each."""
    section = campaign.phonons
    if section is None:
        return StageOutput(stage="phonons:none")
    empty = StageOutput(stage=_stage(section))
    flows = [candidate_phonons(crystal, section) for crystal in choose(judged, section)]
    for job in flows:
        job.name = f"phonons {section.level} {job.function_args[0].candidate_id}"
        job.update_metadata({"candidates": [job.function_args[0].candidate_id]})
    return Response(output=empty, addition=Flow(flows)) if flows else empty


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
    crystal: Crystal, section: PhononsSection
) -> Response[StageOutput] | StageOutput:
    """Relax one crystal tightly and compute its phonons, unless they are stored already."""
    from pccd_workflows.external.mongo import get_result
    from pccd_workflows.external.phonons import phonon_flow, phonon_key, tight_cell

    key = phonon_key(crystal.structure, section.level, section)
    if (stored := get_result(stage_database(), key)) is not None:
        return _output(crystal.candidate_id, section, Phonons.model_validate(stored))
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
    verdict = record_phonons(crystal.candidate_id, key, flow.output, section, began)
    verdict.name = f"phonons verdict {crystal.candidate_id}"
    whole = Flow([flow, verdict], output=verdict.output)
    whole.update_metadata({"candidates": [crystal.candidate_id]})
    return Response(replace=whole)


@stage_job
def record_phonons(
    candidate_id: str, key: str, document: Any, section: PhononsSection, began: float
) -> StageOutput:
    """Judge a finished phonon calculation and store the verdict under its content's address.

    began: when the calculation started, s since the epoch.
    """
    from pccd_workflows.external.mongo import put_result
    from pccd_workflows.external.phonons import phonon_record

    seconds = time.time() - began
    record = phonon_record(document, section.level, section, seconds=seconds)
    put_result(stage_database(), key, "phonons", record.model_dump(mode="json"))
    return _output(candidate_id, section, record)


def _output(candidate_id: str, section: PhononsSection, record: Phonons) -> StageOutput:
    return StageOutput(stage=_stage(section), records={candidate_id: record})


def _stage(section: PhononsSection) -> str:
    return f"phonons:{section.level}"
