"""A disk that is full: the job fails as the machine's fault, in a sentence that names the place."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import launchpad_jobs as jobs
import pytest
from jobflow import Flow

from pccd_workflows.core.errors import DatabaseError, InputError, MachineFault
from pccd_workflows.core.files import write_whole
from pccd_workflows.execution import launchpad, mongo, mongod, reruns
from pccd_workflows.execution.atomic_launchpad import AtomicLaunchPad
from pccd_workflows.execution.memory import FolderStorage
from pccd_workflows.execution.worker import run_worker
from pccd_workflows.settings import get_settings

CAMPAIGN = "full-0123456789"


@pytest.fixture
def disk(tmp_path, request) -> Iterator[Path]:
    """A disk of one megabyte, or of the size that the test asks for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = getattr(request, "param", "size=1m,nr_inodes=60")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def fill(disk: Path, blocks: int = 1000) -> Path:
    """Leave no byte free; return the file that takes it all."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        [stream.write(b"x" * 4096) for _ in range(blocks)]
    return path


@pytest.fixture
def on_disk(settings, disk, monkeypatch):
    """Settings whose run folders lie on the small disk."""
    monkeypatch.setenv("PCCD_DATA_DIR", str(disk / "data"))
    get_settings.cache_clear()
    return get_settings()


def run(settings, *members) -> dict[str, int]:
    flow = Flow(list(members))
    flow.update_metadata({"campaign_id": CAMPAIGN})
    launchpad.submit(flow, settings)
    run_worker(settings, campaign_id=CAMPAIGN, poll=0.05)
    return launchpad.campaign_states(settings, CAMPAIGN)


def test_a_job_that_fills_the_disk_of_its_run_folder(on_disk, disk):
    assert run(on_disk, jobs.fill_the_disk()) == {"FIZZLED": 1}
    (failure,) = launchpad.failures(on_disk, CAMPAIGN)
    assert failure["error"].startswith(f"MachineFault: The disk of {disk}/data/runs/{CAMPAIGN}/")
    assert failure["error"].endswith(" is full (No space left on device): free some space.")
    (classified,) = reruns.job_failures(on_disk, campaign_id=CAMPAIGN)
    assert classified.error_class == "disk"


def test_no_job_fails_for_want_of_room_for_its_prints(on_disk, disk):
    assert run(on_disk, jobs.print_on_a_full_disk(str(disk))) == {"COMPLETED": 1}


def test_a_run_folder_that_cannot_be_made_leaves_the_job_ready(on_disk, disk):
    (disk / "data").mkdir()
    with pytest.raises(OSError, match="No space left"):  # a folder takes an inode, not a byte
        [(disk / f"{number}").touch() for number in range(100)]
    with pytest.raises(MachineFault, match=rf"cannot be written below {disk}.*No space left"):
        run(on_disk, jobs.add(1, 2))
    assert launchpad.campaign_states(on_disk, CAMPAIGN) == {"READY": 1}


def test_a_failure_that_fireworks_cannot_handle_has_a_message(settings, monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AtomicLaunchPad, "complete_launch", broken)
    assert run(settings, jobs.broken()) == {"FIZZLED": 1}
    assert "No space left" in launchpad.failures(settings, CAMPAIGN)[0]["error"]
    (failure,) = reruns.job_failures(settings, campaign_id=CAMPAIGN)
    assert failure.error_class == "disk"
    assert "No space left" in failure.evidence


def test_results_in_a_folder_on_a_full_disk(disk):
    storage = FolderStorage(disk / "results")
    storage.put_result("ab" * 32, "relaxation", {"energy": -1.0})
    fill(disk)
    with pytest.raises(MachineFault, match=rf"The disk of {disk}/results/cd.* is full") as raised:
        storage.put_result("cd" * 32, "relaxation", {"energy": -1.0})
    assert not isinstance(raised.value, InputError)  # nobody gave a wrong option
    assert storage.get_result("ab" * 32) == {"energy": -1.0}
    assert storage.get_result("cd" * 32) is None
    assert [path.name for path in (disk / "results" / "cd").glob("*")] == []


def test_a_file_that_may_not_be_written_is_wrong_input(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "file" / "below", "x")


@pytest.mark.parametrize("disk", ["size=420m"], indirect=True)
def test_a_full_disk_under_mongod(disk, monkeypatch, free_tcp_port):
    """What was stored is whole, and every command names the disk until there is room again."""
    monkeypatch.setenv("PCCD_DATA_DIR", str(disk / "data"))
    monkeypatch.setenv("PCCD_MONGOD_PORT", str(free_tcp_port))
    monkeypatch.setenv("PCCD_DATABASE_TIMEOUT", "2")
    monkeypatch.setattr(mongo, "BRIEF_OUTAGE_SECONDS", 1.0)
    get_settings.cache_clear()
    own = get_settings()
    mongod.start(own)
    try:
        for number in range(3):
            mongo.put_result(mongo.database(own), f"{number}", "relaxation", {"number": number})
        ballast = fill(disk, blocks=200_000)
        with pytest.raises(DatabaseError, match=r"(?i)the disk of .* is full"):
            store_until_it_fails(own)  # the server dies of it
        with pytest.raises(DatabaseError, match=rf"died, because the disk of {disk}.* is full"):
            mongo.database(own)
        with pytest.raises(DatabaseError, match=rf"^The disk of {disk}/data/mongod is full"):
            mongod.start(own)
        ballast.unlink()
        mongod.start(own)
        found = [mongo.get_result(mongo.database(own), f"{number}") for number in range(3)]
        assert found == [{"number": 0}, {"number": 1}, {"number": 2}]
    finally:
        mongod.stop(own)


def store_until_it_fails(own) -> None:
    with mongo.explained(own):
        for number in range(3, 3000):
            mongo.put_result(
                mongo.database(own), f"{number}", "relaxation", {"x": os.urandom(200_000)}
            )
