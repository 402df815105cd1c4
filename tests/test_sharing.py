"""How crystals are shared out among jobs: nobody can tell it from the ledger."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jobflow import Flow

from pccd_workflows import operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.storage import Share, StageRow
from pccd_workflows.execution import launchpad, mongo, worker
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.jobs.common import counted
from pccd_workflows.jobs.references import prepare_references
from pccd_workflows.settings import Settings, get_settings
from pccd_workflows.stages import deduplicate, references, relax, sharing
from pccd_workflows.stages.sharing import BRANCHES, TOGETHER, by_composition, by_place, joined

SAMPLES = 60
REFERENCES = ReferenceSet(
    source="file",
    chemsys="Na-O",
    level="chgnet",
    convention="mp2020",
    entries=[ReferenceEntry(entry_id="Na", formula="Na1", energy=-1.0)],
)


def test_compositions_stay_whole_and_in_order():
    numbers = [(f"A{n:04d}", 100) for n in range(40)]
    shares = by_composition(numbers)
    held = [[formula for formula, _ in numbers if share.holds(formula)] for share in shares]
    assert [formula for some in held for formula in some] == [formula for formula, _ in numbers]
    assert all(100 * len(some) >= TOGETHER for some in held[:-1])
    assert by_composition([]) == []


@pytest.mark.parametrize("number", [1, BRANCHES, BRANCHES + 1, 2000])
def test_joined_shares_hold_the_same_compositions(number):
    shares = [Share(formulas=(f"A{n:04d}", f"A{n:04d}z")) for n in range(number)]
    found = joined(shares)
    assert len(found) <= BRANCHES
    for share in shares:
        assert sum(wide.holds(share.formulas[0]) for wide in found) == 1


@pytest.mark.parametrize("end", [0, 1, 8, 513, 20_000, 1_000_001])
def test_no_job_starts_more_than_it_may(end):
    def leaves(first: int, last: int) -> list[int]:
        places = [share.places for share in by_place(first, last, 8)]
        assert len(places) <= BRANCHES
        if last - first <= 8 * BRANCHES:
            return [i for start, stop in places for i in range(start, stop)]
        return [i for start, stop in places for i in leaves(start, stop)]

    assert leaves(0, end) == [*range(end)]


def test_jobs_that_were_lost_halved_or_return_a_document_can_be_counted():
    assert counted([8, None, [4, [2, 2]], {"structure": {}}, 1]) == 17


@pytest.mark.parametrize("kind", ["memory", "mongo"])
def test_a_budget_takes_the_best_of_all_compositions(kind, settings):
    storage: Any = MemoryStorage()
    if kind == "mongo":
        mongo.ensure_indexes(mongo.database(settings))
        storage = MongoStorage(mongo.database(settings))
    ranks = [3.0, 1.0, 2.0, 0.0, 1.0, 5.0]
    rows = [
        StageRow(
            campaign_id="c",
            candidate_id=f"c-{index:06d}",
            index=index,
            stage="screen",
            record={"passed": True},
            key=f"k{index}",
            goes_on=index != 5,
            rank=rank,
            formula="MgO" if index % 2 else "AlN",
        )
        for index, rank in enumerate(ranks)
    ]
    storage.put_rows(rows)
    best = list(storage.going_on("c", "screen", Share(places=(1, 4))))
    assert [row.index for row in best] == [1, 4, 2]
    assert all(row.record == {} for row in best)
    assert list(storage.going_on("c", "screen", Share(places=(2, 2)))) == []
    parts = [Share(places=(0, 2)), Share(places=(2, 3)), Share(places=(3, 9))]
    located = storage.located("c", "screen", parts)
    if kind == "mongo":
        assert [share.after for share in located] == [None, (1.0, 1), (1.0, 4)]
        asked = {"campaign_id": "c", "stage": "screen", "goes_on": True}
        told = storage._ranked(asked, {"record": 0}, (1.0, 4)).limit(2).explain()
        assert told["executionStats"]["totalKeysExamined"] == 2  # nobody counts up to them
    found = [[row.index for row in storage.going_on("c", "screen", part)] for part in located]
    assert found == [[3, 1], [4], [2, 0]]
    inner = storage.located("c", "screen", [Share(places=(2, 4))], located[1])
    assert [row.index for row in storage.going_on("c", "screen", inner[0])] == [4, 2]
    oxides = storage.going_on("c", "screen", Share(formulas=("B", "MgO")))
    assert [row.index for row in oxides] == [3, 1]
    assert storage.formulas("c", "screen") == [("AlN", 3), ("MgO", 2)]
    assert storage.formulas("c", "screen", Share(formulas=("AlN", "AlN"))) == [("AlN", 3)]


@pytest.fixture
def scale(monkeypatch) -> ModuleType:
    """The benchmark that makes campaigns for which nothing has to be computed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("scale")


