"""The control of structure prediction: how often substitution finds what a model is asked for."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.evaluation.crystals import match_all
from pccd_workflows.evaluation.prediction import Facts, Prediction
from pccd_workflows.generators.pccd.composition import electropositive_first
from pccd_workflows.generators.pccd.templates import exchange

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model


def predict_by_substitution(
    model: "Model",
    targets: Sequence[Structure],
    attempts: int = 1,
    facts: Facts | None = None,
) -> Prediction:
    """Predict targets from their compositions alone: known crystals with exchanged elements.

    Parameters
    ----------
    model
        Its training crystals are what is known, and it has learned how alike elements are.
    targets
    attempts
        Guesses for each: the most alike crystals of as many structure types.
    facts
        About the targets.

    Raises
    ------
    InputError
        If the model holds no training crystals.
    """
    made = [_nearest(model, target, attempts) for target in targets]
    by_attempt = [[guesses[k] for guesses in made] for k in range(attempts)]
    rmse = np.array([match_all(guesses, targets) for guesses in by_attempt])
    return Prediction(list(targets), by_attempt, rmse, facts)


def _nearest(model: "Model", target: Structure, attempts: int) -> list[Structure | None]:
    """Return a crystal of each of the nearest structure types, None where there are no more."""
    known = model.analogues
    if known is None or model.templates is None:
        raise InputError(f"Model {model.info.name} holds no training crystals.")
    atoms = Counter(site.specie.Z for site in target)
    elements = electropositive_first(list(atoms))
    rows = known.nearest_of_types(elements, [atoms[z] for z in elements])[:attempts]
    found: list[Structure | None] = []
    for row in rows.tolist():
        crystal = exchange(model.templates.template(row), atoms)
        numbers = crystal.numbers.tolist()
        found.append(Structure(crystal.lattice, numbers, crystal.frac_coords))
    return found + [None] * (attempts - len(found))
