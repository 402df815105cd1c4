"""Fixtures of the whole suite: a real mongod, settings of a fresh database, the shared data."""

import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from pymongo import MongoClient

from pccd_workflows.execution import mongod
from pccd_workflows.settings import Settings, get_settings

# Two busy OpenMP threads on a loaded machine make torch up to 80 times slower than one. Nothing
# imported so far loads torch, which reads these once.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

# The same examples in every run: a failure is a change, not luck.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None)
hypothesis.settings.load_profile("suite")

REPOSITORY = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """No test leaves a thread that keeps the process of the tests alive for an hour."""
    before = set(threading.enumerate())
    yield
    left = [t for t in set(threading.enumerate()) - before if "ping_launch" in t.name]
    assert all(thread.daemon for thread in left)


@pytest.fixture(autouse=True)
def own_environment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No test reads or writes the settings and data of the person who runs it."""
    for name in [*os.environ]:
        if name.startswith(("PCCD_", "JOBFLOW_", "FW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PCCD_CONFIG_FILE", os.devnull)
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def free_tcp_port_factory() -> Callable[[], int]:
    """A function that returns a port that nobody listens on."""
    return free_port


@pytest.fixture
def free_tcp_port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture(scope="session")
def mongod_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real mongod, private to this test run."""
    embedded = Settings(
        mongodb_uri=None, data_dir=tmp_path_factory.mktemp("server"), mongod_port=free_port()
    )
    uri = mongod.start(embedded)
    # It outlives the process that started it, but shall not outlive a test run that is killed.
    watch = f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 1; done; kill -9 {{}}"
    command = ["sh", "-c", watch.format(mongod.status(embedded).pid)]
    watchman = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    yield uri
    watchman.kill()
    watchman.wait()
    mongod.stop(embedded)


@pytest.fixture
def settings(
    mongod_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of a fresh database and data folder; get_settings() returns them too."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("PCCD_MONGODB_URI", mongod_uri)
    monkeypatch.setenv("PCCD_DATABASE", name)
    monkeypatch.setenv("PCCD_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    yield get_settings()
    with MongoClient(mongod_uri, serverSelectionTimeoutMS=20_000) as client:
        client.drop_database(name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real structures beside the repository."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("../shared/data is absent")
    return path
