"""Known phases without a structure: which crystals lend theirs, and what is said."""

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.reference_set import MissingPhase
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.competing import Engines, known_reference_set
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.missing import write_missing
from pccd_workflows.known.predicted import (
    TYPES,
    predict_phases,
    predict_structures,
    wanted,
    with_predictions,
)
from tests.known.made_up import (
    RECORDS,
    bcc,
    caesium_chloride,
    fluorite,
    make_library,
    record,
    rocksalt,
    write_lines,
)
from tests.relaxations import relaxation

CRYSTALS = (
    *RECORDS,
    record("mp-5", bcc("Ca", 4.4), energy_above_hull=0.0),
    record("mp-12", caesium_chloride("Sr", "O"), energy_above_hull=0.04, spacegroup=221),
    record("mp-30", fluorite("Ba", "F", 6.2), energy_above_hull=0.0, spacegroup=225),
    record("mp-31", rocksalt("Ni", "O", 4.2) * (2, 1, 1), energy_above_hull=0.0, spacegroup=2),
)
TABLE = [
    {"id": "mp-1", "formula": "Mg", "formation_energy_per_atom": 0.0},
    {"id": "mp-60", "formula": "CaO", "formation_energy_per_atom": -3.2},
    {"id": "mp-61", "formula": "CaO", "formation_energy_per_atom": -3.17},
    {"id": "mp-62", "formula": "CaO2", "formation_energy_per_atom": -2.11},  # 2.5 % above
]


@pytest.fixture
def known(tmp_path: Path) -> KnownLibrary:
    made = make_library(tmp_path / "library", CRYSTALS)
    write_missing(made, write_lines(tmp_path / "table.jsonl", TABLE))
    return KnownLibrary(made.folder)


class Relaxer:
    """Says -6 eV/atom of the rock-salt type and -5.9 of others; remembers what it was asked."""

    def __init__(self, fails: bool = False) -> None:
        self.asked: list[Structure] = []
        self.fails = fails

    def __call__(self, structure: Structure) -> Relaxation:
        self.asked.append(structure)
        rock_salt = structure.lattice.angles[0] == pytest.approx(60)
        verdict = "diverged" if self.fails else "converged"
        return relaxation(structure, -6.0 if rock_salt else -5.9, verdict)


def test_of_each_composition_the_lowest_that_could_move_the_hull(known: KnownLibrary) -> None:
    missing = known.missing("Ca-O")
    assert {phase.id for phase in missing} == {"mp-60", "mp-61", "mp-62"}
    assert [phase.id for phase in wanted(missing)] == ["mp-60"]
    still = [phase.model_copy(update={"shift": 0.0}) for phase in missing]
    assert wanted(still) == []


def test_the_crystals_of_the_most_alike_elements_lend_their_structure(known: KnownLibrary) -> None:
    found = predict_structures("CaO", known, most=5)
    # SrO and MgO are more alike than NiO and NaCl; MgO of the CsCl type lies too high
    assert {name for name, _ in found[:2]} == {"mp-10", "mp-12"}
    assert "mp-11" not in [name for name, _ in found]
    for _, structure in found:
        assert structure.composition.reduced_formula == "CaO"
    salt = dict(found)["mp-10"]
    assert salt.get_space_group_info()[1] == 225
    assert salt.volume > known.get("mp-10").structure.volume  # Ca is larger than Mg


def test_each_element_takes_the_place_of_as_many_atoms(known: KnownLibrary) -> None:
    ((name, structure),) = predict_structures("CaF2", known, most=1)
    assert name == "mp-30"
    assert structure.composition.get_el_amt_dict() == {"Ca": 1, "F": 2}
    assert predict_structures("Ca7O5", known) == []


def test_a_crystal_does_not_lend_to_itself_when_it_is_measured(known: KnownLibrary) -> None:
    assert "mp-10" in [name for name, _ in predict_structures("MgO", known, most=5)]
    assert "mp-10" not in [
        name for name, _ in predict_structures("MgO", known, most=5, without_own=True)
    ]


def test_the_lowest_competes(known: KnownLibrary) -> None:
    relax, told = Relaxer(), []
    missing = known.missing("Ca-O")
    (found,) = predict_phases(missing, known, relax, lambda *progress: told.append(progress))
    assert (found.id, found.energy, found.relaxed) == ("mp-60:predicted", -6.0, True)
    assert found.database == "predicted from mp-10"
    assert len(relax.asked) == TYPES
    assert told[-1][1:] == (TYPES, TYPES)
    named = {phase.id: phase for phase in with_predictions(missing, [found])}
    assert {named[i].predicted_from for i in ("mp-60", "mp-61")} == {"mp-10"}
    assert named["mp-62"].predicted_from == ""
    assert not any(phase.could_move_hull for phase in named.values())


def test_without_a_prediction_the_missing_phases_stay_as_they_are(known: KnownLibrary) -> None:
    missing = known.missing("Ca-O")
    found = predict_phases(missing, known, Relaxer(fails=True))
    assert found == []
    assert with_predictions(missing, found) == missing
    strange = MissingPhase(
        id="mp-99",
        chemsys="Ca-O",
        formula="Ca7O5",
        energy_above_hull=0.0,
        shift=0.3,
        n_same_composition=0,
    )
    both = with_predictions(
        [*missing, strange], predict_phases([*missing, strange], known, Relaxer())
    )
    # one is wanting, so the hull is not complete: what lies above the others may yet lower it
    assert {phase.id for phase in both if phase.could_move_hull} == {"mp-62", "mp-99"}


def test_predicted_phases_carry_the_hull(known: KnownLibrary) -> None:
    energies = {"Ca": -1.0, "O": -2.0}
    engines = Engines(lambda structure: energies[structure[0].specie.symbol], Relaxer())
    found = known_reference_set("Ca-O", "chgnet", known=known, engines=engines)
    entry = {each.entry_id: each for each in found.entries}["mp-60:predicted"]
    assert entry.energy_per_atom == -6.0
    assert entry.data["geometry"] == "relaxed"
    query = HullQuery("a", entry.composition, -5.5 * 2, "mp2020", "chgnet")
    (place,) = Hull(found).place([query])
    assert place.energy_above_hull == pytest.approx(0.5, abs=1e-6)
    assert found.settings["without_energy"] == 0
    taken = known_reference_set(
        "Ca-O", "chgnet", known=known, engines=Engines(engines.single_point)
    )
    assert not any("predicted" in each.entry_id for each in taken.entries)
    assert [phase.id for phase in taken.missing if phase.could_move_hull] != []


def test_titania_is_predicted_from_other_dioxides() -> None:
    """The library that ships has no crystal of O-Ti at all."""
    known = library()
    assert known.rows_in("O-Ti", subsystems=False) == []
    (phase,) = [p for p in wanted(known.missing("O-Ti")) if p.formula == "TiO2"]
    guesses = predict_structures(phase.formula, known)
    assert len(guesses) == TYPES
    for name, structure in guesses:
        assert known.get(name).energy_above_hull <= 0.05
        assert structure.composition.reduced_formula == "TiO2"
        distances = structure.distance_matrix[~np.eye(len(structure), dtype=bool)]
        assert distances.min() > 1.5
