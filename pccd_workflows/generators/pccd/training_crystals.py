"""The crystals that a model was trained on: what it may merely repeat.

A model that is trained here has them in a file beside its weights. Those of the model that ships
are the training split of the library of known crystals, as its ``model.json`` says.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pccd_workflows.generators.pccd.checkpoint import read_model_info
from pccd_workflows.matching.groups import DEFAULT_SETTINGS
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.dataset import CrystalArrays

FILE_NAME = "training_crystals.npz"
IN_LIBRARY = "in_library"
"""Of `training` in a ``model.json``: true where the library's training split holds the crystals."""


def write_training_crystals(folder: Path, crystals: "CrystalArrays") -> None:
    """Write training crystals beside the weights: reduced cells, half a millisecond each."""
    pairs = ((str(row), crystals.structure(row)) for row in range(len(crystals)))
    KnownCrystals(pairs).save(folder / FILE_NAME)


def read_training_crystals(
    folder: Path, settings: MatcherSettings = DEFAULT_SETTINGS
) -> KnownCrystals | None:
    """Return the training crystals of a model, None if they do not lie beside it.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = folder / FILE_NAME
    return KnownCrystals.load(path, settings=settings) if path.exists() else None


def trained_on_library(folder: Path) -> bool:
    """Return whether a model was trained on the training split of the library that ships."""
    return read_model_info(folder).training.get(IN_LIBRARY) is True
