"""Storage in memory, in a folder and in MongoDB: one contract."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.progress import watched
from pccd_workflows.core.reference_set import MissingPhase, ReferenceEntry, ReferenceSet
from pccd_workflows.core.storage import (
    StageRow,
    load_crystals,
    store_crystals,
    structure_key,
)
from pccd_workflows.engines.records import SinglePoint
from pccd_workflows.execution import mongo
from pccd_workflows.execution.memory import FolderStorage, MemoryStorage
from pccd_workflows.execution.mongo_storage import MongoStorage, mongo_storage
from pccd_workflows.execution.storage import current_storage, use_storage
from pccd_workflows.following import long_jobs, missing_phases
from pccd_workflows.jobs.common import job_storage, plain_job

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
RECORD = SinglePoint(energy_per_atom=-3.4)


@pytest.fixture(params=["memory", "folder", "mongodb"])
def storage(request, tmp_path):
    if request.param == "mongodb":
        settings = request.getfixturevalue("settings")
        mongo.ensure_indexes(mongo.database(settings))
        return mongo_storage(settings)
    return MemoryStorage() if request.param == "memory" else FolderStorage(tmp_path / "results")


def row(index: int, stage: str = "generate", **fields) -> StageRow:
    return StageRow(
        **{
            "campaign_id": "c",
            "candidate_id": f"c-{index:06d}",
            "index": index,
            "stage": stage,
            "record": RECORD.model_dump(mode="json"),
            **fields,
        }
    )


def test_the_first_result_under_a_key_stays(storage):
    assert storage.get_result("k" * 64) is None
    storage.put_result("k" * 64, "relaxation", {"energy": -1.0})
    if not isinstance(storage, FolderStorage):  # files are replaced whole, by the same content
        storage.put_result("k" * 64, "relaxation", {"energy": -2.0})
    assert storage.get_result("k" * 64) == {"energy": -1.0}
    storage.drop_results(["k" * 64, "none"])
    assert storage.get_result("k" * 64) is None


def test_results_that_are_expected_are_read_once_and_never_taken_for_others(storage):
    keys = [letter * 64 for letter in "abc"]
    storage.put_result(keys[0], "relaxation", {"energy": 0.0})
    storage.expect_results(keys)
    assert [storage.get_result(key) for key in keys[:2]] == [{"energy": 0.0}, None]
    storage.put_result(keys[1], "relaxation", {"energy": 1.0})
    assert [storage.get_result(keys[1]) for _ in range(2)] == [{"energy": 1.0}] * 2
    storage.expect_results(keys)
    storage.drop_results(keys[:1])
    assert storage.get_result(keys[0]) is None
    if isinstance(storage, MongoStorage):  # another worker was faster: its result is everybody's
        other = MongoStorage(storage.database)
        other.put_result(keys[2], "relaxation", {"energy": 2.0})
        assert storage.get_result(keys[2]) is None
        storage.put_result(keys[2], "relaxation", {"energy": 2.5})
        assert storage.get_result(keys[2]) == {"energy": 2.0}


def test_structures_can_be_read_as_they_are_stored(storage):
    (ref,) = store_crystals(storage, [("a", SALT)])
    found = storage.structure_documents([ref.key, "none"])
    assert set(found) == {ref.key}
    assert Structure.from_dict(found[ref.key]) == SALT


def test_crystals_are_handed_over_by_reference(storage):
    magnetic = SALT.copy(site_properties={"magmom": [1.0] * 4 + [0.0] * 4})
    refs = store_crystals(storage, [("a", SALT), ("b", magnetic)])
    assert [ref.key for ref in refs] == [structure_key(SALT), structure_key(magnetic)]
    assert refs[0].key != refs[1].key
    found = load_crystals(storage, refs)
    assert found == [SALT, magnetic]
    assert found[1].site_properties["magmom"] == magnetic.site_properties["magmom"]
    with pytest.raises(LookupError, match="of gone are not stored"):
        load_crystals(storage, [replace(refs[0], id="gone", key="0" * 64)])


def test_rows_come_by_rank_and_are_replaced(storage):
    storage.put_rows([row(i, goes_on=i != 1, rank=float(-i)) for i in range(4)])
    storage.put_rows([row(0, "screen"), row(7, campaign_id="other")])
    assert [r.index for r in storage.rows("c", "generate")] == [3, 2, 1, 0]
    assert [r.index for r in storage.rows("c", "generate", goes_on=True, limit=2)] == [3, 2]
    assert [r.index for r in storage.rows("c", "generate", indices=(1, 3))] == [2, 1]
    assert [r.index for r in storage.rows("c", "generate", ids=["c-000003"])] == [3]
    storage.put_rows([row(3, rank=9.0)])
    assert [r.index for r in storage.rows("c", "generate")] == [2, 1, 0, 3]
    assert {r.stage for r in storage.rows_of("c", ["c-000000"])} == {"generate", "screen"}
    assert next(storage.rows("c", "screen")).read(SinglePoint) == RECORD


def test_what_changed_since_is_found(storage):
    storage.put_rows([row(0), row(1)])
    ids, latest = storage.changed("c", None)
    assert ids == ["c-000000", "c-000001"]
    assert abs(latest - datetime.now(UTC)) < timedelta(minutes=1)
    assert storage.changed("c", latest + timedelta(seconds=1)) == ([], None)
    assert storage.changed("none", None) == ([], None)


def test_reference_sets_are_found_by_what_they_are_for(storage):
    entries = [ReferenceEntry(entry_id="Na", formula="Na1", energy=-1.0)]
    whole = ReferenceSet(
        source="file", chemsys="Na", level="chgnet", convention="mp2020", entries=entries
    )
    assert storage.find_references("file", "Na", "chgnet") is None
    assert storage.put_references(whole) == whole.reference_id
    assert storage.find_references("file", "Na", "chgnet").entries == entries
    assert storage.find_references("file", "Na", "7net-0") is None
    assert storage.get_references(whole.reference_id).entries == entries


def test_costs_of_a_campaign_at_a_level(storage):
    for campaign_id, hours in (("c", 1.5), ("c", 2.0), ("other", 9.0)):
        storage.note_cost({"campaign_id": campaign_id, "level": "vasp/mp-gga", "core_hours": hours})
    assert storage.spent("c", "vasp/mp-gga") == 3.5
    assert storage.spent("c", "chgnet") == 0.0


def test_checkpoints_are_replaced_and_forgotten(storage):
    assert storage.get_checkpoint("run") is None
    storage.put_checkpoint("run", {"folder": "a"})
    storage.put_checkpoint("run", {"folder": "b"})
    assert storage.get_checkpoint("run")["folder"] == "b"
    storage.drop_checkpoint("run")
    assert storage.get_checkpoint("run") is None


def test_results_of_a_folder_outlive_the_process(tmp_path):
    FolderStorage(tmp_path).put_result("ab" * 32, "relaxation", {"energy": -1.0})
    assert FolderStorage(tmp_path).get_result("ab" * 32) == {"energy": -1.0}
    path = tmp_path / "ab" / f"{'ab' * 32}.json"
    assert json.loads(path.read_text()) == {"energy": -1.0}
    path.write_text('{"energy": -1.')
    assert FolderStorage(tmp_path).get_result("ab" * 32) is None


@plain_job
def write_row(index: int) -> str:
    with job_storage() as storage:
        storage.put_rows([row(index)])
        return type(storage).__name__


def test_a_job_finds_its_storage_beside_its_store():
    stores = [JobStore(MemoryStore(), additional_stores={"data": MemoryStore()}) for _ in range(2)]
    for index, store in enumerate(stores):
        job = write_row(index)
        ran = run_locally(Flow([job]), store=store, log=False)
        assert ran[job.uuid][1].output == "MemoryStorage"
        found = vars(store.docs_store)["_pccd_storage"]
        (written,) = found.rows("c", "generate")
        assert (written.index, written.job) == (index, job.uuid)


def test_a_given_storage_comes_first(settings):
    given = MemoryStorage()
    with use_storage(given):
        assert current_storage() is given
    assert isinstance(current_storage(), MongoStorage)


def test_history_is_what_had_finished_when_a_campaign_was_submitted(settings):
    """By id, as its document says; of older documents, what was submitted before."""
    database = mongo.database(settings)
    now = datetime.now(UTC)
    database["campaigns"].insert_many(
        [
            {"_id": "early", "submitted_at": now - timedelta(hours=3)},
            {"_id": "twin", "submitted_at": now - timedelta(hours=1)},
            {"_id": "mine", "submitted_at": now, "history": ["early"]},
            {"_id": "older", "submitted_at": now - timedelta(hours=2)},
            {"_id": "late", "submitted_at": now + timedelta(hours=1)},
        ]
    )
    crystal = {
        "formula_pretty": "NaCl",
        "structure": SALT.as_dict(),
        "stage": "hull:chgnet",
        "novelty": {"duplicate_of": None},
    }
    database["candidates"].insert_many(
        [
            {"_id": f"{name}-0", "campaign_id": name, "index": 0, **crystal}
            for name in ("early", "twin", "mine", "older", "late")
        ]
    )
    storage = mongo_storage(settings)
    assert [name for name, _ in storage.history("mine", ["NaCl"])] == ["early-0"]
    assert [name for name, _ in storage.history("older", ["NaCl"])] == ["early-0"]
    assert list(storage.history("mine", ["MgO"])) == []


def test_how_far_a_job_is_is_noted_until_it_is_done(settings):
    storage, database = mongo_storage(settings), mongo.database(settings)
    for done in (1, 2, 3):
        storage.note_progress("c", "hull of Na-Cl at chgnet: relaxing", done, 4)
    (job,) = long_jobs("c", settings)
    assert (job.what, job.done, job.total) == ("hull of Na-Cl at chgnet: relaxing", 1, 4)
    assert long_jobs("another", settings) == []
    storage.note_progress("c", "hull of Na-Cl at chgnet: relaxing", 4, 4)
    assert database["progress"].count_documents({}) == 0


def test_what_the_hulls_of_a_campaign_lack_is_read_from_their_sets(settings):
    lacking = MissingPhase(
        id="mp-1",
        chemsys="Cl-Na",
        formula="NaCl3",
        energy_above_hull=0.0,
        shift=0.02,
        n_same_composition=0,
    )
    entry = ReferenceEntry(entry_id="Na", formula="Na1", energy=-1.3)
    found = ReferenceSet(
        source="known",
        chemsys="Cl-Na",
        level="chgnet",
        convention="mp2020",
        entries=[entry],
        missing=[lacking],
    )
    storage, database = mongo_storage(settings), mongo.database(settings)
    stored = storage.put_references(found)
    assert storage.get_references(stored).missing == [lacking]
    judged = {"stabilities": [{"references": stored}], "index": 0}
    database["candidates"].insert_one({"_id": "c-0", "campaign_id": "c", **judged})
    assert missing_phases("c", settings) == {"Cl-Na": [lacking]}
    assert missing_phases("another", settings) == {}


def test_in_memory_progress_is_told_to_whoever_watches():
    told = []
    with watched(lambda *each: told.append(each)):
        MemoryStorage().note_progress("c", "relaxing", 1, 2)
    MemoryStorage().note_progress("c", "relaxing", 2, 2)
    assert told == [("relaxing", 1, 2)]
