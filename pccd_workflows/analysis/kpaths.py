"""Paths between points of high symmetry, which phonons and electrons share."""

from typing import Protocol

from numpy.typing import ArrayLike
from pymatgen.core import Structure

SYMPREC = 0.02
"""Å; a crystal at rest misses its symmetry by less."""


class OnPath(Protocol):
    """What pymatgen's phonon and electron bands along a path have in common."""

    distance: ArrayLike
    branches: list[dict[str, int | str]]


def symmetric_cell(structure: Structure) -> Structure:
    """Return the standard primitive cell of `structure` with its symmetry exact (to SYMPREC).

    Sites whose species differ in spin are different sites.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    refined = SpacegroupAnalyzer(structure, symprec=SYMPREC).get_primitive_standard_structure()
    return refined if refined is not None else structure


def legs_of(bands: OnPath) -> list[slice]:
    """Return the points of each leg of a path."""
    return [slice(int(b["start_index"]), int(b["end_index"]) + 1) for b in bands.branches]


def labels_of(bands: OnPath) -> list[list[str]]:
    """Return the names of each leg's two ends, in plain signs."""
    names = (str(branch["name"]).partition("-") for branch in bands.branches)
    return [[plain_label(left), plain_label(right)] for left, _, right in names]


def plain_label(label: str) -> str:
    """Return the name of a point without TeX."""
    label = label.replace("\\Gamma", "Γ").replace("GAMMA", "Γ").replace("\\Sigma", "Σ")
    return label.replace("$", "").replace("_{", "_").replace("}", "")


def path_name(labels: list[list[str]]) -> str:
    """Return a path as ``Γ-X-W|K-Γ``: a bar where it jumps."""
    name, last = "", ""
    for left, right in labels:
        name += f"-{right}" if left == last else f"{'|' if name else ''}{left}-{right}"
        last = right
    return name
