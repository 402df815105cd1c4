"""A campaign file: what to generate, how to filter and judge it. Validated, completed, hashed."""

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pymatgen.core import Element

from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.levels import LEVELS, engine, get_level

LAST_SPACE_GROUP = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
"""Crystal systems with the number of their last space group, in order."""
NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
MAX_SAMPLES = 10_000_000
RESERVED_SETS = ("references", "training", "history")
"""What novelty is measured against without importing anything; no set has such a name."""


def _element(symbol: str) -> str:
    if symbol not in Element.__members__ or symbol in {"D", "T"}:
        close = difflib.get_close_matches(symbol, Element.__members__, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{symbol!r} is not a chemical element{hint}")
    return symbol


def _distinct(symbols: list[str]) -> list[str]:
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"an element is named twice in {symbols}")
    return symbols


def _level(name: str) -> str:
    get_level(name)
    return name


ElementSymbol = Annotated[str, AfterValidator(_element)]
ElementSet = Annotated[list[ElementSymbol], AfterValidator(_distinct), Field(min_length=1)]
LevelName = Annotated[str, AfterValidator(_level)]


class Section(BaseModel):
    """A part of a campaign file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Draw(Section):
    """Each sample gets its own random set of elements."""

    elements: ElementSet = Field(alias="from", description="Elements to draw from")
    n_elements: tuple[int, int] = Field((1, 3), description="Fewest and most elements of a set")
    always: list[ElementSymbol] = Field(
        default_factory=list, description="Elements that every set contains (oxides: [O])"
    )

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _counts_make_sense(self) -> Self:
        low, high = self.n_elements
        if not 1 <= low <= high <= len({*self.elements, *self.always}):
            raise ValueError(
                f"n_elements {list(self.n_elements)} must be [fewest, most] between 1 and the "
                f"{len({*self.elements, *self.always})} elements given"
            )
        if len(self.always) > high:
            raise ValueError(f"'always' names more elements than n_elements allows ({high})")
        return self


class Conditions(Section):
    """What the crystals should be like; null leaves it to the model."""

    band_gap: float | None = Field(None, ge=0, le=20, description="eV")
    magnetic_ordering: Literal["NM", "FM", "AFM", "FiM"] | None = None
    energy_above_hull: float | None = Field(None, ge=0, le=5, description="eV/atom; 0 = stable")
    n_sites: int | None = Field(None, ge=1, le=64, description="Atoms per cell")
    composition: str | None = Field(None, description="Formula of the cell, e.g. Mg2Mn4O8")
    crystal_system: (
        Literal[
            "triclinic",
            "monoclinic",
            "orthorhombic",
            "tetragonal",
            "trigonal",
            "hexagonal",
            "cubic",
        ]
        | None
    ) = None
    space_group: int | None = Field(
        None, ge=1, le=230, description="Number of the space group; aimed at, not imposed"
    )

    @model_validator(mode="after")
    def _symmetry_agrees(self) -> Self:
        if self.space_group is None or self.crystal_system is None:
            return self
        system = next(s for s, last in LAST_SPACE_GROUP.items() if self.space_group <= last)
        if system != self.crystal_system:
            raise ValueError(
                f"space_group {self.space_group} is {system}, not {self.crystal_system}"
            )
        return self


class Sampler(Section):
    """How noise becomes crystals."""

    name: Literal["ddpm", "ddim", "dpm-solver++"] = "dpm-solver++"
    steps: int = Field(
        25, ge=1, le=1000, description="Network evaluations (each doubled by guidance)"
    )
    guidance: float = Field(
        1.0, ge=0, le=20, description="Weight of the conditions; 1 = as learned, >1 = stronger"
    )
    temperature: float = Field(
        0.5,
        ge=0,
        le=2,
        description="Space group, structure type and noise are drawn from p^(1/temperature); 1 = "
        "as learned, 0 = always the likeliest",
    )
    composition_temperature: float = Field(
        1.0,
        ge=0,
        le=2,
        description="The same for the number of atoms of each element; below 1 few formulas of a "
        "chemical system are left",
    )
    recall: bool = Field(
        False,
        description="Whether training crystals of exactly the elements asked for vote, alone: "
        "known compounds come again; without, they do not vote at all",
    )
    separation: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Atoms that are predicted closer than this fraction of their covalent radii's "
        "sum are pushed apart while the noise is removed; 0 = leave them",
    )
    symmetric: bool = Field(
        True,
        description="Whether crystals get the symmetry that they aim at; without, the noise alone "
        "decides",
        # left out where it is not changed: older files keep their hash
        exclude_if=lambda asked: asked,
    )
    start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Noise that an analogue (a known crystal of the structure type aimed at, its "
        "elements exchanged) is given before it is removed again, as a share of T; 1 = all, "
        "nothing is left of its coordinates; 0 = none, it is what comes out. Crystals without an "
        "analogue always begin with noise alone",
        # as `symmetric`
        exclude_if=lambda asked: asked == 0,
    )


class Generate(Section):
    """What the generative model is asked for."""

    model: str = Field("pccd-default", description="A folder of model/, or a path to one")
    elements: ElementSet | None = Field(None, description="One set of elements for all samples")
    element_sets: Annotated[list[ElementSet], Field(min_length=1)] | None = Field(
        None, description="Several sets, used in turn"
    )
    draw: Draw | None = Field(None, description="A random set for each sample")
    conditions: Conditions = Conditions()
    samples: int = Field(256, ge=1, le=MAX_SAMPLES, description="Raw samples, before any filter")
    shard: int = Field(128, ge=1, le=10_000, description="Samples per job")
    seed: int = Field(0, ge=0, lt=2**63, description="Fixes every sample")
    sampler: Sampler = Sampler()

    @model_validator(mode="after")
    def _one_choice_of_elements(self) -> Self:
        given = [k for k in ("elements", "element_sets", "draw") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of elements, element_sets and draw, "
                f"not {' and '.join(given) or 'none of them'}"
            )
        return self


class Screen(Section):
    """Judgements that need no energy."""

    min_distance: float = Field(0.7, gt=0, le=5, description="Shortest allowed distance, Å")
    min_distance_radii: float = Field(
        0.6, ge=0, le=2, description="... and as a fraction of the two atomic radii's sum"
    )
    density: tuple[float, float] = Field((0.1, 30.0), description="Allowed range, g/cm^3")
    charge_neutral: Literal["require", "prefer", "ignore"] = Field(
        "prefer",
        description="require: reject what no oxidation states balance; prefer: record it and send "
        "balanced crystals first; ignore: do not look",
    )
    all_elements: bool = Field(True, description="Reject crystals that lack an element asked for")

    @field_validator("density")
    @classmethod
    def _density_is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1]:
            raise ValueError(f"density {list(value)} must be [lowest, highest], both positive")
        return value


class MatcherSettings(Section):
    """Tolerances of pymatgen's StructureMatcher (its own defaults)."""

    ltol: float = Field(0.2, gt=0, le=1, description="Fractional length tolerance")
    stol: float = Field(0.3, gt=0, le=2, description="Site tolerance / (V/N)^(1/3)")
    angle_tol: float = Field(5.0, gt=0, le=45, description="Degrees")


