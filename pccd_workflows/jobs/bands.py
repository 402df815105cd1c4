"""Electronic band structures of the crystals that a rung kept: a chain of VASP jobs for each."""

from jobflow import Flow, Response

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.jobs.common import branching_job
from pccd_workflows.jobs.dft import dft_job
from pccd_workflows.stages.rung import Rung


@branching_job
def start_bands(
    campaign: Campaign, rung: Rung, judged: StageOutput
) -> Response[StageOutput] | StageOutput:
    """Start the band structure of each crystal that survived a rung.

    What fails here holds back neither the crystal nor the next rung.
    """
    from pccd_workflows.engines.vasp_bands import magnetic_cell

    ordering = campaign.generate.conditions.magnetic_ordering
    cells = [
        Crystal(
            candidate_id=crystal.candidate_id,
            structure=magnetic_cell(crystal.structure, ordering),
        )
        for crystal in judged.survivors
    ]
    jobs = [dft_job(cell, rung.level, None, "bands") for cell in cells]
    empty = StageOutput(stage=f"bands:{rung.level}")
    return Response(output=empty, addition=Flow(jobs)) if jobs else empty
