"""Datasets: built, stored, split, refused."""

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.diffusion.dataset import (
    CRYSTAL_SYSTEMS,
    DatasetLimits,
    build_dataset,
    content_hash,
    crystal_system,
    describe_dataset,
    read_dataset,
    split_of,
    write_dataset,
)
from pccd_workflows.diffusion.training_index import crystal_key
from pccd_workflows.errors import InputError

SALT = {
    "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
    "species": ["Cs", "Cl"],
    "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "spacegroup": 221,
}


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_round_trip_through_the_file(crystals_file, tmp_path):
    arrays, rejected = build_dataset(crystals_file)
    assert not rejected
    sha256 = write_dataset(tmp_path / "a.npz", arrays)
    again = read_dataset(tmp_path / "a.npz")
    assert sha256 == content_hash(arrays) == content_hash(again)
    assert len(again) == 384
    assert set(again.n_sites.tolist()) == {2, 5}
    assert describe_dataset(again)["shared_between_splits"] == 0
    assert again.of_split("test").n_sites.tolist() == [5] * 32


def test_values_are_those_of_the_crystal(tmp_path):
    row = SALT | {"band_gap": 6.1, "energy_above_hull": 0.0, "magnetic_ordering": "NM"}
    arrays, _ = build_dataset(write_lines(tmp_path / "x.jsonl", [row]))
    assert arrays.lengths[0] == pytest.approx([4, 4, 4])
    assert arrays.angles[0] == pytest.approx([90, 90, 90])
    assert arrays.numbers[0, :3].tolist() == [55, 17, 0]
    assert (arrays.band_gap[0], arrays.energy_above_hull[0], arrays.ordering[0]) == (
        pytest.approx(6.1),
        0.0,
        0,
    )
    assert CRYSTAL_SYSTEMS[arrays.crystal_system[0]] == "cubic"
    structure = Structure(Lattice.cubic(4), SALT["species"], SALT["frac_coords"])
    structure.make_supercell([2, 1, 1])
    assert arrays.key[0] == crystal_key(structure)


def test_what_is_left_out_is_counted(tmp_path):
    rows = [
        SALT,
        SALT | {"species": ["Cs", "Qq"]},
        SALT | {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, None]]},
        SALT | {"lattice": [[40, 0, 0], [0, 40, 0], [0, 0, 40]]},
        SALT | {"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, float("nan")]]},
    ]
    arrays, rejected = build_dataset(write_lines(tmp_path / "x.jsonl", rows), DatasetLimits())
    assert len(arrays) == 1
    assert sum(rejected.values()) == 4
    assert rejected["volume per atom"] == 1
    assert rejected["NaN"] >= 1


def test_cif_folder(tmp_path):
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    structure.to(filename=str(tmp_path / "MgO.cif"))
    arrays, _ = build_dataset(tmp_path)
    assert arrays.numbers[0, :3].tolist() == [12, 8, 0]
    assert arrays.angles[0] == pytest.approx([60, 60, 60], abs=1e-3)
    assert arrays.key[0] == crystal_key(structure)


@pytest.mark.parametrize("content", ["", "not json\n", "{}\n"])
def test_useless_sources_are_refused(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(InputError):
        build_dataset(path)


def test_missing_and_damaged_files_are_refused(tmp_path, dataset_file):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none.jsonl", tmp_path / "empty"):
        with pytest.raises(InputError):
            build_dataset(source)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(dataset_file.read_bytes()[:500])
    for path in (damaged, tmp_path / "none.npz"):
        with pytest.raises(InputError):
            read_dataset(path)


def test_splits_depend_on_the_chemical_system_only():
    systems = [f"{a}-{b}" for a in "ABCDEFGHIJKLMNOPQRST" for b in "ABCDEFGHIJKLMNOPQRST"]
    counts = {s: sum(split_of(x) == s for x in systems) / 400 for s in ("train", "val", "test")}
    assert counts["train"] == pytest.approx(0.92, abs=0.04)
    assert counts["test"] == pytest.approx(0.05, abs=0.03)
    assert split_of("Mg-O") == split_of("Mg-O")


def test_crystal_systems_of_space_groups():
    numbers = [1, 2, 3, 15, 16, 74, 75, 142, 143, 167, 168, 194, 195, 230]
    assert [crystal_system(n) for n in numbers] == list(np.repeat(range(7), 2))
