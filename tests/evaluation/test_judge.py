"""Crystals relaxed and placed on a potential's own hull: copper and gold with EMT."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import MissingPhase, ReferenceEntry, ReferenceSet
from pccd_workflows.evaluation import judge as module
from pccd_workflows.evaluation.judge import PotentialJudge
from pccd_workflows.known.library import library
from pccd_workflows.settings import Settings
from tests.known.made_up import make_library, record


def test_a_known_crystal_lies_on_its_own_hull(judge, cu3au, cuau3):
    found = judge([cu3au, cuau3])
    known, new = found.stabilities
    assert known.energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert new.energy_above_hull is not None
    assert [r.verdict for r in found.relaxations] == ["converged", "converged"]
    assert (known.level, known.references) == ("emt", new.references)
    assert found.hull.systems == 1
    assert found.hull.phases >= len(library().rows_in("Au-Cu"))
    assert new.n_missing == found.hull.missing_phases


def test_systems_within_others_need_no_hull_of_their_own(judge, cu3au):
    copper = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    found = judge([cu3au, copper])
    assert found.hull.systems == 1
    assert len({one.references for one in found.stabilities}) == 1


def test_a_crystal_that_the_potential_does_not_know_has_a_reason_instead_of_a_place(
    judge, cu3au, monkeypatch
):
    monkeypatch.setattr(
        "pccd_workflows.engines.potential.supported_elements", lambda _: frozenset({"Cu", "Au"})
    )
    uranium = Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]])
    placed, refused = judge([cu3au, uranium]).stabilities
    assert placed.energy_above_hull is not None
    assert refused.energy_above_hull is None
    assert (refused.passed, refused.reason_class) == (False, "unsupported_element")


def test_without_a_phase_of_an_element_there_is_no_hull_and_others_have_theirs(
    make_judge, tmp_path, cu3au, cuau3
):
    copper = record("mp-1", Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]]))
    known = make_library(tmp_path, [copper, record("mp-2", cu3au)])
    found = make_judge(known=known)([cuau3, Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])])
    refused, placed = found.stabilities
    assert refused.reason_class == "no_references"
    assert placed.energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert found.hull.systems == 1


def test_a_damaged_library_is_no_lack_of_phases(make_judge, cuau3, monkeypatch):
    def damaged(*_, **__):
        raise InputError("The library is cut off.")

    monkeypatch.setattr(module, "known_reference_set", damaged)
    with pytest.raises(InputError, match="cut off"):
        make_judge()([cuau3])


def test_missing_phases_are_counted_once_and_the_predicted_ones_apart(
    make_judge, cu3au, monkeypatch
):
    def missing(name, origin=""):
        return MissingPhase(
            id=name,
            chemsys="Cu",
            formula="Cu",
            energy_above_hull=0.0,
            shift=0.1,
            n_same_composition=0,
            predicted_from=origin,
        )

    def references(chemsys, level, **_):
        entries = [ReferenceEntry(entry_id=e, formula=e, energy=0.0) for e in chemsys.split("-")]
        return ReferenceSet(
            source="known",
            chemsys=chemsys,
            level=level,
            convention="mp2020",
            entries=entries,
            missing=[missing("mp-1"), missing("mp-2", "mp-9")],
        )

    monkeypatch.setattr(module, "known_reference_set", references)
    cu3ag = cu3au.copy()
    cu3ag.replace_species({"Au": "Ag"})
    found = make_judge()([cu3au, cu3ag]).hull
    assert (found.systems, found.phases) == (2, 3)
    assert (found.missing_phases, found.predicted_phases) == (2, 1)


def test_nothing_to_judge_has_no_hull(judge):
    found = judge([])
    assert (list(found.relaxations), list(found.stabilities), found.hull) == ([], [], None)


def test_the_second_run_computes_nothing(make_judge, cuau3, monkeypatch):
    first = make_judge()([cuau3])
    for name in ("relax", "single_point"):
        monkeypatch.setattr(f"pccd_workflows.engines.potential.{name}", None)
    assert make_judge()([cuau3]).stabilities == first.stabilities


def test_progress_names_each_kind_of_work(make_judge, cuau3):
    told = []
    make_judge(progress=lambda *what: told.append(what))([cuau3])
    assert told[0] == ("relaxing samples, emt", 1, 1)
    assert told[-1] == ("hulls of chemical systems", 1, 1)
    kinds = {what for what, _, _ in told}
    assert kinds >= {"single points of known phases", "relaxing known phases near the hull"}


def test_the_protocol_names_potential_and_library(judge):
    protocol = judge.protocol()
    assert protocol.potential["level"] == "emt"
    assert library().version in protocol.hull


def test_a_judge_by_name_computes_with_the_level(emt, tmp_path):
    made = module.potential_judge("emt", Settings(data_dir=tmp_path))
    assert isinstance(made, PotentialJudge)
    assert made.potential.level == "emt"
