"""Where a campaign takes the competing phases of its hulls from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pccd_workflows.core.sections import Section


class References(Section):
    """Where the competing phases of the hull come from."""

    source: Literal["known", "prototypes", "materials_project", "file"] = Field(
        "known",
        description="known: the library of known crystals that comes with the project, and the "
        "imported sets that `novelty.sets` names; prototypes: decorated structure types; "
        "materials_project; file",
    )
    path: Path | None = Field(None, description="JSON lines file or folder of CIFs (source: file)")

    @model_validator(mode="after")
    def _path_goes_with_file(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("source: file needs a path, and no other source takes one")
        return self


def source_name(source: str, sets: Iterable[str]) -> str:
    """Return what a stored reference set has as its source: imported sets join the known phases."""
    return "+".join([source, *sets]) if source == "known" else source
