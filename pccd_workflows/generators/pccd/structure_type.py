"""Structure types: crystals with the same space group and the same Wyckoff positions occupied."""

import hashlib
import os

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("SPGLIB_WARNING", "OFF")  # of crystals without a type, which is no fault
SYMPREC = 0.1
"""Å; published structures miss their symmetry by less."""


def structure_type(
    lattice: NDArray[np.float64], numbers: NDArray[np.int64], frac_coords: NDArray[np.float64]
) -> str:
    """Return the name of the structure type of a primitive cell, e.g. `225:a,b` for rock salt.

    It is the space group and the Wyckoff letters of the atoms of each element; elements by number
    of atoms, then in the order of the cell. Letters depend on the origin that spglib chooses, so
    one type may have two names; cells in canonical form rarely do.

    Parameters
    ----------
    lattice
        Shape (3, 3). Lattice vectors in rows, Å.
    numbers
        Shape (n,). Atomic numbers.
    frac_coords
        Shape (n, 3).

    Returns
    -------
    Empty if spglib finds no symmetry.
    """
    import spglib

    found = spglib.get_symmetry_dataset((lattice, frac_coords, numbers), symprec=SYMPREC)
    if found is None:
        return ""
    letters: dict[int, list[str]] = {}
    for number, letter in zip(numbers.tolist(), found.wyckoffs, strict=True):
        letters.setdefault(number, []).append(letter)
    by_count = sorted(letters.values(), key=len)
    return f"{found.number}:" + ",".join("".join(sorted(of_element)) for of_element in by_count)


def hash_type(name: str) -> int:
    """Return a 63-bit number for the name of a structure type; 0 for the empty name."""
    digest = hashlib.sha256(name.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) * bool(name)


def number_types(types: NDArray[np.int64], train: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number structure types by how often the training crystals have them, from 1.

    Parameters
    ----------
    types
        Shape (N,). From `hash_type`.
    train
        Shape (N,). Which crystals are training crystals.

    Returns
    -------
    Shape (N,). 0 where no training crystal has the type, or it is unknown.
    """
    kinds, counts = np.unique(types[train & (types != 0)], return_counts=True)
    if len(kinds) == 0:
        return np.zeros(len(types), dtype=np.int32)
    numbers = np.empty(len(kinds), dtype=np.int32)
    numbers[np.lexsort((kinds, -counts))] = np.arange(1, len(kinds) + 1)
    places = np.searchsorted(kinds, types).clip(max=len(kinds) - 1)
    return np.where(kinds[places] == types, numbers[places], 0).astype(np.int32)
