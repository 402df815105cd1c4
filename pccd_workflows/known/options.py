"""Where a campaign takes the competing phases of its hulls from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pccd_workflows.core.sections import Section


class References(Section):
    """Where the competing phases of the hull come from."""

    source: Literal["prototypes", "materials_project", "file"] = "prototypes"
    path: Path | None = Field(None, description="JSON lines file or folder of CIFs (source: file)")

    @model_validator(mode="after")
    def _path_goes_with_file(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("source: file needs a path, and no other source takes one")
        return self