@pytest.fixture
def prepared(scale, settings, tmp_path, monkeypatch) -> Callable[..., tuple[Settings, str]]:
    """A function that stores a campaign in a database of its own; returns settings and id."""

    def prepare(name: str, budget: int | None = None) -> tuple[Settings, str]:
        monkeypatch.setenv("PCCD_DATABASE", f"{settings.database}_{name}")
        get_settings.cache_clear()
        own = get_settings()
        database = mongo.database(own)
        mongo.ensure_indexes(database)
        whole = scale.campaign(SAMPLES, tmp_path)
        rung = whole.rungs[0].model_copy(
            update={"budget": whole.rungs[0].budget.model_copy(update={"candidates": budget})}
        )
        whole = whole.model_copy(update={"rungs": [rung]})
        scale.prefill(whole, MongoStorage(database), SAMPLES)
        scale.store_campaign(whole, own)
        return own, whole.campaign_id

    databases = []
    yield lambda *arguments: databases.append(prepare(*arguments)) or databases[-1]
    for own, _ in databases:
        mongo.database(own).client.drop_database(own.database)


@pytest.fixture
def narrow(monkeypatch) -> None:
    """Shares of a few crystals, and few of them to a job."""
    monkeypatch.setattr(sharing, "TOGETHER", 4)
    monkeypatch.setattr(sharing, "BRANCHES", 3)


def test_competing_phases_of_very_many_systems_are_built_bit_by_bit(settings, monkeypatch):
    monkeypatch.setattr(sharing, "BRANCHES", 3)
    systems = [f"{one}-{other}" for one in ("Li", "Na", "K", "Rb") for other in ("F", "Cl", "O")]
    monkeypatch.setattr(references, "systems_of", lambda *_: systems)
    monkeypatch.setattr(references, "settle", lambda *_: ["Na-O"])
    monkeypatch.setattr(references, "recomputes", lambda *_: False)
    built = []

    def build(_campaign: Any, _rung: Any, chemsys: str, _storage: Any) -> ReferenceSet:
        built.append(chemsys)
        return REFERENCES.model_copy(update={"chemsys": chemsys})

    monkeypatch.setattr(references, "build", build)
    whole = Campaign.model_validate(
        {"name": "phases", "generate": {"elements": ["Na", "O"]}, "rungs": [{"level": "chgnet"}]}
    )
    flow = Flow([prepare_references(whole, whole.rungs[0])])
    flow.update_metadata({"campaign_id": whole.campaign_id})
    launchpad.submit(flow, settings)
    worker.run_worker(settings)
    assert sorted(built) == sorted({*systems} - {"Na-O"})
    outputs = mongo.database(settings)["job_outputs"].find({"name": "systems chgnet"})
    assert sorted(max((row["output"] for row in outputs), key=len)) == sorted(systems)
    actions = [row["action"]["detours"] for row in launchpad.launchpad(settings).launches.find()]
    assert max(len(flow["fws"]) for detours in actions for flow in detours) <= 3 + 2


def ledger(scale, settings: Settings, campaign_id: str) -> str:
    scale.collect(campaign_id)
    assert mongo.database(settings)["candidates"].count_documents({}) == SAMPLES
    return scale.ledger_digest(mongo.database(settings))


