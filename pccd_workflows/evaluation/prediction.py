"""Structure prediction: composition and number of atoms given, is the crystal found?

The literature's convention (CDVAE, DiffCSP, FlowMM): a crystal counts as found if StructureMatcher
with wide tolerances fits the sample to it; the RMSE, in units of (V/N)^(1/3), is averaged over the
crystals that are found. Samples are judged as drawn, without relaxation.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import (
    composition_requests,
    draw_rows,
    formula_of,
    literature_matcher,
    match_all,
)
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.cells import Cell
    from pccd_workflows.generators.pccd.model import Model

NEAR_HULL = 0.025
"""eV/atom; crystals that are known to be at most so far above the hull can be made, mostly."""
MIN_DISTANCE = 0.5
"""Å; CDVAE and its successors count no match for a sample with atoms closer than this."""


@dataclass(frozen=True)
class Facts:
    """What else is known of crystals that are predicted.

    Attributes
    ----------
    energy_above_hull
        Shape (n,). eV/atom, NaN where unknown.
    polymorphs
        Of each crystal the other held-out ones of its reduced formula.
    """

    energy_above_hull: NDArray[np.floating[Any]]
    polymorphs: list[list[Structure]]

    @classmethod
    def of(cls, chosen: CrystalArrays, crystals: CrystalArrays) -> "Facts":
        """Return the facts of some crystals, chosen among others."""
        formulas = [formula_of(crystals, row) for row in range(len(crystals))]
        rows: dict[str, list[int]] = defaultdict(list)
        for row, formula in enumerate(formulas):
            rows[_reduced(formula)].append(row)
        alike = [rows[_reduced(formula_of(chosen, row))] for row in range(len(chosen))]
        polymorphs = [[crystals.structure(row) for row in of_one] for of_one in alike]
        return cls(chosen.energy_above_hull, polymorphs)


@dataclass(frozen=True)
class Prediction:
    """Samples for held-out crystals, and how they match.

    Attributes
    ----------
    targets
        n crystals.
    made
        Of each attempt the samples for all crystals.
    rmse
        Shape (attempts, n). Normalised RMSE, NaN where sample and crystal do not match.
    facts
        None leaves out what needs them.
    """

    targets: list[Structure]
    made: list[list[Structure | None]]
    rmse: NDArray[np.float64]
    facts: Facts | None = None

    @property
    def best(self) -> NDArray[np.float64]:
        """RMSE (n,) of the best attempt, NaN where none matches."""
        best = np.where(np.isfinite(self.rmse), self.rmse, np.inf).min(0)
        return np.where(np.isfinite(best), best, np.nan)

    def summary(self) -> dict[str, Any]:
        """Return match rate and RMSE of the first attempt, by size, and of the best of all."""
        first, found = self.rmse[0], np.isfinite(self.rmse)
        n = len(self.targets)
        apart = np.array([s is not None and _is_apart(s) for s in self.made[0]])
        sizes = np.array([len(target) for target in self.targets])
        result: dict[str, Any] = {
            "match_rate": share(int(found[0].sum()), n),
            "rmse": bootstrapped(first),
            "median_rmse": bootstrapped(first, np.median),
            "median_volume_error": bootstrapped(self._volume_errors(), np.median),
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
        if self.facts is not None:
            result |= self._with_facts(self.facts)
        attempts = len(self.made)
        if attempts > 1:
            result["best_of"] = {
                "attempts": attempts,
                "match_rate": share(int(found.any(0).sum()), n),
                "rmse": bootstrapped(self.best),
            }
        return result

    def _with_facts(self, facts: Facts) -> dict[str, Any]:
        """Return the match rate of the first attempt to any polymorph, and by energy."""
        found, above = np.isfinite(self.rmse[0]), facts.energy_above_hull
        matcher = literature_matcher()
        known = [
            right or any(made is not None and matcher.fit(made, other) for other in others)
            for right, made, others in zip(found, self.made[0], facts.polymorphs, strict=True)
        ]
        near = above <= NEAR_HULL
        kinds = {"near": near, "above": np.isfinite(above) & ~near, "unknown": np.isnan(above)}
        return {
            "match_rate_any_polymorph": share(sum(map(bool, known)), len(known)),
            "by_energy_above_hull": {
                name: share(int(found[chosen].sum()), int(chosen.sum()))
                for name, chosen in kinds.items()
            },
        }

    def _volume_errors(self) -> NDArray[np.float64]:
        """Return |V / V_0 - 1| of the first attempt (n,), NaN where nothing matches."""
        errors = np.full(len(self.targets), np.nan)
        for row, (made, target) in enumerate(zip(self.made[0], self.targets, strict=True)):
            if made is not None and np.isfinite(self.rmse[0, row]):
                errors[row] = abs(made.volume / target.volume - 1)
        return errors


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
    crystals
        `samples` of them are drawn.
    attempts
        Samples per crystal; at temperature 0 they aim at as many different structure types, the
        likeliest first, else attempt k draws with seed + k.

    Raises
    ------
    InputError
        If the model cannot be asked for a composition.
    """
    options = {"samples": samples, "seed": seed, "sampler": sampler}
    return _predict(model, crystals, attempts, refined=True, **options)


def copy_structures(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int, sampler: Sampler
) -> Prediction:
    """Copy the nearest training crystal of the type that the model aims at, without a network."""
    copied = sampler.model_copy(update={"start": 0.0, "symmetric": True})
    options = {"samples": samples, "seed": seed, "sampler": copied}
    return _predict(model, crystals, 1, refined=False, **options)


def _predict(
    model: "Model", crystals: CrystalArrays, attempts: int, *, refined: bool, **options: Any
) -> Prediction:
    from pccd_workflows.generators.pccd.cells import likeliest_cells
    from pccd_workflows.generators.pccd.sample import sample_crystals

    if "composition" not in model.info.conditions:
        raise InputError(
            f"Model {model.info.name} cannot be asked for a composition: it has no part csp."
        )
    seed, sampler = options["seed"], options["sampler"]
    chosen = draw_rows(crystals, options["samples"], seed)
    targets = [chosen.structure(row) for row in range(len(chosen))]
    requests = composition_requests(chosen, model.info)
    cells: list[list[Cell]] | None = None
    if sampler.temperature == 0:
        cells = likeliest_cells(model, requests, attempts, sampler)
    made = []
    for attempt in range(attempts):
        drawn = sample_crystals(
            model,
            requests,
            seed=seed + attempt,
            sampler=sampler,
            cells=None if cells is None else cells[attempt],
            refined=refined,
        )
        made.append([sampled.structure for sampled in drawn])
    rmse = np.array([match_all(m, targets) for m in made])
    return Prediction(targets, made, rmse, Facts.of(chosen, crystals))


def overlap(model: NDArray[np.float64], control: NDArray[np.float64]) -> dict[str, Any]:
    """Return which crystals two predictions find, from their RMSEs (n,), NaN where not found."""
    of_model, of_control = np.isfinite(model), np.isfinite(control)
    kinds = {
        "both": of_model & of_control,
        "model_only": of_model & ~of_control,
        "control_only": ~of_model & of_control,
        "neither": ~of_model & ~of_control,
    }
    return {name: share(int(found.sum()), len(model)) for name, found in kinds.items()}


def _reduced(formula: str) -> str:
    return str(Composition(formula).reduced_formula)


def _is_apart(structure: Structure) -> bool:
    """Return whether all atoms, images too, are at least MIN_DISTANCE apart."""
    distances = structure.distance_matrix + np.eye(len(structure)) * 99
    return bool(min(distances.min(), *structure.lattice.abc) > MIN_DISTANCE)
