"""The command that follows a campaign waits for its database as workers do."""

import os
import signal
import threading
import time

import psutil
import pytest
from pymongo.errors import AutoReconnect

from pccd_workflows.cli import live
from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.execution import mongo, mongod
from pccd_workflows.settings import Settings


@pytest.fixture
def own(tmp_path, free_tcp_port, monkeypatch):
    """Settings of an embedded server that a test may kill."""
    monkeypatch.setattr(live, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(mongo, "BRIEF_OUTAGE_SECONDS", 1.0)
    settings = Settings(
        data_dir=tmp_path / "own", mongod_port=free_tcp_port, mongodb_uri=None, database_timeout=1
    )
    mongod.start(settings)
    yield settings
    mongod.stop(settings)


def count(settings: Settings) -> int:
    return mongo.database(settings)["things"].count_documents({})


def test_an_embedded_server_that_died_is_started_again(own):
    mongo.database(own)["things"].insert_one({})
    process = psutil.Process(mongod.status(own).pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert mongod.died(own)
    with pytest.raises((DatabaseError, AutoReconnect)):
        count(own)
    assert live.waiting_out(lambda: count(own), own) == 1


def test_a_server_that_restarts_is_waited_for(own):
    mongo.database(own)["things"].insert_one({})
    mongod.stop(own)
    assert not mongod.died(own)  # somebody stopped it: it is not started behind their back
    threading.Thread(target=lambda: (time.sleep(2), mongod.start(own))).start()
    assert live.waiting_out(lambda: count(own), own) == 1


def test_patience_ends(own):
    mongod.stop(own)
    with pytest.raises(DatabaseError, match="pccd db start"):
        live.waiting_out(lambda: count(own), own, patience=0.5)
