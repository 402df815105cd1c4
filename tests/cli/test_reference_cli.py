"""`pccd reference`: sets are built, stored, listed; bad input is one sentence."""

import json
from pathlib import Path

import pytest

from pccd_workflows.cli import main
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.known import prototypes, reference_files
from pccd_workflows.known.library import library
from pccd_workflows.settings import Settings


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """EMT as a level, two structure types, no shipped sets; the folder for those."""
    level = Level("emt", "potential", "uncorrected", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)
    few = tuple(p for p in prototypes.prototypes() if p.label in ("A_cF4_225_a", "A_cI2_229_a"))
    monkeypatch.setattr(prototypes, "prototypes", lambda: few)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(reference_files, "resource", lambda *_: shipped)
    return shipped


def pccd(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


BUILD = ("reference", "build", "--source", "prototypes")


def test_known_crystals_are_the_default(capsys, settings: Settings) -> None:
    from pccd_workflows.execution.mongo import database, find_reference_set

    assert pccd(capsys, "reference", "build", "Cu", "--level", "emt", "--json")[0] == 0
    db = database(settings)
    stored = find_reference_set(db, "known", "Cu", "emt")
    assert stored is not None
    assert {entry.entry_id for entry in stored.entries} == {c.id for c in library().in_system("Cu")}
    assert stored.missing == []
    done = db.results.count_documents({})
    assert pccd(capsys, "reference", "build", "Cu", "--level", "emt")[0] == 0
    assert db.results.count_documents({}) == done > 0


def test_a_set_is_written_and_listed_without_a_database(capsys, small_world: Path) -> None:
    target = small_world / "cu.emt.json.gz"
    build = (*BUILD, "Cu", "--level", "emt", "--out", str(target))
    code, out, _ = pccd(capsys, *build, "--json")
    assert code == 0
    summary = json.loads(out)
    assert (summary["chemsys"], summary["phases"], summary["on_hull"]) == ("Cu", 2, 1)
    assert reference_files.read_reference_set(target).reference_id == summary["id"]
    code, _, err = pccd(capsys, *build)
    assert code == 2
    assert "--force replaces it" in err
    assert pccd(capsys, *build, "--force")[0] == 0
    code, out, err = pccd(capsys, "reference", "list", "--json")
    assert code == 0
    assert [row["stored"] for row in json.loads(out)] == ["cu.emt.json.gz"]
    assert err.startswith("Only the shipped sets: ")


def test_a_set_is_stored_and_its_relaxations_are_kept(capsys, settings: Settings) -> None:
    from pccd_workflows.execution.mongo import database, find_reference_set

    code, out, _ = pccd(capsys, *BUILD, "Cu", "--level", "emt", "--json")
    assert code == 0
    db = database(settings)
    stored = find_reference_set(db, "prototypes", "Cu", "emt")
    assert stored is not None
    assert stored.reference_id == json.loads(out)["stored"]
    assert db.results.count_documents({}) == 2
    assert pccd(capsys, *BUILD, "Cu", "--level", "emt")[0] == 0
    assert db.results.count_documents({}) == 2
    rows = json.loads(pccd(capsys, "reference", "list", "--json")[1])
    assert [(row["chemsys"], row["phases"], row["stored"]) for row in rows] == [
        ("Cu", 2, "database")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Mg-Xx",), "'Xx' in 'Mg-Xx' is not an element"),
        (("",), "is not an element"),
        (("Cu", "--level", "nothing"), "Unknown level 'nothing'"),
        (("Cu", "--out", "set.json"), "must end in .json.gz"),
        (("Cu", "--out", "absent/set.json.gz"), "There is no folder absent"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments: tuple[str, ...], words: str) -> None:
    options = () if "--out" in arguments else ("--out", "never-written.json.gz")
    code, out, err = pccd(capsys, "reference", "build", *arguments, *options)
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert not Path("never-written.json.gz").exists()
