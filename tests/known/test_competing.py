"""Competing phases from the library: stored energies, computed ones, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.hull import Hull, correct_references
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.engines.engine import Task, Work
from pccd_workflows.engines.records import Forces
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.known import relaxed_hull
from pccd_workflows.known.competing import (
    Engines,
    ImportedSet,
    check_library,
    engines_at,
    known_reference_set,
)
from pccd_workflows.known.energies import LevelEnergies, write_energies
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.missing import write_missing
from tests.known.made_up import RECORDS, fluorite, make_library, rocksalt
from tests.known.test_compute import Potential

STORED = {"mp-1": -1.5, "mp-2": -5.0, "mp-10": -6.0, "mp-11": -5.7}
RELAXED = {"mp-1": -1.52, "mp-2": -4.9}
"""A relaxation of mp-2 went uphill."""


@pytest.fixture
def known(tmp_path: Path) -> KnownLibrary:
    """A library with CHGNet energies of some phases of Mg-O."""
    made = make_library(tmp_path)
    columns = np.full((2, len(made)), np.nan)
    for column, energies in zip(columns, (STORED, RELAXED), strict=True):
        for identifier, energy in energies.items():
            column[made.row_of(identifier)] = energy
    write_energies(tmp_path, made.version, LevelEnergies("chgnet", columns[0], columns[1], {}))
    return made


def test_stored_energies_make_a_reference_set(known: KnownLibrary) -> None:
    found = known_reference_set("O-Mg", "chgnet", known=known)
    energies = {entry.entry_id: entry.energy_per_atom for entry in found.entries}
    assert energies == pytest.approx({"mp-1": -1.52, "mp-2": -5.0, "mp-10": -6.0, "mp-11": -5.7})
    assert (found.source, found.chemsys, found.convention) == ("known", "Mg-O", "mp2020")
    assert known.version in found.source_version
    assert found.settings == {"relaxed": 1, "as_they_are": 3, "without_energy": 1}
    how = {entry.entry_id: entry.data["geometry"] for entry in found.entries}
    assert (how["mp-1"], how["mp-2"]) == ("relaxed", "as it is")
    assert all(entry.structure is not None for entry in found.entries)
    Hull(found)


def test_what_is_missing_is_computed_and_relaxed(known: KnownLibrary) -> None:
    potential = Potential()
    engines = Engines(potential, potential.relax)
    told = []
    found = known_reference_set(
        "Mg-Na-O", "chgnet", known=known, engines=engines, progress=lambda *a: told.append(a)
    )
    energies = {entry.entry_id: entry.energy_per_atom for entry in found.entries}
    # single points of Na and of MgO2, whose height nothing states; relaxed 0.01 lower: Na, O, MgO
    assert energies["wbm-1"] == pytest.approx(-5.5)
    assert energies["mp-3"] == pytest.approx(-1.31)
    assert energies["mp-10"] == pytest.approx(-6.01)
    assert energies["mp-11"] == pytest.approx(-5.7)
    assert energies["mp-1"] == pytest.approx(-1.52)
    assert potential.asked[:2] == ["MgO2", "Na"] or potential.asked[:2] == ["Na", "MgO2"]
    assert len(potential.asked) == 5
    assert ("relaxing known phases near the hull", 3, 3) in told
    assert found.settings == {"relaxed": 4, "as_they_are": 2, "without_energy": 0}


def test_a_potential_says_which_phases_are_at_rest_as_they_are() -> None:
    """MgO at rest and stretched: what is promised is about what is gained."""
    work, task = Work(MemoryStorage()), Task("relax", "reference", fmax=0.005, steps=50)
    engines = engines_at("chgnet", work, task)
    assert engines.single_point is not None
    assert engines.relax is not None
    assert engines.look is not None
    rest = engines.relax(rocksalt("Mg", "O", 4.2).get_primitive_structure())
    assert rest.structure is not None
    assert rest.energy_per_atom is not None
    assert engines.look(rest.structure, rest.energy_per_atom) == pytest.approx(0.0, abs=1e-4)
    stretched = rest.structure.copy()
    stretched.apply_strain(0.02)
    energy = engines.single_point(stretched)
    assert energy is not None
    promised = engines.look(stretched, energy)
    assert promised is not None
    assert 0.4 < promised / (energy - rest.energy_per_atom) < 2.5
    # an element that it was not trained on
    assert engines.single_point(Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]])) is None


def test_where_a_potential_gives_no_stress_nobody_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = rocksalt("Mg", "O", 4.2)
    told = iter([Forces(forces=[[0.0] * 3] * len(crystal)), PccdError("no forces")])

    def forces(*_: object) -> Forces:
        found = next(told)
        if isinstance(found, PccdError):
            raise found
        return found

    monkeypatch.setattr("pccd_workflows.engines.engine.forces", forces)
    look = engines_at("chgnet", Work(MemoryStorage()), Task("relax")).look
    assert look is not None
    assert [look(crystal, -6.0), look(crystal, -6.0)] == [None, None]


def test_elements_are_computed_wherever_their_sources_place_them(tmp_path: Path) -> None:
    """O is stated to lie 0.4 eV/atom high, and is the only one; so high a compound is left out."""
    made = make_library(tmp_path)
    found = known_reference_set("Mg-O", "chgnet", known=made, engines=Engines(Potential()))
    assert {entry.entry_id for entry in found.entries} == {"mp-1", "mp-2", "mp-10", "wbm-1"}
    assert found.settings["without_energy"] == 1


def test_uncorrected_levels_are_corrected_once(tmp_path: Path) -> None:
    made = make_library(tmp_path)
    column = np.full(len(made), np.nan)
    for identifier, energy in STORED.items():
        column[made.row_of(identifier)] = energy
    nothing = np.full(len(made), np.nan)
    write_energies(tmp_path, made.version, LevelEnergies("7net-l3i5", column, nothing, {}))
    found = known_reference_set("Mg-O", "7net-l3i5", known=made)
    assert found.convention == "uncorrected"
    corrected = {e.entry_id: e.energy_per_atom for e in correct_references(found).entries}
    # MP2020: -0.687 eV per oxygen of an oxide
    assert corrected["mp-10"] == pytest.approx(-6.0 - 0.687 / 2)
    assert corrected["mp-1"] == pytest.approx(-1.5)


def test_an_element_without_a_phase(known: KnownLibrary) -> None:
    with pytest.raises(InputError, match="no phase of Na with an energy at level 'chgnet'"):
        known_reference_set("Mg-Na-O", "chgnet", known=known)
    with pytest.raises(InputError, match="no phase of Xe"):
        known_reference_set("Mg-Xe", "chgnet", known=known, engines=Engines(Potential()))


def test_imported_crystals_join_but_for_those_that_are_known(tmp_path: Path) -> None:
    """A fluorite that the library lacks, and MgO in another cell, which it has."""
    without = make_library(tmp_path, [r for r in RECORDS if r["id"] != "wbm-1"])
    own = [("x", fluorite("Mg", "O", 5.0)), ("y", rocksalt("Mg", "O", 4.25))]
    found = known_reference_set(
        "Mg-O",
        "chgnet",
        known=without,
        engines=Engines(Potential()),
        imported=[ImportedSet("mine", own)],
    )
    assert found.source == "known+mine"
    assert [e.entry_id for e in found.entries if "/" in e.entry_id] == ["mine/x"]
    assert {e.entry_id: e.data["database"] for e in found.entries}["mine/x"] == "mine"


def test_the_missing_phases_are_those_that_nobody_brings(tmp_path: Path) -> None:
    made = make_library(tmp_path, [r for r in RECORDS if r["id"] != "wbm-1"])
    rows = [("mp-90", "MgO2", -2.9), ("mp-91", "Mg2O", -2.5), ("mp-10", "MgO", -3.0)]
    lines = [
        json.dumps({"id": i, "formula": f, "formation_energy_per_atom": e}) for i, f, e in rows
    ]
    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(lines))
    write_missing(made, table)
    engines, known = Engines(Potential()), KnownLibrary(tmp_path)
    lacking = known_reference_set("Mg-O", "chgnet", known=known, engines=engines).missing
    assert sorted(phase.id for phase in lacking) == ["mp-90", "mp-91"]
    assert all(phase.could_move_hull for phase in lacking)
    crystal = fluorite("Mg", "O", 5.0)
    brought = known_reference_set(
        "Mg-O",
        "chgnet",
        known=known,
        engines=engines,
        imported=[ImportedSet("mp", [("mp-90", crystal)])],
    )
    assert [phase.id for phase in brought.missing] == ["mp-91"]


def test_a_phase_without_correction_costs_its_system_no_hull(
    known: KnownLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def correct(structure: Structure, energy: float, *, convention: str) -> float:
        if convention == "mp2020" and 19 < structure.volume < 25:
            raise InputError("MP2020 corrections do not apply.")
        return energy

    monkeypatch.setattr(relaxed_hull, "correct_mp2020", correct)
    found = known_reference_set("Mg-O", "chgnet", known=known)
    # the CsCl type, 2.7 Å wide
    assert {entry.entry_id for entry in found.entries} == {"mp-1", "mp-2", "mp-10"}
    assert found.settings["without_energy"] == 2


def test_elements_without_a_known_phase_are_refused_before_anything_runs(
    known: KnownLibrary,
) -> None:
    check_library(["Mg", "O"], ["chgnet", "7net-l3i5"], known)
    with pytest.raises(InputError, match=r"has no phase of Xe, Ca, so there is no hull"):
        check_library(["Mg", "Xe", "Ca"], [], known)


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("energies-chgnet.columns", lambda data: data[:-9], "is cut off: it has"),
        (
            "energies-chgnet.columns",
            lambda data: b"PCCDcol0" + data[8:],
            "is of another version of",
        ),
        ("energies-chgnet.columns", lambda data: data[:40], "is damaged or cut off"),
        ("geometry-00.columns", lambda data: data[:-1], "is cut off: it has"),
        ("missing.columns", lambda data: data[:-1], "is cut off: it has"),
        ("missing.columns", lambda _data: b"hello", "is not one of this package's data files"),
    ],
)
def test_damaged_files_of_a_library_are_found_before_anything_runs(
    known: KnownLibrary, file: str, damage: Callable[[bytes], bytes], words: str
) -> None:
    table = known.folder / "table.jsonl"
    row = {"id": "mp-90", "formula": "MgO2", "formation_energy_per_atom": -2.9}
    table.write_text(json.dumps(row))
    write_missing(known, table)
    path = known.folder / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=words) as caught:
        check_library(["Mg", "O"], ["chgnet"], KnownLibrary(known.folder))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_level_without_energies(known: KnownLibrary) -> None:
    with pytest.raises(InputError, match="no energies at level '7net-l3i5'"):
        known_reference_set("Mg-O", "7net-l3i5", known=known)
    with pytest.raises(InputError, match="Unknown level"):
        known_reference_set("Mg-O", "guess", known=known, engines=Engines(Potential()))


def test_the_library_that_ships_has_chgnet_energies() -> None:
    """NaCl, MgO and the elements, from stored energies alone."""
    assert "chgnet" in library().levels
    found = known_reference_set("Mg-Na-O-Cl", "chgnet")
    by_formula = {}
    for entry in found.entries:
        formula = entry.composition.reduced_formula
        by_formula[formula] = min(by_formula.get(formula, 0.0), entry.energy_per_atom)
    assert by_formula["NaCl"] == pytest.approx(-3.67, abs=0.02)
    assert by_formula["MgO"] == pytest.approx(-6.31, abs=0.02)
