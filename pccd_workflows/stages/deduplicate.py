"""Deduplicate: keep one crystal of each group of equal ones, and say which are known."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from pccd_workflows.core.storage import StageRow, Storage, load_crystals
from pccd_workflows.known.novelty import Novelty, NoveltySection, SetNovelty
from pccd_workflows.stages.novelty import Compared, goes_on, judge_novelty, known_in, novelty_of
from pccd_workflows.stages.stage import Description, FunnelStep, Outcome, Records, Stage, facts

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign

__all__ = ["STAGE", "Novelty", "NoveltySection", "SetNovelty", "run"]

TOGETHER = 512
"""Crystals compared in one go: whole compositions, so many at least. Bounds the memory."""


def run(campaign: "Campaign", systems: Sequence[str], storage: Storage) -> int:
    """Judge all screened crystals, composition by composition; return how many go on.

    The first of a group is the one that is kept: charge-balanced crystals come first where the
    campaign prefers them, then the order of the samples counts.

    Parameters
    ----------
    systems
        Chemical systems whose competing phases are stored.
    """
    compared = Compared(campaign, storage, systems)
    count = 0
    for screened in _together(storage.rows(campaign.campaign_id, "screen", goes_on=True)):
        crystals = load_crystals(storage, [row.ref for row in screened])
        names = [row.candidate_id for row in screened]
        novelty = judge_novelty(dict(zip(names, crystals, strict=True)), compared)
        rows = [
            row.following(
                "deduplicate",
                novelty[row.candidate_id],
                goes_on=goes_on(campaign, novelty[row.candidate_id]),
                rank=row.rank,
            )
            for row in screened
        ]
        storage.put_rows(rows)
        count += sum(row.goes_on for row in rows)
    return count


def _together(rows: Iterator[StageRow]) -> Iterator[list[StageRow]]:
    """Yield the rows of whole compositions, about TOGETHER at a time, each in order of rank."""
    ordered = sorted(rows, key=lambda row: (row.formula or "", row.rank, row.index))
    batch: list[StageRow] = []
    for _, members in groupby(ordered, key=lambda row: row.formula):
        batch += members
        if len(batch) >= TOGETHER:
            yield batch
            batch = []
    if batch:
        yield batch


def _outcome(record: Novelty, campaign: "Campaign") -> Outcome | None:
    if record.duplicate_of is not None:
        reason = f"The same crystal as {record.duplicate_of}."
        return Outcome("rejected", "duplicate", reason)
    if goes_on(campaign, record):
        return None
    return Outcome("rejected", "known", f"Known in {known_in(record)}.")


def _describe(record: Novelty, records: Records) -> Description:
    if record.duplicate_of is not None:
        return Description("duplicate", "bad", (f"same crystal as {record.duplicate_of}",))
    found = []
    for name, verdict in record.sets.items():
        said = {True: "known", False: "not in it", None: "not consulted"}[verdict.known]
        match = f" as {verdict.matched_id}" if verdict.matched_id else ""
        note = f" ({verdict.note})" if verdict.note else ""
        found.append(f"{name}: {said}{match}{note}; {verdict.method}")
    consulted = any(verdict.known is not None for verdict in record.sets.values())
    whole = novelty_of(records) or record
    word = "known" if not record.novel else "new" if whole.novel else "known once relaxed"
    if not consulted:
        word = "unique, nothing to compare with"
    return Description(word, "good" if whole.novel and consulted else "open", facts(*found))


def _steps(_campaign: "Campaign", _level: str) -> tuple[FunnelStep, ...]:
    return (
        FunnelStep(
            "unique",
            "unique in the campaign",
            lambda records: (
                "deduplicate" in records and records["deduplicate"].duplicate_of is None
            ),
        ),
    )


STAGE = Stage(
    kind="deduplicate",
    record=Novelty,
    levels=lambda _campaign: ("",),
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
)
