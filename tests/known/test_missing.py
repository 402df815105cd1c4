"""Known phases without a structure: which ones are named, and how far they could move a hull."""

from pathlib import Path

import pytest

from pccd_workflows.core.errors import InputError
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.missing import FILE, write_missing
from tests.known.made_up import RECORDS, make_library, write_lines


def row(identifier: str, formula: str, energy: float) -> dict:
    return {"id": identifier, "formula": formula, "formation_energy_per_atom": energy}


TABLE = [
    row("mp-1", "Mg", 0.0),
    row("mp-2", "O2", 0.0),
    row("mp-10", "MgO", -3.0),
    row("mp-50", "MgO2", -2.2),  # hull of MgO and O at 1/3 Mg: -2.0
    row("mp-51", "MgO2", -2.19),
    row("mp-52", "Mg2O", -1.99),  # hull of Mg and MgO at 2/3 Mg: -2.0
    row("mp-53", "Mg2O", -1.9),  # 0.1 eV/atom above it
    row("mp-54", "MgO", -2.98),  # mp-10 is of this composition, and lower
    row("mp-55", "Na2O", -1.4),
]


@pytest.fixture
def known(tmp_path: Path) -> KnownLibrary:
    return make_library(tmp_path / "library")


def named(known: KnownLibrary, tmp_path: Path, table: list[dict]) -> KnownLibrary:
    """List a table's missing phases beside the library."""
    write_missing(known, write_lines(tmp_path / "table.jsonl", table))
    return KnownLibrary(known.folder)


def test_phases_near_the_hull_that_nobody_has_a_structure_of(
    known: KnownLibrary, tmp_path: Path
) -> None:
    found = {phase.id: phase for phase in named(known, tmp_path, TABLE).missing("Mg-O")}
    assert set(found) == {"mp-50", "mp-51", "mp-52"}
    # the hull of what is at hand would fall by 0.2 eV/atom at MgO2
    assert found["mp-50"].shift == pytest.approx(0.2)
    assert found["mp-50"].energy_above_hull == pytest.approx(0.0)
    assert found["mp-51"].energy_above_hull == pytest.approx(0.01)
    assert found["mp-52"].shift == 0.0
    # wbm-1 is an MgO2 of which no source says how stable it is
    assert (found["mp-50"].n_same_composition, found["mp-52"].n_same_composition) == (1, 0)


def test_the_largest_shift_comes_first_and_parts_count(known: KnownLibrary, tmp_path: Path) -> None:
    whole = named(known, tmp_path, TABLE)
    assert [p.id for p in whole.missing("O-Na-Mg")] == ["mp-55", "mp-50", "mp-51", "mp-52"]
    assert whole.missing("Cl-Na") == []


def test_nothing_is_missing_where_nothing_was_compared(known: KnownLibrary, tmp_path: Path) -> None:
    assert known.missing("Mg-O") == []
    assert named(known, tmp_path, TABLE[:3]).missing("Mg-O") == []


def test_bad_tables(known: KnownLibrary, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs id, formula and formation_energy_per_atom"):
        named(known, tmp_path, [{"id": "mp-1", "formula": "Mg"}])
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"bad.jsonl cannot be read"):
        write_missing(known, tmp_path / "bad.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        write_missing(known, tmp_path / "none.jsonl")
    assert not (known.folder / FILE).exists()


def test_a_list_of_another_library_is_refused(known: KnownLibrary, tmp_path: Path) -> None:
    named(known, tmp_path, TABLE)
    changed = make_library(tmp_path / "library", RECORDS[:-1])
    with pytest.raises(InputError, match="another version of the library"):
        changed.missing("Mg-O")


def test_the_list_that_ships() -> None:
    """No source has a structure of any O-Ti phase: rutile and anatase are named."""
    formulas = {phase.formula for phase in library().missing("O-Ti")}
    assert "TiO2" in formulas
