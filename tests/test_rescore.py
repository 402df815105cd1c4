"""Another snapshot, the same energies: which verdicts flip, and why."""

import json

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution import mongo
from pccd_workflows.generators.request import Generation
from pccd_workflows.rescore import rejudge, rescore, rescore_campaign, store_rescored
from pccd_workflows.stages.hull import Stability

ELEMENTS = [("Mg", "mg", -1.6), ("O2", "o", -5.0)]
MGO = ("MgO", "mgo", -6.3)  # 3.0 eV/atom below its elements


def snapshot(*phases, level="chgnet", convention="mp2020", chemsys="Mg-O"):
    """phases: formula, id, energy in eV/atom."""
    entries = []
    for formula, identifier, energy in phases:
        entry = ReferenceEntry(entry_id=identifier, formula=formula, energy=0.0)
        total = energy * entry.composition.num_atoms
        entries.append(entry.model_copy(update={"energy": total}))
    return ReferenceSet(
        source="file", chemsys=chemsys, level=level, convention=convention, entries=entries
    )


def crystal(formula):
    symbols = {"MgO": ["Mg", "O"], "MgO2": ["Mg", "O", "O"], "Mg2O": ["Mg", "Mg", "O"]}[formula]
    sites = [[0.31 * i, 0.31 * i, 0.31 * i] for i in range(len(symbols))]
    return Structure(Lattice.cubic(4.0), symbols, sites)


def candidate(index, formula, energy, judged_with, *, threshold=0.1):
    """energy: eV/atom. Its stability is what the funnel would have stored."""
    structure = crystal(formula)
    relaxation = Relaxation(
        level="chgnet",
        key=f"key-{index}",
        verdict="converged",
        structure=structure,
        energy=energy * len(structure),
        convention="mp2020",
    )
    blank = Stability(
        level="chgnet", passed=True, references=judged_with.reference_id, threshold=threshold
    )
    document = CandidateDoc(
        candidate_id=f"mgo-0123456789-{index:06d}",
        campaign_id="mgo-0123456789",
        campaign="mgo",
        index=index,
        formula_pretty=formula,
        elements=["Mg", "O"],
        generation=Generation(
            model="m", weights_sha256="0" * 64, seed=0, index=index, elements=["Mg", "O"]
        ),
        relaxations=[relaxation],
        stabilities=[blank],
    )
    (now,) = rejudge([document], judged_with, judged_with)
    return document.model_copy(update={"stabilities": [now.after]})


OLD = snapshot(*ELEMENTS, MGO)


def test_the_same_snapshot_flips_nothing():
    candidates = [candidate(n, "MgO", -6.35 + 0.05 * n, OLD) for n in range(4)]
    above = [c.stabilities[0].energy_above_hull for c in candidates]
    assert above == pytest.approx([-0.05, 0.0, 0.05, 0.10])
    assert rescore(candidates, OLD, OLD) == []
    assert len(rejudge(candidates, OLD, OLD)) == 4


@pytest.mark.parametrize("energy", [-6.35, -6.25])
@pytest.mark.parametrize("what", ["duplicate", "known"])
def test_a_crystal_that_is_another_one_stays_so_on_any_hull(what, energy):
    """Refused for what it is; on the energy alone it would be kept, or below the hull."""
    found = candidate(1, "MgO", energy, OLD)
    refused = found.stabilities[0].model_copy(
        update={"passed": False, "reason_class": what, "reason": "Relaxed to the same crystal."}
    )
    same = found.model_copy(update={"stabilities": [refused]})
    assert rescore([same], OLD, OLD) == []
    lower = snapshot(*ELEMENTS, ("MgO", "mgo", -6.2))
    (again,) = rejudge([same], OLD, lower)
    assert again.verdicts == ("rejected", "rejected")
    assert (again.after.reason_class, again.after.reason) == (what, refused.reason)
    higher = snapshot(*ELEMENTS, ("MgO", "mgo", -6.5))
    (again,) = rejudge([same], OLD, higher)
    assert again.after.reason_class == "above_threshold"


