"""The fold from what stages say to candidate documents."""

import itertools
import time
from datetime import timedelta

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows import collect
from pccd_workflows.analysis.screening import Screening
from pccd_workflows.campaign import Campaign
from pccd_workflows.collect import Collector, Loss, fold
from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.core.storage import StageRow, structure_key
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.execution import mongo
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Novelty, SetNovelty
from pccd_workflows.operations import stored_campaign
from pccd_workflows.report.card import novelty_badge
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.hull import Stability

CAMPAIGN = Campaign.model_validate(
    {
        "name": "fold",
        "generate": {"elements": ["Na", "Cl"], "samples": 3},
        "rungs": [{"level": "chgnet"}],
        "phonons": {"level": "chgnet"},
    }
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
RELAXED = SALT.copy().apply_strain(-0.01)
A, B, C = (CAMPAIGN.candidate_id(i) for i in range(3))


def generation(index: int, **kwargs) -> Generation:
    return Generation(
        model="m", weights_sha256="0", seed=0, index=index, elements=["Na", "Cl"], **kwargs
    )


def relaxation(verdict: str = "converged", **kwargs) -> Relaxation:
    fields = {"structure": RELAXED, "energy": -27.0, "energy_per_atom": -3.4, "seconds": 2.0}
    return Relaxation(level="chgnet", key="k", verdict=verdict, **fields | kwargs)


def stability(above: float, passed: bool = True) -> Stability:
    return Stability(
        level="chgnet",
        passed=passed,
        energy_above_hull=above,
        reason_class=None if passed else "unstable",
        reason=None if passed else "too high",
    )


# by stage: the record of each candidate
OUTPUTS = {
    "generate": {
        A: generation(0),
        B: generation(1, error_class="no_cluster", reason="No sites."),
        C: generation(2),
    },
    "screen": {i: Screening(passed=True) for i in (A, C)},
    "deduplicate": {
        A: Novelty(sets={"references": SetNovelty(known=True, method="m", matched_id="x")}),
        C: Novelty(duplicate_of=A),
    },
    "relax:chgnet": {A: relaxation()},
    "hull:chgnet": {A: stability(0.01)},
    "phonons:chgnet": {
        A: Phonons(level="chgnet", verdict="stable", tolerance=0.1, min_frequency=0.4)
    },
}


def write(storage, stage: str, records: dict, campaign: Campaign = CAMPAIGN) -> None:
    key = structure_key(SALT)
    storage.put_structures({key: SALT})
    storage.put_rows(
        [
            StageRow(
                campaign_id=campaign.campaign_id,
                candidate_id=name,
                index=int(name[-6:]),
                stage=stage,
                record=record.model_dump(mode="json"),
                key=None if getattr(record, "error_class", None) else key,
                job=f"uuid of {stage}",
            )
            for name, record in records.items()
        ]
    )


def folded(outputs: dict, campaign: Campaign = CAMPAIGN, failures=None, storage=None) -> dict:
    storage = storage or MemoryStorage()
    for stage, records in outputs.items():
        write(storage, stage, records, campaign)
    ids, _ = storage.changed(campaign.campaign_id, None)
    return {doc.candidate_id: doc for doc in fold(campaign, storage, ids, failures)}


def test_a_candidate_that_went_through_everything_is_complete():
    document = folded(OUTPUTS)[A]
    assert document.status == "passed"
    assert document.stage == "phonons:chgnet"
    assert document.energy_above_hull == 0.01
    assert document.novel is False
    assert document.phonon_stable is True
    assert document.structure == RELAXED
    assert document.spacegroup == "Fm-3m"
    assert (document.formula_pretty, document.chemsys) == ("NaCl", "Cl-Na")
    assert document.jobs["hull:chgnet"] == "uuid of hull:chgnet"
    assert document.seconds == {"relax:chgnet": 2.0}


def test_a_band_gap_is_recorded_and_decides_nothing():
    level = "vasp/mp-gga"
    campaign = Campaign.model_validate(
        CAMPAIGN.resolved() | {"rungs": [{"level": level, "band_structure": True}], "phonons": None}
    )
    ids = [campaign.candidate_id(i) for i in range(2)]
    hull = {i: stability(0.01).model_copy(update={"level": level}) for i in ids}
    gap = Bands(level=level, is_metal=False, band_gap=5.1, direct=True, seconds=9.0)
    outputs = {
        "generate": {key: generation(i) for i, key in enumerate(ids)},
        f"hull:{level}": hull,
        f"bands:{level}": {ids[0]: gap, ids[1]: Bands(level=level, reason="spent")},
    }
    computed, skipped = folded(outputs, campaign).values()
    assert (computed.status, computed.stage, computed.band_gap) == ("passed", f"bands:{level}", 5.1)
    assert computed.band_structures == [gap]
    assert computed.seconds == {f"bands:{level}": 9.0}
    assert (skipped.status, skipped.band_gap) == ("passed", None)
    assert skipped.band_structures[0].reason == "spent"


def test_every_generated_crystal_keeps_a_document_with_its_reason():
    documents = folded(OUTPUTS)
    assert set(documents) == {A, B, C}
    assert (documents[B].status, documents[B].reason_class) == ("rejected", "no_cluster")
    assert documents[C].reason_class == "duplicate"
    assert A in documents[C].reason


@pytest.mark.parametrize("order", list(itertools.permutations(OUTPUTS))[::40])
def test_order_of_arrival_does_not_matter(order):
    assert folded({stage: OUTPUTS[stage] for stage in order}) == folded(OUTPUTS)


def test_funnel_steps_are_those_of_its_records():
    documents = folded(OUTPUTS)
    assert documents[A].reached == [
        "generated",
        "decoded",
        "screened",
        "unique",
        "relaxed:chgnet",
        "within:chgnet",
        "phonons",
        "stable",
    ]
    assert documents[B].reached == ["generated"]
    assert documents[C].reached == ["generated", "decoded", "screened"]


def collector(settings) -> Collector:
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    query = {"_id": CAMPAIGN.campaign_id}
    database["campaigns"].update_one(query, {"$set": {"name": "fold"}}, upsert=True)
    return Collector(database, MongoStorage(database), CAMPAIGN)


def test_only_what_changed_is_written(settings):
    collecting = collector(settings)
    for stage in ("generate", "screen"):
        write(collecting.storage, stage, OUTPUTS[stage])
    assert collecting.update() == 3
    assert collecting.update() == 0
    before = {row["_id"]: row for row in collecting.database["candidates"].find()}
    write(collecting.storage, "deduplicate", {C: Novelty(duplicate_of=A)})
    # another process goes on where this one stopped
    assert collector(settings).update() == 1
    after = {row["_id"]: row for row in collecting.database["candidates"].find()}
    assert after[C]["reason_class"] == "duplicate"
    assert {i: row for i, row in after.items() if i != C} == {
        i: row for i, row in before.items() if i != C
    }


def test_only_what_changed_is_read(settings, monkeypatch):
    monkeypatch.setattr(collect, "OVERLAP", timedelta(0))
    read = []
    fold = collect.fold

    def watched(campaign, storage, ids, *arguments, **options):
        read.append(list(ids))
        return fold(campaign, storage, ids, *arguments, **options)

    monkeypatch.setattr(collect, "fold", watched)
    collecting = collector(settings)
    for stage in ("generate", "screen"):
        write(collecting.storage, stage, OUTPUTS[stage])
    time.sleep(0.05)
    assert collecting.update() == 3
    write(collecting.storage, "deduplicate", {C: Novelty(duplicate_of=A)})
    time.sleep(0.05)
    assert collector(settings).update() == 1
    assert collecting.update() == 0
    assert read == [[A, B, C], [C], []]


def test_a_document_of_a_newer_version_is_not_overwritten(settings):
    collecting = collector(settings)
    write(collecting.storage, "generate", OUTPUTS["generate"])
    collecting.update()
    newer = {"$set": {"schema_version": 99}}
    collecting.database["candidates"].update_one({"_id": A}, newer)
    write(collecting.storage, "screen", OUTPUTS["screen"])
    with pytest.raises(DatabaseError, match="newer version"):
        collecting.update()
    assert collecting.database["candidates"].find_one({"_id": A})["schema_version"] == 99


def test_a_campaign_keeps_the_identity_it_was_stored_with(settings):
    """An option that a later version adds changes the hash, not the campaign."""
    stored = CAMPAIGN.resolved()
    stored["screen"]["min_distance"] = 0.9  # as if today's defaults gave another hash
    campaign = stored_campaign({"_id": CAMPAIGN.campaign_id, "campaign": stored})
    assert campaign.hash != CAMPAIGN.hash
    assert campaign.campaign_id == CAMPAIGN.campaign_id
    storage = collector(settings).storage
    write(storage, "generate", OUTPUTS["generate"])
    assert Collector(storage.database, storage, campaign).update() == 3


@pytest.mark.parametrize(
    ("stage", "record", "status", "reason_class"),
    [
        (
            "relax:chgnet",
            relaxation("diverged", structure=None, reason="Exploded."),
            "rejected",
            "diverged",
        ),
        ("hull:chgnet", stability(0.9, passed=False), "rejected", "unstable"),
        (
            "phonons:chgnet",
            Phonons(level="chgnet", verdict="unstable", tolerance=0.1),
            "rejected",
            "phonons",
        ),
        (
            "phonons:chgnet",
            Phonons(level="chgnet", verdict="ambiguous", tolerance=0.1),
            "passed",
            None,
        ),
    ],
)
def test_the_stage_that_says_no_decides(stage, record, status, reason_class):
    document = folded({**OUTPUTS, stage: {A: record}})[A]
    assert (document.status, document.reason_class) == (status, reason_class)


def novelty(known: bool, **more) -> Novelty:
    return Novelty(sets={"references": SetNovelty(known=known, method="m", **more)})


@pytest.mark.parametrize(
    ("generated", "relaxed", "novel"),
    [(False, False, True), (True, False, False), (False, True, False), (True, True, False)],
)
def test_known_before_or_after_relaxation_is_known(generated, relaxed, novel):
    """In the document, and in the words of every stage: badge and card agree."""
    hull = stability(0.01).model_copy(update={"novelty": novelty(relaxed).with_kind()})
    outputs = {**OUTPUTS, "deduplicate": {A: novelty(generated)}, "hull:chgnet": {A: hull}}
    doc = folded(outputs)[A]
    assert doc.novel is novel
    assert doc.kind_of_new == ("new_structure_type" if novel else "duplicate")
    said = stage_of("deduplicate").describe(doc.novelty, doc.records).verdict
    assert said == ("new" if novel else "known" if generated else "known once relaxed")
    assert (novelty_badge(doc.novel).text == "new") is novel


def test_what_kind_of_new_a_crystal_is():
    like = {"framework_id": "mp-2"}
    sets = {"library": SetNovelty(known=False, method="m", **like)}
    found = Novelty(sets=sets).with_kind()
    assert (found.kind, found.known_id) == ("substitution", "mp-2")
    before = Novelty(sets={"history": SetNovelty(known=True, matched_id="x-1", method="m")})
    whole = found.after(before)
    assert (whole.kind, whole.known_id, whole.novel) == ("duplicate", "x-1", False)
    assert found.after(None) == found
    nothing = Novelty(sets={"history": SetNovelty(method="not compared")})
    assert nothing.with_kind().kind is None


def test_a_lost_job_shows_until_its_rerun_delivers(settings):
    collecting = collector(settings)
    candidates = collecting.database["candidates"]
    for stage in ("generate", "screen", "deduplicate"):
        write(collecting.storage, stage, OUTPUTS[stage])
    collecting.update()
    assert candidates.find_one({"_id": A})["status"] == "pending"
    lost = {A: [Loss("Job 'relax' failed: MemoryError", "relax:chgnet")]}
    assert collecting.update(lost) == 1
    failed = candidates.find_one({"_id": A})
    assert (failed["status"], failed["reason_class"]) == ("failed", "job_failed")
    assert "MemoryError" in failed["reason"]
    assert collecting.update() == 1
    assert candidates.find_one({"_id": A})["status"] == "pending"
    for stage in ("relax:chgnet", "hull:chgnet", "phonons:chgnet"):
        write(collecting.storage, stage, OUTPUTS[stage])
    collecting.update(lost)  # its batch failed in another crystal: this one was done before
    assert candidates.find_one({"_id": A})["status"] == "passed"


def test_samples_of_a_lost_job_are_in_the_ledger_until_they_are_made(settings):
    collecting = collector(settings)
    candidates = collecting.database["candidates"]
    write(collecting.storage, "generate", {A: generation(0)})
    reason = "Job 'generate 1/1' failed: MemoryError"
    assert collecting.update({name: [Loss(reason, "screen")] for name in (A, B, C)}) == 3
    for name in (A, B, C):
        found = candidates.find_one({"_id": name})
        assert (found["status"], found["reason_class"]) == ("failed", "job_failed")
        assert found["reason"] == reason
    assert candidates.find_one({"_id": B})["reached"] == []
    assert candidates.find_one({"_id": B})["generation"]["elements"] == ["Na", "Cl"]
    collecting.update()  # the job is to be run again
    assert sorted(candidates.distinct("candidate_id")) == [A]
    for stage in ("generate", "screen"):
        write(collecting.storage, stage, OUTPUTS[stage])
    collecting.update()
    assert sorted(candidates.distinct("candidate_id")) == [A, B, C]
    assert candidates.find_one({"_id": C})["status"] == "pending"


def test_candidates_of_earlier_versions_outlive_a_lost_job(settings):
    """They have no rows of stages, and their jobs name no stage."""
    collecting = collector(settings)
    write(collecting.storage, "generate", {A: generation(0)})
    collecting.update({A: [Loss("Job 'relax' failed: MemoryError")]})
    collecting.database["stage_records"].delete_many({})
    assert collecting.update({A: [Loss("Job 'relax' failed: MemoryError")]}) == 0
    assert collecting.update() == 0
    assert collecting.database["candidates"].find_one({"_id": A})["status"] == "failed"
