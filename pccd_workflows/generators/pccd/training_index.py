"""Whether a generated crystal was among the training crystals, without shipping them."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import write_whole

if TYPE_CHECKING:
    from pymatgen.core import Structure

FILE_NAME = "training_index.safetensors"


def hash_key(reduced_formula: str, spacegroup: int, n_sites_primitive: int) -> int:
    """Return the signed 64-bit hash of ``reduced_formula|spacegroup|n_sites_primitive``."""
    text = f"{reduced_formula}|{spacegroup}|{n_sites_primitive}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def crystal_key(structure: "Structure", symprec: float = 0.1) -> int:
    """Return the key under which a crystal is found in a training index.

    Parameters
    ----------
    structure
        Any cell of the crystal.
    symprec
        Å, as in the training data.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    analyzer = SpacegroupAnalyzer(structure, symprec=symprec)
    primitive = analyzer.find_primitive() or structure
    return hash_key(
        structure.composition.reduced_formula, analyzer.get_space_group_number(), len(primitive)
    )


def write_training_index(folder: Path, keys: NDArray[np.int64]) -> None:
    """Write the sorted distinct keys beside the weights."""
    from safetensors.numpy import save

    write_whole(folder / FILE_NAME, save({"keys": np.unique(keys)}))


def load_training_index(folder: Path) -> NDArray[np.int64] | None:
    """Return the sorted keys of a model's training crystals, or None if it ships none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        return load_file(path)["keys"]
    except (SafetensorError, KeyError, OSError) as error:
        raise InputError(f"Training index {path} cannot be read: {error}.") from None


def in_training(structure: "Structure", index: NDArray[np.int64]) -> bool:
    """Return whether formula, space group and primitive cell size occur in the training data."""
    key = crystal_key(structure)
    place = int(np.searchsorted(index, key))
    return place < len(index) and int(index[place]) == key
