"""Stand-ins: prototypes of compositions that a table knows near its hull and nobody has."""

from pathlib import Path

import pytest
from pymatgen.core import Structure

from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known import prototypes
from pccd_workflows.known.competing import Engines, known_reference_set
from pccd_workflows.known.library import KnownLibrary
from pccd_workflows.known.missing import write_missing
from pccd_workflows.known.stand_ins import missing_compositions, with_stand_ins
from tests.known.made_up import bcc, caesium_chloride, fluorite, make_library, record, write_lines
from tests.known.test_missing import TABLE, row


@pytest.fixture
def known(tmp_path: Path) -> KnownLibrary:
    """Mg2O and Na2O are missing; of MgO2 there is a crystal that may be the missing one."""
    made = make_library(tmp_path / "library")
    table = [*TABLE, row("mp-56", "Mg4O2", -2.05)]
    write_missing(made, write_lines(tmp_path / "table.jsonl", table))
    return KnownLibrary(made.folder)


def energy(structure: Structure) -> float:
    """Return an energy that depends on composition alone, eV/atom."""
    oxygen = structure.composition.get_atomic_fraction("O")
    return -1.0 - 4 * oxygen - 8 * oxygen * (1 - oxygen)


def relax(structure: Structure) -> Relaxation:
    per_atom = energy(structure)
    return Relaxation(
        level="chgnet",
        key="k",
        verdict="converged",
        structure=structure,
        energy=per_atom * len(structure),
        energy_per_atom=per_atom,
        convention="mp2020",
    )


def test_compositions_that_need_one(known: KnownLibrary) -> None:
    found = missing_compositions("Mg-Na-O", known)
    # mp-52 alone could not move the hull; mp-56, of the same composition, could
    assert found == {("Mg", "O"): {"Mg2O"}, ("Na", "O"): {"Na2O"}}
    assert missing_compositions("Cl-Na", known) == {}


def test_they_are_added_and_marked(known: KnownLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only structure types of the missing compositions are looked at."""
    decorations = {
        "Mg-O": [("fluorite:O.Mg", fluorite("O", "Mg")), ("CsCl", caesium_chloride("Mg", "O"))],
        "Na-O": [("fluorite:O.Na", fluorite("O", "Na"))],
    }
    monkeypatch.setattr(prototypes, "decorate", lambda chemsys: decorations[chemsys])
    monkeypatch.setattr(prototypes, "single_point", lambda structure, _: energy(structure))
    references = known_reference_set(
        "Mg-Na-O", "chgnet", engines=Engines(energy, None), known=known
    )
    told = []
    found = with_stand_ins(references, relax, known=known, progress=lambda *a: told.append(a))
    new = {e.entry_id for e in found.entries} - {e.entry_id for e in references.entries}
    marked = {e.entry_id for e in found.entries if e.data["geometry"] == "stand-in"}
    assert {e.formula for e in found.entries if e.entry_id in new} == {"Mg2O1", "Na2O1"}
    assert new == marked
    assert found.settings["stand_ins"] == 2
    assert [step[0] for step in told] == ["Mg-O", "Na-O"]


def test_nothing_changes_where_nothing_is_missing(known: KnownLibrary) -> None:
    references = known_reference_set("Na-Cl", "chgnet", engines=Engines(energy), known=known)
    assert with_stand_ins(references, relax, known=known) is references


@pytest.mark.slow
def test_a_real_composition_gets_its_structure_type(tmp_path: Path) -> None:
    """Of LiMg only the table knows; among structure types CHGNet finds one that is bound."""
    from functools import partial

    from pccd_workflows.engines import potential

    records = [record("mp-1", bcc("Li", 3.4)), record("mp-2", bcc("Mg", 3.5))]
    made = make_library(tmp_path / "library", records)
    table = [row("mp-1", "Li", 0.0), row("mp-2", "Mg", 0.0), row("mp-3", "LiMg", -0.05)]
    write_missing(made, write_lines(tmp_path / "table.jsonl", table))
    relaxing = partial(potential.relax, level="chgnet", fmax=0.1)
    engines = Engines(partial(potential.single_point, level="chgnet"), relaxing)
    known = KnownLibrary(made.folder)
    references = known_reference_set("Li-Mg", "chgnet", engines=engines, known=known)
    found = with_stand_ins(references, relaxing, known=known)
    stand_ins = [e for e in found.entries if e.data["geometry"] == "stand-in"]
    assert {e.composition.reduced_formula for e in stand_ins} == {"LiMg"}
    mean = sum(e.energy_per_atom for e in references.entries) / 2
    assert min(e.energy_per_atom for e in stand_ins) < mean
