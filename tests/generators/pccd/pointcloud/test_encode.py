"""Encoding, against the seed paper's own example and limits."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.pointcloud.encode import encode, site_of_point, wrap

PEROVSKITE = Structure(
    Lattice.cubic(3.75),
    ["Mg", "Mn", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)


def test_the_papers_example_comes_out_as_printed() -> None:
    """MgMnO3 in the seed paper, "Data expression example": a = 3.75 Å, columns (Mg, Mn, O)."""
    cloud = encode(PEROVSKITE, elements=["Mg", "Mn", "O"], spread="seed", strict=True)
    assert cloud.values.shape == (3, 128, 3)
    assert cloud.elements == ("Mg", "Mn", "O")
    np.testing.assert_array_equal(
        cloud.values[0, [0, 25, 50, 75, 100, 127]][:, 0], [0, *[0.5] * 3, 0, 0]
    )
    np.testing.assert_array_equal(cloud.values[1, [0, 25, 127]], np.eye(3))
    np.testing.assert_array_equal(cloud.values[1].sum(axis=1), np.ones(128))
    np.testing.assert_allclose(cloud.values[2, :64], 0.25)
    np.testing.assert_allclose(cloud.values[2, 64:], 0.25)


@pytest.mark.parametrize("n_sites", [*range(1, 33), 128])
def test_every_atom_gets_its_copies(n_sites: int) -> None:
    seed = np.bincount(site_of_point(n_sites, spread="seed"), minlength=n_sites)
    even = np.bincount(site_of_point(n_sites, spread="even"), minlength=n_sites)
    assert seed.sum() == even.sum() == 128
    assert set(seed[:-1]) <= {128 // n_sites}
    assert seed[-1] == 128 // n_sites + 128 % n_sites
    assert even.max() - even.min() <= 1
    assert (np.diff(site_of_point(n_sites, spread="even")) >= 0).all()


@pytest.mark.parametrize("n_sites", [0, 129])
def test_a_cloud_holds_one_to_128_atoms(n_sites: int) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        site_of_point(n_sites)


def test_coordinates_are_wrapped_even_from_a_hair_below_zero() -> None:
    wrapped = wrap(np.array([-1e-20, -0.25, 1.0, 3.5]))
    np.testing.assert_array_equal(wrapped, [0, 0.75, 0, 0.5])


def test_columns_follow_the_atomic_number_unless_given() -> None:
    assert encode(PEROVSKITE).elements == ("O", "Mg", "Mn")
    cloud = encode(Structure(Lattice.cubic(3), ["Fe"], [[0, 0, 0]]), elements=["Al", "Fe"])
    np.testing.assert_array_equal(cloud.values[1], np.tile([0, 1, 0], (128, 1)))


def test_four_elements_widen_the_cloud() -> None:
    crystal = Structure(Lattice.cubic(5), ["H", "Li", "B", "O"], np.arange(12).reshape(4, 3) / 12)
    cloud = encode(crystal)
    assert cloud.values.shape == (3, 128, 4)
    np.testing.assert_array_equal(cloud.values[1].sum(axis=0), [32] * 4)
    assert not cloud.values[[0, 2], :, 3].any()


def test_oxidation_states_are_ignored() -> None:
    charged = PEROVSKITE.copy()
    charged.add_oxidation_state_by_element({"Mg": 2, "Mn": 4, "O": -2})
    np.testing.assert_array_equal(encode(charged).values, encode(PEROVSKITE).values)


@pytest.mark.parametrize(
    ("crystal", "words"),
    [
        (Structure(Lattice.orthorhombic(4, 15.01, 9), ["H"], [[0, 0, 0]]), "15.01 Å"),
        (Structure(Lattice.cubic(9), ["H"] * 17, np.arange(51).reshape(17, 3) / 51), "not 17"),
        (
            Structure(Lattice.cubic(9), ["H", "Li", "B", "O"], np.arange(12).reshape(4, 3) / 12),
            "at most 3 elements",
        ),
    ],
)
def test_strict_refuses_what_the_seed_excludes(crystal: Structure, words: str) -> None:
    encode(crystal)
    with pytest.raises(InputError, match=words):
        encode(crystal, strict=True)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        (["Mg", "O"], r"holds \['Mn'\]"),
        (["Mg", "Mn", "O", "O"], "named twice"),
        (["Mg", "Mn", "Ox"], "'Ox' is not"),
    ],
)
def test_elements_must_cover_the_crystal(elements: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        encode(PEROVSKITE, elements=elements)


def test_disordered_crystals_are_refused() -> None:
    alloy = Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(InputError, match="partially occupied"):
        encode(alloy)
