"""Named crystals: asked for by their elements, how often do they come, and how good are they?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymatgen.core import Composition, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import Estimate, share
from pccd_workflows.engines.records import Phonons
from pccd_workflows.evaluation.diversity import SYMPREC
from pccd_workflows.evaluation.judge import HullFacts
from pccd_workflows.evaluation.published import NAMED_CRYSTALS
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.samples import (
    JudgedSample,
    RawSample,
    Yardstick,
    draw_samples,
    judge_samples,
    requests_for,
)
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model

PhononVerdict = Callable[[Structure], Phonons]


@dataclass(frozen=True)
class Sampling:
    """How many samples, what fixes them, and how noise becomes crystals."""

    samples: int
    seed: int
    sampler: Sampler


class BestCrystal(Result):
    """The crystal of a formula that lies lowest; relaxed, eV/atom and Å."""

    energy_above_hull: float
    n_sites: int
    space_group: str
    reference: str | None
    in_training: bool | None
    rmsd_to_relaxed: float | None
    structure: dict[str, Any]


class PhononSummary(Result):
    """The phonon verdict of a crystal; THz."""

    verdict: str
    reason: str | None
    min_frequency: float | None
    level: str
    tolerance: float


class Rediscovered(Result):
    """What came of a formula when its elements were asked for.

    Attributes
    ----------
    appeared, screened
        Shares of the raw samples: those with the formula, and of these those that pass.
    distinct
        Crystals of the formula that are the first of their kind.
    matches_reference
        Share of the crystals of the formula.
    best
        None without a crystal on the hull's diagram.
    hull, phonons
        None where nothing was relaxed, or asked.
    """

    appeared: Estimate
    screened: Estimate
    distinct: int
    matches_reference: Estimate
    best: BestCrystal | None
    hull: HullFacts | None
    phonons: PhononSummary | None


def rediscover(
    model: "Model",
    known: Yardstick,
    *,
    sampling: Sampling,
    formulas: Sequence[str] = NAMED_CRYSTALS,
    phonons: PhononVerdict | None = None,
) -> dict[str, Rediscovered]:
    """Ask for the elements of named crystals and see how often their formulas come.

    Parameters
    ----------
    sampling
        Samples of each formula's elements; nothing but the elements is asked.
    formulas
        Any formula units.
    phonons
        Verdict on the best crystal of each formula; needs a judge in `known`.

    Raises
    ------
    InputError
        If a formula is none.
    """
    compositions = {formula: checked_formula(formula) for formula in formulas}
    return {
        formula: _judged(
            _samples_of(model, composition, sampling), sampling.samples, known, phonons
        )
        for formula, composition in compositions.items()
    }


def _samples_of(model: "Model", composition: Composition, sampling: Sampling) -> list[RawSample]:
    """Return the samples of a composition's elements that have its formula."""
    elements = tuple(sorted(element.symbol for element in composition))
    requests = requests_for([elements] * sampling.samples)
    made = draw_samples(model, requests, seed=sampling.seed, sampler=sampling.sampler)
    wanted = composition.reduced_formula
    return [s for s in made if s.structure and s.structure.composition.reduced_formula == wanted]


def _judged(
    hits: Sequence[RawSample], samples: int, known: Yardstick, phonons: PhononVerdict | None
) -> Rediscovered:
    judged = judge_samples(hits, known)
    found = judged.samples
    placed = [one for one in found if one.energy_above_hull is not None]
    lowest = min(placed, key=lambda one: one.energy_above_hull or 0.0, default=None)
    matches = sum(one.reference is not None for one in found)
    return Rediscovered(
        appeared=share(len(hits), samples),
        screened=share(sum(one.screened for one in found), samples),
        distinct=sum(one.unique for one in found),
        matches_reference=share(matches, len(found)),
        best=None if lowest is None else _best(lowest),
        hull=judged.hull,
        phonons=None if lowest is None or phonons is None else _phonons(lowest, phonons),
    )


def _relaxed(one: JudgedSample) -> Structure:
    if one.relaxation is None or one.relaxation.structure is None:
        raise ValueError("This crystal was not relaxed.")
    return one.relaxation.structure


def _best(one: JudgedSample) -> BestCrystal:
    relaxed, above = _relaxed(one), one.energy_above_hull
    if one.relaxation is None or above is None:
        raise ValueError("This crystal has no place on the hull.")
    return BestCrystal(
        energy_above_hull=above,
        n_sites=len(relaxed),
        space_group=relaxed.get_space_group_info(symprec=SYMPREC)[0],
        reference=one.reference,
        in_training=one.known_in("training"),
        rmsd_to_relaxed=one.relaxation.rms_displacement,
        structure=relaxed.as_dict(),
    )


def _phonons(one: JudgedSample, verdict: PhononVerdict) -> PhononSummary:
    record = verdict(_relaxed(one))
    return PhononSummary(**{name: getattr(record, name) for name in PhononSummary.model_fields})


def checked_formula(text: str) -> Composition:
    """Return the composition of a formula.

    Raises
    ------
    InputError
        The text is no formula.
    """
    try:
        composition = Composition(text)
    except (ValueError, KeyError):
        composition = Composition()
    if not composition or not composition.valid:
        raise InputError(f"{text!r} is not a chemical formula; write e.g. Mg2Mn3O8.")
    return composition
