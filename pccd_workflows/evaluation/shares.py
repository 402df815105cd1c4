"""Shares of generated crystals, and what they mean.

Shares have the number of raw samples as denominator unless their name says otherwise: what does
not decode or is rejected counts as not valid, not new and not stable.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.core.intervals import Estimate, share
from pccd_workflows.evaluation.diversity import diversity
from pccd_workflows.evaluation.judge import HullFacts, Judge, JudgeProtocol, PotentialJudge
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.samples import (
    VALID_DISTANCE,
    VALID_VOLUME,
    JudgedSample,
    JudgedSamples,
    RawSample,
)
from pccd_workflows.evaluation.thresholds import METASUN_LIMIT, SUN_LIMIT, THRESHOLDS, is_within
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.matching.settings import MatcherSettings


class Distribution(Result):
    """Mean and quartiles of a quantity; None without values."""

    n: int
    mean: float | None
    quartiles: tuple[float, float, float] | None
    unit: str


class NoveltyOfValid(Result):
    """Share of the valid samples that a set does not have; no value where it was not asked."""

    library: Estimate
    references: Estimate
    training: Estimate


class StabilityShares(Result):
    """Shares of relaxed samples by their place on the hull; see docs/evaluation.md.

    Attributes
    ----------
    stable_0, stable_80, stable_100, stable_250
        Of all samples, by the limit in meV/atom; `of_screened` has them of the screened ones.
    metasun_kinds
        How many of `metasun` are substitutions, and how many have a new structure type.
    """

    stable_0: Estimate
    stable_80: Estimate
    stable_100: Estimate
    stable_250: Estimate
    sun: Estimate
    metasun: Estimate
    metasun_kinds: dict[str, int]
    of_screened: dict[str, Estimate]
    energy_above_hull: Distribution
    relaxation_verdicts: dict[str, int]
    rmsd_to_relaxed: Distribution
    volume_change: Distribution


class SampleShares(Result):
    """Shares of a set of samples, each with its 95 % Wilson interval; see docs/evaluation.md.

    Attributes
    ----------
    decode_errors, screen_reasons
        Samples by class of error, and by reason of rejection.
    stability
        None if no sample was relaxed: its keys are left out.
    """

    merged: ClassVar[tuple[str, ...]] = ("stability",)

    denominator: str
    decoded: Estimate
    decode_errors: dict[str, int]
    valid: Estimate
    screened: Estimate
    screen_reasons: dict[str, int]
    min_distance_above_1: Estimate
    elements_present: Estimate
    charge_balanced_where_known: Estimate
    unique: Estimate
    unique_of_valid: Estimate
    novel: Estimate
    novel_of_valid: NoveltyOfValid
    in_training_of_valid: Estimate
    stability: StabilityShares | None


class SampleRow(Result):
    """One sample, for tables and figures; Å and eV/atom."""

    index: int
    elements: tuple[str, ...]
    formula: str | None
    n_sites: int | None
    decode_error: str | None
    screen_reason: str | None
    valid: bool
    unique: bool
    reference: str | None
    in_training: bool | None
    energy_above_hull: float | None
    kind: str | None
    relaxation: str | None
    rmsd_to_relaxed: float | None


class SampleReport(Result):
    """A set of samples: all shares, those of each number of elements, and how diverse they are."""

    merged: ClassVar[tuple[str, ...]] = ("shares",)

    shares: SampleShares
    by_n_elements: dict[str, SampleShares]
    diversity: dict[str, Any]
    hull: HullFacts | None


def report_samples(judged: JudgedSamples) -> SampleReport:
    """Return the shares of all samples and of those with each number of elements, and diversity."""
    return SampleReport(
        shares=shares_of(judged.samples),
        by_n_elements=by_n_elements(judged.samples),
        diversity=diversity([one.sample.structure for one in judged.samples if one.valid]),
        hull=judged.hull,
    )


def report_as_json(judged: JudgedSamples) -> dict[str, Any]:
    """Return `report_samples` as JSON values."""
    return report_samples(judged).as_json()


def shares_of(samples: Sequence[JudgedSample]) -> SampleShares:
    """Return the shares of a set of samples."""
    total = len(samples)
    valid = [one for one in samples if one.valid]
    screened = [one for one in samples if one.screened]
    findings = [one.screening for one in samples if one.screening is not None]
    balance = [s.charge_balanced for s in findings if s.charge_balanced is not None]
    unique = sum(one.unique for one in valid)
    trained = [one.known_in("training") for one in valid if one.known_in("training") is not None]
    return SampleShares(
        denominator=f"{total} raw samples",
        decoded=share(len(findings), total),
        decode_errors=dict(Counter(one.sample.error for one in samples if one.sample.error)),
        valid=share(len(valid), total),
        screened=share(len(screened), total),
        screen_reasons=dict(Counter(s.reason_class for s in findings if s.reason_class)),
        min_distance_above_1=share(sum((s.min_distance or 0.0) > 1.0 for s in findings), total),
        elements_present=share(sum(_has_elements(one.sample) for one in samples), total),
        charge_balanced_where_known=share(sum(balance), len(balance)),
        unique=share(unique, total),
        unique_of_valid=share(unique, len(valid)),
        novel=_novel(valid, total),
        novel_of_valid=NoveltyOfValid(
            library=_unknown_in("library", valid),
            references=_unknown_in("references", valid),
            training=_unknown_in("training", valid),
        ),
        in_training_of_valid=share(sum(known is True for known in trained), len(trained)),
        stability=_stability(samples, screened) if any(one.stability for one in samples) else None,
    )


def _novel(valid: Sequence[JudgedSample], total: int) -> Estimate:
    """Return novelty against all that was asked; no value where nothing was asked."""
    sets = (
        found for one in valid if one.novelty is not None for found in one.novelty.sets.values()
    )
    asked = not valid or any(found.known is not None for found in sets)
    return share(sum(one.novel for one in valid), total) if asked else share(0, 0)


def _unknown_in(name: str, valid: Sequence[JudgedSample]) -> Estimate:
    known = [one.known_in(name) for one in valid if one.known_in(name) is not None]
    return share(sum(not found for found in known), len(known))


def _stability(
    samples: Sequence[JudgedSample], screened: Sequence[JudgedSample]
) -> StabilityShares:
    total = len(samples)
    within = {
        name: [one for one in samples if is_within(one.energy_above_hull, limit)]
        for name, limit in {**THRESHOLDS, "sun": SUN_LIMIT, "metasun": METASUN_LIMIT}.items()
    }
    stable = {name: len(within[name]) for name in THRESHOLDS}
    relaxations = [one.relaxation for one in samples if one.relaxation is not None]
    usable = [relaxation for relaxation in relaxations if relaxation.usable]
    changes = [r.volume_change for r in usable if r.volume_change is not None]
    return StabilityShares(
        **{name: share(count, total) for name, count in stable.items()},
        sun=share(sum(one.relaxes_to_new for one in within["sun"]), total),
        metasun=share(sum(one.relaxes_to_new for one in within["metasun"]), total),
        metasun_kinds=dict(
            Counter(one.kind for one in within["metasun"] if one.relaxes_to_new and one.kind)
        ),
        of_screened={name: share(count, len(screened)) for name, count in stable.items()},
        energy_above_hull=_distribution(
            (one.energy_above_hull for one in samples), "eV/atom, of those that could be placed"
        ),
        relaxation_verdicts=dict(Counter(relaxation.verdict for relaxation in relaxations)),
        rmsd_to_relaxed=_distribution(
            (relaxation.rms_displacement for relaxation in usable),
            "Å, atoms in the cell as generated",
        ),
        volume_change=_distribution(map(abs, changes), "magnitude, relative"),
    )


def _distribution(values: Iterable[float | None], unit: str) -> Distribution:
    known = [value for value in values if value is not None]
    if not known:
        return Distribution(n=0, mean=None, quartiles=None, unit=unit)
    low, middle, high = (round(float(q), 4) for q in np.percentile(known, [25, 50, 75]))
    mean = round(float(np.mean(known)), 4)
    return Distribution(n=len(known), mean=mean, quartiles=(low, middle, high), unit=unit)


def _has_elements(sample: RawSample) -> bool:
    if sample.structure is None:
        return False
    present = canonical_elements(e.symbol for e in sample.structure.composition)
    return set(present) == set(sample.elements)


def by_n_elements(samples: Sequence[JudgedSample]) -> dict[str, SampleShares]:
    """Return the shares apart for samples asked for 1, 2, 3 ... elements."""
    parts: dict[int, list[JudgedSample]] = defaultdict(list)
    for one in samples:
        parts[len(one.sample.elements)].append(one)
    return {str(n): shares_of(parts[n]) for n in sorted(parts)}


def rows_of(samples: Sequence[JudgedSample]) -> list[SampleRow]:
    """Return one plain row per sample."""
    return [_row(number, one) for number, one in enumerate(samples)]


def _row(number: int, one: JudgedSample) -> SampleRow:
    structure, relaxation = one.sample.structure, one.relaxation
    return SampleRow(
        index=number,
        elements=one.sample.elements,
        formula=None if structure is None else structure.composition.reduced_formula,
        n_sites=None if structure is None else len(structure),
        decode_error=one.sample.error,
        screen_reason=None if one.screening is None else one.screening.reason_class,
        valid=one.valid,
        unique=one.unique,
        reference=one.reference,
        in_training=one.known_in("training"),
        energy_above_hull=one.energy_above_hull,
        kind=one.kind,
        relaxation=None if relaxation is None else relaxation.verdict,
        rmsd_to_relaxed=None if relaxation is None else relaxation.rms_displacement,
    )


class ProtocolCard(Result):
    """What shares mean: they are not comparable with those of another protocol.

    Attributes
    ----------
    sampler
        How noise becomes crystals.
    stability
        Of the judge; left out if nothing was relaxed.
    conditions
        What was asked for besides elements; left out where nothing could be.
    """

    optional: ClassVar[tuple[str, ...]] = ("stability", "conditions")

    denominator: str = "raw samples, before any filter; what does not decode counts"
    valid: str = f"shortest distance > {VALID_DISTANCE} Å, volume > {VALID_VOLUME} Å^3 (CDVAE)"
    screened: str
    matcher: str
    unique: str = "first of its group of matching valid samples, as generated"
    novel: str = (
        "valid, matches no crystal of the library, the data and the training set; as generated"
    )
    sun: str = (
        f"relaxed: <= {SUN_LIMIT:g} eV/atom, lowest of its group, novel as generated and relaxed"
    )
    metasun: str = f"the same at <= {METASUN_LIMIT:g} eV/atom"
    rmsd_to_relaxed: str = (
        "RMS displacement of the atoms by relaxing, in the cell as generated, common drift removed"
    )
    interval: str = "Wilson, 95 %"
    sampler: dict[str, Any]
    stability: JudgeProtocol | None = None
    conditions: dict[str, Any] | None = None


def protocol_card(
    sampler: Sampler, judge: Judge | None, *, conditions: dict[str, Any] | None = None
) -> ProtocolCard:
    """Return what the shares of samples mean that a judge, if any, has relaxed."""
    return ProtocolCard(
        screened=f"default screening of a campaign: {Screen().model_dump()}",
        matcher="StructureMatcher, symmetric, groups independent of order: "
        f"{MatcherSettings().model_dump()}",
        sampler=sampler.model_dump(),
        stability=judge.protocol() if isinstance(judge, PotentialJudge) else None,
        conditions=conditions,
    )
