"""Connections, collections, and what MongoDB's errors become."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from pymatgen.core import Lattice, Structure
from pymongo import MongoClient
from pymongo.errors import (
    AutoReconnect,
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    WriteError,
)

from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.execution import mongo, mongod
from pccd_workflows.settings import Settings

PASSWORD = "s3cret-p4ss"
MGO = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])


def elsewhere(uri: str, **changes) -> Settings:
    return Settings(mongodb_uri=SecretStr(uri), database_timeout=0.5, **changes)


@pytest.fixture
def db(settings):
    found = mongo.database(settings)
    mongo.ensure_indexes(found)
    return found


@pytest.fixture
def reader(settings, mongod_uri) -> Iterator[str]:
    """URI of a user who may only read the test's database."""
    with MongoClient(mongod_uri) as root:
        roles = [{"role": "read", "db": settings.database}]
        root[settings.database].command("createUser", "reader", pwd=PASSWORD, roles=roles)
        host = mongod_uri.rpartition("@")[2].partition("/")[0]
        yield f"mongodb://reader:{PASSWORD}@{host}/?authSource={settings.database}&replicaSet=rs0"
        root[settings.database].command("dropUser", "reader")


def test_the_embedded_server_is_used_when_none_is_configured(tmp_path):
    with pytest.raises(DatabaseError, match="start it with `pccd db start`"):
        mongo.mongodb_uri(Settings(data_dir=tmp_path))
    own = elsewhere("mongodb://mine/")
    assert mongo.mongodb_uri(own) == "mongodb://mine/"


def test_one_client_per_process(settings):
    assert mongo.client(settings) is mongo.client(settings)
    reader, writer = os.pipe()
    here = id(mongo.client(settings))
    child = os.fork()
    if child == 0:
        fresh = mongo.client(settings)
        mongo.database(settings).forked.insert_one({"pid": os.getpid()})
        os.write(writer, b"new" if id(fresh) != here else b"old")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"new"
    assert mongo.database(settings).forked.find_one()["pid"] == child


def test_a_server_that_is_down(free_tcp_port):
    uri = f"mongodb://me:{PASSWORD}@127.0.0.1:{free_tcp_port}/"
    with pytest.raises(DatabaseError) as caught:
        mongo.database(elsewhere(uri))
    assert str(caught.value) == (
        f"MongoDB at 127.0.0.1:{free_tcp_port} does not answer within 0.5 s: "
        "check PCCD_MONGODB_URI and the server."
    )


def test_a_wrong_password(mongod_uri):
    uri = mongod_uri.replace(mongod_uri.split(":")[2].partition("@")[0], PASSWORD)
    with pytest.raises(DatabaseError, match="refuses the user or password of PCCD_M") as caught:
        mongo.database(elsewhere(uri))
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://me:{PASSWORD}/x@host/",
        f"postgres://me:{PASSWORD}@host/",
        f"mongodb://me:{PASSWORD}@host:{PASSWORD}/",
        "mongodb+srv://me@host:1/",
    ],
)
def test_an_address_that_is_none(uri):
    with pytest.raises(DatabaseError, match="not a usable MongoDB address") as caught:
        mongo.database(elsewhere(uri))
    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_user_who_may_only_read(settings, reader):
    own = elsewhere(reader, database=settings.database)
    db = mongo.database(own)
    sentence = "needs the role readWrite on the database 'test_"
    with pytest.raises(DatabaseError, match=sentence), mongo.explained(own):
        mongo.put_result(db, "key", "relaxation", {})


@pytest.fixture(scope="module")
def standalone(tmp_path_factory) -> Iterator[int]:
    """Port of a mongod that is no replica set."""
    folder = tmp_path_factory.mktemp("standalone")
    with __import__("socket").socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binary = str(mongod.find_mongod(Settings()))
    options = ["--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
    log = ["--logpath", str(folder / "log"), "--dbpath", str(folder)]
    server = subprocess.Popen([binary, *options, *log], stdout=subprocess.DEVNULL)
    yield port
    server.terminate()
    server.wait()


def test_a_standalone_server_is_refused_with_the_cure(standalone):
    own = elsewhere(f"mongodb://127.0.0.1:{standalone}/").model_copy(
        update={"database_timeout": 20.0}
    )
    with pytest.raises(DatabaseError, match=r"standalone server.*--replSet rs0.*rs.initiate"):
        mongo.database(own)


def failing(error):
    def raise_it():
        raise error

    return raise_it


FULL = "WiredTiger: pwrite: No space left on device"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OperationFailure(FULL, 14031), "is full: free some space"),
        (WriteError(FULL, 8, {}), "is full"),
        (OperationFailure("not primary", 10107), "read-only at the moment"),
        (OperationFailure("auth", 18), "refuses the user or password of PCCD_MONGODB_URI"),
        (AutoReconnect("closed"), "does not answer: check PCCD_MONGODB_URI"),
    ],
)
def test_errors_become_sentences(settings, error, sentence):
    with pytest.raises(DatabaseError, match=sentence) as caught, mongo.explained(settings):
        raise error
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [DuplicateKeyError("dup"), DocumentTooLarge("big"), KeyError(1)])
def test_our_own_faults_are_not_explained_away(settings, error):
    with pytest.raises(type(error)), mongo.explained(settings):
        raise error


