"""docs/python.md: what a notebook calls, block by block."""

import ledger_factory as factory
import pytest
from document import blocks

from pccd_workflows.execution import mongo


@pytest.mark.slow
def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python.md", "python"):
        exec(compile(block, "python.md", "exec"), names)  # noqa: S102
    assert len(names["crystals"]) == 2
    assert names["relaxed"].usable
    assert names["place"].energy_above_hull < 0.05
    assert names["verdict"].novel is False
    assert names["campaign"].campaign_id in names["flow"].name
    assert {"generate 1/1", "references chgnet", "deduplicate", "rung chgnet"} <= {
        firework.name for firework in names["workflow"].fws
    }


def test_a_campaign_of_the_database_is_read(settings):
    (block,) = [b for b in blocks("python.md", "text") if "read_campaign" in b]
    campaign = factory.campaign(phonons=None)
    document = factory.campaign_document(campaign)
    candidate = factory.judged(0, "MgMn2O4", above=0.01, which=campaign)
    found = mongo.database(settings)
    found["campaigns"].insert_one(document)
    found["candidates"].insert_one(
        candidate.model_dump(mode="json") | {"_id": candidate.candidate_id}
    )
    names = {}
    exec(block.replace("quickstart", campaign.name), names)  # noqa: S102
    assert len(names["found"]) == 1
