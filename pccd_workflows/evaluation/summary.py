"""Shares of generated crystals, and what they mean.

Shares have the number of raw samples as denominator unless their name says otherwise: what does
not decode or is rejected counts as not valid, not new and not stable.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.core.intervals import share
from pccd_workflows.evaluation.diversity import diversity
from pccd_workflows.evaluation.stability import THRESHOLDS, is_within
from pccd_workflows.evaluation.verdicts import (
    METASUN_LIMIT,
    SUN_LIMIT,
    VALID_DISTANCE,
    VALID_VOLUME,
    Sample,
    Verdict,
)
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.matching.settings import MatcherSettings


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
        "rmsd_to_relaxed": "RMS displacement of the atoms by relaxing, in the cell as generated, "
        "common drift removed",
        "interval": "Wilson, 95 %",
        "sampler": sampler.model_dump(),
    }
    return {**card, "stability": dict(stability)} if stability is not None else card
