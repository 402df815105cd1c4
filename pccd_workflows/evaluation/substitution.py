"""The control of structure prediction: how often substitution finds what a model is asked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import match_all
from pccd_workflows.generators.substitution import substitute


@dataclass(frozen=True)
class Substitution:
    """Crystals made by substitution, and how they match.

    Attributes
    ----------
    made
        One for each target; None where no known crystal has the same numbers of atoms.
    rmse
        Shape (n,). Normalised RMSE, NaN where crystal and target do not match.
    known
        Crystals to take structures from.
    """

    made: list[Structure | None]
    rmse: NDArray[np.float64]
    known: int

    def summary(self) -> dict[str, Any]:
        """Return match rate and RMSE as structure prediction has them."""
        return {
            "match_rate": share(int(np.isfinite(self.rmse).sum()), len(self.rmse)),
            "rmse": bootstrapped(self.rmse),
            "training_crystals": self.known,
        }


def measure_substitution(
    targets: Sequence[Structure],
    known: Sequence[Mapping[str, Any]],
    distance: NDArray[np.floating[Any]],
) -> Substitution:
    """Predict targets from their compositions alone (see `substitute`) and match what is made."""
    compositions = [Counter(site.specie.symbol for site in target) for target in targets]
    made = substitute(compositions, known, distance)
    return Substitution(made, match_all(made, list(targets)), len(known))
