"""What a campaign amounts to: funnel, losses and shares, from its candidates in one pass."""

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.stages.hull import Stability

METASTABLE = 0.08
"""eV/atom above the hull: "relatively stable" in Table 2 of the PCCD paper."""
REACHABLE = 0.25
"""eV/atom above the hull: the wide threshold of the same table."""
Z_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""
MAX_EXAMPLES = 25
"""Lost crystals named in a report, per step and reason; all of them are counted."""
MAX_BEST = 100
"""Crystals in a report's table."""
MAX_EMBEDDED = 5000
"""Judged crystals whose essentials a report carries as data."""


@dataclass(frozen=True)
class Share:
    """A part of a whole with its 95 % Wilson interval; all None for an empty whole."""

    count: int
    total: int
    value: float | None
    low: float | None
    high: float | None


def wilson_share(count: int, total: int, z: float = Z_95) -> Share:
    """Return count/total with its Wilson score interval, which holds near 0 and 1 as well.

    Raises
    ------
    ValueError
        `count` is not between 0 and `total`.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count=} must be between 0 and {total=}")
    if total == 0:
        return Share(0, 0, None, None, None)
    p = count / total
    scale = 1 + z**2 / total
    centre = (p + z**2 / (2 * total)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    # At the ends the interval touches them exactly; rounding must not leave 1e-17.
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return Share(count, total, p, low, high)


@dataclass(frozen=True)
class Example:
    """One lost crystal, as far as a table needs it."""

    candidate_id: str
    formula: str
    reason: str


@dataclass
class Loss:
    """Crystals that ended between two steps of the funnel for the same reason."""

    status: str
    reason_class: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The reason in words."""
        return self.reason_class.replace("_", " ")


@dataclass
class Step:
    """One step of the funnel: how many reached it, and why the others did not."""

    key: str
    label: str
    count: int = 0
    losses: dict[tuple[str, str], Loss] = field(default_factory=dict)

    @property
    def lost(self) -> list[Loss]:
        """Losses on the way to this step, most frequent first."""
        return sorted(self.losses.values(), key=lambda loss: (-loss.count, loss.reason_class))

    @property
    def n_lost(self) -> int:
        """Crystals that reached the step before and not this one."""
        return sum(loss.count for loss in self.losses.values())


@dataclass(frozen=True)
class Point:
    """One crystal on one hull."""

    candidate_id: str
    formula: str
    energy_above_hull: float
    formation_energy_per_atom: float | None
    references: str
    novel: bool | None
    spacegroup: str
    phonons: str


@dataclass(frozen=True)
class ThresholdRow:
    """How many crystals lie within a threshold, against every denominator."""

    threshold: float
    count: int
    new: int
    of_unique: Share
    of_screened: Share
    of_raw: Share


@dataclass
class Summary:
    """Everything a report says about a campaign's candidates, except the pictures."""

    steps: list[Step]
    points: dict[str, list[Point]]
    best: list[CandidateDoc]
    essentials: list[dict[str, Any]] = field(default_factory=list)
    n_judged: int = 0
    n_ranked: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    models: set[tuple[str, str]] = field(default_factory=set)
    n_new: int = 0
    n_known: int = 0
    first_update: datetime | None = None
    last_update: datetime | None = None

    def count(self, key: str) -> int:
        """Return how many crystals reached the step called `key`."""
        return next(step.count for step in self.steps if step.key == key)

    def thresholds(self, level: str) -> list[ThresholdRow]:
        """Return the shares on the hull, within 80 and within 250 meV/atom at one level."""
        return [
            share_below(
                self.points.get(level, []),
                threshold,
                unique=self.count("unique"),
                screened=self.count("screened"),
                raw=self.count("generated"),
            )
            for threshold in (0.0, METASTABLE, REACHABLE)
        ]


