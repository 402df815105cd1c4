"""Judge stored relaxations again, against another snapshot of the competing phases.

A hull is as good as what it is built from: a new release of a database adds and moves phases. The
relaxed energies stay as they are; what changes is where they lie. Nothing stored is overwritten.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_mp2020, correct_references
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import SCHEMA_VERSION, Record
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.engines.levels import hull_convention
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.query import to_candidate
from pccd_workflows.stages.hull import Stability, as_found_before, placed

if TYPE_CHECKING:
    from pymongo.database import Database

Verdict = Literal["below the hull", "kept", "rejected"]

NOTHING = 1e-6
"""eV/atom; smaller differences of energy are rounding."""
REPEATABLE = 1e-4
"""eV/atom; a stored energy above hull that is further off was not computed from what it names."""


@dataclass(frozen=True)
class Cause:
    """What happened to the lowest phase of one composition.

    phase, former: its id in the new and in the old snapshot; None where there is none.
    energy_change: eV/atom; None where the phase appeared or vanished.
    """

    formula: str
    phase: str | None
    former: str | None
    energy_change: float | None = None

    def __str__(self) -> str:
        if self.former is None:
            return f"{self.formula} ({self.phase}) appeared"
        if self.phase is None or self.energy_change is None:
            return f"{self.formula} ({self.former}) is gone"
        which = self.phase if self.phase == self.former else f"{self.phase}, before {self.former}"
        direction = "down" if self.energy_change < 0 else "up"
        amount = abs(self.energy_change) * EV_TO_MEV
        return f"{self.formula} ({which}) moved {direction} by {amount:.1f} meV/atom"


@dataclass(frozen=True)
class Rejudged:
    """One candidate before and after.

    causes: why the hull below it moved, if it did.
    repeated: energy above hull from the old snapshot, computed again, eV/atom.
    """

    candidate_id: str
    formula: str
    before: Stability
    after: Stability
    causes: tuple[Cause, ...]
    repeated: float

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """The verdict before and after."""
        return verdict(self.before), verdict(self.after)

    @property
    def flipped(self) -> bool:
        """True if the verdict is another one now."""
        before, after = self.verdicts
        return before != after

    @property
    def reason(self) -> str:
        """Why the verdict flipped, in words."""
        reasons = [str(cause) for cause in self.causes]
        if self.before.threshold != self.after.threshold:
            reasons.append(f"the limit is {self.after.threshold}, not {self.before.threshold}")
        if abs(self.repeated - (self.before.energy_above_hull or 0.0)) > REPEATABLE:
            reasons.append(f"the stored verdict is not repeatable: {self.repeated:.3f} eV/atom")
        return "; ".join(reasons) or "the hull did not move"


def verdict(stability: Stability) -> Verdict:
    """Return what a position on the hull means; below it, a candidate is a new ground state.

    A crystal that turned out to be another one's twin, or a known one, is none, wherever it lies.
    """
    above = stability.energy_above_hull
    if not stability.passed:
        return "rejected"
    return "below the hull" if above is not None and above < -NOTHING else "kept"


def rescore(
    candidates: Iterable[CandidateDoc],
    old_set: ReferenceSet,
    new_set: ReferenceSet,
    thresholds: Mapping[str, float] | None = None,
) -> list[Rejudged]:
    """Return the candidates whose verdict flips, those that moved most first."""
    flips = [r for r in rejudge(candidates, old_set, new_set, thresholds) if r.flipped]
    return sorted(flips, key=lambda r: (-abs(_change(r)), r.candidate_id))


def rejudge(
    candidates: Iterable[CandidateDoc],
    old_set: ReferenceSet,
    new_set: ReferenceSet,
    thresholds: Mapping[str, float] | None = None,
) -> list[Rejudged]:
    """Place the candidates that were judged against `old_set` on the hull of `new_set`.

    Parameters
    ----------
    candidates
        Those judged against another set, or with elements outside of `new_set`, are left out.
    old_set, new_set
        Competing phases, of one level and energy convention.
    thresholds
        Largest energy above hull that is kept, eV/atom, by level; as before if left out.

    Raises
    ------
    InputError
        The sets differ in level or convention; or `new_set` lacks an elemental phase.
    """
    _check_comparable(old_set, new_set)
    limit = (thresholds or {}).get(new_set.level)
    elements = set(new_set.chemsys.split("-"))
    old_id = old_set.reference_id
    judged = []
    for candidate in candidates:
        before = next((s for s in candidate.stabilities if s.references == old_id), None)
        relaxation = next((r for r in candidate.relaxations if r.level == new_set.level), None)
        if before is not None and relaxation is not None and elements >= set(candidate.elements):
            judged.append((candidate, before, relaxation))
    old, new = correct_references(old_set), correct_references(new_set)
    queries = [_query(candidate.candidate_id, relaxation) for candidate, _, relaxation in judged]
    results, repeated = Hull(new).place(queries), Hull(old).place(queries)
    lowest_before, lowest_now = _lowest(old.entries), _lowest(new.entries)
    rejudged = []
    for (candidate, before, _), query, result, again in zip(
        judged, queries, results, repeated, strict=True
    ):
        threshold = before.threshold if limit is None else limit
        after = as_found_before(placed(result, new_set, query.composition, limit=threshold), before)
        formulas = _formulas(old.entries, before.decomposition)
        formulas |= _formulas(new.entries, after.decomposition)
        rejudged.append(
            Rejudged(
                candidate_id=candidate.candidate_id,
                formula=candidate.formula_pretty or "",
                before=before,
                after=after,
                causes=_causes(sorted(formulas), lowest_before, lowest_now),
                repeated=again.energy_above_hull,
            )
        )
    return rejudged


def _check_comparable(old: ReferenceSet, new: ReferenceSet) -> None:
    for what, have, want in (
        ("level", new.level, old.level),
        ("energy convention", new.convention, old.convention),
    ):
        if have != want:
            raise InputError(
                f"Snapshot {new.reference_id} has {what} {have!r}, but the candidates were judged "
                f"with {want!r}: build a snapshot of the same kind."
            )


def _query(candidate_id: str, relaxation: Relaxation) -> HullQuery:
    structure, energy, convention = (
        relaxation.structure,
        relaxation.energy,
        relaxation.convention,
    )
    if structure is None or energy is None or convention is None:
        raise InputError(f"Candidate {candidate_id} has a place on a hull but no relaxed energy.")
    return HullQuery(
        id=candidate_id,
        composition=structure.composition,
        energy=correct_mp2020(structure, energy, convention=convention),
        convention=hull_convention(convention),
        level=relaxation.level,
    )


def _lowest(entries: Iterable[ReferenceEntry]) -> dict[str, ReferenceEntry]:
    """Return the lowest phase of each composition, by reduced formula."""
    lowest: dict[str, ReferenceEntry] = {}
    for entry in entries:
        formula = entry.composition.reduced_formula
        if formula not in lowest or entry.energy_per_atom < lowest[formula].energy_per_atom:
            lowest[formula] = entry
    return lowest


def _formulas(entries: Iterable[ReferenceEntry], ids: Iterable[str]) -> set[str]:
    wanted = set(ids)
    return {e.composition.reduced_formula for e in entries if e.entry_id in wanted}


def _causes(
    formulas: Sequence[str],
    before: Mapping[str, ReferenceEntry],
    now: Mapping[str, ReferenceEntry],
) -> tuple[Cause, ...]:
    """Return what happened to the phases that carried, or carry, the hull at one composition."""
    causes = []
    for formula in formulas:
        old, new = before.get(formula), now.get(formula)
        phase, former = new.entry_id if new else None, old.entry_id if old else None
        if old is None or new is None:
            causes.append(Cause(formula, phase, former))
            continue
        change = new.energy_per_atom - old.energy_per_atom
        if abs(change) > NOTHING:
            causes.append(Cause(formula, phase, former, change))
    return tuple(causes)


def _change(rejudged: Rejudged) -> float:
    before, after = rejudged.before.energy_above_hull, rejudged.after.energy_above_hull
    return (after or 0.0) - (before or 0.0)


# --- a campaign ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rescored:
    """What a snapshot says about a campaign.

    references: id of the snapshot. rejudged: all candidates it could place.
    not_covered: candidates with a place on a hull that the snapshot says nothing about.
    """

    references: str
    rejudged: list[Rejudged]
    not_covered: int

    @property
    def flips(self) -> list[Rejudged]:
        """Those whose verdict is another one now, the largest moves first."""
        flipped = [r for r in self.rejudged if r.flipped]
        return sorted(flipped, key=lambda r: (-abs(_change(r)), r.candidate_id))


def rescore_campaign(
    database: "Database[dict[str, Any]]", campaign_id: str, new_set: ReferenceSet
) -> Rescored:
    """Judge a campaign's relaxed candidates again; store nothing.

    Raises
    ------
    InputError
        No candidate was judged at the snapshot's level, or the old snapshot is not stored any
        more, or the two cannot be compared.
    """
    query = {"campaign_id": campaign_id, "stabilities.level": new_set.level}
    rows = database["candidates"].find(query, {"_id": 0}).sort("index", 1)
    candidates = [to_candidate(row) for row in rows]
    ids = {
        stability.references
        for candidate in candidates
        for stability in candidate.stabilities
        if stability.level == new_set.level and stability.references
    }
    if not ids:
        raise InputError(f"No candidate of {campaign_id} was judged at level {new_set.level!r}.")
    rejudged = [
        result
        for old_id in sorted(ids)
        for result in rejudge(candidates, _stored_set(database, old_id), new_set)
    ]
    placed = sum(
        any(s.references in ids for s in candidate.stabilities) for candidate in candidates
    )
    return Rescored(new_set.reference_id, rejudged, placed - len(rejudged))


class Rescore(Record):
    """A later verdict by other references, as it is stored beside the candidate's own."""

    candidate_id: str
    references: str = Field(description="Id of the reference set that judged")
    former_references: str = Field(description="Id of the set that had judged before")
    stability: Stability
    flipped: bool
    reason: str | None = Field(None, description="Why the verdict flipped")
    rescored_at: datetime


