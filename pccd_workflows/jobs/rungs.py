"""One rung: relax the survivors, place them on the hull, keep the best.

ML potentials relax them in batches, DFT one by one: a failing crystal holds back no other.
"""

from collections.abc import Sequence
from typing import Any

from jobflow import Flow, Job, Response

from pccd_workflows.analysis.hull import (
    Hull,
    HullQuery,
    HullResult,
    correct_mp2020,
    correct_references,
)
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.engines.levels import get_level, hull_convention
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.jobs.common import (
    GPU,
    TOLERATE_LOST_PARENTS,
    assign,
    branching_job,
    stage_database,
    stage_job,
)
from pccd_workflows.jobs.novelty import goes_on, judge_novelty
from pccd_workflows.jobs.references import covering_system
from pccd_workflows.jobs.relax import relax
from pccd_workflows.known.novelty import Novelty
from pccd_workflows.stages.hull import Stability
from pccd_workflows.stages.rung import Rung


@branching_job
def climb(
    campaign: Campaign, rung: Rung, crystals: list[Crystal], reference_systems: list[str]
) -> Response[StageOutput]:
    """Relax what the budget allows of `crystals`, best first, and judge it."""
    budget = rung.budget.candidates or len(crystals)
    chosen, skipped = crystals[:budget], crystals[budget:]
    if get_level(rung.level).kind == "dft":
        from pccd_workflows.jobs.dft import dft_job

        ordering = campaign.generate.conditions.magnetic_ordering
        batches = [dft_job(crystal, rung.level, ordering) for crystal in chosen]
    else:
        batches = _batches(rung, chosen)
    verdict = judge(
        campaign,
        rung,
        [batch.output for batch in batches],
        reference_systems,
        [crystal.candidate_id for crystal in skipped],
    )
    verdict.name = f"hull {rung.level}"
    verdict.update_config(TOLERATE_LOST_PARENTS)
    return Response(replace=Flow([*batches, verdict], output=verdict.output))


def _batches(rung: Rung, chosen: list[Crystal]) -> list[Job]:
    """Return one job for every `rung.batch` crystals."""
    starts = range(0, len(chosen), rung.batch)
    jobs = []
    for number, first in enumerate(starts, start=1):
        members = chosen[first : first + rung.batch]
        batch = assign(relax(members, rung), GPU)
        batch.name = f"relax {rung.level} {number}/{len(starts)}"
        batch.update_metadata({"candidates": [crystal.candidate_id for crystal in members]})
        jobs.append(batch)
    return jobs


@stage_job
def judge(
    campaign: Campaign,
    rung: Rung,
    relaxed: list[Any],
    reference_systems: list[str],
    over_budget: list[str],
) -> StageOutput:
    """Place relaxed crystals on the hull of their chemical system; keep those near it.

    Crystals that became the same one, or a known one, by relaxing are noticed here.

    relaxed: StageOutputs; None, or the output of an earlier run, where a job was lost.
    """
    relaxations = {
        key: record
        for output in relaxed
        if isinstance(output, StageOutput)
        for key, record in output.records.items()
        if isinstance(record, Relaxation)
    }
    records = judge_stability(relaxations, rung, _references(campaign, rung, reference_systems))
    for candidate_id in over_budget:
        records[candidate_id] = Stability(
            level=rung.level,
            passed=False,
            reason_class="budget",
            reason=f"The rung's budget of {rung.budget.candidates} candidates was spent on others.",
        )
    near = sorted(
        (candidate_id for candidate_id, record in records.items() if record.passed),
        key=lambda i: (records[i].energy_above_hull or 0.0, i),
    )
    crystals = [Crystal(candidate_id=i, structure=relaxations[i].structure) for i in near]
    novelty = judge_novelty(campaign, crystals, reference_systems, frameworks=True)
    for candidate_id, verdict in novelty.items():
        records[candidate_id] = with_novelty(campaign, records[candidate_id], verdict)
    survivors = [crystal for crystal in crystals if records[crystal.candidate_id].passed]
    return StageOutput(stage=f"hull:{rung.level}", records=records, survivors=survivors)


def with_novelty(campaign: Campaign, record: Stability, novelty: Novelty) -> Stability:
    """Return a verdict that counts in what the crystal turned out to be when it was relaxed."""
    update: dict[str, Any] = {"novelty": novelty}
    if not goes_on(campaign, novelty):
        same = novelty.duplicate_of
        known_in = [name for name, found in novelty.sets.items() if found.known]
        update |= {
            "passed": False,
            "reason_class": "known" if same is None else "duplicate",
            "reason": f"Relaxed to a crystal known in {', '.join(known_in)}."
            if same is None
            else f"Relaxed to the same crystal as {same}, which lies no higher.",
        }
    return record.model_copy(update=update)


def judge_stability(
    relaxations: dict[str, Relaxation], rung: Rung, references: Sequence[ReferenceSet]
) -> dict[str, Stability]:
    """Return a verdict for every relaxed crystal, against the set that covers its elements.

    Uncorrected energies, of crystals and references alike, get the MP2020 corrections here, once.
    """
    sets = {found.chemsys: found for found in references}
    records: dict[str, Stability] = {}
    queries: dict[str, list[HullQuery]] = {}
    for candidate_id, relaxation in relaxations.items():
        structure = relaxation.structure
        energy, convention = relaxation.energy, relaxation.convention
        if not relaxation.usable or structure is None or energy is None or convention is None:
            records[candidate_id] = _unusable(relaxation)
            continue
        system = covering_system(structure.chemical_system, sets)
        if system is None:
            records[candidate_id] = Stability(
                level=rung.level,
                passed=False,
                reason_class="no_references",
                reason=f"No reference set holds the elements of {structure.chemical_system}.",
            )
            continue
        try:
            corrected = correct_mp2020(structure, energy, convention=convention)
        except InputError as error:
            records[candidate_id] = Stability(
                level=rung.level, passed=False, reason_class="no_correction", reason=str(error)
            )
            continue
        queries.setdefault(system, []).append(
            HullQuery(
                id=candidate_id,
                composition=structure.composition,
                energy=corrected,
                convention=hull_convention(convention),
                level=relaxation.level,
            )
        )
    for system, system_queries in queries.items():
        results = Hull(correct_references(sets[system])).place(system_queries)
        for query, result in zip(system_queries, results, strict=True):
            records[query.id] = _placed(result, rung, sets[system])
    return records


def _unusable(relaxation: Relaxation) -> Stability:
    return Stability(
        level=relaxation.level,
        passed=False,
        reason_class=relaxation.verdict,
        reason=relaxation.reason,
    )


def _placed(result: HullResult, rung: Rung, references: ReferenceSet) -> Stability:
    limit = rung.keep.energy_above_hull
    above = result.energy_above_hull
    passed = above <= limit
    return Stability(
        level=rung.level,
        passed=passed,
        reason_class=None if passed else "above_threshold",
        reason=None if passed else f"{above:.3f} eV/atom above the hull, more than {limit:g}.",
        energy_above_hull=above,
        formation_energy_per_atom=result.formation_energy_per_atom,
        decomposition=result.decomposition,
        references=references.reference_id,
        convention=hull_convention(references.convention),
        threshold=limit,
    )


def _references(campaign: Campaign, rung: Rung, systems: Sequence[str]) -> list[ReferenceSet]:
    from pccd_workflows.execution.mongo import find_reference_set

    database, source = stage_database(), campaign.references.source
    found = [find_reference_set(database, source, system, rung.level) for system in systems]
    return [reference_set for reference_set in found if reference_set is not None]
