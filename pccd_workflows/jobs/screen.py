"""Judge crystals before any energy is spent on them; find duplicates and known crystals."""

from typing import Any

from pccd_workflows.analysis.screening import Screening
from pccd_workflows.analysis.validity import screen as screen_structure
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import StageOutput
from pccd_workflows.generators.request import Generation
from pccd_workflows.jobs.common import stage_job
from pccd_workflows.jobs.novelty import goes_on, judge_novelty


@stage_job
def screen(campaign: Campaign, generated: StageOutput) -> StageOutput:
    """Judge one shard's crystals by distances, density, elements and charge balance."""
    records: dict[str, Screening] = {}
    for crystal in generated.survivors:
        generation = generated.records[crystal.candidate_id]
        if not isinstance(generation, Generation):
            raise TypeError(f"{crystal.candidate_id} comes without its generation record")
        records[crystal.candidate_id] = screen_structure(
            crystal.structure, elements=generation.elements, settings=campaign.screen
        )
    survivors = [c for c in generated.survivors if records[c.candidate_id].passed]
    return StageOutput(stage="screen", records=records, survivors=survivors)


@stage_job
def deduplicate(
    campaign: Campaign, screened: list[StageOutput | None], reference_systems: list[str]
) -> StageOutput:
    """Keep one crystal of each group of equal ones and say which of them are known.

    Charge-balanced crystals come first where the campaign prefers them, otherwise in order of
    their index: the first of a group is the one that is kept.
    """
    outputs = [output for output in screened if output is not None]
    records = {key: rec for output in outputs for key, rec in output.records.items()}
    crystals = sorted(
        (crystal for output in outputs for crystal in output.survivors),
        key=lambda c: (_unbalanced(campaign, records[c.candidate_id]), c.candidate_id),
    )
    novelty = judge_novelty(campaign, crystals, reference_systems)
    survivors = [
        crystal for crystal in crystals if goes_on(campaign, novelty[crystal.candidate_id])
    ]
    return StageOutput(stage="deduplicate", records=novelty, survivors=survivors)


def _unbalanced(campaign: Campaign, record: Any) -> bool:
    return campaign.screen.charge_neutral == "prefer" and record.charge_balanced is False