def share_below(
    points: Iterable[Point], threshold: float, *, unique: int, screened: int, raw: int
) -> ThresholdRow:
    """Return the share of crystals at most `threshold` (eV/atom) above the hull.

    unique, screened, raw: the denominators; crystals without an energy count in each of them.
    """
    # A stable phase sits on the hull up to rounding: 0.1 meV/atom is below every model's noise.
    near = [point for point in points if point.energy_above_hull <= threshold + 1e-4]
    return ThresholdRow(
        threshold,
        len(near),
        sum(point.novel is True for point in near),
        wilson_share(len(near), unique),
        wilson_share(len(near), screened),
        wilson_share(len(near), raw),
    )


def summarize(candidates: Iterable[CandidateDoc], campaign: Campaign) -> Summary:
    """Fold a campaign's candidates into what its report shows, keeping few of them in memory."""
    steps = _empty_steps(campaign)
    summary = Summary(steps, {rung.level: [] for rung in campaign.rungs}, [])
    heap: list[tuple[tuple[float, ...], int, CandidateDoc]] = []
    for number, doc in enumerate(candidates):
        _count(doc, steps)
        _collect_facts(doc, summary)
        for level, point in _points(doc):
            summary.points.setdefault(level, []).append(point)
        if doc.stabilities:
            summary.n_judged += 1
            if len(summary.essentials) < MAX_EMBEDDED:
                summary.essentials.append(essentials(doc))
        if doc.energy_above_hull is None or doc.structure is None or _is_lost_early(doc):
            continue
        summary.n_ranked += 1
        # A heap whose smallest item is the worst of the best.
        item = (tuple(-part for part in rank(doc)), -number, doc)
        if len(heap) < MAX_BEST:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)
    summary.best = [doc for _, _, doc in sorted(heap, key=lambda item: item[:2], reverse=True)]
    return summary


def rank(doc: CandidateDoc) -> tuple[float, float, float]:
    """Return the sort key of "best": new, then phonon-stable, then lowest above the hull."""
    energy = doc.energy_above_hull
    order = {"stable": 0.0, "ambiguous": 1.0, "": 2.0, "error": 2.0, "unstable": 3.0}
    return (
        0.0 if doc.novel else 1.0,
        order[phonon_verdict(doc)],
        energy if energy is not None else math.inf,
    )


def phonon_verdict(doc: CandidateDoc) -> str:
    """Return the last phonon verdict; empty if none was asked for."""
    return doc.phonons[-1].verdict if doc.phonons else ""


def essentials(doc: CandidateDoc) -> dict[str, Any]:
    """Return what a reader needs to find the numbers of a crystal again, as plain JSON values."""
    return {
        "candidate_id": doc.candidate_id,
        "formula_pretty": doc.formula_pretty,
        "spacegroup": doc.spacegroup,
        "nsites": doc.nsites,
        "energy_above_hull": doc.energy_above_hull,
        "novel": doc.novel,
        "phonons": phonon_verdict(doc) or None,
        "band_gap": doc.band_gap,
        "status": doc.status,
        "reason": doc.reason,
        "levels": [record.level for record in doc.stabilities],
        "references": sorted({record.references for record in doc.stabilities}),
        "results": [record.key for record in doc.relaxations],
        "jobs": doc.jobs,
    }


def level_label(level: str) -> str:
    """Return a level's name as people write it."""
    names = {"chgnet": "CHGNet", "7net-0": "SevenNet-0", "7net-l3i5": "SevenNet-l3i5"}
    return names.get(level, level)


def _empty_steps(campaign: Campaign) -> list[Step]:
    steps = [
        Step("generated", "Generated"),
        Step("decoded", "Decoded to a crystal"),
        Step("screened", "Passed the screen"),
        Step("unique", "Unique in the campaign"),
    ]
    for rung in campaign.rungs:
        name = level_label(rung.level)
        steps += [
            Step(f"relaxed:{rung.level}", f"Relaxed with {name}"),
            Step(
                f"within:{rung.level}",
                f"Within {1000 * rung.keep.energy_above_hull:g} meV/atom ({name})",
            ),
        ]
    if campaign.phonons is not None:
        steps += [
            Step("phonons", "Phonons computed"),
            Step("stable", "Phonon-stable"),
        ]
    return steps


