"""``python -m pccd_workflows.known``: build, compute, collect, info; one sentence for bad input."""

from pathlib import Path

import pytest

from pccd_workflows.known import __main__ as command
from tests.known.made_up import RECORDS, write_lines
from tests.known.test_missing import TABLE


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command; return its exit code."""
    monkeypatch.setattr("sys.argv", ["known", *map(str, arguments)])
    try:
        command.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_from_files_to_energies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_lines(tmp_path / "s.jsonl", RECORDS)
    table = write_lines(tmp_path / "t.jsonl", TABLE)
    folder, ledger = tmp_path / "library", tmp_path / "ledger.jsonl"
    options = ("--folder", folder)
    assert call(monkeypatch, "build", source, *options, "--table", table) == 0
    assert "4 phases have no structure" in capsys.readouterr().out
    run = ("compute", "chgnet", "--ledger", ledger, *options, "--no-relax")
    assert call(monkeypatch, *run, "--limit", 3) == 0
    assert call(monkeypatch, *run) == 0
    out = capsys.readouterr().out
    assert "Computed 3 crystals" in out
    assert "Computed 4 crystals" in out
    assert call(monkeypatch, "collect", "chgnet", "--ledger", ledger, *options) == 0
    assert call(monkeypatch, "info", *options) == 0
    out = capsys.readouterr().out
    assert "8 crystals of 6 systems" in out
    assert "CC-BY-4.0" in out
    assert "chgnet: energies of 7 (88%), 0 of them relaxed" in out


def test_bad_input_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_lines(tmp_path / "s.jsonl", RECORDS)
    call(monkeypatch, "build", source, "--folder", tmp_path)
    ledger = tmp_path / "ledger.jsonl"
    for arguments, message in (
        (("build", tmp_path / "none.jsonl", "--folder", tmp_path / "new"), "cannot be read"),
        (("info", "--folder", tmp_path / "new"), "no library of known crystals"),
        (("compute", "guess", "--ledger", ledger, "--folder", tmp_path), "Unknown level 'guess'"),
        (("collect", "chgnet", "--ledger", ledger, "--folder", tmp_path), "There is no ledger"),
        (("compute", "vasp/mp-gga", "--ledger", ledger, "--folder", tmp_path), "not a potential"),
    ):
        capsys.readouterr()
        assert call(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not ledger.exists()
    assert not list(tmp_path.glob("energies*"))
    geometry = tmp_path / "geometry-00.columns"
    geometry.write_bytes(geometry.read_bytes()[:-3])
    assert call(monkeypatch, "info", "--folder", tmp_path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "geometry-00.columns is cut off" in said.err
    assert not (tmp_path / "new").exists()
