"""What is found out about each generated crystal: valid, the first of its kind, new, how stable."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.analysis.validity import screen
from pccd_workflows.evaluation.stability import Judge, Judged, is_within
from pccd_workflows.generators.pccd.pointcloud.decode import DecodeError, decode
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.training_index import in_training
from pccd_workflows.generators.request import Conditions
from pccd_workflows.matching.groups import group
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.analysis.screening import Screening
    from pccd_workflows.generators.pccd.cells import SampleRequest
    from pccd_workflows.generators.pccd.model import Model

VALID_DISTANCE = 0.5
"""Å; the literature's validity (CDVAE) asks for this shortest distance ..."""
VALID_VOLUME = 0.1
"""... and this volume, Å^3."""
SUN_LIMIT = 0.0
METASUN_LIMIT = 0.1
"""eV/atom above the hull, at most (LeMat-GenBench's SUN and MetaSUN)."""

References = Callable[[set[str]], Iterable[tuple[str, "Structure"]]]
"""Known crystals, with their ids, that have one of these reduced formulas."""


@dataclass(frozen=True)
class Known:
    """What generated crystals are measured against; whatever is left out is not said.

    Attributes
    ----------
    index : int64 array or None
        Training index of the model.
    references : callable or None
        Known crystals; without them novelty is stated against the training set alone.
    judge : callable or None
        Relaxes the screened crystals and places them on a hull; without it the keys of stability
        are left out.
    """

    index: NDArray[np.int64] | None = None
    references: References | None = None
    judge: Judge | None = None


@dataclass(frozen=True)
class Sample:
    """What came of one request: a crystal, or the class of the DecodeError."""

    elements: tuple[str, ...]
    structure: "Structure | None"
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Everything found out about one sample.

    Attributes
    ----------
    screening : Screening or None
        None where nothing decoded.
    valid : bool
        Of the literature: shortest distance and volume.
    first_of_its_kind : bool
        Valid and matched by no earlier valid sample.
    compared : bool
        Whether it was compared with references.
    known_reference : str or None
        Id of a reference that matches.
    in_training : bool or None
        None without a training index.
    judged : Judged or None
        None if it was not relaxed.
    relaxed_first, relaxed_new : bool
        The same as above of the relaxed crystal: relaxing makes crystals alike.
    """

    sample: Sample
    screening: "Screening | None" = None
    valid: bool = False
    first_of_its_kind: bool = False
    compared: bool = False
    known_reference: str | None = None
    in_training: bool | None = None
    judged: Judged | None = None
    relaxed_first: bool = False
    relaxed_new: bool = False

    @property
    def screened(self) -> bool:
        """Whether it passes the default screening of a campaign."""
        return self.screening is not None and self.screening.passed

    @property
    def new(self) -> bool:
        """Whether it is valid and neither a reference nor in the training set, if asked."""
        return self.valid and self.known_reference is None and not self.in_training

    @property
    def energy_above_hull(self) -> float | None:
        """eV/atom, relaxed."""
        return None if self.judged is None else self.judged.energy_above_hull


def requests_for(
    asked: Sequence[tuple[str, ...]], conditions: Conditions | None = None
) -> list["SampleRequest"]:
    """Return one request per set of elements, nothing else asked unless given."""
    from pccd_workflows.generators.pccd.cells import SampleRequest

    given = conditions or Conditions()
    return [SampleRequest(i, elements, given) for i, elements in enumerate(asked)]


def draw_samples(
    model: "Model", requests: Sequence["SampleRequest"], *, seed: int, sampler: Sampler
) -> list[Sample]:
    """Return what a model makes of requests, in their order."""
    from pccd_workflows.generators.pccd.sample import sample_clouds

    made = []
    clouds = sample_clouds(model, requests, seed=seed, sampler=sampler)
    for request, cloud in zip(requests, clouds, strict=True):
        elements = canonical_elements(request.elements)
        try:
            made.append(Sample(elements, decode(cloud)))
        except DecodeError as error:
            made.append(Sample(elements, None, error.error_class))
    return made


def judge_samples(samples: Sequence[Sample], known: Known) -> list[Verdict]:
    """Return a verdict on each sample; screened ones are relaxed if there is a judge."""
    verdicts = [_geometry(sample) for sample in samples]
    valid = [i for i, v in enumerate(verdicts) if v.valid]
    structures = [_structure(verdicts[i]) for i in valid]
    first, reference, trained = _novelty(structures, known)
    for place, i in enumerate(valid):
        verdicts[i] = replace(
            verdicts[i],
            first_of_its_kind=first[place],
            compared=known.references is not None,
            known_reference=reference[place],
            in_training=trained[place],
        )
    return verdicts if known.judge is None else _with_energies(verdicts, known, known.judge)


def _geometry(sample: Sample) -> Verdict:
    if sample.structure is None:
        return Verdict(sample)
    found = screen(sample.structure, elements=sample.elements, settings=Screen())
    far_enough = (found.min_distance or 0.0) > VALID_DISTANCE
    return Verdict(
        sample, screening=found, valid=far_enough and sample.structure.volume > VALID_VOLUME
    )


def _novelty(
    structures: Sequence["Structure"], known: Known
) -> tuple[list[bool], list[str | None], list[bool | None]]:
    """Return which crystals are the first of their kind, a reference's id, and in training."""
    first = [False] * len(structures)
    for members in group(structures, settings=MatcherSettings()):
        first[members[0]] = True
    reference: list[str | None] = [None] * len(structures)
    if known.references is not None and structures:
        formulas = {s.composition.reduced_formula for s in structures}
        reference = KnownCrystals(known.references(formulas)).find_all(structures)
    trained = [None if known.index is None else in_training(s, known.index) for s in structures]
    return first, reference, trained


def _with_energies(verdicts: Sequence[Verdict], known: Known, judge: Judge) -> list[Verdict]:
    """Return the verdicts with the judge's on what passes the screening."""
    result = list(verdicts)
    chosen = [i for i, v in enumerate(result) if v.screened]
    for i, judged in zip(chosen, judge([_structure(result[i]) for i in chosen]), strict=True):
        result[i] = replace(result[i], judged=judged)
    near = sorted(
        (i for i in chosen if is_within(result[i].energy_above_hull, METASUN_LIMIT)),
        key=lambda i: (result[i].energy_above_hull or 0.0, i),
    )
    relaxed = [_relaxed(result[i]) for i in near]
    first, reference, trained = _novelty(relaxed, known)
    for place, i in enumerate(near):
        new = reference[place] is None and not trained[place]
        result[i] = replace(result[i], relaxed_first=first[place], relaxed_new=new)
    return result


def _structure(verdict: Verdict) -> "Structure":
    if verdict.sample.structure is None:
        raise ValueError("This sample did not decode.")
    return verdict.sample.structure


def _relaxed(verdict: Verdict) -> "Structure":
    if verdict.judged is None or verdict.judged.relaxation.structure is None:
        raise ValueError("This sample was not relaxed.")
    return verdict.judged.relaxation.structure
