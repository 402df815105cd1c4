"""Sample crystals, shard by shard; what is sampled is stored at once and never sampled again."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.core.errors import StaleResultError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.generators.request import Generation
from pccd_workflows.jobs.common import stage_database, stage_job
from pccd_workflows.settings import get_settings

BATCH = 32
"""Crystals sampled together: what a kill costs at most."""


@stage_job
def generate(campaign: Campaign, start: int, stop: int, weights_sha256: str) -> StageOutput:
    """Sample crystals `start` to `stop` - 1 of a campaign.

    Raises
    ------
    StaleResultError
        The model's weights are not those the campaign was submitted with.
    """
    samples = stage_database()["samples"]
    query = {"campaign_id": campaign.campaign_id, "index": {"$gte": start, "$lt": stop}}
    done = {doc["index"] for doc in samples.find(query, {"index": 1})}
    missing = [index for index in range(start, stop) if index not in done]
    if missing:
        for document in sample_documents(campaign, missing, weights_sha256):
            samples.replace_one({"_id": document["_id"]}, document, upsert=True)
    return _stage_output(samples.find(query).sort("index", 1))


def sample_documents(
    campaign: Campaign, indices: Sequence[int], weights_sha256: str
) -> Iterator[dict[str, Any]]:
    """Sample crystals and yield one document each, as soon as its batch is done."""
    from pccd_workflows.generators.pccd.cells import SampleRequest, draw_elements
    from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
    from pccd_workflows.generators.pccd.sample import sample_clouds

    settings = get_settings()
    request = campaign.generate
    model = load_model(find_model(request.model, settings), settings.device)
    if model.info.weights_sha256 != weights_sha256:
        raise StaleResultError(
            f"Model {request.model!r} has changed since campaign {campaign.campaign_id} was "
            "submitted; restore its weights or submit the campaign under another name."
        )
    for first in range(0, len(indices), BATCH):
        batch = indices[first : first + BATCH]
        began = time.perf_counter()
        requests = [
            SampleRequest(index, draw_elements(request, index), request.conditions)
            for index in batch
        ]
        clouds = sample_clouds(model, requests, seed=request.seed, sampler=request.sampler)
        seconds = (time.perf_counter() - began) / len(batch)
        for sample, cloud in zip(requests, clouds, strict=True):
            structure, error_class, reason = _decode(cloud)
            generation = Generation(
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
            )
            yield {
                "_id": campaign.candidate_id(sample.index),
                "schema_version": SCHEMA_VERSION,
                "campaign_id": campaign.campaign_id,
                "index": sample.index,
                "generation": generation.model_dump(),
                "structure": structure.as_dict() if structure else None,
            }


def _decode(cloud: Any) -> tuple[Structure | None, str | None, str | None]:
    from pccd_workflows.generators.pccd.pointcloud.decode import DecodeError, decode

    try:
        return decode(cloud), None, None
    except DecodeError as error:
        return None, error.error_class, str(error)


def _stage_output(documents: Any) -> StageOutput:
    records, survivors = {}, []
    for document in documents:
        records[document["_id"]] = Generation.model_validate(document["generation"])
        if document["structure"] is not None:
            structure = Structure.from_dict(document["structure"])
            survivors.append(Crystal(candidate_id=document["_id"], structure=structure))
    return StageOutput(stage="generate", records=records, survivors=survivors)
