"""Screen: is a crystal physically and chemically sensible, before any energy is computed?"""

from typing import TYPE_CHECKING

from pccd_workflows.analysis.screening import Screen, Screening
from pccd_workflows.core.storage import Storage
from pccd_workflows.generators.request import Generation
from pccd_workflows.stages.stage import (
    Description,
    FunnelStep,
    Outcome,
    Records,
    Stage,
    facts,
    number,
    words,
)

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign

__all__ = ["STAGE", "Screen", "Screening", "run"]


def run(campaign: "Campaign", start: int, stop: int, storage: Storage) -> int:
    """Judge the generated crystals of samples `start` to `stop` - 1; return how many pass.

    Charge-balanced crystals come first in the next stage where the campaign prefers them.
    """
    from pccd_workflows.analysis.validity import screen

    generated = list(
        storage.rows(campaign.campaign_id, "generate", goes_on=True, indices=(start, stop))
    )
    structures = storage.get_structures({row.ref.key for row in generated})
    rows = []
    for row in generated:
        elements = row.read(Generation).elements
        record = screen(structures[row.ref.key], elements=elements, settings=campaign.screen)
        unbalanced = campaign.screen.charge_neutral == "prefer" and record.charge_balanced is False
        rows.append(
            row.following("screen", record, goes_on=record.passed, rank=1.0 if unbalanced else 0.0)
        )
    storage.put_rows(rows)
    return sum(row.goes_on for row in rows)


def _outcome(record: Screening, _campaign: "Campaign") -> Outcome | None:
    return None if record.passed else Outcome("rejected", record.reason_class, record.reason)


def _describe(record: Screening, _records: Records) -> Description:
    balance = {True: "charges balance", False: "charges do not balance", None: ""}
    found = facts(
        number("shortest distance", record.min_distance, "Å", 2),
        number("density", record.density, "g/cm³", 2),
        number("volume", record.volume_per_atom, "Å³/atom", 1),
        balance[record.charge_balanced],
        record.reason or "",
    )
    verdict = "passed" if record.passed else f"rejected: {words(record.reason_class)}"
    return Description(verdict, "good" if record.passed else "bad", found)


def _steps(_campaign: "Campaign", _level: str) -> tuple[FunnelStep, ...]:
    return (
        FunnelStep(
            "screened",
            "passed the screen",
            lambda records: "screen" in records and records["screen"].passed,
        ),
    )


STAGE = Stage(
    kind="screen",
    record=Screening,
    levels=lambda _campaign: ("",),
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
)
