"""How good generated crystals are: valid, unique, new and, if a judge relaxes them, stable.

Shares have the number of raw samples as denominator unless their name says otherwise: what does
not decode or is rejected counts as not valid, not new and not stable.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.campaign import Conditions, MatcherSettings, Sampler, Screen
from pccd_workflows.diffusion.dataset import CrystalArrays
from pccd_workflows.diffusion.training_index import in_training
from pccd_workflows.evaluation.diversity import diversity
from pccd_workflows.evaluation.intervals import share
from pccd_workflows.evaluation.stability import THRESHOLDS, Judge, Judged, is_within
from pccd_workflows.pointcloud.decode import DecodeError, decode
from pccd_workflows.pointcloud.elements import canonical_elements, symbol
from pccd_workflows.screening.known import KnownCrystals
from pccd_workflows.screening.matching import group
from pccd_workflows.screening.validity import screen

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.candidate import Screening
    from pccd_workflows.diffusion.model import Model
    from pccd_workflows.diffusion.sample import SampleRequest

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


def evaluate_generation(
    model: "Model",
    crystals: CrystalArrays,
    known: Known,
    *,
    samples: int,
    seed: int,
    sampler: Sampler,
) -> dict[str, Any]:
    """Generate crystals for the elements of held-out crystals and judge them.

    Parameters
    ----------
    model : Model
    crystals : CrystalArrays
        Held-out crystals: sample i is asked for the elements of crystal i (drawn at random).
    known : Known
        What they are measured against.
    samples, seed
        How many, and what fixes them.
    sampler : Sampler
    """
    rows = np.random.default_rng(seed).choice(len(crystals), size=samples)
    asked = [_elements(crystals.numbers[row]) for row in rows]
    made = draw_samples(model, requests_for(asked), seed=seed, sampler=sampler)
    result = report(judge_samples(made, known))
    if "composition" in model.info.conditions:
        result["obedience"] = _obedience(model, crystals, rows, seed, sampler)
    return result


def requests_for(
    asked: Sequence[tuple[str, ...]], conditions: Conditions | None = None
) -> list["SampleRequest"]:
    """Return one request per set of elements, nothing else asked unless given."""
    from pccd_workflows.diffusion.sample import SampleRequest

    given = conditions or Conditions()
    return [SampleRequest(i, elements, given) for i, elements in enumerate(asked)]


def draw_samples(
    model: "Model", requests: Sequence["SampleRequest"], *, seed: int, sampler: Sampler
) -> list[Sample]:
    """Return what a model makes of requests, in their order."""
    from pccd_workflows.diffusion.sample import sample_clouds

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


def report(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the shares of all samples and of those with each number of elements, and diversity."""
    return {
        **summarize(verdicts),
        "by_n_elements": by_n_elements(verdicts),
        "diversity": diversity([v.sample.structure for v in verdicts if v.valid]),
    }


