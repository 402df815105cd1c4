"""A campaign file: what to generate, how to filter and judge it. Validated, completed, hashed."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.sections import NAME_PATTERN, Section
from pccd_workflows.core.validation import explain
from pccd_workflows.generators.request import Generate
from pccd_workflows.known.novelty import NoveltySection
from pccd_workflows.known.options import References
from pccd_workflows.stages.phonons import PhononsSection
from pccd_workflows.stages.rung import Rung


class Campaign(Section):
    """One campaign file."""

    name: str = Field(description="Letters a-z, digits, '.', '_' and '-'")
    description: str = ""
    generate: Generate
    screen: Screen = Screen()
    novelty: NoveltySection = NoveltySection()
    references: References = References()
    rungs: Annotated[list[Rung], Field(min_length=1)]
    phonons: PhononsSection | None = None

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, value: str) -> str:
        if not NAME_PATTERN.fullmatch(value) or ".." in value:
            raise ValueError(
                f"{value!r} must be 1-64 of a-z, 0-9, '.', '_' and '-', "
                "beginning and ending with a letter or digit"
            )
        return value

    @model_validator(mode="after")
    def _levels_climb_once(self) -> Self:
        levels = [rung.level for rung in self.rungs]
        if len(set(levels)) != len(levels):
            raise ValueError(f"rungs: a level is used twice in {levels}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the campaign with every default filled in, as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def hash(self) -> str:
        """sha256 over the resolved campaign: another file, another lineage."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def campaign_id(self) -> str:
        """<name>-<first 10 hex digits of the hash>."""
        return f"{self.name}-{self.hash[:10]}"

    @property
    def stages(self) -> list[str]:
        """Every stage a candidate may go through, in order (see CandidateDoc.stage)."""
        rungs = [
            f"{what}:{rung.level}"
            for rung in self.rungs
            for what in ("relax", "hull", *(["bands"] if rung.band_structure else []))
        ]
        levels = [self.phonons.level, self.phonons.confirm] if self.phonons else []
        phonons = [f"phonons:{level}" for level in levels if level is not None]
        return ["generate", "screen", "deduplicate", *rungs, *phonons]

    def candidate_id(self, index: int) -> str:
        """Return the id of sample `index`, the same in every run of this campaign."""
        return f"{self.campaign_id}-{index:06d}"


def load_campaign(path: str | Path) -> Campaign:
    """Read and check a campaign file.

    A relative ``references.path`` is taken from the campaign file's folder.

    Raises
    ------
    InputError
        One sentence with the file, the key, what is wrong and, where it helps, the options.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no campaign file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Campaign file {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        problem = getattr(error, "problem", None) or "bad syntax"
        raise InputError(f"Campaign file {path} is not valid YAML{line}: {problem}.") from None
    if not isinstance(data, dict):
        raise InputError(f"Campaign file {path} must hold 'key: value' pairs, see flows/README.md.")
    references = data.get("references")
    if isinstance(references, dict) and isinstance(references.get("path"), str):
        references["path"] = str((path.parent / references["path"]).resolve())
    try:
        return Campaign.model_validate(data)
    except ValidationError as error:
        raise InputError(f"Campaign file {path}: {explain(error, Campaign)}") from None