def store_rescored(
    database: "Database[dict[str, Any]]", campaign_id: str, rescored: Rescored
) -> int:
    """Keep new verdicts in ``rescores``, beside the candidates' own; return their number."""
    from pccd_workflows.execution.mongo import replace_documents

    rows = []
    for result in rescored.rejudged:
        record = Rescore(
            candidate_id=result.candidate_id,
            references=rescored.references,
            former_references=result.before.references,
            stability=result.after,
            flipped=result.flipped,
            reason=result.reason if result.flipped else None,
            rescored_at=datetime.now(UTC),
        )
        document = {"schema_version": SCHEMA_VERSION, "campaign_id": campaign_id}
        key = f"{result.candidate_id}/{rescored.references}"
        rows.append({"_id": key, **document, **record.model_dump()})
    replace_documents(database["rescores"], rows)
    return len(rows)


def find_rescores(database: "Database[dict[str, Any]]", **which: str) -> dict[str, list[Rescore]]:
    """Return stored verdicts by candidate_id, the earliest first.

    `which` are fields to select by: ``candidate_id=...`` or ``campaign_id=...``.
    """
    from pccd_workflows.execution.mongo import survive_outage

    hidden = {"_id": 0, "schema_version": 0, "campaign_id": 0}
    rows = survive_outage(
        lambda: list(database["rescores"].find(which, hidden).sort("rescored_at", 1))
    )
    found: dict[str, list[Rescore]] = defaultdict(list)
    for row in rows:
        found[row["candidate_id"]].append(Rescore.model_validate(row))
    return dict(found)


def _stored_set(database: "Database[dict[str, Any]]", reference_id: str) -> ReferenceSet:
    from pccd_workflows.execution.mongo import get_reference_set

    found = get_reference_set(database, reference_id)
    if found is None:
        raise InputError(f"Reference set {reference_id} is not in the database any more.")
    return found
