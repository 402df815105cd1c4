"""What a model makes of requests, through the stages of a campaign: screened, new, how stable."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.analysis.validity import screen
from pccd_workflows.evaluation.judge import HullFacts, Judge, PotentialJudge
from pccd_workflows.evaluation.known_file import known_file
from pccd_workflows.evaluation.thresholds import METASUN_LIMIT, is_within
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions
from pccd_workflows.known.novelty import LIBRARY, Novelty, SetNovelty
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings
from pccd_workflows.stages.novelty import (
    Crystals,
    LookUp,
    find_duplicates,
    in_library,
    look_up,
    match_known,
    match_training,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.analysis.screening import Screening
    from pccd_workflows.engines.records import Relaxation
    from pccd_workflows.generators.pccd.cells import SampleRequest
    from pccd_workflows.generators.pccd.model import Model
    from pccd_workflows.stages.hull import Stability

VALID_DISTANCE = 0.5
"""Å; the literature's validity (CDVAE) asks for this shortest distance ..."""
VALID_VOLUME = 0.1
"""... and this volume, Å^3."""

References = Callable[[set[str]], Iterable[tuple[str, "Structure"]]]
"""Known crystals, with their ids, that have one of these reduced formulas."""


@dataclass(frozen=True)
class Yardstick:
    """What samples are measured against; whatever is left out is not said.

    Attributes
    ----------
    look_ups
        Sets of known crystals by name, as campaigns compare with them: ``library``,
        ``references`` (of the data) and ``training`` (of the model).
    judge
        Relaxes the screened crystals and places them on a hull; without it the keys of stability
        are left out.
    """

    look_ups: Mapping[str, LookUp] = field(default_factory=dict)
    judge: Judge | None = None


@dataclass(frozen=True)
class RawSample:
    """What came of one request: a crystal, or the class of the DecodeError."""

    elements: tuple[str, ...]
    structure: "Structure | None"
    error: str | None = None


@dataclass(frozen=True)
class JudgedSample:
    """Everything found out about one sample, by the records of a campaign's stages.

    Attributes
    ----------
    screening
        None where nothing decoded.
    valid
        Of the literature: shortest distance and volume.
    novelty
        Among the valid samples, as generated; None of the others.
    relaxation, stability
        None if it was not relaxed. `stability.novelty` is that of the relaxed crystal, of those
        within METASUN_LIMIT: relaxing makes crystals alike. Known before, it stays known.
    """

    sample: RawSample
    screening: "Screening | None" = None
    valid: bool = False
    novelty: Novelty | None = None
    relaxation: "Relaxation | None" = None
    stability: "Stability | None" = None

    @property
    def screened(self) -> bool:
        """Whether it passes the default screening of a campaign."""
        return self.screening is not None and self.screening.passed

    @property
    def unique(self) -> bool:
        """Whether it is valid and matched by no earlier valid sample."""
        return self.novelty is not None and self.novelty.duplicate_of is None

    @property
    def novel(self) -> bool:
        """Whether it is valid and in no set that was consulted."""
        return self.novelty is not None and self.novelty.novel

    def known_in(self, name: str) -> bool | None:
        """Return whether a set has it; None if it is not valid or the set was not consulted."""
        found = None if self.novelty is None else self.novelty.sets.get(name)
        return None if found is None else found.known

    @property
    def reference(self) -> str | None:
        """Id of a known crystal that it is as generated, of the library first."""
        sets = {} if self.novelty is None else self.novelty.sets
        return next((found.matched_id for found in sets.values() if found.matched_id), None)

    @property
    def energy_above_hull(self) -> float | None:
        """eV/atom, relaxed."""
        return None if self.stability is None else self.stability.energy_above_hull

    @property
    def relaxes_to_new(self) -> bool:
        """Whether it is the lowest of its group and in no set, as generated and relaxed."""
        found = None if self.stability is None else self.stability.novelty
        return found is not None and found.duplicate_of is None and found.novel

    @property
    def kind(self) -> str | None:
        """What it is to known crystals, relaxed, within METASUN_LIMIT; None else, or unasked."""
        found = None if self.stability is None else self.stability.novelty
        return None if found is None else found.kind

    @property
    def structure(self) -> "Structure":
        """The crystal as generated.

        Raises
        ------
        ValueError
            The sample did not decode.
        """
        if self.sample.structure is None:
            raise ValueError("This sample did not decode.")
        return self.sample.structure


@dataclass(frozen=True)
class JudgedSamples:
    """Samples with what was found out about them, and the hull they were placed on."""

    samples: Sequence[JudgedSample]
    hull: HullFacts | None = None


