"""Structure prediction: composition and number of atoms given, is the crystal found?

The literature's convention (CDVAE, DiffCSP, FlowMM): a crystal counts as found if StructureMatcher
with wide tolerances fits the sample to it; the RMSE, in units of (V/N)^(1/3), is averaged over the
crystals that are found. Samples are judged as drawn, without relaxation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import (
    composition_requests,
    decoded,
    draw_rows,
    match_all,
    structure_of,
)
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model

MIN_DISTANCE = 0.5
"""Å; CDVAE and its successors count no match for a sample with atoms closer than this."""


@dataclass(frozen=True)
class Prediction:
    """Samples for held-out crystals, and how they match.

    Attributes
    ----------
    targets : list of Structure
        n crystals.
    made : list of lists of Structure or None
        Of each attempt the samples for all crystals.
    rmse : float array (attempts, n)
        Normalised RMSE, NaN where sample and crystal do not match.
    """

    targets: list[Structure]
    made: list[list[Structure | None]]
    rmse: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """Return match rate and RMSE of the first attempt, by size, and of the best of all."""
        first, found = self.rmse[0], np.isfinite(self.rmse)
        n = len(self.targets)
        apart = np.array([s is not None and _is_apart(s) for s in self.made[0]])
        sizes = np.array([len(target) for target in self.targets])
        result: dict[str, Any] = {
            "match_rate": share(int(found[0].sum()), n),
            "rmse": bootstrapped(first),
            "valid_match_rate": share(int((found[0] & apart).sum()), n),
            "by_sites": {
                name: share(int(found[0][chosen].sum()), int(chosen.sum()))
                for name, chosen in (
                    ("1-4", sizes <= 4),
                    ("5-8", (sizes > 4) & (sizes <= 8)),
                    ("9-12", (sizes > 8) & (sizes <= 12)),
                    ("13+", sizes > 12),
                )
            },
        }
        attempts = len(self.made)
        if attempts > 1:
            best = np.where(found, self.rmse, np.inf).min(0)
            result["best_of"] = {
                "attempts": attempts,
                "match_rate": share(int(found.any(0).sum()), n),
                "rmse": bootstrapped(best),
            }
        return result


def predict_structures(
    model: "Model",
    crystals: CrystalArrays,
    *,
    samples: int,
    seed: int,
    sampler: Sampler,
    attempts: int = 1,
) -> Prediction:
    """Draw crystals of the composition and atom count of held-out crystals and match them.

    Parameters
    ----------
    crystals : CrystalArrays
        `samples` of them are drawn.
    attempts : int
        Samples per crystal; attempt k draws with seed + k.

    Raises
    ------
    InputError
        If the model cannot be asked for a composition.
    """
    from pccd_workflows.generators.pccd.sample import sample_clouds

    if "composition" not in model.info.conditions:
        raise InputError(
            f"Model {model.info.name} cannot be asked for a composition: it has no part csp."
        )
    chosen = draw_rows(crystals, samples, seed)
    targets = [structure_of(chosen, row) for row in range(len(chosen))]
    requests = composition_requests(chosen, model.info)
    made = [
        decoded(sample_clouds(model, requests, seed=seed + attempt, sampler=sampler))[0]
        for attempt in range(attempts)
    ]
    return Prediction(targets, made, np.array([match_all(m, targets) for m in made]))


def _is_apart(structure: Structure) -> bool:
    """Return whether all atoms, images too, are at least MIN_DISTANCE apart."""
    distances = structure.distance_matrix + np.eye(len(structure)) * 99
    return bool(min(distances.min(), *structure.lattice.abc) > MIN_DISTANCE)
