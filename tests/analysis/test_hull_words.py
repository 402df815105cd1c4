"""What a place on a hull is called, and what is said of phases that a hull lacks."""

import pytest

from pccd_workflows.analysis.hull_words import (
    MOST_NAMED,
    hull_name,
    may_be_stable,
    may_be_words,
    missing_lines,
    missing_notes,
    place_in_words,
)
from pccd_workflows.core.reference_set import MissingPhase


def phase(number: int, shift: float, formula: str = "Li4Ti5O12", **more: str) -> MissingPhase:
    """Return a missing phase of Li-Ti-O."""
    return MissingPhase(
        id=f"mp-{number}",
        chemsys="Li-O-Ti",
        formula=formula,
        energy_above_hull=0.012,
        shift=shift,
        n_same_composition=0,
        **more,
    )


@pytest.mark.parametrize(
    ("above", "n_missing", "words"),
    [
        (-0.05, 0, "below the hull"),
        (0.0, 0, "on the hull"),
        (-5e-5, 0, "on the hull"),
        (-0.05, 1, "below the known hull; 1 phase missing"),
        (0.0, 3, "on the known hull; 3 phases missing"),
        (-0.05, None, "below the hull of its references"),
        (0.03, 0, "above the hull"),
        (0.03, 3, "above the hull"),
        (0.03, None, "above the hull"),
        (None, 0, ""),
    ],
)
def test_a_hull_is_the_hull_only_where_nothing_is_missing(above, n_missing, words) -> None:
    assert place_in_words(above, n_missing) == words


def test_rounding_decides_nothing() -> None:
    assert may_be_stable(9e-5)
    assert not may_be_stable(2e-4)
    assert not may_be_stable(None)
    assert hull_name(2) == "the known hull; 2 phases missing"


def test_missing_phases_say_how_far_they_could_move_the_hull() -> None:
    assert missing_lines([phase(1, 0.0312), phase(2, 0.0)]) == [
        "missing: Li4Ti5O12 (mp-1) could lower the hull by 31 meV/atom there",
        "missing: Li4Ti5O12 (mp-2) lies 12 meV/atom above its table's hull",
    ]
    many = missing_lines([phase(number, 0.1) for number in range(MOST_NAMED + 3)])
    assert many[-1] == "and 3 more that would move it less"
    assert missing_lines([]) == []


def test_each_system_that_lacks_something_gets_a_sentence() -> None:
    (said,) = missing_notes({"Li-O-Ti": [phase(1, 0.0312), phase(2, 0.0)], "Mg-O": []})
    assert said == (
        "2 known phases of Li-O-Ti have no structure here: Li4Ti5O12 (mp-1) could lower the hull "
        "by 31 meV/atom there."
    )
    (none,) = missing_notes({"Li-O-Ti": [phase(2, 0.0)]})
    assert none == (
        "1 known phase of Li-O-Ti has no structure here, none of which could lower the hull."
    )
    several = [phase(number, 0.1, f"Li{number + 1}TiO4") for number in range(MOST_NAMED + 2)]
    assert missing_notes({"Li-O-Ti": several})[0].endswith("; and 2 more.")


def test_of_a_composition_one_phase_is_named() -> None:
    (said,) = missing_notes({"Li-O-Ti": [phase(1, 0.2), phase(2, 0.1), phase(3, 0.1, "TiO2")]})
    assert said.count("Li4Ti5O12") == 1
    assert "Li4Ti5O12 (mp-1)" in said
    assert "TiO2 (mp-3)" in said


def test_what_a_missing_phase_is_predicted_from_is_said() -> None:
    rutile = phase(1, 0.0, "TiO2", predicted_from="mp-856")
    (said,) = missing_notes({"Li-O-Ti": [rutile, phase(2, 0.0)]})
    assert said == (
        "2 known phases of Li-O-Ti have no structure here; predicted: TiO2 (mp-1) from mp-856."
    )
    (said,) = missing_notes({"Li-O-Ti": [rutile, phase(2, 0.0312)]})
    assert said.endswith(
        "; not predicted: Li4Ti5O12 (mp-2) could lower the hull by 31 meV/atom there."
    )
    assert missing_lines([rutile]) == ["missing: TiO2 (mp-1) from mp-856"]


def test_a_crystal_of_the_composition_of_a_missing_phase_may_be_that_phase() -> None:
    assert may_be_words(["mp-1", "mp-2"]) == (
        "new only if it is none of the known phases of its composition: mp-1, mp-2"
    )
    assert may_be_words([f"mp-{i}" for i in range(MOST_NAMED + 1)]).endswith(" ...")
    assert may_be_words([]) == ""
