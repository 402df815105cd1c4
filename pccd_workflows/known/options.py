"""Where a campaign takes the competing phases of its hulls from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pccd_workflows.core.sections import Section


class References(Section):
    """Where the competing phases of the hull come from."""

    source: Literal["prototypes", "known", "materials_project", "file"] = Field(
        "prototypes",
        description="prototypes: decorated structure types; known: the library of known crystals "
        "that comes with the project; materials_project; file",
    )
    path: Path | None = Field(None, description="JSON lines file or folder of CIFs (source: file)")

    @model_validator(mode="after")
    def _path_goes_with_file(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("source: file needs a path, and no other source takes one")
        return self
