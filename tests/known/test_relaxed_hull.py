"""Which known phases are relaxed for a hull, in which order, and what comes of it."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.relaxed_hull import REACH, Phase, relax_near_hull
from tests.relaxations import relaxation

LEVEL = "chgnet"


def phase(name: str, energy: float, *, relaxed: bool = False, copies: int = 1) -> Phase:
    """Return MgO (or an element, by its name) with an energy, eV/atom."""
    symbols = [name] if name in ("Mg", "O") else ["Mg", "O"]
    sites = [[i / len(symbols), 0, 0] for i in range(len(symbols))]
    structure = Structure(Lattice.cubic(4.0), symbols, sites) * (copies, 1, 1)
    return Phase(name, "tests", structure, energy, relaxed)


class Relaxer:
    """Lowers phases by what they are known to gain, eV/atom; found by their energies."""

    def __init__(self, phases: list[Phase], gains: dict[str, float]) -> None:
        self.phases = phases
        self.gains = gains
        self.asked: list[str] = []

    def __call__(self, structure: Structure) -> Relaxation:
        (found,) = [p for p in self.phases if p.structure is structure]
        self.asked.append(found.id)
        return relaxation(structure, found.energy - self.gains.get(found.id, 0.0))


ELEMENTS = [phase("Mg", -1.5, relaxed=True), phase("O", -5.0, relaxed=True)]


def test_the_hull_comes_to_rest_first_and_spares_what_lies_above_it_then() -> None:
    """8 meV above a vertex that gains 5: out of reach of the hull at rest, never relaxed."""
    near, far = phase("b", -6.0 + 0.8 * REACH), phase("c", -6.0 + 0.4 * REACH)
    phases = [*ELEMENTS, phase("a", -6.0), near, far]
    relax = Relaxer(phases, {"a": 0.5 * REACH, "c": 0.45 * REACH})
    found = {each.id: each for each in relax_near_hull(phases, LEVEL, relax)}
    assert relax.asked == ["a", "c"]
    assert found["a"].energy == pytest.approx(-6.0 - 0.5 * REACH)
    assert found["a"].relaxed
    assert (found["b"].energy, found["b"].relaxed) == (near.energy, False)


def test_a_phase_that_comes_to_the_hull_by_another_s_fall_is_relaxed_too() -> None:
    """The lower one goes uphill and stays; the other one falls below it."""
    phases = [*ELEMENTS, phase("a", -6.0), phase("b", -5.995)]
    relax = Relaxer(phases, {"a": -0.2, "b": 0.02})
    found = {each.id: each for each in relax_near_hull(phases, LEVEL, relax)}
    assert relax.asked == ["a", "b"]
    assert (found["a"].energy, found["a"].relaxed) == (-6.0, False)
    assert found["b"].energy == pytest.approx(-6.015)


def test_small_cells_come_first_and_progress_counts_them() -> None:
    told: list[tuple[str, int, int]] = []
    phases = [*ELEMENTS, phase("a", -6.0, copies=4), phase("b", -6.0), phase("c", -5.9)]
    relax = Relaxer(phases, {})
    relax_near_hull(phases, LEVEL, relax, lambda *each: told.append(each))
    assert relax.asked == ["b", "a"]
    assert [(done, total) for _, done, total in told] == [(1, 2), (2, 2)]


def test_what_was_relaxed_before_is_not_relaxed_again() -> None:
    phases = [*ELEMENTS, phase("a", -6.0, relaxed=True)]
    relax = Relaxer(phases, {})
    assert relax_near_hull(phases, LEVEL, relax) == phases
    assert relax.asked == []


def test_what_promises_no_more_than_the_reach_is_left_as_it_is() -> None:
    """Looked at once each, with its own energy; where nobody can say, it is relaxed."""
    phases = [*ELEMENTS, phase("a", -6.0), phase("b", -6.0 + 0.2 * REACH), phase("c", -6.0)]
    promised = {"a": 0.9 * REACH, "b": 1.1 * REACH, "c": None}
    looked: list[tuple[str, float]] = []

    def look(structure: Structure, energy: float) -> float | None:
        (found,) = [p for p in phases if p.structure is structure]
        looked.append((found.id, energy))
        return promised[found.id]

    relax = Relaxer(phases, {"a": 0.02, "b": 0.01, "c": 0.0})
    found = {each.id: each for each in relax_near_hull(phases, LEVEL, relax, look=look)}
    assert sorted(looked) == [("a", -6.0), ("b", -6.0 + 0.2 * REACH), ("c", -6.0)]
    assert relax.asked == ["c", "b"]
    assert (found["a"].energy, found["a"].relaxed) == (-6.0, False)
    assert found["b"].energy == pytest.approx(-6.01 + 0.2 * REACH)
    # the threshold goes with the reach
    relax = Relaxer(phases, {})
    relax_near_hull(phases, LEVEL, relax, look=look, reach=0.5 * REACH)
    assert sorted(relax.asked) == ["a", "b", "c"]
