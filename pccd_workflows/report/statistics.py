"""What a campaign amounts to: funnel, losses and shares, from its candidates in one pass."""

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from pccd_workflows import collect, columns, stages
from pccd_workflows.analysis.hull_words import ON_HULL, may_be_stable
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.intervals import Share, wilson_share
from pccd_workflows.kinds import KindCounts, count_kinds, kept_step
from pccd_workflows.known.novelty import Kind
from pccd_workflows.ranking import rank_candidate
from pccd_workflows.stages import phonons
from pccd_workflows.stages.stage import Stage, words

METASTABLE = 0.08
"""eV/atom above the hull: "relatively stable" in Table 2 of the PCCD paper."""
REACHABLE = 0.25
"""eV/atom above the hull: the wide threshold of the same table."""
MAX_EXAMPLES = 25
"""Lost crystals named in a report, per step and reason; all of them are counted."""
MAX_BEST = 100
"""Crystals in a report's table."""
MAX_EMBEDDED = 5000
"""Judged crystals whose essentials a report carries as data."""


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
        return words(self.reason_class)


@dataclass
class Step:
    """One step of the funnel: how many reached it, and why the others did not.

    stage: the stage whose step it is.
    """

    key: str
    label: str
    stage: Stage
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
    n_missing: int | None = None


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
    kinds: KindCounts = field(default_factory=lambda: KindCounts(0, 0, {}))
    first_update: datetime | None = None
    last_update: datetime | None = None

    def count(self, key: str) -> int:
        """Return how many crystals reached the step called `key`."""
        return next(step.count for step in self.steps if step.key == key)

    def after_rungs(self) -> list[tuple[Step, Step]]:
        """Return the steps that follow the last rung, each with the step before it."""
        last = max(number for number, step in enumerate(self.steps) if step.stage.rung)
        return list(pairwise(self.steps[last:]))

    def n_missing(self, level: str) -> int | None:
        """Return the most known phases that a hull lacks under a crystal on or below it.

        None where nobody compared one of these hulls with what is known.
        """
        stable = [p for p in self.points.get(level, []) if may_be_stable(p.energy_above_hull)]
        numbers = [point.n_missing for point in stable]
        return None if None in numbers else max(filter(None, numbers), default=0)

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
    # on the hull up to rounding, which a wider threshold does without, as the funnel's steps do
    near = [point for point in points if point.energy_above_hull <= max(threshold, ON_HULL)]
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
    steps = [Step(step.key, step.label, stage) for stage, step in stages.funnel_by_stage(campaign)]
    summary = Summary(steps, {rung.level: [] for rung in campaign.rungs}, [])
    heap: list[tuple[tuple[float, ...], int, CandidateDoc]] = []
    kept: list[tuple[bool | None, Kind | None]] = []
    for number, doc in enumerate(candidates):
        # documents of schema version 1 do not say what they reached
        reached = doc.reached or collect.reached(campaign, doc.records)
        _count(doc, steps, reached)
        if kept_step(campaign) in reached:
            kept.append((doc.novel, doc.kind_of_new))
        _collect_facts(doc, summary)
        for level, point in _points(doc):
            summary.points.setdefault(level, []).append(point)
        if doc.stabilities:
            summary.n_judged += 1
            if len(summary.essentials) < MAX_EMBEDDED:
                summary.essentials.append(essentials(doc))
        if doc.energy_above_hull is None or doc.nsites is None or _is_not_ranked(doc):
            continue
        summary.n_ranked += 1
        # A heap whose smallest item is the worst of the best.
        item = (tuple(-part for part in rank_candidate(doc)), -number, doc)
        if len(heap) < MAX_BEST:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)
    summary.kinds = count_kinds(kept)
    summary.best = [doc for _, _, doc in sorted(heap, key=lambda item: item[:2], reverse=True)]
    return summary


def essentials(doc: CandidateDoc) -> dict[str, Any]:
    """Return what a reader needs to find the numbers of a crystal again, as plain JSON values."""
    return {
        "candidate_id": doc.candidate_id,
        "formula_pretty": doc.formula_pretty,
        "spacegroup": doc.spacegroup,
        "nsites": doc.nsites,
        "energy_above_hull": doc.energy_above_hull,
        "novel": doc.novel,
        "kind_of_new": doc.kind_of_new,
        "known_id": doc.known_id,
        **columns.values(doc.records, shown=True),
        "status": doc.status,
        "reason": doc.reason,
        "levels": [record.level for record in doc.stabilities],
        "references": sorted({record.references for record in doc.stabilities}),
        "results": [record.key for record in doc.relaxations],
        "jobs": doc.jobs,
    }


def _count(doc: CandidateDoc, steps: list[Step], reached: Collection[str]) -> None:
    """Add one crystal to every step it reached and, where it ended, to that loss."""
    for step in steps:
        if step.key in reached:
            step.count += 1
            continue
        status, reason_class, reason = _why_ended(doc, step)
        loss = step.losses.setdefault((status, reason_class), Loss(status, reason_class))
        loss.count += 1
        if len(loss.examples) < MAX_EXAMPLES:
            loss.examples.append(Example(doc.candidate_id, doc.formula_pretty or "", reason))
        return


def _why_ended(doc: CandidateDoc, step: Step) -> tuple[str, str, str]:
    """Return status, class and reason of a crystal that did not reach a step.

    They are those that its document holds (see `stages.judge`): lists can be filtered by them.
    """
    if doc.status == "pending":
        return "pending", "waiting", "Its next job has not finished yet."
    if doc.status != "passed":
        return doc.status, doc.reason_class or "unknown", doc.reason or ""
    records = doc.records
    own = step.stage.records(records)
    if not own:
        reason = f"Not among the crystals chosen for {step.stage.kind}."
        return "passed", "not_selected", reason
    said = step.stage.describe(own[-1], records)
    return "passed", said.verdict, getattr(own[-1], "reason", None) or ""


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
    """Yield a crystal's place on each hull; twins of others are none of the crystals counted."""
    for stability in doc.stabilities:
        if stability.energy_above_hull is not None and not stability.is_repeated:
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
                    phonons.verdict(doc.records) or "",
                    stability.n_missing,
                ),
            )


def _is_not_ranked(doc: CandidateDoc) -> bool:
    """True for a crystal that broke before its verdict, or turned out to be another's twin."""
    repeated = any(stability.is_repeated for stability in doc.stabilities)
    return doc.status == "failed" or not doc.stabilities or repeated
