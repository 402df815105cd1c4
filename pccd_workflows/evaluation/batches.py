"""The seed paper's three batches: their shares, and its Table 2 with ours beside it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pymatgen.core import Element

from pccd_workflows.campaign import load_campaign
from pccd_workflows.core.intervals import Estimate
from pccd_workflows.core.resources import resource
from pccd_workflows.evaluation.published import CAVEAT, PEERS_SUN, PEERS_TABLE_2, SEED_TABLE_2
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.samples import (
    Yardstick,
    draw_samples,
    judge_samples,
    requests_for,
)
from pccd_workflows.evaluation.shares import (
    ProtocolCard,
    SampleReport,
    SampleRow,
    SampleShares,
    protocol_card,
    report_samples,
    rows_of,
    shares_of,
)
from pccd_workflows.generators.elements import draw_elements
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.cells import SampleRequest
    from pccd_workflows.generators.pccd.model import Model

BATCHES = ("seed-batch-1", "seed-batch-2", "seed-batch-3")
"""Campaign files of flows/."""
RARE_EARTHS = "seed-batch-2"
"""The batch of which the seed also gives the shares without rare earths."""


class BatchReport(SampleReport):
    """The samples of one batch."""

    rows: list[SampleRow]


class StableCell(Result):
    """Share of the crystals below a threshold: the seed's, and ours."""

    seed_of_screened: float | None
    ours_of_screened: Estimate | None
    ours_of_raw: Estimate | None


class NovelCell(Result):
    """Share of new crystals: the seed's, and ours."""

    seed_of_screened: float | None
    ours_of_valid: Estimate | None


class BatchRow(Result):
    """One batch in the seed's Table 2."""

    batch: str
    screened: Estimate | None
    stable_250: StableCell
    stable_80: StableCell
    novel: NovelCell


class SeedTable(Result):
    """The seed's Table 2 with our shares beside it, and what others publish."""

    rows: list[BatchRow]
    peers: dict[str, dict[str, float | None]]
    peers_sun: list[dict[str, str | float]]
    caveat: str = CAVEAT


class BatchesResult(Result):
    """The seed's batches.

    Attributes
    ----------
    batches, parts
        By name; in JSON they lie flat. Parts are subsets of a batch.
    """

    merged: ClassVar[tuple[str, ...]] = ("batches", "parts")

    batches: dict[str, BatchReport]
    parts: dict[str, SampleShares]
    table_2: SeedTable
    protocol: ProtocolCard


def measure_batches(
    model: "Model",
    known: Yardstick,
    *,
    samples: int,
    sampler: Sampler,
    batches: Sequence[str] = BATCHES,
    conditions: Conditions | None = None,
) -> BatchesResult:
    """Return the shares of the seed's batches, and its Table 2 with ours beside it.

    Elements are drawn as the campaign files flows/<batch>.yaml say, with their seeds.

    Parameters
    ----------
    samples
        Raw samples of each batch.
    conditions
        What else is asked for; what the campaign files say if left out.
    """
    reports: dict[str, BatchReport] = {}
    parts: dict[str, SampleShares] = {}
    for name in batches:
        requests, seed = batch_requests(name, samples, conditions)
        judged = judge_samples(draw_samples(model, requests, seed=seed, sampler=sampler), known)
        report = report_samples(judged)
        reports[name] = BatchReport(**dict(report), rows=rows_of(judged.samples))
        if name == RARE_EARTHS:
            plain = [one for one in judged.samples if not _has_rare_earth(one.sample.elements)]
            parts[f"{name}-without-rare-earths"] = shares_of(plain)
    shares = {**{name: report.shares for name, report in reports.items()}, **parts}
    asked_for = {} if conditions is None else conditions.model_dump(exclude_none=True)
    return BatchesResult(
        batches=reports,
        parts=parts,
        table_2=seed_table(shares),
        protocol=protocol_card(sampler, known.judge, conditions=asked_for),
    )


def batch_requests(
    name: str, samples: int, conditions: Conditions | None = None
) -> tuple[list["SampleRequest"], int]:
    """Return what a campaign file of flows/ asks for, and its seed."""
    generate = load_campaign(resource("flows", f"{name}.yaml")).generate
    asked = [draw_elements(generate, i) for i in range(samples)]
    return requests_for(asked, conditions or generate.conditions), generate.seed


def _has_rare_earth(elements: Iterable[str]) -> bool:
    return any(Element(symbol).is_rare_earth for symbol in elements)


def seed_table(shares: Mapping[str, SampleShares]) -> SeedTable:
    """Return the seed's Table 2 with our shares beside it.

    Parameters
    ----------
    shares
        By batch; what was not measured or not relaxed leaves its cells empty.
    """
    rows = [_row(name, theirs, shares.get(name)) for name, theirs in SEED_TABLE_2.items()]
    return SeedTable(
        rows=rows,
        peers={name: dict(row) for name, row in PEERS_TABLE_2.items()},
        peers_sun=[dict(row) for row in PEERS_SUN],
    )


def _row(name: str, theirs: Mapping[str, float | None], ours: SampleShares | None) -> BatchRow:
    cells: dict[str, Any] = {
        key: StableCell(
            seed_of_screened=theirs[key],
            ours_of_screened=None
            if ours is None or ours.stability is None
            else ours.stability.of_screened[key],
            ours_of_raw=None
            if ours is None or ours.stability is None
            else getattr(ours.stability, key),
        )
        for key in ("stable_250", "stable_80")
    }
    novel = None if ours is None else ours.novel_of_valid.references
    return BatchRow(
        batch=name,
        screened=None if ours is None else ours.screened,
        novel=NovelCell(seed_of_screened=theirs["novel"], ours_of_valid=novel),
        **cells,
    )
