"""kill -9 in every stage: the ledger ends as if nothing had happened, nothing is computed twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pccd_workflows import operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.execution import mongo
from pccd_workflows.settings import get_settings

CAMPAIGN = Campaign.model_validate(
    {
        "name": "kill",
        "generate": {
            "elements": ["Mg", "Mn", "O"],
            "samples": 16,
            "shard": 8,
            "seed": 3,
            "sampler": {"name": "dpm-solver++", "steps": 20, "guidance": 1.5},
        },
        "screen": {"min_distance": 0.5, "min_distance_radii": 0.3, "all_elements": False},
        "rungs": [
            {
                "level": "chgnet",
                "keep": {"energy_above_hull": 10.0},
                "budget": {"candidates": 4},
                "batch": 2,
                "steps": 4,
            }
        ],
        "phonons": {
            "max_energy_above_hull": 10.0,
            "candidates": 1,
            "min_length": 3.0,
            "novel_only": False,
        },
    }
)
JOB_STORED = "pccd_workflows.execution.stores:PatientJobStore.update"
STATE_ADVANCED = "pccd_workflows.execution.atomic_launchpad:AtomicLaunchPad.complete_launch"
MODEL = "pccd_workflows.generators.pccd"
POINTS = {
    "generate: sampled, not stored": f"{MODEL}.sample:sample_crystals:after:1",
    "screen": "pccd_workflows.analysis.validity:screen:after:3",
    "generate: stored, output not": f"{JOB_STORED}:before:1",
    "generate: output stored, state not": f"{STATE_ADVANCED}:before:1",
    "references": "pccd_workflows.stages.references:build:after:1",
    "deduplicate": "pccd_workflows.stages.deduplicate:judge_novelty:after:1",
    "relax: in the second crystal": "pccd_workflows.engines.potential:relax:before:2",
    "relax: done, not stored": "pccd_workflows.execution.mongo:put_result:before:1",
    "hull": "pccd_workflows.stages.hull:judge_stability:after:1",
    "phonons: relaxed": "pccd_workflows.engines.phonons:tight_cell:after:1",
    "phonons: judged, not stored": "pccd_workflows.engines.phonons:phonon_record:after:1",
}
VOLATILE = {"_id", "updated_at", "seconds", "jobs"}


def start_worker(campaign_id: str, point: str, log: Path) -> int:
    command = [sys.executable, str(Path(__file__).with_name("killed_worker.py"))]
    ended = subprocess.run(
        [*command, campaign_id, point, str(log)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr[-3000:]
    return ended.returncode


def ledger(settings) -> dict:
    """Return every candidate's document without what may differ between two runs."""
    document = operations.campaign_document(CAMPAIGN.campaign_id, settings)
    operations.collector(document, settings).update()
    rows = mongo.database(settings)["candidates"].find({"campaign_id": CAMPAIGN.campaign_id})
    return {row["_id"]: without_times(row) for row in rows}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in VOLATILE}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def computed(log: Path) -> Counter:
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(tuple(json.loads(line)) for line in lines)


def other_database(settings, monkeypatch):
    """Return settings of a second, empty database on the same server."""
    monkeypatch.setenv("PCCD_DATABASE", f"{settings.database}_killed")
    get_settings.cache_clear()
    return get_settings()


@pytest.mark.slow
@pytest.mark.timeout(2400)  # a dozen workers start one after the other
def test_kill_in_every_stage_leaves_the_same_ledger(settings, tmp_path, monkeypatch):
    undisturbed = tmp_path / "undisturbed.log"
    operations.submit(CAMPAIGN, settings)
    assert start_worker(CAMPAIGN.campaign_id, "none", undisturbed) == 0
    expected = ledger(settings)
    assert len(expected) == CAMPAIGN.generate.samples
    assert any(row["phonons"] for row in expected.values()), "the campaign must reach phonons"

    settings = other_database(settings, monkeypatch)
    disturbed = tmp_path / "disturbed.log"
    operations.submit(CAMPAIGN, settings)
    for name, point in POINTS.items():
        ended = start_worker(CAMPAIGN.campaign_id, point, disturbed)
        assert ended == -signal.SIGKILL, f"the kill point {name!r} was never reached"
        released = operations.release_dead(CAMPAIGN.campaign_id, settings)
        assert len(released) == 1, f"{name}: one job was in flight, {released} were released"
    assert start_worker(CAMPAIGN.campaign_id, "none", disturbed) == 0

    assert set(operations.progress(CAMPAIGN.campaign_id, settings).states) == {"COMPLETED"}
    assert ledger(settings) == expected
    once, again = computed(undisturbed), computed(disturbed)
    assert set(again) == set(once)
    repeated = {unit for unit, number in again.items() if number > once[unit]}
    samples_lost = CAMPAIGN.generate.shard  # one batch of sampling was in flight
    assert len(repeated) <= samples_lost + 1, f"computed twice: {sorted(repeated)}"
    mongo.database(settings).client.drop_database(settings.database)
