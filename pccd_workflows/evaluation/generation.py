"""How good crystals generated for the elements of held-out ones are."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.intervals import share
from pccd_workflows.evaluation.samples import Yardstick as Known
from pccd_workflows.evaluation.samples import draw_samples, judge_samples, requests_for
from pccd_workflows.evaluation.shares import report_as_json as report
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements, symbol
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.generators.pccd.model import Model

__all__ = ["Known", "evaluate_generation"]


def evaluate_generation(
    model: "Model",
    crystals: CrystalArrays,
    known: Known,
    *,
    samples: int,
    seed: int,
    sampler: Sampler,
) -> dict[str, Any]:
    """Generate crystals for the elements of held-out crystals and judge them.

    Parameters
    ----------
    model
    crystals
        Held-out crystals: sample i is asked for the elements of crystal i (drawn at random).
    known
        What they are measured against.
    samples, seed
        How many, and what fixes them.
    sampler
    """
    rows = np.random.default_rng(seed).choice(len(crystals), size=samples)
    asked = [_elements(crystals.numbers[row]) for row in rows]
    made = draw_samples(model, requests_for(asked), seed=seed, sampler=sampler)
    result = report(judge_samples(made, known))
    if "composition" in model.info.conditions:
        result["obedience"] = _obedience(model, crystals, rows, seed, sampler)
    return result


def _obedience(
    model: "Model", crystals: CrystalArrays, rows: NDArray[np.int64], seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Return how often crystals have the composition or number of atoms that was asked for."""
    from pymatgen.core import Composition

    from pccd_workflows.generators.pccd.cells import SampleRequest

    rows = rows[: max(1, len(rows) // 4)]
    elements = [_elements(crystals.numbers[row]) for row in rows]
    formulas = [_formula(crystals.numbers[row]) for row in rows]
    counts = [int(n) for n in crystals.n_sites[rows]]

    def made(conditions: Sequence[Conditions]) -> list["Structure | None"]:
        requests = [
            SampleRequest(i, e, c)
            for i, (e, c) in enumerate(zip(elements, conditions, strict=True))
        ]
        return [s.structure for s in draw_samples(model, requests, seed=seed, sampler=sampler)]

    by_formula = made([Conditions(composition=f) for f in formulas])
    by_count = made([Conditions(n_sites=n) for n in counts])
    return {
        "composition": share(
            sum(
                s is not None and s.composition == Composition(f)
                for s, f in zip(by_formula, formulas, strict=True)
            ),
            len(rows),
        ),
        "n_sites": share(
            sum(s is not None and len(s) == n for s, n in zip(by_count, counts, strict=True)),
            len(rows),
        ),
    }


def _elements(numbers: NDArray[np.uint8]) -> tuple[str, ...]:
    return canonical_elements(symbol(int(z)) for z in numbers if z > 0)


def _formula(numbers: NDArray[np.uint8]) -> str:
    counts = Counter(symbol(int(z)) for z in numbers if z > 0)
    return "".join(f"{name}{n}" for name, n in counts.items())