class NoveltySection(Section):
    """What counts as known."""

    against: tuple[Literal["references", "training", "history"], ...] = (
        "references",
        "training",
        "history",
    )
    sets: tuple[str, ...] = Field(
        (), description="Imported sets of known crystals (see `pccd known list`)"
    )
    keep_known: bool = Field(
        True,
        description="Known crystals go on through the funnel, marked as known (seed Fig. 4 shows "
        "both); false rejects them before any energy is computed",
    )
    matcher: MatcherSettings = MatcherSettings()

    @field_validator("sets")
    @classmethod
    def _set_names_are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len({*names, *RESERVED_SETS}) < len(names) + len(RESERVED_SETS):
            raise ValueError(
                f"{list(names)} must name each set once, and none of {', '.join(RESERVED_SETS)}"
            )
        return names


class References(Section):
    """Where the competing phases of the hull come from."""

    source: Literal["prototypes", "materials_project", "file"] = "prototypes"
    path: Path | None = Field(None, description="JSON lines file or folder of CIFs (source: file)")

    @model_validator(mode="after")
    def _path_goes_with_file(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("source: file needs a path, and no other source takes one")
        return self


class Keep(Section):
    """Who survives a rung."""

    energy_above_hull: float = Field(0.25, ge=0, le=10, description="eV/atom, at most")


class Budget(Section):
    """What a rung may spend."""

    candidates: int | None = Field(None, ge=1, description="At most so many crystals, best first")
    core_hours: float | None = Field(
        None, gt=0, description="No run is started once so many are spent; see campaign resume"
    )
    references: int = Field(
        40, ge=1, description="Competing phases recomputed per system (DFT), lowest first"
    )


class Rung(Section):
    """One level of theory: relax, place on the hull, keep the best."""

    level: LevelName
    keep: Keep = Keep()
    budget: Budget = Budget()
    fmax: float = Field(0.05, gt=0, le=1, description="Largest force of a relaxed crystal, eV/Å")
    steps: int = Field(300, ge=1, le=10_000, description="Most steps of one relaxation")
    batch: int = Field(8, ge=1, le=1000, description="Crystals per job (ML potentials)")
    band_structure: bool = Field(
        False,
        description="Electronic band structure of the crystals that are kept (VASP levels)",
        # left out where it is not asked for: older files keep their hash
        exclude_if=lambda asked: not asked,
    )

    @model_validator(mode="after")
    def _bands_need_vasp(self) -> Self:
        if self.band_structure and engine(self.level) != "vasp":
            able = " or ".join(name for name in LEVELS if engine(name) == "vasp")
            raise ValueError(f"band_structure needs the level {able}, not {self.level!r}")
        return self


class PhononsSection(Section):
    """Dynamical stability of the best crystals of the last rung."""

    level: LevelName = "chgnet"
    confirm: LevelName | None = Field(None, description="Level that settles ambiguous verdicts")
    tolerance_thz: float = Field(0.1, ge=0, le=5, description="Imaginary modes below it are noise")
    max_energy_above_hull: float = Field(0.08, ge=0, le=10, description="Only crystals this near")
    candidates: int = Field(3, ge=1, description="At most so many, lowest first")
    min_length: float = Field(10.0, gt=0, le=50, description="Supercell lengths at least, Å")
    displacement: float = Field(0.01, gt=0, le=0.2, description="Å")
    novel_only: bool = Field(True, description="Spend phonons on new crystals only")


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


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a pydantic error as one sentence with field and options."""
    problems = error.errors()
    first = problems[0]
    location = ".".join(str(part) for part in first["loc"])
    more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        options = _keys_at(model, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), options, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {options}."
        return f"unknown key {location!r}; {hint}{more}"
    if first["type"] == "missing":
        return f"{location!r} is missing.{more}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    value = repr(first["input"])
    obvious = isinstance(first["input"], dict | list) or value in message
    return f"{location or 'the file'}: {message}{'' if obvious else f' (got {value})'}.{more}"


def _keys_at(model: Any, location: tuple[str | int, ...]) -> list[str]:
    """Return the keys allowed at `location` of a (nested) model."""
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        annotation = next((f.annotation for n, f in fields.items() if part in (n, f.alias)), None)
        model = _model_in(annotation)
    return [f.alias or n for n, f in getattr(model, "model_fields", {}).items()]


def _model_in(annotation: Any) -> Any:
    """Return the pydantic model inside ``X``, ``X | None`` or ``list[X]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None