def test_outages_are_survived_until_patience_ends():
    naps: list[float] = []
    answers = iter([AutoReconnect("1"), AutoReconnect("2"), "done"])

    def flaky():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert mongo.survive_outage(flaky, sleep=naps.append) == "done"
    assert len(naps) == 2
    with pytest.raises(AutoReconnect):
        mongo.survive_outage(failing(AutoReconnect("down")), patience=0.0, sleep=naps.append)
    with pytest.raises(ValueError, match="mine"):
        mongo.survive_outage(failing(ValueError("mine")), sleep=naps.append)


def test_workers_are_patient(settings):
    assert mongo.client_options(settings)["serverSelectionTimeoutMS"] == 10_000
    with mongo.patient():
        assert mongo.client_options(settings)["serverSelectionTimeoutMS"] == 600_000
    assert mongo.client_options(settings)["serverSelectionTimeoutMS"] == 10_000


def test_one_candidate_per_sample(db):
    db.candidates.insert_one({"_id": "a", "campaign_id": "c", "index": 1})
    with pytest.raises(DuplicateKeyError):
        db.candidates.insert_one({"_id": "b", "campaign_id": "c", "index": 1})
    db.samples.insert_one({"_id": "a", "campaign_id": "c", "index": 1})
    with pytest.raises(DuplicateKeyError):
        db.samples.insert_one({"_id": "b", "campaign_id": "c", "index": 1})
    mongo.ensure_indexes(db)
    plan = db.candidates.find({"chemsys": "Mg-O"}).explain()["queryPlanner"]["winningPlan"]
    assert plan["inputStage"]["stage"] == "IXSCAN"


def test_results_are_written_once(db):
    assert mongo.get_result(db, "key") is None
    mongo.put_result(db, "key", "relaxation", {"energy": -1.5, "nested": {"a.b": [1]}})
    mongo.put_result(db, "key", "relaxation", {"energy": 0.0})
    assert mongo.get_result(db, "key") == {"energy": -1.5, "nested": {"a.b": [1]}}
    stored = db.results.find_one({"_id": "key"})
    assert stored["schema_version"] == SCHEMA_VERSION
    assert stored["kind"] == "relaxation"
    assert stored["created_at"].tzinfo is not None


@pytest.mark.parametrize(
    "damage", [{"result": "torn"}, {"result": None}, {"schema_version": None}], ids=str
)
def test_a_damaged_result_is_forgotten(db, damage):
    mongo.put_result(db, "k", "relaxation", {"energy": -1.0})
    db.results.update_one({"_id": "k"}, {"$set": damage})
    assert mongo.get_result(db, "k") is None
    mongo.put_result(db, "k", "relaxation", {"energy": -2.0})
    assert mongo.get_result(db, "k") == {"energy": -2.0}


def test_documents_of_a_newer_version_are_refused(db):
    mongo.put_result(db, "key", "relaxation", {})
    db.results.update_one({"_id": "key"}, {"$set": {"schema_version": SCHEMA_VERSION + 1}})
    with pytest.raises(DatabaseError, match=r"Result key .*update pccd-workflows"):
        mongo.get_result(db, "key")
    with pytest.raises(DatabaseError, match="has no schema_version"):
        mongo.check_schema_version({}, "Candidate x")
    mongo.check_schema_version({"schema_version": SCHEMA_VERSION}, "Candidate x")


def reference_set(energy: float = -12.0, n_entries: int = 2) -> ReferenceSet:
    entries = [
        ReferenceEntry(
            entry_id=f"rocksalt-{number}",
            formula="Mg4 O4",
            energy=energy + number,
            structure=MGO,
            data={"step": number},
        )
        for number in range(n_entries)
    ]
    return ReferenceSet(
        source="prototypes",
        chemsys="Mg-O",
        level="chgnet",
        convention="mp2020",
        settings={"fmax": 0.05},
        entries=entries,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
    )


def test_reference_sets_come_back_as_they_were(db):
    original = reference_set()
    reference_id = mongo.put_reference_set(db, original)
    assert reference_id == original.reference_id
    mongo.put_reference_set(db, original)
    assert db.references.count_documents({}) == 1
    assert db.reference_entries.count_documents({}) == 2
    found = mongo.find_reference_set(db, "prototypes", "Mg-O", "chgnet")
    assert found == original
    assert found.reference_id == reference_id
    assert found.entries[0].structure == MGO
    assert mongo.get_reference_set(db, reference_id) == original
    assert mongo.find_reference_set(db, "prototypes", "Mg-O", "7net-0") is None
    assert mongo.get_reference_set(db, "no-such-id") is None


def test_the_latest_reference_set_is_found(db):
    mongo.put_reference_set(db, reference_set(-12.0))
    newer = reference_set(-13.0)
    mongo.put_reference_set(db, newer)
    found = mongo.find_reference_set(db, "prototypes", "Mg-O", "chgnet")
    assert found.reference_id == newer.reference_id


def test_a_reference_set_beyond_16_mb(db):
    entries = [
        ReferenceEntry(entry_id=str(n), formula="Mg O", energy=-1.0, data={"x": "y" * 1_000_000})
        for n in range(20)
    ]
    large = reference_set().model_copy(update={"entries": entries})
    mongo.put_reference_set(db, large)
    assert len(mongo.get_reference_set(db, large.reference_id).entries) == 20


def test_a_reference_set_that_lost_entries_is_refused(db):
    reference_id = mongo.put_reference_set(db, reference_set())
    db.reference_entries.delete_one({"index": 1})
    with pytest.raises(DatabaseError, match="has 1 of 2 entries"):
        mongo.get_reference_set(db, reference_id)
