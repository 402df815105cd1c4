"""Deduplicate: keep one crystal of each group of equal ones, and say which are known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pccd_workflows.core.storage import Formulas, Storage, load_crystals
from pccd_workflows.known.novelty import Novelty, NoveltySection, SetNovelty
from pccd_workflows.stages.novelty import Compared, goes_on, judge_novelty, known_in
from pccd_workflows.stages.sharing import by_composition
from pccd_workflows.stages.stage import Description, FunnelStep, Outcome, Records, Stage, facts

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign

__all__ = ["STAGE", "Novelty", "NoveltySection", "SetNovelty", "run", "shares"]


def shares(
    campaign: "Campaign", storage: Storage, within: Formulas | None = None
) -> list[Formulas]:
    """Return ranges of compositions that can be judged apart from each other."""
    return by_composition(storage.formulas(campaign.campaign_id, "screen", within))


def run(
    campaign: "Campaign",
    systems: Sequence[str],
    storage: Storage,
    formulas: Formulas | None = None,
) -> int:
    """Judge the screened crystals, composition by composition; return how many go on.

    The first of a group is the one that is kept: charge-balanced crystals come first where the
    campaign prefers them, then the order of the samples counts.

    Parameters
    ----------
    systems
        Chemical systems whose competing phases are stored.
    formulas
        Only these; all if left out.
    """
    compared = Compared(campaign, storage, systems)
    count = 0
    for share in shares(campaign, storage, formulas):
        screened = list(
            storage.rows(campaign.campaign_id, "screen", goes_on=True, formulas=share, light=True)
        )
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


def _outcome(record: Novelty, campaign: "Campaign") -> Outcome | None:
    if record.duplicate_of is not None:
        reason = f"The same crystal as {record.duplicate_of}."
        return Outcome("rejected", "duplicate", reason)
    if goes_on(campaign, record):
        return None
    return Outcome("rejected", "known", f"Known in {known_in(record)}.")


def _describe(record: Novelty, _records: Records) -> Description:
    if record.duplicate_of is not None:
        return Description("duplicate", "bad", (f"same crystal as {record.duplicate_of}",))
    found = []
    for name, verdict in record.sets.items():
        said = {True: "known", False: "not in it", None: "not consulted"}[verdict.known]
        match = f" as {verdict.matched_id}" if verdict.matched_id else ""
        note = f" ({verdict.note})" if verdict.note else ""
        found.append(f"{name}: {said}{match}{note}; {verdict.method}")
    consulted = any(verdict.known is not None for verdict in record.sets.values())
    word = "new" if record.novel else "known"
    if not consulted:
        word = "unique, nothing to compare with"
    return Description(word, "good" if record.novel and consulted else "open", facts(*found))


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
