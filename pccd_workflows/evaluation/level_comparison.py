"""How often two potentials disagree on what is stable."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pccd_workflows.core.intervals import Estimate, share
from pccd_workflows.evaluation.batches import batch_requests
from pccd_workflows.evaluation.judge import JudgeProtocol, PotentialJudge
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.samples import Yardstick, draw_samples, judge_samples
from pccd_workflows.evaluation.thresholds import THRESHOLDS, is_within
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model


class Disagreement(Result):
    """Two potentials on the same crystals.

    Attributes
    ----------
    crystals, judged_by_both
        How many were given, and placed on both hulls.
    rate
        By threshold, the share of the latter on which the verdicts differ.
    """

    crystals: int
    judged_by_both: int
    rate: dict[str, Estimate]
    mean_difference: float
    mean_absolute_difference: float
    unit: str = "eV/atom, first minus second"


class LevelComparison(Result):
    """Two potentials on the crystals of one batch, each on its own hull.

    Attributes
    ----------
    crystals_by_level
        Formula of each screened crystal, and by level its energy above hull, eV/atom.
    """

    merged: ClassVar[tuple[str, ...]] = ("disagreement",)

    levels: tuple[str, str]
    batch: str
    samples: int
    screened: int
    disagreement: Disagreement
    crystals_by_level: list[dict[str, Any]]
    protocol: tuple[JudgeProtocol, JudgeProtocol]


def compare_levels(
    model: "Model",
    judges: tuple[PotentialJudge, PotentialJudge],
    *,
    batch: str,
    samples: int,
    sampler: Sampler,
) -> LevelComparison:
    """Return how often two potentials disagree on the same crystals, each on its own hull.

    Parameters
    ----------
    batch
        Campaign file of flows/ whose elements are drawn.
    samples
        Raw samples; those that pass the screening are judged.
    """
    requests, seed = batch_requests(batch, samples)
    made = draw_samples(model, requests, seed=seed, sampler=sampler)
    judged = judge_samples(made, Yardstick()).samples
    structures = [sample.structure for sample in judged if sample.screened]
    one, other = (
        [found.energy_above_hull for found in judge(structures).stabilities] for judge in judges
    )
    first, second = (judge.potential.level for judge in judges)
    return LevelComparison(
        levels=(first, second),
        batch=batch,
        samples=samples,
        screened=len(structures),
        disagreement=disagreement(one, other),
        crystals_by_level=[
            {"formula": s.composition.reduced_formula, first: a, second: b}
            for s, a, b in zip(structures, one, other, strict=True)
        ],
        protocol=(judges[0].protocol(), judges[1].protocol()),
    )


def disagreement(one: Sequence[float | None], other: Sequence[float | None]) -> Disagreement:
    """Return how often two potentials disagree on what is stable, by threshold.

    Parameters
    ----------
    one, other
        Energy above hull of the same crystals, each at its own hull, eV/atom; None is no verdict
        and leaves the crystal out.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    gaps = np.array([a - b for a, b in pairs]) if pairs else np.zeros(1)
    return Disagreement(
        crystals=len(one),
        judged_by_both=len(pairs),
        rate={
            name: share(sum(is_within(a, x) != is_within(b, x) for a, b in pairs), len(pairs))
            for name, x in THRESHOLDS.items()
        },
        mean_difference=round(float(gaps.mean()), 4),
        mean_absolute_difference=round(float(np.abs(gaps).mean()), 4),
    )
