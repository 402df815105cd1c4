"""What engines share about geometry: what counts in a key, how far a relaxation went."""

import hashlib
import json
from typing import Any

import numpy as np
from pymatgen.core import Structure

VOLUME_RANGE = (0.25, 4.0)
"""V / V_start outside of it is a collapse or an explosion."""


def structure_content(structure: Structure) -> dict[str, Any]:
    """Return what of a structure counts in a content address: coordinates to 1e-6, modulo 1."""
    return {
        "lattice": (np.round(structure.lattice.matrix, 6) + 0.0).tolist(),
        "species": [site.species_string for site in structure],
        "frac_coords": (np.mod(np.round(structure.frac_coords, 6), 1) + 0.0).tolist(),
    }


def content_key(content: Any) -> str:
    """Return the content address of JSON values: sha256 of their text, keys sorted."""
    return text_key(json.dumps(content, sort_keys=True))


def text_key(text: str) -> str:
    """Return the sha256 of a text, in hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def lost_volume(ratio: float) -> str | None:
    """Say how a cell of V / V_start = `ratio` left the realm of crystals; None if it did not."""
    low, high = VOLUME_RANGE
    if low <= ratio <= high:
        return None
    word = "collapsed" if ratio < 1 else "exploded"
    return f"The cell {word} to {ratio:.2f} of its first volume"


def rms_displacement(start: Structure, end: Structure) -> float:
    """Return the RMS distance in Å the atoms moved in the starting cell.

    Their common drift does not count, nor whole lattice vectors.
    """
    moved = end.frac_coords - start.frac_coords
    moved = moved - moved[0]  # so that a drift of half a cell splits no crystal in two
    moved = moved - np.round(moved)
    moved = (moved - moved.mean(axis=0)) @ start.lattice.matrix
    return float(np.sqrt((moved**2).sum(axis=1).mean()))
