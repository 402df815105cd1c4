"""A training file: which network, which noise, which data, for how long."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pccd_workflows.core.bounded_files import read_yaml
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.validation import explain

Setting = Literal["reduced", "standard"]
"""Niggli cell with the origin on an atom, or primitive cell of the space group's own setting."""
MAX_ELEMENTS = 5
"""Most elements of a crystal that the networks have places for."""


class Section(BaseModel):
    """A part of a training file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(Section):
    """Which network, and its size."""

    kind: Literal["point-transformer", "paper-unet"]
    width: int = Field(128, ge=8, description="Channels (of the first level of the U-Net)")
    depth: int = Field(6, ge=1, description="Layers (levels of the U-Net)")
    heads: int = Field(4, ge=1)
    max_sites: int = Field(16, ge=1, le=64)
    max_elements: int = Field(3, ge=1, le=MAX_ELEMENTS)
    structure_types: int = Field(0, ge=0, description="Most frequent structure types it knows")


class Schedule(Section):
    """Noise."""

    steps: int = Field(1000, ge=2, description="T of the diffusion")
    shift: float = Field(1.0, gt=0, description="Noise amplitude relative to the cosine schedule")


class SmallNetwork(Section):
    """A network that is asked before the cloud is drawn."""

    width: int = Field(256, ge=8)
    epochs: int = Field(12, ge=1)


class TrainConfig(Section):
    """A file train.yaml."""

    name: str = Field(description="Name of the model")
    description: str = ""
    data: Path = Field(description="Dataset of `pccd dataset build`")
    setting: Setting = Field("reduced", description="Of the cells of the dataset")
    architecture: Architecture
    schedule: Schedule = Schedule()
    composition: SmallNetwork | None = Field(
        SmallNetwork(), description="Draws the number of atoms of each element"
    )
    symmetry: SmallNetwork | None = Field(
        None, description="Draws the space group, given the composition"
    )
    new_types: SmallNetwork | None = Field(
        None, description="Proposes structure types that no training crystal has"
    )
    properties: SmallNetwork | None = Field(
        None, description="Estimates band gap and energy above the hull of cells that are drawn"
    )
    start_from: Path | None = Field(
        None, description="Folder of a model whose denoiser training begins with"
    )
    batch: int = Field(128, ge=1, description="Crystals per step and device")
    learning_rate: float = Field(1e-3, gt=0)
    warmup: int = Field(100, ge=0, description="Steps of rising learning rate")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights per step")
    drop_properties: float = Field(0.3, ge=0, le=1, description="Each property left open")
    drop_elements: float = Field(0.1, ge=0, le=1, description="Everything left open")
    max_steps: int | None = Field(None, ge=1)
    max_minutes: float | None = Field(None, gt=0, description="Wall time over all restarts")
    checkpoint_minutes: float = Field(5.0, gt=0)
    devices: int | None = Field(
        None, ge=1, description="GPUs (or processes without one); all GPUs if left out"
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    seed: int = 0

    @model_validator(mode="after")
    def _it_ends(self) -> Self:
        if self.max_steps is None and self.max_minutes is None:
            raise ValueError("give max_steps, max_minutes or both")
        return self


def load_train_config(path: Path) -> TrainConfig:
    """Read a training file; relative paths are taken from its folder.

    Raises
    ------
    InputError
        If it is missing or wrong, with the key.
    """
    try:
        data = read_yaml(path, "Training file")
    except FileNotFoundError:
        raise InputError(f"There is no training file {path}.") from None
    if not isinstance(data, dict):
        raise InputError(f"Training file {path} must hold 'key: value' pairs.")
    try:
        config = TrainConfig.model_validate(data)
    except ValidationError as error:
        raise InputError(f"Training file {path}: {explain(error, TrainConfig)}") from None
    places: dict[str, Path] = {"data": path.parent / config.data}
    if config.start_from is not None:
        places["start_from"] = path.parent / config.start_from
    return config.model_copy(update=places)
