"""The element table is one to one."""

import pytest

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.pointcloud.elements import (
    atomic_number,
    canonical_elements,
    symbol,
)


def test_symbols_and_numbers_are_one_to_one() -> None:
    symbols = [symbol(number) for number in range(1, 119)]
    assert len(set(symbols)) == 118
    assert [atomic_number(name) for name in symbols] == list(range(1, 119))


@pytest.mark.parametrize(("name", "number"), [("H", 1), ("Dy", 66), ("Ho", 67), ("Og", 118)])
def test_known_numbers(name: str, number: int) -> None:
    assert atomic_number(name) == number
    assert symbol(number) == name


@pytest.mark.parametrize("name", ["D", "T", "mg", "Xx", "", "Mg2+"])
def test_what_is_no_element_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="not a chemical element"):
        atomic_number(name)


@pytest.mark.parametrize("number", [-1, 0, 119])
def test_numbers_outside_the_table_are_refused(number: int) -> None:
    with pytest.raises(InputError, match="not between 1 and 118"):
        symbol(number)


def test_canonical_order_is_by_atomic_number_without_repeats() -> None:
    assert canonical_elements(["O", "Mn", "Mg", "O"]) == ("O", "Mg", "Mn")
