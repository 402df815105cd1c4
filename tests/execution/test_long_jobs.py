"""A job that outlasts its connection: firewalls drop idle ones without telling either end."""

import select
import socket
import time
from collections.abc import Iterator
from threading import Thread

import launchpad_jobs as jobs
import pytest
from jobflow import Flow
from pymongo.uri_parser import parse_uri

from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.settings import get_settings

IDLE_SECONDS = 1.5
"""After which this firewall forgets a connection."""


class Firewall(Thread):
    """Passes connections on to a server; swallows what comes after a silence."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.swallowed = 0

    def run(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            Thread(target=self.forward, args=(near, far), daemon=True).start()

    def forward(self, near: socket.socket, far: socket.socket) -> None:
        last = time.monotonic()
        with near, far:
            while True:
                ready, _, _ = select.select([near, far], [], [])
                forgotten = time.monotonic() - last > IDLE_SECONDS
                last = last if forgotten else time.monotonic()
                for end in ready:
                    if not (data := end.recv(65536)):
                        return
                    if forgotten:
                        self.swallowed += 1
                    else:
                        (far if end is near else near).sendall(data)


@pytest.fixture
def behind_a_firewall(settings, mongod_uri, monkeypatch) -> Iterator[Firewall]:
    """The settings' database, reached through a firewall."""
    (target,) = parse_uri(mongod_uri)["nodelist"]
    firewall = Firewall(target)
    firewall.start()
    user = mongod_uri.partition("://")[2].rpartition("@")[0]
    options = "authSource=admin&directConnection=true&heartbeatFrequencyMS=1000"
    uri = f"mongodb://{user}@127.0.0.1:{firewall.port}/?{options}"
    monkeypatch.setenv("PCCD_MONGODB_URI", uri)
    monkeypatch.setattr(mongo, "ANSWER_SECONDS", 3.0)
    get_settings.cache_clear()
    yield firewall
    firewall.listener.close()


@pytest.mark.parametrize("renewed", [True, False])
def test_a_job_longer_than_its_connection_keeps_its_result(
    behind_a_firewall, tmp_path, monkeypatch, renewed
):
    """An idle connection is not used again; if one is, its silence is noticed."""
    monkeypatch.setattr(mongo, "IDLE_SECONDS", IDLE_SECONDS / 3 if renewed else 60.0)
    found = get_settings()
    slow = jobs.sleep_for(3 * IDLE_SECONDS, str(tmp_path / "log"))
    flow = Flow([slow, jobs.add(slow.output, 1)])
    flow.update_metadata({"campaign_id": "long-0123456789"})
    launchpad.submit(flow, found)
    summary = run_worker(found)
    assert (len(summary.completed), summary.failed) == (2, [])
    assert (tmp_path / "log").read_text() == "ran\n"  # once
    assert mongo.database(found).job_outputs.count_documents({}) == 2
    assert bool(behind_a_firewall.swallowed) is not renewed
