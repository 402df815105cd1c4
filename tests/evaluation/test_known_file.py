"""Known crystals of a data file, whatever its form."""

import json

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.evaluation.known_file import known_file


def test_known_crystals_may_be_structures_or_cifs(tmp_path):
    doubled = Structure(
        Lattice.tetragonal(3, 6), ["Cs", "Cl"] * 2, [[0, 0, 0], [0.5, 0.5, 0.25]] * 2
    )
    doubled.translate_sites([2, 3], [0, 0, 0.5])
    lines = tmp_path / "structures.jsonl"
    lines.write_text(json.dumps({"id": "one", "structure": doubled.as_dict()}) + "\n")
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    doubled.to(str(cifs / "one.cif"))
    for data in (lines, cifs):
        (row,) = known_file(data).rows
        assert (row["id"], sorted(row["species"])) == ("one", ["Cl", "Cs"])
        ((name, crystal),) = known_file(data).with_formulas({"CsCl"})
        assert name == "one"
        assert len(crystal) == 2


def test_a_file_without_crystals_is_no_known_file(tmp_path):
    data = tmp_path / "nothing.jsonl"
    data.write_text('{"id": "one", "energy": 1.0}\n')
    with pytest.raises(InputError, match="holds no crystal"):
        _ = known_file(data).rows


def test_references_are_found_by_formula(data):
    find = known_file(data).with_formulas
    assert [i for i, _ in find({"Cu3Au", "NaCl"})] == ["mp-2"]
    assert find({"CuAu3"}) == []
