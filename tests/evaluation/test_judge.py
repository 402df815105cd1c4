"""Crystals relaxed and placed on a potential's own hull: copper and gold with EMT."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.evaluation import judge as module
from pccd_workflows.evaluation.known_file import KnownCrystalsFile
from pccd_workflows.known.phases import NEAR_AT_LEVEL, NEAR_IN_SOURCE


def test_a_known_crystal_lies_on_its_own_hull(judge, cu3au, cuau3):
    found = judge([cu3au, cuau3])
    known, new = found.stabilities
    assert known.energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert new.energy_above_hull is not None
    assert [r.verdict for r in found.relaxations] == ["converged", "converged"]
    assert (known.level, known.references) == ("emt", found.hull.reference_set)
    assert found.hull.phases == 3
    assert found.hull.largest_phase == 4
    assert found.hull.missing_phases.phases_in_table == 1
    # CuAu3 of the table is not in the data
    assert found.hull.missing_phases.shift.largest > 0.1


def test_a_crystal_of_an_element_without_phases_has_a_reason_instead_of_a_place(
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


def test_nothing_to_judge_has_no_hull(judge):
    found = judge([])
    assert (list(found.relaxations), list(found.stabilities), found.hull) == ([], [], None)


def test_an_element_that_the_data_lacks_is_taken_from_known_structure_types(
    make_judge, data, cu3au, cuau3
):
    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[1:]))  # no copper
    found = make_judge()([cu3au, cuau3])
    assert found.stabilities[0].energy_above_hull == pytest.approx(0.0, abs=1e-3)
    assert found.hull.phases > 3  # gold, Cu3Au, and structures of copper


def test_the_second_run_computes_nothing(make_judge, cuau3, monkeypatch):
    first = make_judge()([cuau3])
    for name in ("relax", "single_point"):
        monkeypatch.setattr(f"pccd_workflows.engines.potential.{name}", None)
    assert make_judge()([cuau3]).stabilities == first.stabilities


def test_progress_names_each_kind_of_work(make_judge, cuau3):
    told = []
    make_judge(progress=lambda *what: told.append(what))([cuau3])
    assert ("relaxing samples, emt", 1, 1) in told
    assert ("single points of known phases", 3, 3) in told
    assert {what for what, _, _ in told} >= {"relaxing phases near the hull"}


def test_the_protocol_states_the_limits_that_are_used(judge, make_judge):
    protocol = judge.protocol()
    assert protocol.potential["level"] == "emt"
    assert f"at most {NEAR_IN_SOURCE:g} eV/atom above its hull" in protocol.hull
    assert f"at most {NEAR_AT_LEVEL:g} eV/atom above the unrelaxed hull" in protocol.hull
    assert make_judge(relax_phases=False).protocol().hull.endswith("not relaxed")


def test_a_judge_by_name_reads_the_file_and_computes_with_the_level(data, emt, tmp_path):
    from pccd_workflows.settings import Settings

    made = module.potential_judge(data, "emt", Settings(data_dir=tmp_path))
    assert isinstance(made.data, KnownCrystalsFile)
    assert (made.data.path, made.potential.level) == (data, "emt")
