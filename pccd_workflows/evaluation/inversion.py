"""Deterministic reconstruction: the noise a held-out crystal comes from, and the way back.

A test of the model as a map: every crystal has a noise that it comes from. It does not say that
random noise leads there; structure prediction does. The composition is given if the model takes
one. Everything is computed in float64.
"""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor

from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import (
    composition_requests,
    decoded,
    draw_rows,
    elements_of,
    match_all,
)
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.pointcloud.encode import PointCloud
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.conditions import ConditionBatch
    from pccd_workflows.generators.pccd.model import Model

STEPS = 24
"""Levels of the ODE; each takes a few network evaluations to undo."""
TOLERANCE = 1e-5
"""Of each step, in units of the noise amplitude."""
BATCH = 64


@dataclass(frozen=True)
class Inversion:
    """Round trips crystal -> noise -> crystal.

    Attributes
    ----------
    targets
        n crystals.
    made
        What came back.
    rmse
        Shape (n,). Normalised RMSE, NaN where they do not match.
    residual
        Shape (n,). Largest mismatch left in any step, in units of the noise amplitude.
    """

    targets: list[Structure]
    made: list[Structure | None]
    rmse: NDArray[np.float64]
    residual: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """Return match rate, RMSE and how many crystals were inverted to the tolerance."""
        n = len(self.targets)
        return {
            "match_rate": share(int(np.isfinite(self.rmse).sum()), n),
            "rmse": bootstrapped(self.rmse),
            "solved": share(int((self.residual <= TOLERANCE).sum()), n),
        }


def invert_structures(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int
) -> Inversion:
    """Encode held-out crystals, carry them to t = T by the ODE, sample back, match.

    Parameters
    ----------
    crystals
        `samples` of them are drawn.
    """
    chosen = draw_rows(crystals, samples, seed)
    by_size = np.argsort(chosen.n_sites, kind="stable")
    network = copy.deepcopy(model.denoiser).double()
    n = len(chosen)
    made: list[Structure | None] = [None] * n
    residual = np.empty(n)
    for rows in np.array_split(by_size, -(-n // BATCH)):
        clouds, residual[rows] = _round_trip(model, network, chosen.take(rows))
        for row, structure in zip(rows, decoded(clouds)[0], strict=True):
            made[row] = structure
    targets = [chosen.structure(row) for row in range(n)]
    return Inversion(targets, made, match_all(made, targets), residual)


@torch.no_grad()
def _round_trip(
    model: "Model", network: torch.nn.Module, crystals: CrystalArrays
) -> tuple[list[PointCloud], NDArray[np.float64]]:
    """Return clouds after the round trip and the residuals."""
    from pccd_workflows.generators.pccd.cells import condition_batch, draw_cells
    from pccd_workflows.generators.pccd.inversion import generate, invert, ode_levels
    from pccd_workflows.generators.pccd.sample import cloud_of

    requests = composition_requests(crystals, model.info)
    cells = draw_cells(model, requests, 0, Sampler())
    conditions = _double(condition_batch(requests, cells)).to(model.device)

    def predict(noisy: Tensor, level: Tensor, rows: Tensor) -> Tensor:
        clean: Tensor = network(noisy, level.to(noisy).expand(len(noisy)), _take(conditions, rows))
        return clean

    clean = model.denoiser.encode(crystals).to(model.device).double()
    levels = ode_levels(model.log_snr, STEPS)
    inverted = invert(predict, clean, levels, tolerance=TOLERANCE)
    values = model.denoiser.decode(generate(predict, inverted.noise, levels)).cpu().numpy()
    clouds = [cloud_of(value, elements_of(crystals, row)) for row, value in enumerate(values)]
    return clouds, inverted.residual.cpu().numpy()


def _double(conditions: "ConditionBatch") -> "ConditionBatch":
    return replace(
        conditions,
        band_gap=conditions.band_gap.double(),
        energy_above_hull=conditions.energy_above_hull.double(),
    )


def _take(conditions: "ConditionBatch", rows: Tensor) -> "ConditionBatch":
    """Return some of the crystals, with as many columns as all of them."""
    return replace(
        conditions,
        **{name: getattr(conditions, name)[rows] for name in conditions.__dataclass_fields__},
    )