def test_a_phase_that_moved_is_named_with_its_shift():
    new = snapshot(*ELEMENTS, ("MgO", "mgo", -6.38))
    kept = candidate(1, "MgO", -6.25, OLD)  # 50 meV/atom above before, 130 now
    (flip,) = rescore([kept], OLD, new)
    assert flip.verdicts == ("kept", "rejected")
    assert flip.before.energy_above_hull == pytest.approx(0.05)
    assert flip.after.energy_above_hull == pytest.approx(0.13)
    assert flip.after.references == new.reference_id
    assert flip.reason == "MgO (mgo) moved down by 80.0 meV/atom"
    assert flip.after.reason == "0.130 eV/atom above the hull, more than 0.1."


def test_a_lower_polymorph_is_a_move_of_its_composition():
    new = snapshot(*ELEMENTS, MGO, ("MgO", "mgo-b", -6.4))
    (flip,) = rescore([candidate(1, "MgO", -6.25, OLD)], OLD, new)
    assert flip.reason == "MgO (mgo-b, before mgo) moved down by 100.0 meV/atom"


def test_a_ground_state_that_somebody_else_found_is_one_no_more():
    found = candidate(1, "MgO2", -5.9, OLD)
    # MgO2 = 2/3 MgO + 1/3 O: -5.8667 eV/atom on the old hull
    assert found.stabilities[0].energy_above_hull == pytest.approx(-0.0333, abs=1e-4)
    new = snapshot(*ELEMENTS, MGO, ("MgO2", "mgo2", -5.95))
    (flip,) = rescore([found], OLD, new)
    assert flip.verdicts == ("below the hull", "kept")
    assert flip.after.energy_above_hull == pytest.approx(0.05)
    assert flip.reason == "MgO2 (mgo2) appeared"


def test_a_phase_that_vanished_makes_a_rejected_crystal_pass():
    before = snapshot(*ELEMENTS, MGO, ("MgO2", "mgo2", -6.1))
    rejected = candidate(1, "MgO2", -5.9, before)
    (flip,) = rescore([rejected], before, OLD)
    assert flip.verdicts == ("rejected", "below the hull")
    assert flip.reason == "MgO2 (mgo2) is gone"


def test_what_lies_off_the_tie_line_is_no_cause():
    new = snapshot(*ELEMENTS, ("MgO", "mgo", -6.38), ("Mg2O", "mg2o", -5.0))
    (flip,) = rescore([candidate(1, "MgO2", -5.85, OLD, threshold=0.03)], OLD, new)
    assert flip.reason == "MgO (mgo) moved down by 80.0 meV/atom"


def test_another_limit_flips_too_and_says_so():
    near = candidate(1, "MgO", -6.25, OLD)
    (flip,) = rescore([near], OLD, OLD, {"chgnet": 0.02})
    assert flip.verdicts == ("kept", "rejected")
    assert flip.reason == "the limit is 0.02, not 0.1"
    assert rescore([near], OLD, OLD, {"7net-0": 0.0}) == []


def test_a_stored_verdict_that_cannot_be_repeated_is_called_so():
    near = candidate(1, "MgO", -6.25, OLD)
    odd = near.stabilities[0].model_copy(update={"energy_above_hull": -0.2})
    (flip,) = rescore([near.model_copy(update={"stabilities": [odd]})], OLD, OLD)
    assert flip.verdicts == ("below the hull", "kept")
    assert flip.reason == "the stored verdict is not repeatable: 0.050 eV/atom"


