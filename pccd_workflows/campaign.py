"""A campaign file: what to generate, how to filter and judge it. Validated, completed, hashed."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.core.bounded_files import read_yaml
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import campaign_file, shipped_campaigns
from pccd_workflows.core.sections import FOLDER, NAME_PATTERN, Section
from pccd_workflows.core.validation import explain, with_options
from pccd_workflows.engines.levels import BEST_POTENTIAL, is_potential
from pccd_workflows.generators.registry import read_sources, write_sources
from pccd_workflows.generators.request import (
    MAX_SAMPLES,
    Conditions,
    Generate,
    SourceOptions,
)
from pccd_workflows.known.novelty import NoveltySection
from pccd_workflows.known.options import References
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.phonons import PhononsSection
from pccd_workflows.stages.rung import Rung

MAX_GENERATE_JOBS = 500
"""Most jobs that generate, of one source: a million samples are 500 jobs of 2,000, not 7,813 of
128. Every job that ends rewrites its workflow's list of jobs, in one transaction; a longer job
costs nothing when it is killed, because samples are stored batch by batch."""


DEFAULTS = 2
"""Version of the defaults of a campaign file; 1 took the competing phases from prototypes."""


@dataclass(frozen=True)
class NumberedSource:
    """A source of a campaign and the samples it is responsible for.

    Attributes
    ----------
    number
        Place in the campaign file, from 0.
    options
        What it is asked for.
    start, stop
        Its samples in the campaign are `start` to `stop` - 1; in the source they begin with 0.
    """

    number: int
    options: SourceOptions
    start: int
    stop: int

    def __contains__(self, index: int) -> bool:
        return self.start <= index < self.stop


class Campaign(Section):
    """One campaign file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(description="Letters a-z, digits, '.', '_' and '-'")
    description: str = ""
    asked: Annotated[
        tuple[SourceOptions, ...], PlainValidator(read_sources), PlainSerializer(write_sources)
    ] = Field(alias="generate", description="One source of crystals, or a list of them")
    screen: Screen = Screen()
    novelty: NoveltySection = NoveltySection()
    references: References = References()
    rungs: Annotated[list[Rung], Field(min_length=1)]
    phonons: PhononsSection | None = None
    stages: dict[str, SerializeAsAny[Section]] = Field(
        default_factory=dict,
        description="Options of the stages that installed packages bring, by name",
        # left out where there are none: older files keep their hash
        exclude_if=lambda stages: not stages,
    )
    stored_id: str | None = Field(
        None,
        description="Id under which the campaign was stored; no key of a campaign file",
        exclude_if=lambda stored: stored is None,
    )

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, value: str) -> str:
        if not NAME_PATTERN.fullmatch(value) or ".." in value:
            raise ValueError(
                f"{value!r} must be 1-64 of a-z, 0-9, '.', '_' and '-', "
                "beginning and ending with a letter or digit"
            )
        return value

    @field_validator("stages", mode="before")
    @classmethod
    def _stages_have_their_options(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {kind: _stage_options(str(kind), given) for kind, given in value.items()}

    @field_validator("phonons")
    @classmethod
    def _phonons_have_a_level(
        cls, value: PhononsSection | None, info: ValidationInfo
    ) -> PhononsSection | None:
        if value is None or value.level:
            return value
        rungs = info.data.get("rungs") or []
        potentials = [rung.level for rung in rungs if is_potential(rung.level)]
        return value.model_copy(update={"level": [BEST_POTENTIAL, *potentials][-1]})

    @model_validator(mode="after")
    def _levels_are_distinct(self) -> Self:
        levels = [rung.level for rung in self.rungs]
        if len(set(levels)) != len(levels):
            raise ValueError(f"rungs: a level is used twice in {levels}")
        return self

    @model_validator(mode="after")
    def _sources_make_sense(self) -> Self:
        if self.n_samples > MAX_SAMPLES:
            raise ValueError(f"generate: {self.n_samples} samples are more than {MAX_SAMPLES}")
        twins = [s for i, s in enumerate(self.asked) if s in self.asked[:i]]
        if twins:
            raise ValueError(
                f"generate: two sources {twins[0].source!r} are the same and would make every "
                "crystal twice; give one of them another seed"
            )
        return self

    @property
    def generate(self) -> Generate:
        """What the model is asked for, in a campaign whose only source it is.

        Raises
        ------
        InputError
            There are other sources: use `sources`, `n_samples`, `elements`, `conditions`.
        """
        first = self.asked[0]
        if len(self.asked) == 1 and isinstance(first, Generate):
            return first
        names = ", ".join(source.source for source in self.asked)
        raise InputError(f"Campaign {self.name} has other sources than one model ({names}).")

    @property
    def sources(self) -> list[NumberedSource]:
        """The sources in the order of the file, each with its contiguous range of samples."""
        found: list[NumberedSource] = []
        start = 0
        for number, options in enumerate(self.asked):
            found.append(NumberedSource(number, options, start, start + options.samples))
            start += options.samples
        return found

    @property
    def n_samples(self) -> int:
        """Raw samples of all sources."""
        return sum(source.samples for source in self.asked)

    @property
    def elements(self) -> list[str]:
        """Every element that a crystal may hold, alphabetically."""
        return sorted({symbol for s in self.asked for symbol in s.possible_elements()})

    @property
    def chemsys(self) -> str | None:
        """The one chemical system that holds every crystal; None if there are several."""
        system = "-".join(self.elements)
        return system if system in [source.chemsys() for source in self.asked] else None

    @property
    def models(self) -> list[str]:
        """Names of the project's own models among the sources, each once."""
        return list(dict.fromkeys(s.model for s in self.asked if isinstance(s, Generate)))

    @property
    def shards(self) -> list[tuple[int, int]]:
        """First and last-but-one sample of each job; no job has two sources.

        A job has `shard` samples; where that made too many jobs, a multiple of it.
        """
        return [
            (start, min(start + step, source.stop))
            for source in self.sources
            for step in [_samples_per_job(source.options)]
            for start in range(source.start, source.stop, step)
        ]

    def source_of(self, index: int) -> NumberedSource:
        """Return the source of sample `index`; IndexError if there is no such sample."""
        for source in self.sources:
            if index in source:
                return source
        raise IndexError(f"Campaign {self.name} has no sample {index}")

    def conditions(self, candidate_id: str) -> Conditions:
        """Return what the source of a candidate was asked for."""
        return self.source_of(index_of(candidate_id)).options.asked_conditions()

    def resolved(self) -> dict[str, Any]:
        """Return the campaign with every default filled in, as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude={"stored_id"})

    def with_defaults(self, version: int) -> Self:
        """Return what the same file meant when the defaults had this version (see `DEFAULTS`)."""
        if version >= DEFAULTS or "source" in self.references.model_fields_set:
            return self
        return self.model_copy(update={"references": References(source="prototypes")})

    @property
    def hash(self) -> str:
        """sha256 over the resolved campaign: another file, another lineage."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def campaign_id(self) -> str:
        """<name>-<first 10 hex digits of the hash>; of a stored campaign, what it was stored as.

        A stored campaign keeps its id when a later version adds options with defaults.
        """
        return self.stored_id or f"{self.name}-{self.hash[:10]}"

    def candidate_id(self, index: int) -> str:
        """Return the id of sample `index`, the same in every run of this campaign."""
        return f"{self.campaign_id}-{index:06d}"


def _stage_options(kind: str, given: Any) -> Section:
    """Return what a campaign file says of a stage as the options of that stage."""
    try:
        options = stage_of(kind).options
    except InputError as error:
        raise ValueError(str(error)) from None
    if options is None:
        raise ValueError(f"stage {kind!r} takes no options here")
    try:
        return options.model_validate({} if given is None else given)
    except ValidationError as error:
        raise with_options(error, options) from None


def _samples_per_job(options: SourceOptions) -> int:
    shards = math.ceil(options.samples / options.shard)
    return options.shard * math.ceil(shards / MAX_GENERATE_JOBS)


def index_of(candidate_id: str) -> int:
    """Return the number of the sample that `Campaign.candidate_id` made an id of."""
    return int(candidate_id.rpartition("-")[2])


def to_yaml(campaign: Campaign) -> str:
    """Return a campaign file with every default filled in: the same campaign, with the same id."""
    return yaml.safe_dump(
        campaign.resolved(),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=48,  # yaml breaks a line after the item that crosses this column; none reaches 80
    )


def load_campaign(path: str | Path) -> Campaign:
    """Read and check a campaign file.

    A name without a folder that is no file here is that of one that comes with the project.
    Relative paths of references and sources are taken from the campaign file's folder.

    Raises
    ------
    InputError
        One sentence with the file, the key, what is wrong and, where it helps, the options.
    """
    path = campaign_file(path)
    try:
        data = read_yaml(path, "Campaign file")
    except FileNotFoundError:
        raise InputError(
            f"There is no campaign file {path}; with the project come "
            f"{', '.join(shipped_campaigns())}."
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"Campaign file {path} must hold 'key: value' pairs, see flows/README.md.")
    if "stored_id" in data:
        raise InputError(f"Campaign file {path}: unknown key 'stored_id'.")
    references = data.get("references")
    if isinstance(references, dict) and isinstance(references.get("path"), str):
        references["path"] = str((path.parent / references["path"]).resolve())
    try:
        return Campaign.model_validate(data, context={FOLDER: path.parent})
    except ValidationError as error:
        raise InputError(f"Campaign file {path}: {explain(error, Campaign)}") from None