def yardstick(
    folder: Path, data: Path | None = None, *, judge: PotentialJudge | None = None
) -> Yardstick:
    """Return what a model's crystals are measured against: the library, the data, its training.

    Parameters
    ----------
    folder
        Of the model.
    data
        More known crystals (JSON lines or CIFs).
    judge
        Relaxes the screened crystals.
    """
    settings = MatcherSettings()
    look_ups: dict[str, LookUp] = {LIBRARY: partial(in_library, settings=settings, kinds=True)}
    if data is not None:
        look_ups["references"] = among(known_file(data).with_formulas)
    look_ups["training"] = partial(match_training, folder=folder, settings=settings)
    return Yardstick(look_ups, judge)


def among(known: References) -> LookUp:
    """Return what compares crystals with known ones of the same formulas."""

    def compare(crystals: Crystals) -> Mapping[str, SetNovelty]:
        formulas = {crystal.composition.reduced_formula for crystal in crystals.values()}
        return match_known(crystals, KnownCrystals(known(formulas)))

    return compare


def requests_for(
    asked: Sequence[tuple[str, ...]], conditions: Conditions | None = None
) -> list["SampleRequest"]:
    """Return one request per set of elements, nothing else asked unless given."""
    from pccd_workflows.generators.pccd.cells import SampleRequest

    given = conditions or Conditions()
    return [SampleRequest(i, elements, given) for i, elements in enumerate(asked)]


def draw_samples(
    model: "Model", requests: Sequence["SampleRequest"], *, seed: int, sampler: Sampler
) -> list[RawSample]:
    """Return what a model makes of requests, in their order."""
    from pccd_workflows.generators.pccd.generator import draw_crystals

    drawn = draw_crystals(model, requests, seed=seed, sampler=sampler, batch=len(requests) or 1)
    return [
        RawSample(canonical_elements(d.request.elements), d.structure, d.error_class) for d in drawn
    ]


def judge_samples(samples: Sequence[RawSample], known: Yardstick) -> JudgedSamples:
    """Return what is found out about each sample; screened ones are relaxed if there is a judge."""
    judged = [_screened(sample) for sample in samples]
    valid = {str(i): one.structure for i, one in enumerate(judged) if one.valid}
    for name, novelty in judge_novelty(valid, known).items():
        judged[int(name)] = replace(judged[int(name)], novelty=novelty)
    return JudgedSamples(judged) if known.judge is None else _with_energies(judged, known)


def _screened(sample: RawSample) -> JudgedSample:
    if sample.structure is None:
        return JudgedSample(sample)
    found = screen(sample.structure, elements=sample.elements, settings=Screen())
    far_enough = (found.min_distance or 0.0) > VALID_DISTANCE
    valid = far_enough and sample.structure.volume > VALID_VOLUME
    return JudgedSample(sample, screening=found, valid=valid)


def judge_novelty(crystals: Crystals, known: Yardstick) -> dict[str, Novelty]:
    """Return which crystals repeat an earlier one of them, and which are known, all compared."""
    duplicates = find_duplicates(crystals, MatcherSettings())
    return {
        name: found.model_copy(update={"duplicate_of": duplicates.get(name)})
        for name, found in look_up(crystals, known.look_ups, kinds=True).items()
    }


def _with_energies(judged: Sequence[JudgedSample], known: Yardstick) -> JudgedSamples:
    """Return the samples with the judge's verdict on those that pass the screening."""
    if known.judge is None:
        raise ValueError("Energies need a judge.")
    result = list(judged)
    chosen = [i for i, one in enumerate(result) if one.screened]
    found = known.judge([result[i].structure for i in chosen])
    for i, relaxation, stability in zip(chosen, found.relaxations, found.stabilities, strict=True):
        result[i] = replace(result[i], relaxation=relaxation, stability=stability)
    for name, novelty in judge_novelty(_near_hull(result), known).items():
        one = result[int(name)]
        if one.stability is not None:
            update = {"novelty": novelty.after(one.novelty)}
            result[int(name)] = replace(one, stability=one.stability.model_copy(update=update))
    return JudgedSamples(result, found.hull)


def _near_hull(judged: Sequence[JudgedSample]) -> dict[str, "Structure"]:
    """Return the relaxed crystals within METASUN_LIMIT, the lowest first: it is the one kept."""
    near = sorted(
        (one.energy_above_hull or 0.0, i)
        for i, one in enumerate(judged)
        if is_within(one.energy_above_hull, METASUN_LIMIT)
    )
    relaxed = ((i, judged[i].relaxation) for _, i in near)
    return {
        str(i): relaxation.structure
        for i, relaxation in relaxed
        if relaxation is not None and relaxation.structure is not None
    }
