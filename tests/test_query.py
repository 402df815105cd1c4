"""Filters: validated, normalised, and what MongoDB makes of them."""

import ledger_factory as factory
import pytest

from pccd_workflows import query
from pccd_workflows.core.errors import DatabaseError, InputError
from pccd_workflows.execution import mongo
from pccd_workflows.query import CandidateFilter


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("campaign", "$where"),
        ("campaign", "../etc"),
        ("campaign", {"$ne": None}),
        ("campaign", ""),
        ("chemsys", "Mg-Xx"),
        ("chemsys", "Mg-$gt"),
        ("chemsys", "Mg-Mg"),
        ("chemsys", ""),
        ("formula", "$ne"),
        ("formula", "MgXy2"),
        ("formula", ""),
        ("formula", "2"),
        ("elements", ("Mg", "D")),
        ("elements", ("$all",)),
        ("max_ehull", float("nan")),
        ("max_ehull", 80.0),
        ("status", "alive"),
        ("phonons", "maybe"),
        ("phonons", {"$ne": None}),
        ("stage", "dance"),
        ("stage", "dance:chgnet"),
        ("status", {"$gt": ""}),
        ("stage", "hull:$where"),
        ("reason_class", "$regex"),
        ("limit", 0),
        ("limit", 10**9),
        ("sort", "$natural"),
        ("sort", "structure"),
    ],
)
def test_refuses_what_no_field_can_hold(field, value):
    with pytest.raises(InputError) as caught:
        CandidateFilter(**{field: value})
    assert len(str(caught.value).splitlines()) == 1


def test_milli_electron_volts_are_explained():
    with pytest.raises(InputError, match=r"80 meV/atom is 0\.08"):
        CandidateFilter(max_ehull=80.0)


@pytest.mark.parametrize("text", ["O-Mg-Mn", "Mg-Mn-O", "Mn-O-Mg"])
def test_chemical_systems_are_the_same_in_any_order(text):
    assert CandidateFilter(chemsys=text).chemsys == "Mg-Mn-O"


@pytest.mark.parametrize(("text", "expected"), [("O2Mg2", "MgO"), ("O4Mn2Mg", "MgMn2O4")])
def test_formulas_are_reduced(text, expected):
    assert CandidateFilter(formula=text).formula == expected


def test_an_empty_filter_asks_for_everything():
    assert CandidateFilter().to_mongo() == {}
    assert CandidateFilter().describe() == ""


def test_the_query_names_each_condition():
    which = CandidateFilter(campaign="a-b", elements=("Mg",), max_ehull=0.08, novel=False)
    assert which.to_mongo() == {
        "novel": {"$eq": False},
        "$or": [{"campaign": "a-b"}, {"campaign_id": "a-b"}],
        "elements": {"$all": ["Mg"]},
        "energy_above_hull": {"$lte": 0.08},
    }
    assert which.describe() == "--campaign a-b --max-ehull 0.08 --element Mg --known"


@pytest.fixture
def candidates(settings):
    docs = [
        factory.judged(0, "MgMn2O4", above=0.05, kind="new_structure_type"),
        factory.judged(1, "MgO", above=0.0, novel=False),
        factory.judged(2, "MgMnO3", above=0.3, phonons="stable"),
        factory.rejected(3, "too_close"),
        factory.undecoded(4),
    ]
    collection = mongo.database(settings)["candidates"]
    collection.insert_many([d.model_dump(mode="json") | {"_id": d.candidate_id} for d in docs])
    return collection


def indices(collection, **values):
    return [row["index"] for row in query.find_documents(collection, CandidateFilter(**values))]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [1, 0, 2, 3, 4]),
        ({"sort": "-energy_above_hull"}, [2, 0, 1, 3, 4]),
        ({"sort": "-index"}, [4, 3, 2, 1, 0]),
        ({"campaign": "mg-mn-o", "limit": 2}, [1, 0]),
        ({"campaign": factory.campaign().campaign_id, "limit": 4}, [1, 0, 2, 3]),
        ({"campaign": "other"}, []),
        ({"chemsys": "O-Mg-Mn"}, [0, 2]),
        ({"formula": "OMg"}, [1, 3]),
        ({"elements": ("O", "Mn")}, [0, 2]),
        ({"max_ehull": 0.05}, [1, 0]),
        ({"novel": False}, [1]),
        ({"kind": "new_structure_type"}, [0]),
        ({"phonons": "stable"}, [2]),
        ({"status": "passed"}, [1, 0]),
        ({"stage": "hull:chgnet"}, [1, 0]),
        ({"reason_class": "too_close"}, [3]),
    ],
)
def test_mongodb_answers_as_meant(candidates, values, expected):
    assert indices(candidates, **values) == expected


@pytest.mark.parametrize("skip", range(6))
def test_pages_continue_across_crystals_without_energy(candidates, skip):
    rows = query.find_documents(candidates, CandidateFilter(), skip=skip, limit=2)
    assert [row["index"] for row in rows] == [1, 0, 2, 3, 4][skip : skip + 2]


