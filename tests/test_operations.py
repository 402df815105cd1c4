"""What a user does with a campaign: stored once by many, found again by every later version."""

import multiprocessing
from itertools import pairwise
from typing import Any

import pytest
import yaml
from pydantic import Field

from pccd_workflows import campaign as campaign_module
from pccd_workflows import operations
from pccd_workflows.analysis.screening import Screen
from pccd_workflows.campaign import MAX_GENERATE_JOBS, Campaign, load_campaign
from pccd_workflows.cli import main
from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.query import to_candidate
from pccd_workflows.settings import get_settings

PLAIN: dict[str, Any] = {
    "name": "many",
    "generate": {"elements": ["Mg", "O"], "samples": 4, "shard": 2},
    "rungs": [{"level": "chgnet"}],
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Weights need not be read to store a campaign."""
    monkeypatch.setattr(operations, "preflight", lambda _campaign, _settings: ["v1"])


def _submit(barrier: Any) -> None:
    get_settings.cache_clear()
    settings = get_settings()
    mongo.database(settings)
    launchpad.launchpad(settings)
    barrier.wait(60)
    operations.submit(Campaign.model_validate(PLAIN), settings)


def test_processes_that_submit_at_the_same_moment_store_one_workflow(settings):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_submit, args=(barrier,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    database = mongo.database(settings)
    assert database["campaigns"].count_documents({}) == 1
    assert database["workflows"].count_documents({}) == 1
    names = [row["name"] for row in database["fireworks"].find({}, {"name": 1})]
    assert len(names) == len(set(names))


def test_a_submission_that_was_cut_off_is_completed_by_the_next(settings, monkeypatch):
    campaign = Campaign.model_validate(PLAIN)
    with monkeypatch.context() as broken:
        broken.setattr(operations, "submit_workflow", lambda *_: None)
        assert operations.submit(campaign, settings)["state"] == "submitting"
    assert operations.submit(campaign, settings)["state"] == "submitted"
    assert mongo.database(settings)["workflows"].count_documents({}) == 1


def test_a_million_samples_are_few_jobs_and_keep_their_hash():
    asked = {"elements": ["Mg", "O"], "samples": 1_000_000}
    large = Campaign.model_validate(PLAIN | {"generate": asked})
    shards = large.shards
    assert len(shards) <= MAX_GENERATE_JOBS
    assert (shards[0][0], shards[-1][1]) == (0, 1_000_000)
    assert all(stop == start for (_, stop), (start, _) in pairwise(shards))
    assert large.resolved()["generate"]["shard"] == 128


class LaterScreen(Screen):
    """The section of a later version, which knows one more option."""

    later: float = Field(1.0)


@pytest.fixture
def upgrade(monkeypatch):
    """A function after which campaigns are those of a later version."""

    def install() -> type[Campaign]:
        class LaterCampaign(Campaign):
            screen: LaterScreen = LaterScreen()

        monkeypatch.setattr(operations, "Campaign", LaterCampaign)
        monkeypatch.setattr(campaign_module, "Campaign", LaterCampaign)
        return LaterCampaign

    return install


def test_an_unchanged_file_is_the_stored_campaign_after_an_upgrade(settings, tmp_path, upgrade):
    path = tmp_path / "many.yaml"
    path.write_text(yaml.safe_dump(PLAIN))
    before = operations.submit(load_campaign(path), settings)
    upgrade()
    after = load_campaign(path)
    assert after.campaign_id != before["_id"]  # its hash is over the new option, too
    assert operations.submit(after, settings)["_id"] == before["_id"]
    assert mongo.database(settings)["workflows"].count_documents({}) == 1

    stored = operations.stored_campaign(operations.campaign_document("many", settings))
    assert stored.campaign_id == before["_id"]
    assert stored.candidate_id(3) == f"{before['_id']}-000003"
    path.write_text(yaml.safe_dump(PLAIN | {"screen": {"later": 2.0}}))
    other = operations.submit(load_campaign(path), settings)
    assert other["_id"] != before["_id"]
    assert mongo.database(settings)["campaigns"].count_documents({}) == 2


def test_a_file_that_leaves_its_references_open_is_the_campaign_that_prototypes_judged(settings):
    """Stored when prototypes were the default; the same file means them, another one does not."""
    campaigns = mongo.database(settings)["campaigns"]
    former = Campaign.model_validate(PLAIN | {"references": {"source": "prototypes"}})
    before = operations.submit(former, settings)
    campaigns.update_one({"_id": before["_id"]}, {"$unset": {"defaults": 1}})
    unchanged = Campaign.model_validate(PLAIN)
    assert unchanged.references.source == "known"
    assert operations.as_stored(unchanged, settings).campaign_id == before["_id"]
    assert operations.submit(unchanged, settings)["_id"] == before["_id"]
    for source in ("known", "materials_project"):
        said = Campaign.model_validate(PLAIN | {"references": {"source": source}})
        assert operations.submit(said, settings)["_id"] == said.campaign_id != before["_id"]


def test_leaving_prototypes_out_of_a_file_of_today_makes_another_campaign(settings):
    said = Campaign.model_validate(PLAIN | {"references": {"source": "prototypes"}})
    before = operations.submit(said, settings)
    assert operations.submit(Campaign.model_validate(PLAIN), settings)["_id"] != before["_id"]


def test_what_had_finished_before_is_named_when_a_campaign_is_stored(settings):
    """Twins that run at the same time know nothing of each other, whatever finishes first."""
    first = operations.submit(Campaign.model_validate(PLAIN), settings)
    twin = operations.submit(Campaign.model_validate(PLAIN | {"name": "twin"}), settings)
    assert (first["history"], twin["history"]) == ([], [])
    database = mongo.database(settings)
    database["fireworks"].update_many(
        {"spec.campaign_id": first["_id"]}, {"$set": {"state": "COMPLETED"}}
    )
    third = Campaign.model_validate(PLAIN | {"name": "third"})
    assert operations.submit(third, settings)["history"] == [first["_id"]]
    assert operations.submit(third, settings)["history"] == [first["_id"]]
    stored = operations.campaign_document(twin["_id"], settings)
    assert stored["history"] == []
    deaf = PLAIN | {"name": "deaf", "novelty": {"against": ["references"]}}
    assert operations.submit(Campaign.model_validate(deaf), settings)["history"] == []


def test_a_worker_of_a_campaign_that_is_not_there_says_so(settings, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["worker", "--campaign", "nope"])
    assert ended.value.code == 2
    assert "There is no campaign 'nope'" in capsys.readouterr().err


def test_a_damaged_candidate_is_one_sentence():
    document = {"_id": "many-0-000001", "schema_version": 2, "candidate_id": "many-0-000001"}
    with pytest.raises(DatabaseError, match=r"Candidate many-0-000001 is damaged \(campaign_id: "):
        to_candidate(document)
