"""Which crystals failed jobs hold back, from what the jobs' metadata say."""

from collections.abc import Sequence
from typing import Any

from pccd_workflows.campaign import Campaign
from pccd_workflows.collect import Loss
from pccd_workflows.core.storage import Share, Storage
from pccd_workflows.jobs.metadata import CANDIDATES, OPTIONAL, SAMPLES, SHARE, WRITES

Document = dict[str, Any]


def name_candidates(campaign_id: str, failures: Sequence[Document], storage: Storage) -> None:
    """Add the names of the candidates to failed jobs that take a share of a stage's crystals.

    A job that takes thousands does not carry their names.

    failures: with the jobs' metadata.
    """
    for metadata in (failure["metadata"] for failure in failures):
        if SHARE in metadata:
            asked = metadata[SHARE]
            rows = storage.going_on(campaign_id, asked["stage"], Share.from_dict(asked))
            metadata[CANDIDATES] = [row.candidate_id for row in rows]


def lost_candidates(campaign: Campaign, failures: Sequence[Document]) -> dict[str, list[Loss]]:
    """Return the failed jobs that hold candidates back, by candidate_id.

    failures: with ``name``, ``error`` (one line) and ``metadata`` of each job.
    """
    lost: dict[str, list[Loss]] = {}
    for failure in failures:
        metadata = failure["metadata"]
        if metadata.get(OPTIONAL):
            continue
        reason = f"Job {failure['name']!r} failed: {failure['error']}"
        loss = Loss(reason, metadata.get(WRITES))
        numbers = range(*metadata.get(SAMPLES, (0, 0)))
        for name in [*metadata.get(CANDIDATES, []), *map(campaign.candidate_id, numbers)]:
            lost.setdefault(name, []).append(loss)
    return lost