def _count(doc: CandidateDoc, steps: list[Step]) -> None:
    """Add one crystal to every step it reached and, where it ended, to that loss."""
    for step in steps:
        if _reached(doc, step.key):
            step.count += 1
            continue
        status, reason_class, reason = _why_ended(doc, step.key)
        loss = step.losses.setdefault((status, reason_class), Loss(status, reason_class))
        loss.count += 1
        if len(loss.examples) < MAX_EXAMPLES:
            loss.examples.append(Example(doc.candidate_id, doc.formula_pretty or "", reason))
        return


def _reached(doc: CandidateDoc, key: str) -> bool:
    step, _, level = key.partition(":")
    if step == "relaxed":
        relaxation = _relaxation_at(doc, level)
        return relaxation is not None and relaxation.usable
    if step == "within":
        stability = _stability_at(doc, level)
        return stability is not None and stability.passed
    return {
        "generated": True,
        "decoded": doc.generation.error_class is None,
        "screened": doc.screening is not None and doc.screening.passed,
        "unique": doc.novelty is not None and doc.novelty.duplicate_of is None,
        "phonons": bool(doc.phonons),
        "stable": doc.phonon_stable is True,
    }[step]


def _why_ended(doc: CandidateDoc, key: str) -> tuple[str, str, str]:
    """Return status, class and reason of a crystal that did not reach the step `key`."""
    if doc.status == "pending":
        return "pending", "waiting", "Its next job has not finished yet."
    if key == "phonons" and doc.status == "passed":
        return "passed", "not_selected", doc.reason or "Not among the crystals chosen for phonons."
    if key == "stable" and doc.phonons:
        last = doc.phonons[-1]
        return "rejected", doc.reason_class or last.verdict, doc.reason or last.reason or ""
    record = _record_behind(doc, key)
    reason_class = doc.reason_class or getattr(record, "reason_class", None)
    verdict = record.verdict if isinstance(record, Relaxation) else "unknown"
    reason = doc.reason or getattr(record, "reason", None) or ""
    return doc.status, reason_class or verdict, reason


def _record_behind(doc: CandidateDoc, key: str) -> object:
    step, _, level = key.partition(":")
    if step == "relaxed":
        return _relaxation_at(doc, level)
    if step == "within":
        return _stability_at(doc, level)
    return doc.screening if step == "screened" else None


def _collect_facts(doc: CandidateDoc, summary: Summary) -> None:
    for stage, seconds in doc.seconds.items():
        summary.seconds[stage] = summary.seconds.get(stage, 0.0) + seconds
    summary.models.add((doc.generation.model, doc.generation.weights_sha256))
    if doc.novelty is not None and doc.novelty.duplicate_of is None:
        summary.n_new += doc.novel is True
        summary.n_known += doc.novel is False
    if doc.updated_at is not None:
        summary.first_update = min(summary.first_update or doc.updated_at, doc.updated_at)
        summary.last_update = max(summary.last_update or doc.updated_at, doc.updated_at)


def _points(doc: CandidateDoc) -> Iterator[tuple[str, Point]]:
    for stability in doc.stabilities:
        if stability.energy_above_hull is not None:
            yield (
                stability.level,
                Point(
                    doc.candidate_id,
                    doc.formula_pretty or "",
                    stability.energy_above_hull,
                    stability.formation_energy_per_atom,
                    stability.references,
                    doc.novel,
                    doc.spacegroup or "",
                    phonon_verdict(doc),
                ),
            )


def _is_lost_early(doc: CandidateDoc) -> bool:
    """True for a crystal that has an energy but broke before its verdict."""
    return doc.status == "failed" or not doc.stabilities


def _relaxation_at(doc: CandidateDoc, level: str) -> Relaxation | None:
    return next((record for record in doc.relaxations if record.level == level), None)


def _stability_at(doc: CandidateDoc, level: str) -> Stability | None:
    return next((record for record in doc.stabilities if record.level == level), None)
