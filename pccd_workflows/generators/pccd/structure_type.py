"""Structure types by number: how often the training crystals have them (see `standard`)."""

import numpy as np
from numpy.typing import NDArray


def number_types(types: NDArray[np.int64], train: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number structure types by how often the training crystals have them, from 1.

    Parameters
    ----------
    types
        Shape (N,). From `standard_cell`; 0 is unknown.
    train
        Shape (N,). Which crystals are training crystals.

    Returns
    -------
    int32 array (N,)
        0 where no training crystal has the type, or it is unknown.
    """
    kinds, counts = np.unique(types[train & (types != 0)], return_counts=True)
    if len(kinds) == 0:
        return np.zeros(len(types), dtype=np.int32)
    numbers = np.empty(len(kinds), dtype=np.int32)
    numbers[np.lexsort((kinds, -counts))] = np.arange(1, len(kinds) + 1)
    places = np.searchsorted(kinds, types).clip(max=len(kinds) - 1)
    return np.where(kinds[places] == types, numbers[places], 0).astype(np.int32)