def summarize(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the shares of a set of samples, each with its 95 % Wilson interval.

    The keys of stability are there if any sample was relaxed.
    """
    total = len(verdicts)
    valid = [v for v in verdicts if v.valid]
    screened = [v for v in verdicts if v.screened]
    findings = [v.screening for v in verdicts if v.screening is not None]
    balance = [s.charge_balanced for s in findings if s.charge_balanced is not None]
    result: dict[str, Any] = {
        "denominator": f"{total} raw samples",
        "decoded": share(len(findings), total),
        "decode_errors": dict(Counter(v.sample.error for v in verdicts if v.sample.error)),
        "valid": share(len(valid), total),
        "screened": share(len(screened), total),
        "screen_reasons": dict(Counter(s.reason_class for s in findings if s.reason_class)),
        "min_distance_above_1": share(sum((s.min_distance or 0.0) > 1.0 for s in findings), total),
        "elements_present": share(sum(_has_elements(v.sample) for v in verdicts), total),
        "charge_balanced_where_known": share(sum(balance), len(balance)),
        "unique": share(sum(v.first_of_its_kind for v in valid), total),
        "unique_of_valid": share(sum(v.first_of_its_kind for v in valid), len(valid)),
        **_novel(valid, total),
    }
    if any(v.judged is not None for v in verdicts):
        result |= _stability(verdicts, screened)
    return result


def _novel(valid: Sequence[Verdict], total: int) -> dict[str, Any]:
    """Return novelty against all that was asked, and apart; no value where nothing was asked."""
    compared = [v for v in valid if v.compared]
    trained = [v for v in valid if v.in_training is not None]
    asked = bool(compared or trained) or not valid
    return {
        "novel": share(sum(v.new for v in valid), total if asked else 0),
        "novel_of_valid": {
            "references": share(sum(v.known_reference is None for v in compared), len(compared)),
            "training": share(sum(not v.in_training for v in trained), len(trained)),
        },
        "in_training_of_valid": share(sum(v.in_training is True for v in trained), len(trained)),
    }


def _stability(verdicts: Sequence[Verdict], screened: Sequence[Verdict]) -> dict[str, Any]:
    total = len(verdicts)
    counts = {
        name: sum(is_within(v.energy_above_hull, limit) for v in verdicts)
        for name, limit in THRESHOLDS.items()
    }

    def sun(limit: float) -> int:
        return sum(
            is_within(v.energy_above_hull, limit) and v.relaxed_first and v.relaxed_new
            for v in verdicts
        )

    judged = [v.judged for v in verdicts if v.judged is not None]
    energies = [j.energy_above_hull for j in judged if j.energy_above_hull is not None]
    moved = [
        j.relaxation.rms_displacement
        for j in judged
        if j.relaxation.usable and j.relaxation.rms_displacement is not None
    ]
    volumes = [
        abs(j.relaxation.volume_change)
        for j in judged
        if j.relaxation.usable and j.relaxation.volume_change is not None
    ]
    return {
        **{name: share(count, total) for name, count in counts.items()},
        "sun": share(sun(SUN_LIMIT), total),
        "metasun": share(sun(METASUN_LIMIT), total),
        "of_screened": {name: share(count, len(screened)) for name, count in counts.items()},
        "energy_above_hull": _quartiles(energies, "eV/atom, of those that could be placed"),
        "relaxation_verdicts": dict(Counter(j.relaxation.verdict for j in judged)),
        "rmsd_to_relaxed": _quartiles(moved, "Å, atoms in the cell as generated"),
        "volume_change": _quartiles(volumes, "magnitude, relative"),
    }


def _quartiles(values: Sequence[float], unit: str) -> dict[str, Any]:
    if not values:
        return {"n": 0, "mean": None, "quartiles": None, "unit": unit}
    quartiles = np.percentile(values, [25, 50, 75])
    return {
        "n": len(values),
        "mean": round(float(np.mean(values)), 4),
        "quartiles": [round(float(q), 4) for q in quartiles],
        "unit": unit,
    }


def _has_elements(sample: Sample) -> bool:
    if sample.structure is None:
        return False
    present = canonical_elements(e.symbol for e in sample.structure.composition)
    return set(present) == set(sample.elements)


def by_n_elements(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the shares apart for samples asked for 1, 2, 3 ... elements."""
    parts: dict[int, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        parts[len(verdict.sample.elements)].append(verdict)
    return {str(n): summarize(parts[n]) for n in sorted(parts)}


def rows_of(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return one plain row per sample, for tables and figures."""
    return [
        {
            "index": number,
            "elements": list(v.sample.elements),
            "formula": None
            if v.sample.structure is None
            else v.sample.structure.composition.reduced_formula,
            "n_sites": None if v.sample.structure is None else len(v.sample.structure),
            "decode_error": v.sample.error,
            "screen_reason": v.screening.reason_class if v.screening else None,
            "valid": v.valid,
            "unique": v.first_of_its_kind,
            "reference": v.known_reference,
            "in_training": v.in_training,
            "energy_above_hull": v.energy_above_hull,
            "relaxation": v.judged.relaxation.verdict if v.judged else None,
            "rmsd_to_relaxed": v.judged.relaxation.rms_displacement if v.judged else None,
        }
        for number, v in enumerate(verdicts)
    ]


def protocol_card(sampler: Sampler, stability: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the shares mean: they are not comparable with those of another protocol.

    Parameters
    ----------
    stability
        What the judge says of its potential and hull; None if nothing was relaxed.
    """
    matcher = MatcherSettings()
    card = {
        "denominator": "raw samples, before any filter; what does not decode counts",
        "valid": f"shortest distance > {VALID_DISTANCE} Å, volume > {VALID_VOLUME} Å^3 (CDVAE)",
        "screened": "default screening of a campaign: " + str(Screen().model_dump()),
        "matcher": "StructureMatcher, symmetric, groups independent of order: "
        + str(matcher.model_dump()),
        "unique": "first of its group of matching valid samples, as generated",
        "novel": "valid, matches no reference, and formula, space group and primitive cell size "
        "are not in the training set; as generated",
        "sun": f"relaxed: <= {SUN_LIMIT:g} eV/atom, lowest of its group, novel",
        "metasun": f"the same at <= {METASUN_LIMIT:g} eV/atom",
        "interval": "Wilson, 95 %",
        "sampler": sampler.model_dump(),
    }
    return {**card, "stability": dict(stability)} if stability is not None else card


def _obedience(
    model: "Model", crystals: CrystalArrays, rows: NDArray[np.int64], seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Return how often crystals have the composition or number of atoms that was asked for."""
    from pymatgen.core import Composition

    from pccd_workflows.diffusion.sample import SampleRequest

    rows = rows[: max(1, len(rows) // 4)]
    elements = [_elements(crystals.numbers[row]) for row in rows]
    formulas = [_formula(crystals.numbers[row]) for row in rows]
    counts = [int(n) for n in crystals.n_sites[rows]]

    def made(conditions: Sequence[Conditions]) -> list["Structure | None"]:
        requests = [
            SampleRequest(i, e, c)
            for i, (e, c) in enumerate(zip(elements, conditions, strict=True))
        ]
        return [s.structure for s in draw_samples(model, requests, seed=seed, sampler=sampler)]

    by_formula = made([Conditions(composition=f) for f in formulas])
    by_count = made([Conditions(n_sites=n) for n in counts])
    return {
        "composition": share(
            sum(
                s is not None and s.composition == Composition(f)
                for s, f in zip(by_formula, formulas, strict=True)
            ),
            len(rows),
        ),
        "n_sites": share(
            sum(s is not None and len(s) == n for s, n in zip(by_count, counts, strict=True)),
            len(rows),
        ),
    }


def _elements(numbers: NDArray[np.uint8]) -> tuple[str, ...]:
    return canonical_elements(symbol(int(z)) for z in numbers if z > 0)


def _formula(numbers: NDArray[np.uint8]) -> str:
    counts = Counter(symbol(int(z)) for z in numbers if z > 0)
    return "".join(f"{name}{n}" for name, n in counts.items())
