"""What a model is and can do, as its model.json says; loads no network."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pccd_workflows.generators.pccd.config import (
    Architecture,
    Schedule,
    Setting,
    SmallNetwork,
)

FORMAT_VERSION = 1


class ModelInfo(BaseModel):
    """What a model is and can do, without its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    format_version: int = FORMAT_VERSION
    name: str
    description: str = ""
    architecture: Architecture
    schedule: Schedule
    composition: SmallNetwork | None = Field(
        description="Network that draws the composition; null if the cloud decides it"
    )
    symmetry: SmallNetwork | None = Field(
        None, description="Network that draws the space group; null if the cloud decides it"
    )
    new_types: SmallNetwork | None = Field(
        None, description="Network that proposes new structure types; null if there is none"
    )
    properties: SmallNetwork | None = Field(
        None, description="Networks that estimate properties of cells; null if there are none"
    )
    setting: Setting = Field("reduced", description="Of the cells it was trained on")
    max_elements: int = Field(ge=1, description="Most elements of a crystal")
    max_sites: int = Field(ge=1, description="Most atoms of a cell")
    elements: list[str] = Field(description="Elements it has seen")
    conditions: list[str] = Field(description="Conditions it was trained on")
    parameters: int = Field(ge=0, description="Number of weights")
    weights_sha256: str
    training: dict[str, Any] = Field(description="Data, duration and hardware of the training")
