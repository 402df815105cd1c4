"""How good generated crystals are before any energy is computed."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.campaign import Conditions, MatcherSettings, Sampler, Screen
from pccd_workflows.diffusion.dataset import CrystalArrays
from pccd_workflows.diffusion.training_index import in_training
from pccd_workflows.evaluation.intervals import share
from pccd_workflows.pointcloud.decode import DecodeError, decode
from pccd_workflows.pointcloud.elements import canonical_elements, symbol
from pccd_workflows.pointcloud.encode import PointCloud
from pccd_workflows.screening.matching import group
from pccd_workflows.screening.validity import screen

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.diffusion.model import Model

VALID_DISTANCE = 0.5
"""Å; the literature's validity (CDVAE) asks for this shortest distance ..."""
VALID_VOLUME = 0.1
"""... and this volume, Å^3."""


def evaluate_generation(
    model: "Model",
    crystals: CrystalArrays,
    index: NDArray[np.int64] | None,
    *,
    samples: int,
    seed: int,
    sampler: Sampler,
) -> dict[str, Any]:
    """Generate crystals for the elements of held-out crystals and judge them.

    Every share has the raw number of samples as denominator unless its name says otherwise.

    Parameters
    ----------
    model : Model
    crystals : CrystalArrays
        Held-out crystals: sample i is asked for the elements of crystal i (drawn at random).
    index : int64 array or None
        Training index of the model.
    samples, seed
        How many, and what fixes them.
    sampler : Sampler
    """
    from pccd_workflows.diffusion.sample import SampleRequest, sample_clouds

    rows = np.random.default_rng(seed).choice(len(crystals), size=samples)
    asked = [_elements(crystals.numbers[row]) for row in rows]
    requests = [SampleRequest(i, e, Conditions()) for i, e in enumerate(asked)]
    structures, errors = _decoded(sample_clouds(model, requests, seed=seed, sampler=sampler))
    result = _judge(structures, asked, index)
    result["decoded"] = share(samples - sum(errors.values()), samples)
    result["decode_errors"] = dict(errors)
    if "composition" in model.info.conditions:
        result["obedience"] = _obedience(model, crystals, rows, seed, sampler)
    return result


def _judge(
    structures: Sequence["Structure | None"],
    asked: Sequence[tuple[str, ...]],
    index: NDArray[np.int64] | None,
) -> dict[str, Any]:
    total = len(structures)
    limits = Screen()
    screened = [
        screen(s, elements=e, settings=limits) if s is not None else None
        for s, e in zip(structures, asked, strict=True)
    ]
    valid = [
        s
        for s, verdict in zip(structures, screened, strict=True)
        if s is not None
        and verdict is not None
        and (verdict.min_distance or 0.0) > VALID_DISTANCE
        and s.volume > VALID_VOLUME
    ]
    present = sum(
        s is not None and set(canonical_elements(x.symbol for x in s.composition)) == set(e)
        for s, e in zip(structures, asked, strict=True)
    )
    balance = [v.charge_balanced for v in screened if v is not None]
    reasons = Counter(
        v.reason_class for v in screened if v is not None and v.reason_class is not None
    )
    groups = group(valid, settings=MatcherSettings())
    result: dict[str, Any] = {
        "valid": share(len(valid), total),
        "screened": share(sum(v is not None and v.passed for v in screened), total),
        "screen_reasons": dict(reasons),
        "min_distance_above_1": share(
            sum(v is not None and (v.min_distance or 0.0) > 1.0 for v in screened), total
        ),
        "elements_present": share(present, total),
        "charge_balanced_where_known": share(
            sum(b is True for b in balance), sum(b is not None for b in balance)
        ),
        "unique_of_valid": share(len(groups), len(valid)),
    }
    if index is not None:
        known = sum(in_training(s, index) for s in valid)
        result["in_training_of_valid"] = share(known, len(valid))
    return result


def _obedience(
    model: "Model", crystals: CrystalArrays, rows: NDArray[np.int64], seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Return how often crystals have the composition or number of atoms that was asked for."""
    from pymatgen.core import Composition

    from pccd_workflows.diffusion.sample import SampleRequest, sample_clouds

    rows = rows[: max(1, len(rows) // 4)]
    elements = [_elements(crystals.numbers[row]) for row in rows]
    formulas = [_formula(crystals.numbers[row]) for row in rows]
    counts = [int(n) for n in crystals.n_sites[rows]]

    def made(conditions: Sequence[Conditions]) -> list["Structure | None"]:
        requests: list[SampleRequest] = [
            SampleRequest(i, e, c)
            for i, (e, c) in enumerate(zip(elements, conditions, strict=True))
        ]
        return _decoded(sample_clouds(model, requests, seed=seed, sampler=sampler))[0]

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


def _decoded(
    clouds: Sequence[PointCloud],
) -> tuple[list["Structure | None"], Counter[str]]:
    """Return the crystals of clouds (None where there is none) and the classes of failures."""
    structures: list[Structure | None] = []
    errors: Counter[str] = Counter()
    for cloud in clouds:
        try:
            structures.append(decode(cloud))
        except DecodeError as error:
            structures.append(None)
            errors[error.error_class] += 1
    return structures, errors


def _elements(numbers: NDArray[np.uint8]) -> tuple[str, ...]:
    return canonical_elements(symbol(int(z)) for z in numbers if z > 0)


def _formula(numbers: NDArray[np.uint8]) -> str:
    counts = Counter(symbol(int(z)) for z in numbers if z > 0)
    return "".join(f"{name}{n}" for name, n in counts.items())
