"""How crystals are shared out between jobs."""

import pytest

from pccd_workflows.stages.sharing import BRANCHES, TOGETHER, branches, by_composition, subranges


def test_compositions_stay_whole_and_in_order():
    numbers = [(f"A{n:04d}", 100) for n in range(40)]
    shares = by_composition(numbers)
    assert [first for first, _ in shares] == [f"A{n:04d}" for n in range(0, 40, 6)]
    held = [[f for f, _ in numbers if first <= f <= last] for first, last in shares]
    assert sum(held, []) == [formula for formula, _ in numbers]
    assert all(100 * len(some) >= TOGETHER for some in held[:-1])


@pytest.mark.parametrize("stop", [1, 8, 513, 20_000, 1_000_001])
def test_no_job_starts_more_than_it_may(stop):
    ranges = subranges(0, stop, 8)
    assert len(ranges) <= BRANCHES
    assert [i for i, _ in ranges] == [0, *[j for _, j in ranges[:-1]]]
    assert ranges[-1][1] == stop
    assert len(branches(range(stop))) <= BRANCHES