def check_workflow(settings: Settings) -> int:
    """See that the workflow's document says what its jobs do; return the number of its jobs."""
    database = mongo.database(settings)
    (workflow,) = database["workflows"].find()
    states = {
        str(row["fw_id"]): row["state"]
        for row in database["fireworks"].find({}, {"fw_id": 1, "state": 1})
    }
    assert workflow["fw_states"] == states
    assert sorted(map(str, workflow["nodes"])) == sorted(states)
    assert sorted(workflow["links"]) == sorted(states)
    parents: dict[str, set[int]] = {}
    for parent, children in workflow["links"].items():
        for child in children:
            parents.setdefault(str(child), set()).add(int(parent))
    assert {child: set(of) for child, of in workflow["parent_links"].items()} == parents
    return len(states)


@pytest.mark.parametrize("budget", [None, 20])
def test_a_shared_campaign_has_the_ledger_of_one_that_is_not(
    prepared, scale, monkeypatch, request, budget
):
    own, name = prepared("whole", budget)
    worker.run_worker(own)
    expected = ledger(scale, own, name)
    few = check_workflow(own)

    request.getfixturevalue("narrow")
    own, name = prepared("shared", budget)
    run_one = worker._Worker.run_one

    def checked(this: Any) -> bool:
        ran: bool = run_one(this)
        check_workflow(own)
        return ran

    monkeypatch.setattr(worker._Worker, "run_one", checked)
    worker.run_worker(own)
    assert ledger(scale, own, name) == expected
    assert check_workflow(own) > few
    (workflow,) = mongo.database(own)["workflows"].find()
    assert workflow["state"] == "COMPLETED"
    reached = mongo.database(own)["candidates"].count_documents({"relaxations": {"$ne": []}})
    assert reached == (20 if budget else reached)


def test_a_lost_share_holds_back_its_own_crystals_alone(prepared, scale, narrow, monkeypatch):
    own, name = prepared("undisturbed")
    worker.run_worker(own)
    expected = ledger(scale, own, name)

    own, name = prepared("disturbed")
    judge, seen = deduplicate.judge_novelty, []

    def lose(crystals: Any, compared: Any) -> Any:
        seen.append([*crystals])
        if len(seen) == 2:
            raise RuntimeError("the node went away")
        return judge(crystals, compared)

    with monkeypatch.context() as disturbed:
        disturbed.setattr(deduplicate, "judge_novelty", lose)
        worker.run_worker(own)
    progress = operations.progress(name, own)
    document = operations.campaign_document(name, own)
    lost = operations.lost_candidates(operations.stored_campaign(document), progress.failures)
    assert set(seen[1]) <= set(lost)
    assert len(lost) < SAMPLES / 2
    assert "the node went away" in lost[seen[1][0]][0].reason
    scale.collect(name)
    candidates = mongo.database(own)["candidates"]
    failed = {row["_id"] for row in candidates.find({"reason_class": "job_failed"})}
    assert set(seen[1]) <= failed <= set(lost)
    assert candidates.count_documents({"status": "passed"}) > 0

    assert len(operations.restart(name, own, max_attempts=5).rerun) == 1
    worker.run_worker(own)
    assert launchpad.failures(own, name) == []
    assert ledger(scale, own, name) == expected
    check_workflow(own)


def test_budgets_are_counted_over_all_compositions(prepared):
    own, name = prepared("counted", 20)
    document = operations.campaign_document(name, own)
    campaign = operations.stored_campaign(document)
    storage = MongoStorage(mongo.database(own))
    deduplicate.run(campaign, [], storage)
    (rung,) = campaign.rungs
    passing = list(storage.going_on(name, "deduplicate"))
    assert relax.count_chosen(campaign, rung, storage) == 20
    chosen = {ref.id for ref in relax.choose(campaign, rung, storage)}
    assert chosen == {row.candidate_id for row in passing[:20]}
    everybody = [row.candidate_id for row in passing]
    assert relax.among_chosen(campaign, rung, storage, everybody) == chosen
    others = [row.candidate_id for row in relax.left_out(campaign, rung, storage)]
    assert others == everybody[20:]
