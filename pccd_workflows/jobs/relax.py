"""Relax crystals with a potential. What is stored under its content's address is never redone."""

from collections.abc import Sequence

from pymatgen.core import Structure

from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.jobs.budget import note_cost, skipped
from pccd_workflows.jobs.common import stage_database, stage_job
from pccd_workflows.stages.rung import Rung


@stage_job
def relax(crystals: Sequence[Crystal], rung: Rung) -> StageOutput:
    """Relax a batch of crystals, one after the other; each is stored as it finishes."""
    records = {
        crystal.candidate_id: skipped(rung.level, "relax")
        or relax_once(crystal.structure, rung.level, fmax=rung.fmax, steps=rung.steps, plan="relax")
        for crystal in crystals
    }
    return StageOutput(stage=f"relax:{rung.level}", records=records)


def relax_once(
    structure: Structure, level: str, *, fmax: float, steps: int, plan: str = "reference"
) -> Relaxation:
    """Return the stored relaxation of exactly this structure, or compute and store it.

    structure: the start.
    fmax: largest force of a converged result, eV/Å.
    steps: most optimiser steps.
    plan: what for, in the ledger of costs.
    """
    from pccd_workflows.engines.potential import relax as relax_structure
    from pccd_workflows.engines.potential import relaxation_key, runs_on_gpu
    from pccd_workflows.execution.mongo import get_result, put_result

    database = stage_database()
    key = relaxation_key(structure, level, fmax=fmax, steps=steps)
    if (stored := get_result(database, key)) is not None:
        return Relaxation.model_validate(stored)
    relaxation = relax_structure(structure, level, fmax=fmax, steps=steps)
    note_cost(
        level,
        plan,
        run="relax",
        seconds=relaxation.seconds,
        cores=1,
        gpus=int(runs_on_gpu()),
        n_atoms=len(structure),
        n_steps=relaxation.n_steps + 1,
    )
    put_result(database, key, "relaxation", relaxation.model_dump(mode="json"))
    return relaxation