def test_the_largest_moves_come_first():
    new = snapshot(*ELEMENTS, ("MgO", "mgo", -6.5), ("MgO2", "mgo2", -6.3))
    candidates = [candidate(1, "MgO", -6.21, OLD), candidate(2, "MgO2", -5.8, OLD)]
    assert [flip.formula for flip in rescore(candidates, OLD, new)] == ["MgO2", "MgO"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"level": "7net-0"}, "level '7net-0'"), ({"convention": "uncorrected"}, "energy convention")],
)
def test_snapshots_of_another_kind_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        rescore([], OLD, snapshot(*ELEMENTS, MGO, **change))


def test_only_what_both_snapshots_cover_is_judged():
    near = candidate(1, "MgO", -6.25, OLD)
    elsewhere = snapshot(("Mn", "mn", -9.0), ELEMENTS[1], chemsys="Mn-O")
    assert rejudge([near], OLD, elsewhere) == []
    assert rejudge([near], elsewhere, OLD) == []  # judged against OLD, not elsewhere
    with pytest.raises(InputError, match="no elemental phase of Mg"):
        rejudge([near], OLD, snapshot(ELEMENTS[1], MGO))


def test_a_campaign_is_rescored_from_the_database_and_loses_nothing(settings):
    database = mongo.database(settings)
    new = snapshot(*ELEMENTS, ("MgO", "mgo", -6.38))
    mongo.put_reference_set(database, OLD)
    candidates = [candidate(1, "MgO", -6.25, OLD), candidate(2, "MgO", -6.29, OLD)]
    rows = [{**c.model_dump(mode="json"), "_id": c.candidate_id} for c in candidates]
    database["candidates"].insert_many(rows)
    stored = json.dumps(list(database["candidates"].find()), default=str)

    result = rescore_campaign(database, "mgo-0123456789", new)
    assert [flip.candidate_id for flip in result.flips] == [candidates[0].candidate_id]
    assert (len(result.rejudged), result.not_covered) == (2, 0)
    assert database["rescores"].count_documents({}) == 0

    assert store_rescored(database, "mgo-0123456789", result) == 2
    assert store_rescored(database, "mgo-0123456789", result) == 2  # again: the same documents
    assert database["rescores"].count_documents({}) == 2
    kept = database["rescores"].find_one({"flipped": True})
    assert kept["candidate_id"] == candidates[0].candidate_id
    assert kept["stability"]["energy_above_hull"] == pytest.approx(0.13)
    assert (kept["references"], kept["former_references"]) == (new.reference_id, OLD.reference_id)
    assert json.dumps(list(database["candidates"].find()), default=str) == stored

    elsewhere = snapshot(("Mn", "mn", -9.0), ELEMENTS[1], chemsys="Mn-O")
    assert rescore_campaign(database, "mgo-0123456789", elsewhere).not_covered == 2
    with pytest.raises(InputError, match="was judged at level '7net-0'"):
        rescore_campaign(database, "mgo-0123456789", snapshot(*ELEMENTS, level="7net-0"))
    database["references"].delete_many({})
    with pytest.raises(InputError, match="is not in the database any more"):
        rescore_campaign(database, "mgo-0123456789", new)


def test_the_id_of_a_set_follows_its_content():
    """Copies with other entries have another id, also if the original's was asked for before."""
    assert OLD.reference_id == snapshot(*ELEMENTS[::-1], MGO).reference_id
    entries = [*OLD.entries[:-1], OLD.entries[-1].model_copy(update={"energy": -12.8})]
    expected = snapshot(*ELEMENTS, ("MgO", "mgo", -6.4)).reference_id
    assert expected != OLD.reference_id
    copies = [
        OLD.model_copy(update={"entries": entries}),
        ReferenceSet.model_validate({**dict(OLD), "entries": entries}),
        ReferenceSet.model_validate({**OLD.model_dump(), "entries": entries}),
    ]
    assert [copy.reference_id for copy in copies] == [expected] * 3
    mutable = OLD.model_copy(update={"entries": list(OLD.entries)})
    mutable.entries[:] = entries
    assert mutable.reference_id == expected
    assert OLD.model_copy() == OLD
