"""Magnetic order: what calculations start from, and what moments amount to."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.magnetism import ordering_of, starting_moments, why_not
from pccd_workflows.core.errors import InputError


def oxide(metals: list[str]) -> Structure:
    """Return a cell with the metals along its long axis and an oxygen beside each."""
    n = len(metals)
    sites = [[0, 0, i / n] for i in range(n)] + [[0.5, 0.5, (i + 0.5) / n] for i in range(n)]
    return Structure(Lattice.tetragonal(3.0, 3.0 * n), [*metals, *["O"] * n], sites)


@pytest.mark.parametrize("ordering", ["NM", "FM", "AFM", "FiM"])
@pytest.mark.parametrize("metals", [["Mn"] * 4, ["Mn", "Fe", "Mn", "Fe"], ["Mn"] * 6])
def test_a_start_has_the_order_it_is_asked_for(ordering, metals):
    moments = starting_moments(oxide(metals), ordering)
    counted = [m if abs(m) > 1 else 0.0 for m in moments]
    if ordering == "FiM" and len(set(metals)) > 1:
        assert {m > 0 for m, s in zip(moments, metals, strict=False) if s == "Fe"} == {True}
        assert {m > 0 for m, s in zip(moments, metals, strict=False) if s == "Mn"} == {False}
    else:
        assert ordering_of(counted) == ordering


def test_antiferromagnetic_neighbours_along_the_axis_are_opposite():
    moments = starting_moments(oxide(["Mn"] * 4), "AFM")
    assert moments[:4] == [5.0, -5.0, 5.0, -5.0]


@pytest.mark.parametrize("ordering", ["AFM", "FiM"])
def test_one_magnetic_site_cannot_be_opposite_to_another(ordering):
    one = oxide(["Mn", "Mg"])
    with pytest.raises(InputError, match=rf"{ordering} needs two magnetic sites.*one \(Mn\): take"):
        starting_moments(one, ordering)
    assert starting_moments(one, "FM")[0] == 5.0
    doubled = one.make_supercell([2, 1, 1], in_place=False)
    counted = [m for m in starting_moments(doubled, ordering) if abs(m) > 1]
    assert ordering_of(counted) == "AFM"  # one up, one down
    # nothing to order
    assert why_not(oxide(["Mg", "Mg"]), ordering) is None


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([], "NM"),
        ([0.02, -0.03], "NM"),
        ([4.5, 4.4, -0.1], "FM"),
        ([4.5, 4.4, 0.3], "FM"),
        ([-3.0, -3.1], "FM"),
        ([4.5, -4.5, 0.0], "AFM"),
        ([4.5, -4.4], "AFM"),
        ([5.0, -4.0], "FiM"),
        ([4.0, 4.0, -5.0], "FiM"),
    ],
)
def test_moments_amount_to_an_order(moments, expected):
    assert ordering_of(moments) == expected
