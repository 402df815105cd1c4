"""How different generated crystals are from each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

REACH = 2.5
"""Neighbours count up to this distance, in units of (volume per atom)^(1/3)."""
BINS = 50
SYMPREC = 0.1
"""Å, as in the training index."""


def fingerprint(structure: "Structure") -> NDArray[np.float64]:
    """Return neighbours per atom within rising distances, shape (BINS,); free of scale.

    Distances are in units of (volume per atom)^(1/3): the same structure type with other atoms
    has nearly the same fingerprint.
    """
    unit = (structure.volume / len(structure)) ** (1 / 3)
    distances = structure.get_neighbor_list(REACH * unit)[3] / unit
    counts = np.histogram(distances, bins=BINS, range=(0.0, REACH))[0]
    return np.asarray(np.cumsum(counts) / len(structure))


def spread(structures: Sequence["Structure"]) -> float | None:
    """Return the mean distance between the fingerprints of all pairs; None for fewer than two."""
    if len(structures) < 2:
        return None
    points = np.array([fingerprint(s) for s in structures])
    squared = (points**2).sum(1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * points @ points.T, 0.0))
    pairs = np.triu_indices(len(points), k=1)
    return round(float(distances[pairs].mean()), 4)


def prototype(structure: "Structure") -> tuple[str, int, int]:
    """Return anonymous formula, space group and atoms in the primitive cell."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    formula = structure.composition.reduced_composition.anonymized_formula
    try:
        analyzer = SpacegroupAnalyzer(structure, symprec=SYMPREC)
        primitive = analyzer.find_primitive() or structure
        return formula, int(analyzer.get_space_group_number()), len(primitive)
    except SymmetryUndeterminedError:  # atoms nearer than SYMPREC
        return formula, 1, len(structure)


def diversity(structures: Sequence["Structure | None"]) -> dict[str, Any]:
    """Return how many formulas, structure types and space groups there are, and their spread.

    Parameters
    ----------
    structures
        Crystals; None are left out.
    """
    crystals = [s for s in structures if s is not None]
    kinds = [prototype(s) for s in crystals]
    return {
        "crystals": len(crystals),
        "formulas": len({s.composition.reduced_formula for s in crystals}),
        "anonymous_formulas": len({formula for formula, _, _ in kinds}),
        "prototypes": len(set(kinds)),
        "space_groups": len({number for _, number, _ in kinds}),
        "without_symmetry": sum(number == 1 for _, number, _ in kinds),
        "fingerprint_spread": spread(crystals),
    }
