"""Generate: crystals from the sources of a campaign; what is made is never made again."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from pymatgen.core import Structure

from pccd_workflows.core.errors import PccdError, StaleResultError
from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.core.storage import StageRow, Storage, structure_key
from pccd_workflows.generators.elements import draw_elements
from pccd_workflows.generators.protocol import Generated
from pccd_workflows.generators.registry import open_generator
from pccd_workflows.generators.request import AskedElements, Generation
from pccd_workflows.stages.stage import (
    Column,
    Description,
    FunnelStep,
    Outcome,
    Records,
    Stage,
    facts,
)

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign, NumberedSource

NAME = "generate"
JOB_FAILED = "job_failed"
"""Class of the reason why a candidate goes no further where its job was lost."""
BATCH = 32
"""Crystals that are stored together, as many as the model samples together: what a kill costs."""

T = TypeVar("T")


def source_versions(campaign: "Campaign") -> list[str]:
    """Return the version of each source now, in order: hashes of weights and of files."""
    return [open_generator(options).info().version for options in campaign.asked]


def run(
    campaign: "Campaign",
    start: int,
    stop: int,
    storage: Storage,
    *,
    versions: Sequence[str] = (),
) -> int:
    """Make what is missing of samples `start` to `stop` - 1 and store it batch by batch.

    Parameters
    ----------
    campaign, storage
        What is made, and where it goes.
    start, stop
        Numbers of the samples in the campaign; they may belong to several sources.
    versions
        Of the sources when the campaign was submitted (see `source_versions`), in order; not
        checked if left out.

    Returns
    -------
    The samples that were made; those stored before do not count.

    Raises
    ------
    StaleResultError
        A source is not what it was when the campaign was submitted.
    InputError
        A source cannot do what is asked.
    PccdError
        A source left samples out.
    """
    rows = storage.rows(campaign.campaign_id, NAME, indices=(start, stop))
    done = {row.index for row in rows}
    made = 0
    for source in campaign.sources:
        first, end = max(start, source.start), min(stop, source.stop)
        missing = [index for index in range(first, end) if index not in done]
        if not missing:
            continue
        lacking = set(missing)
        for batch in _batches(_made(campaign, source, missing, versions), BATCH):
            _store(campaign, source, batch, storage)
            lacking.difference_update(source.start + one.index for one in batch)
        if lacking:
            raise PccdError(
                f"Source {source.options.source!r} made {len(missing) - len(lacking)} of "
                f"{len(missing)} samples that it was asked for: sample {min(lacking)} is missing."
            )
        made += len(missing)
    return made


def _made(
    campaign: "Campaign", source: "NumberedSource", missing: Sequence[int], versions: Sequence[str]
) -> Iterator[Generated]:
    generator = open_generator(source.options)
    if versions and generator.info().version != versions[source.number]:
        name = getattr(source.options, "model", source.options.source)
        raise StaleResultError(
            f"Source {name!r} has changed since campaign {campaign.campaign_id} was submitted; "
            "restore its weights or files, or submit the campaign under another name."
        )
    return generator.generate([index - source.start for index in missing])


def _store(
    campaign: "Campaign",
    source: "NumberedSource",
    batch: Sequence[Generated],
    storage: Storage,
) -> None:
    """Store structures before the rows that name them: a kill in between loses rows, no key."""
    keys = {g.index: structure_key(g.structure) for g in batch if g.structure is not None}
    storage.put_structures({keys[g.index]: g.structure for g in batch if g.structure is not None})
    storage.put_rows([_row(campaign, source.start + g.index, g, keys.get(g.index)) for g in batch])


def _row(campaign: "Campaign", index: int, made: Generated, key: str | None) -> StageRow:
    structure = made.structure
    return StageRow(
        campaign_id=campaign.campaign_id,
        candidate_id=campaign.candidate_id(index),
        index=index,
        stage=NAME,
        record=made.generation.model_dump(mode="json"),
        key=key,
        goes_on=key is not None,
        rank=float(index),
        formula=None if structure is None else structure.composition.reduced_formula,
    )


def not_made(campaign: "Campaign", index: int, reason: str) -> Generation:
    """Return what is known of sample `index`, whose job was lost before it was stored."""
    source = campaign.source_of(index)
    options = source.options
    own = index - source.start
    return Generation(
        source=options.source,
        model=getattr(options, "model", options.source),
        weights_sha256="",
        seed=getattr(options, "seed", 0),
        index=own,
        elements=list(draw_elements(options, own)) if isinstance(options, AskedElements) else [],
        conditions=options.asked_conditions().model_dump(exclude_none=True),
        error_class=JOB_FAILED,
        reason=reason,
    )


def row_of_sample(document: dict[str, Any]) -> tuple[StageRow, Structure | None]:
    """Return what a document of the collection ``samples`` of earlier versions says now.

    Such a document has _id (candidate_id), campaign_id, index, generation (a `Generation`) and
    structure (a pymatgen dictionary or None); the structure is to be stored under the row's key.
    """
    structure = plain_structure(document["structure"]) if document["structure"] else None
    generation = Generation.model_validate(document["generation"])
    key = None if structure is None else structure_key(structure)
    row = StageRow(
        campaign_id=document["campaign_id"],
        candidate_id=document["_id"],
        index=document["index"],
        stage=NAME,
        record=generation.model_dump(mode="json"),
        key=key,
        goes_on=key is not None,
        rank=float(document["index"]),
        formula=None if structure is None else structure.composition.reduced_formula,
    )
    return row, structure


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _outcome(record: Generation, _campaign: "Campaign") -> Outcome | None:
    if record.error_class is None:
        return None
    return Outcome("rejected", record.error_class, record.reason)


def _describe(record: Generation, _records: Records) -> Description:
    conditions = [f"{key}={value}" for key, value in record.conditions.items() if value is not None]
    found = facts(
        f"source {record.source}" if record.source != "pccd" else "",
        f"model {record.model}, version {record.weights_sha256[:12]}",
        f"seed {record.seed}, sample {record.index}, elements {'-'.join(record.elements)}",
        f"from {record.origin}" if record.origin else "",
        ", ".join(conditions),
        record.reason or "",
    )
    failed = record.error_class is not None
    verdict = f"no crystal: {record.error_class}" if failed else "a crystal"
    return Description(verdict, "bad" if failed else "good", found)


def _steps(_campaign: "Campaign", _level: str) -> tuple[FunnelStep, ...]:
    return (
        FunnelStep("generated", "generated", lambda _records: True),
        FunnelStep(
            "decoded",
            "decoded to a crystal",
            lambda records: records["generate"].error_class is None,
        ),
    )


STAGE = Stage(
    kind=NAME,
    record=Generation,
    levels=lambda _campaign: ("",),
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
    columns=(
        Column("source", "", lambda record: record.source),
        Column("origin", "", lambda record: record.origin),
        Column("model", "", lambda record: record.model),
        Column("weights_sha256", "", lambda record: record.weights_sha256),
        Column("seed", "", lambda record: record.seed),
        Column("index", "", lambda record: record.index),
        Column("band_gap_asked", "eV", lambda record: record.conditions.get("band_gap")),
    ),
)
