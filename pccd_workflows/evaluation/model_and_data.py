"""A trained model and the known crystals it is measured against, as a command names them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pccd_workflows.core.errors import InputError
from pccd_workflows.evaluation.judge import PotentialJudge, potential_judge
from pccd_workflows.evaluation.samples import Yardstick, yardstick
from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
from pccd_workflows.generators.pccd.records import read_records
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.settings import Settings, get_settings

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model


@dataclass(frozen=True)
class ModelAndData:
    """A model with its folder, and a data file if there is one.

    Attributes
    ----------
    folder
        Of the model, with its training index.
    data
        More known crystals: JSON lines or a folder of CIFs.
    """

    model: "Model"
    folder: Path
    data: Path | None
    settings: Settings

    @property
    def header(self) -> dict[str, str]:
        """What results say about the model."""
        info = self.model.info
        return {"model": info.name, "weights_sha256": info.weights_sha256}

    def judge(self, level: str, progress: Progress = silent) -> PotentialJudge:
        """Return what relaxes crystals at a level and places them on its hull."""
        return potential_judge(level, self.settings, progress=progress)

    def yardstick(self, judge: PotentialJudge | None = None) -> Yardstick:
        """Return what samples are measured against: library, training, data and judge, if any."""
        return yardstick(self.folder, self.data, judge=judge)


def load_model_and_data(name: str, data: Path | None) -> ModelAndData:
    """Return the model of a name or path, after a look at the data, if any.

    Raises
    ------
    InputError
        There is no such model or file, or the file holds no crystal.
    """
    if data is not None and next(read_records(data), None) is None:
        raise InputError(f"{data} holds no crystal.")
    settings = get_settings()
    folder = find_model(name, settings)
    return ModelAndData(load_model(folder, settings.device), folder, data, settings)
