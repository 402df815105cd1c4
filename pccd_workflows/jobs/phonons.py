"""Dynamical stability of the best crystals, one flow for each."""

from typing import Any

from jobflow import Flow, Response

from pccd_workflows.campaign import Campaign, PhononsSection
from pccd_workflows.candidate import Crystal, Novelty, Phonons, Stability, StageOutput
from pccd_workflows.jobs.common import stage_job


@stage_job
def start_phonons(
    campaign: Campaign, judged: StageOutput, deduplicated: StageOutput
) -> Response[StageOutput] | StageOutput:
    """Start a phonon flow for each of the lowest crystals that qualify."""
    section = campaign.phonons
    stage = f"phonons:{section.level if section else ''}"
    if section is None:
        return StageOutput(stage=stage)
    chosen = choose(judged, deduplicated, section)
    flows = [candidate_phonons(crystal, section) for crystal in chosen]
    if not flows:
        return StageOutput(stage=stage)
    return Response(output=StageOutput(stage=stage), addition=Flow(flows))


def choose(
    judged: StageOutput, deduplicated: StageOutput, section: PhononsSection
) -> list[Crystal]:
    """Return the crystals worth a phonon calculation, lowest energy above hull first."""

    def qualifies(crystal: Crystal) -> bool:
        stability = judged.records[crystal.candidate_id]
        novelty = deduplicated.records.get(crystal.candidate_id)
        near = (
            isinstance(stability, Stability)
            and stability.energy_above_hull is not None
            and stability.energy_above_hull <= section.max_energy_above_hull
        )
        new = not section.novel_only or (isinstance(novelty, Novelty) and novelty.novel)
        return near and new

    return [crystal for crystal in judged.survivors if qualifies(crystal)][: section.candidates]


def candidate_phonons(crystal: Crystal, section: PhononsSection) -> Flow:
    """Return the flow that ends in one crystal's Phonons record."""
    from pccd_workflows.external.phonons import phonon_flow

    flow = phonon_flow(crystal.structure, section.level, section)
    record = record_phonons(crystal.candidate_id, flow.output, section)
    record.name = f"phonons {section.level} {crystal.candidate_id}"
    whole = Flow([flow, record], name=record.name, output=record.output)
    whole.update_metadata({"candidates": [crystal.candidate_id]})
    return whole


@stage_job
def record_phonons(candidate_id: str, document: Any, section: PhononsSection) -> StageOutput:
    """Judge a finished phonon calculation."""
    from pccd_workflows.external.phonons import phonon_record

    record: Phonons = phonon_record(document, section.level, section)
    return StageOutput(stage=f"phonons:{section.level}", records={candidate_id: record})
