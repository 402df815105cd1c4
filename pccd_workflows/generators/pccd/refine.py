"""A known crystal with other elements, moved to where crystals like it say that its atoms are.

The free coordinates and the cell of a structure type change smoothly with its elements. They are
taken from a local linear regression over the known crystals of the type (Cleveland 1979, DOI
10.1080/01621459.1979.10481038): near ones weigh more, and radii and electronegativity of the
elements on each place are the variables. Every known crystal has the symmetry, so the result has.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.generators.pccd.chemistry import atomic_radii, covalent_radii, electronegativity
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.templates import Coordinates, exchange

Floats = NDArray[np.float64]
MEMBERS = 60
"""Known crystals of a type that are looked at, the nearest first."""
WIDTH = 1.6
"""Widening of the votes, which are too sharp for a regression (validation crystals, see card)."""
RIDGE = 0.05
"""Penalty of slopes, in units of weights: one member alone has none."""
FARTHEST = 0.1
"""Fractional; members with an atom farther off are of another branch of the type."""
LARGEST_STRAIN = 0.35
"""Of the logarithm of the metric; the same for cells."""


@lru_cache(maxsize=1)
def _variables() -> Floats:
    """Return what describes an element, (Z, 3), by atomic number."""
    covalent = np.log(np.maximum(covalent_radii().astype(float), 0.3))
    return np.stack([covalent, np.log(atomic_radii().astype(float)), electronegativity() / 2], 1)


def refine(
    known: Coordinates, rows: NDArray[np.int64], votes: Floats, counts: Mapping[int, int]
) -> Template:
    """Return the first of some crystals of one type with other elements and their places.

    Parameters
    ----------
    known
    rows
        Shape (k,). Crystals of the type; the result is near the first.
    votes
        Shape (k,). How much each counts.
    counts
        Atoms of each element, by atomic number.

    Raises
    ------
    KeyError
        If the numbers of atoms differ.
    """
    originals = [known.template(int(row)) for row in rows[:MEMBERS]]
    members = [exchange(original, counts) for original in originals]
    first = members[0]
    order = _by_element(first)
    inverse = np.linalg.inv(first.lattice)
    displacements, strains, variables, weights = [], [], [], []
    for original, member, vote in zip(originals, members, votes, strict=False):
        moved = member.frac_coords[_by_element(member)] - first.frac_coords[order]
        moved -= np.rint(moved)
        strain = _logarithm(inverse @ member.lattice @ member.lattice.T @ inverse.T)
        if np.abs(moved).max() > FARTHEST or np.abs(strain).max() > LARGEST_STRAIN:
            continue
        displacements.append(moved)
        strains.append(strain)
        variables.append(_differences(original, member))
        weights.append(vote ** (1 / WIDTH))
    at = _regression(np.array(variables), np.array(weights))
    shift = np.tensordot(at, np.array(displacements), 1)
    strain = np.tensordot(at, np.array(strains), 1)
    if np.abs(shift).max() > FARTHEST or np.abs(strain).max() > LARGEST_STRAIN:
        return first
    frac = first.frac_coords.copy()
    frac[order] += shift
    stretched = _exponential(strain / 2)
    return Template(first.space_group, first.numbers, frac, first.lattice @ stretched)


def _by_element(template: Template) -> NDArray[np.int64]:
    """Return the order of the sites by element: sites of a type have an order of their own."""
    return np.argsort(template.numbers, kind="stable")


def _differences(original: Template, exchanged: Template) -> Floats:
    """Return how the elements that were there differ from those that take their places."""
    new, first = np.unique(exchanged.numbers, return_index=True)
    change: Floats = _variables()[original.numbers[first]] - _variables()[new]
    return change.ravel()


def _regression(variables: Floats, weights: Floats) -> Floats:
    """Return the weights (k,) of the members in the value at variables of zero."""
    design = np.concatenate([np.ones((len(variables), 1)), variables], 1)
    penalty = RIDGE * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    normal = design.T @ (weights[:, None] * design) + penalty
    return np.asarray(np.linalg.solve(normal, design.T * weights)[0])


def _logarithm(metric: Floats) -> Floats:
    """Return the logarithm of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(metric)
    return np.asarray((vectors * np.log(values)) @ vectors.T)


def _exponential(symmetric: Floats) -> Floats:
    values, vectors = np.linalg.eigh(symmetric)
    return np.asarray((vectors * np.exp(values)) @ vectors.T)
