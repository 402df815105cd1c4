"""The control of structure prediction: the nearest training crystal, its elements exchanged.

Known structure types with other elements are the oldest way to predict crystals. A model that is
not better than this has learned nothing else, so its match rate stands beside the model's.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import match_all
from pccd_workflows.generators.pccd.composition import electropositive_first
from pccd_workflows.generators.pccd.pointcloud.elements import atomic_number, symbol


@dataclass(frozen=True)
class Substitution:
    """Crystals made by substitution, and how they match.

    Attributes
    ----------
    made : list of Structure or None
        One for each target; None where no known crystal has the same numbers of atoms.
    rmse : float array (n,)
        Normalised RMSE, NaN where crystal and target do not match.
    known : int
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


def substitute(
    targets: Sequence[Structure],
    known: Sequence[Mapping[str, Any]],
    distance: NDArray[np.floating[Any]],
) -> Substitution:
    """Predict each target's structure from its composition by the most alike known crystal.

    Parameters
    ----------
    targets : sequence of Structure
        n crystals; only their compositions are used, and they are matched with what is made.
    known : sequence of mappings
        `species`, `lattice` and `frac_coords` of the crystals to take structures from.
    distance : float array (Z, Z)
        How unlike two elements are, by atomic number.
    """
    groups: dict[tuple[int, ...], list[tuple[tuple[int, ...], int]]] = defaultdict(list)
    for row, crystal in enumerate(known):
        elements, counts = _by_count(crystal["species"])
        groups[counts].append((elements, row))
    made: list[Structure | None] = []
    for target in targets:
        elements, counts = _by_count([site.specie.symbol for site in target])
        candidates = groups.get(counts, [])
        if not candidates:
            made.append(None)
            continue
        others = np.array([names for names, _ in candidates])
        nearest = int(distance[np.array(elements), others].astype(float).sum(1).argmin())
        crystal = known[candidates[nearest][1]]
        exchanged = {
            symbol(int(old)): symbol(new)
            for old, new in zip(others[nearest], elements, strict=True)
        }
        species = [exchanged[name] for name in crystal["species"]]
        made.append(Structure(crystal["lattice"], species, crystal["frac_coords"]))
    return Substitution(made, match_all(made, list(targets)), len(known))


def _by_count(species: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return atomic numbers by number of atoms, then electropositive first, and the numbers."""
    counted = Counter(atomic_number(name) for name in species)
    elements = sorted(electropositive_first(list(counted)), key=counted.__getitem__)
    return tuple(elements), tuple(counted[z] for z in elements)
