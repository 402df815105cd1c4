"""Deduplicate: keep one crystal of each group of equal ones, and say which are known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pccd_workflows.core.storage import ALL, Share, Storage, load_crystals
from pccd_workflows.known.novelty import Novelty, NoveltySection, SetNovelty
from pccd_workflows.stages.novelty import Compared, goes_on, judge_novelty, known_in, novelty_of
from pccd_workflows.stages.sharing import by_composition
from pccd_workflows.stages.stage import Description, FunnelStep, Outcome, Records, Stage, facts

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign

__all__ = ["STAGE", "Novelty", "NoveltySection", "SetNovelty", "run", "shares"]

STAGE_BEFORE = "screen"


def shares(campaign: "Campaign", storage: Storage, share: Share = ALL) -> list[Share]:
    """Return shares of the screened crystals that can be judged apart from each other."""
    return by_composition(storage.formulas(campaign.campaign_id, STAGE_BEFORE, share))


def run(campaign: "Campaign", systems: Sequence[str], storage: Storage, share: Share = ALL) -> int:
    """Judge screened crystals, composition by composition; return how many go on.

    The first of a group is the one that is kept: charge-balanced crystals come first where the
    campaign prefers them, then the order of the samples counts.

    Parameters
    ----------
    systems
        Chemical systems whose competing phases are stored.
    share
        Only these crystals.
    """
    compared = Compared(campaign, storage, systems)
    return sum(_judge(compared, part) for part in shares(campaign, storage, share))


def _judge(compared: Compared, share: Share) -> int:
    """Judge the crystals of some compositions; return how many go on."""
    campaign, storage = compared.campaign, compared.storage
    screened = list(storage.going_on(campaign.campaign_id, STAGE_BEFORE, share))
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
    return sum(row.goes_on for row in rows)


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
