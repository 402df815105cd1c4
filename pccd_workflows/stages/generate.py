"""Generate: sample crystals; what is sampled is stored at once and never sampled again."""

from typing import TYPE_CHECKING

from pccd_workflows.core.storage import StageRow, Storage, structure_key
from pccd_workflows.generators.request import Generation
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
    from pccd_workflows.campaign import Campaign


BATCH = 32
"""Crystals sampled together: what a kill costs at most."""


def run(
    campaign: "Campaign", start: int, stop: int, storage: Storage, *, weights_sha256: str
) -> int:
    """Sample what is missing of crystals `start` to `stop` - 1; return how many there are.

    Raises
    ------
    StaleResultError
        The model's weights are not those the campaign was submitted with.
    """
    done = {
        row.index for row in storage.rows(campaign.campaign_id, "generate", indices=(start, stop))
    }
    missing = [index for index in range(start, stop) if index not in done]
    for first in range(0, len(missing), BATCH):
        batch = missing[first : first + BATCH]
        rows = []
        for index, structure, record in _samples(campaign, batch, weights_sha256):
            key = None if structure is None else structure_key(structure)
            if structure is not None and key is not None:
                storage.put_structures({key: structure})
            rows.append(
                StageRow(
                    campaign.campaign_id,
                    campaign.candidate_id(index),
                    index,
                    "generate",
                    record.model_dump(mode="json"),
                    key=key,
                    goes_on=structure is not None,
                    rank=float(index),
                    formula=None if structure is None else structure.composition.reduced_formula,
                )
            )
        storage.put_rows(rows)
    return stop - start


def _samples(campaign, indices, weights_sha256):
    import time

    from pccd_workflows.generators.pccd.cells import SampleRequest, draw_elements
    from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
    from pccd_workflows.generators.pccd.pointcloud.decode import DecodeError, decode
    from pccd_workflows.generators.pccd.sample import sample_clouds
    from pccd_workflows.settings import get_settings

    settings = get_settings()
    request = campaign.generate
    model = load_model(find_model(request.model, settings), settings.device)
    began = time.perf_counter()
    requests = [SampleRequest(i, draw_elements(request, i), request.conditions) for i in indices]
    clouds = sample_clouds(model, requests, seed=request.seed, sampler=request.sampler)
    seconds = (time.perf_counter() - began) / len(indices)
    for sample, cloud in zip(requests, clouds, strict=True):
        try:
            structure, error_class, reason = decode(cloud), None, None
        except DecodeError as error:
            structure, error_class, reason = None, error.error_class, str(error)
        yield (
            sample.index,
            structure,
            Generation(
                model=model.info.name,
                weights_sha256=weights_sha256,
                seed=request.seed,
                index=sample.index,
                elements=list(sample.elements),
                conditions=request.conditions.model_dump(exclude_none=True),
                sampler=request.sampler.model_dump(),
                error_class=error_class,
                reason=reason,
                seconds=seconds,
            ),
        )


def _outcome(record: Generation, _campaign: "Campaign") -> Outcome | None:
    if record.error_class is None:
        return None
    return Outcome("rejected", record.error_class, record.reason)


def _describe(record: Generation, _records: Records) -> Description:
    conditions = [f"{key}={value}" for key, value in record.conditions.items() if value is not None]
    found = facts(
        f"model {record.model}, weights {record.weights_sha256[:12]}",
        f"seed {record.seed}, sample {record.index}, elements {'-'.join(record.elements)}",
        ", ".join(conditions),
        record.reason or "",
    )
    failed = record.error_class is not None
    verdict = f"not decoded: {record.error_class}" if failed else "decoded"
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
    kind="generate",
    record=Generation,
    levels=lambda _campaign: ("",),
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
    columns=(
        Column("model", "", lambda record: record.model),
        Column("weights_sha256", "", lambda record: record.weights_sha256),
        Column("seed", "", lambda record: record.seed),
        Column("index", "", lambda record: record.index),
        Column("band_gap_asked", "eV", lambda record: record.conditions.get("band_gap")),
    ),
)
