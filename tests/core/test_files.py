"""Files are whole or not there."""

import os

import pytest

from pccd_workflows.cli import live
from pccd_workflows.core.errors import MachineFault
from pccd_workflows.core.files import make_folder, make_private, write_whole
from pccd_workflows.execution import mongod


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_whole(path, "first")
    assert write_whole(path, b"second").read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        path = write_whole(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "report.html", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineFault, match=r"html is full \(No space left on device\)"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_folder_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        make_private(tmp_path / "data" / "runs")
    finally:
        os.umask(before)
    for folder in (tmp_path / "data", tmp_path / "data" / "runs"):
        assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "data").chmod(0o750)  # somebody's choice
    make_private(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o750


@pytest.fixture
def umask_000():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask_000")
def test_nobody_else_writes_into_what_is_made_under_a_umask_of_000(tmp_path):
    write_whole(tmp_path / "reports" / "new" / "report.html", "x")
    make_folder(tmp_path / "crystals" / "cif")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes.pop("report.html") == 0o644
    assert modes == dict.fromkeys(("reports", "new", "crystals", "cif"), 0o755)


@pytest.mark.usefixtures("umask_000")
def test_logs_of_workers_and_the_server_s_data_are_their_owner_s_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(live.subprocess, "Popen", lambda *_, **__: None)
    live.Workers("mine-0123456789", tmp_path / "logs").start(1)
    open_to_all = tmp_path / "mongod"
    open_to_all.mkdir(mode=0o777)
    with mongod._writing_to(open_to_all):
        pass
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("logs", "mongod")] == [0o700] * 2