def test_summaries_leave_the_heavy_parts_out(candidates):
    rows = query.find_documents(candidates, CandidateFilter(), fields=query.SUMMARY_FIELDS)
    assert set(next(rows)) == set(query.SUMMARY_FIELDS)


def test_a_unique_beginning_of_an_id_is_enough(candidates):
    whole = factory.campaign().candidate_id(2)
    assert query.find_candidate(candidates, whole).candidate_id == whole
    with pytest.raises(InputError, match="may mean"):
        query.find_candidate(candidates, whole[:-1])
    candidates.delete_many({"_id": {"$ne": whole}})
    assert query.find_candidate(candidates, "mg-mn").candidate_id == whole


def other_campaign(collection, name, submitted):
    """Store one crystal, number 7, of another campaign; return its id."""
    which = factory.campaign(name=name, description=f"submitted {submitted}")
    doc = factory.judged(7, which=which)
    collection.insert_one(doc.model_dump(mode="json") | {"_id": doc.candidate_id})
    document = factory.campaign_document(which)
    document["submitted_at"] = document["submitted_at"].replace(year=submitted)
    collection.database["campaigns"].insert_one(document)
    return doc.candidate_id


def test_a_number_means_the_latest_campaign(candidates):
    candidates.database["campaigns"].insert_one(factory.campaign_document())
    older = other_campaign(candidates, "older", 2020)
    newer = other_campaign(candidates, "newer", 2030)
    assert query.find_candidate(candidates, "7").candidate_id == newer
    assert query.find_candidate(candidates, "older-7").candidate_id == older
    with pytest.raises(InputError, match="There is no candidate '1'"):
        query.find_candidate(candidates, "1")


def test_the_latest_campaign_of_a_name_counts(candidates):
    newer = other_campaign(candidates, "twice", 2030)
    other_campaign(candidates, "twice", 2029)
    assert query.find_candidate(candidates, "twice-7").candidate_id == newer


def test_short_ids_find_their_candidate(candidates):
    other_campaign(candidates, "older", 2020)
    campaigns = query.campaign_ids(candidates)
    for row in candidates.find({}, ["campaign_id", "index"]):
        name = query.short_id(row["campaign_id"], row["index"], campaigns)
        assert query.find_candidate(candidates, name).candidate_id == row["_id"]
        assert len(name) <= 6


@pytest.mark.parametrize(
    ("campaigns", "expected"),
    [
        (["a-0f3a111111", "b-1f3a222222"], "0f3a-11"),
        (["a-0f3a111111", "b-0f3a222222"], "0f3a1-11"),
        (["a-0f3a111111", "0f3a-2222222222"], "0f3a1-11"),
        (["a-0f3a111111", "0f3abc-2222222222"], "0f3a1-11"),
        (["a-0f3a111111", "b-0f3a111111"], "a-0f3a111111-11"),
    ],
)
def test_short_ids_are_long_enough_to_be_unique(campaigns, expected):
    assert query.short_id("a-0f3a111111", 11, campaigns) == expected


def test_the_beginning_of_a_number_is_no_number(candidates):
    """An id that was cut while copying must not show another crystal."""
    with pytest.raises(InputError, match="may mean"):
        query.find_candidate(candidates, factory.campaign().candidate_id(0)[:-2])


def test_ambiguous_is_a_verdict_of_its_own(candidates):
    confirmed = factory.judged(11, phonons="ambiguous")
    second = factory.phonon_record("stable", 14, "7net-0")
    update = {"phonons": [*confirmed.phonons, second], "phonon_stable": True}
    for doc in (
        factory.judged(10, phonons="ambiguous"),
        confirmed.model_copy(update=update),
        factory.judged(12, phonons="unstable"),
    ):
        candidates.insert_one(doc.model_dump(mode="json") | {"_id": doc.candidate_id})
    assert indices(candidates, phonons="ambiguous") == [10]
    assert sorted(indices(candidates, phonons="stable")) == [2, 11]
    assert indices(candidates, phonons="unstable") == [12]
    assert CandidateFilter(phonons="ambiguous").describe() == "--phonons ambiguous"


@pytest.mark.parametrize("name", ["nothing", "$gt", ".*", "mg-mn-o\x00"])
def test_ids_are_names_not_patterns(candidates, name):
    with pytest.raises(InputError):
        query.find_candidate(candidates, name)


def test_documents_of_a_newer_version_are_refused(candidates):
    candidates.update_many({}, {"$set": {"schema_version": 99}})
    with pytest.raises(DatabaseError, match="newer"):
        query.find_candidate(candidates, factory.campaign().candidate_id(0))


def test_stored_candidates_come_back_whole(candidates):
    doc = factory.judged(2, "MgMnO3", above=0.3, phonons="stable")
    assert query.find_candidate(candidates, doc.candidate_id) == doc
