"""Exports: read back by other programs, all or nothing, same names every time."""

import csv
import json
import re
from pathlib import Path

import ase.io
import ledger_factory as factory
import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from pccd_workflows.analysis.symmetry import symmetrised
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.errors import InputError
from pccd_workflows.export import (
    best_relaxation,
    cif_text,
    export_candidates,
    file_stem,
    properties,
)

GOOD = factory.judged(0, "MgMn2O4", above=0.05, kind="substitution", phonons="stable")
OTHER = factory.judged(1, "MgO", above=0.0, novel=False)
UNRELAXED = factory.rejected(2, "too_close")
ALL = [GOOD, OTHER, UNRELAXED]


def relaxed(doc: CandidateDoc) -> Structure:
    record = best_relaxation(doc)
    assert record is not None
    assert record.structure is not None
    return record.structure


@pytest.mark.parametrize(
    ("formula", "name"), [("Mg2MnO4", "Mg2MnO4"), ("MgMnO3", "MgMnO3"), ("MnO2", "MnO2")]
)
def test_names_are_plain_formulas(formula, name):
    doc = factory.judged(3, formula)
    assert file_stem(doc, relaxed(doc)) == f"{doc.candidate_id}_{name}"


def test_cif_holds_the_relaxed_crystal_and_its_properties(tmp_path):
    result = export_candidates(ALL, tmp_path, "cif")
    assert result.left_out == [UNRELAXED.candidate_id]
    assert [path.name for path in result.files] == [
        f"{GOOD.candidate_id}_MgMn2O4.cif",
        f"{OTHER.candidate_id}_MgO.cif",
    ]
    text = result.files[0].read_text()
    read = Structure.from_file(result.files[0])
    assert "# energy_above_hull_ev_per_atom: 0.05\n" in text
    assert f"# weights_sha256: {'3f7a' * 16}\n" in text
    assert "# novel: True\n# kind_of_new: substitution\n# known_id: mp-1\n" in text
    assert "# symmetry: Fd-3m (No. 227), spglib with a tolerance of 0.1 Å" in text
    assert re.search(
        r"_space_group_name_H-M_alt\W+Fd-3m|_symmetry_space_group_name_H-M\W+Fd-3m", text
    )
    assert len(read) == 56  # the conventional cell
    assert read.matches(relaxed(GOOD))


def test_cif_in_p1_holds_the_coordinates_as_relaxed(tmp_path):
    path = export_candidates([GOOD], tmp_path, "cif-p1").files[0]
    assert path.name == f"{GOOD.candidate_id}_MgMn2O4.cif"
    read = Structure.from_file(path)
    assert "# symmetry: P1: coordinates exactly as relaxed\n" in path.read_text()
    assert read.composition == relaxed(GOOD).composition
    assert np.allclose(sorted(read.lattice.abc), sorted(relaxed(GOOD).lattice.abc), atol=1e-5)


def test_symmetry_is_made_exact_within_its_tolerance():
    exact = relaxed(OTHER)
    shaken = exact.copy().perturb(0.02, seed=3) * 2
    found = symmetrised(shaken, 0.1)
    assert found is not None
    assert (found.symbol, found.number) == ("Fm-3m", 225)
    assert found.structure.matches(exact)
    assert 0.001 < found.moved < 0.1
    assert SpacegroupAnalyzer(found.structure, symprec=1e-4).get_space_group_number() == 225
    strict = symmetrised(shaken, 1e-4)
    assert strict is not None
    assert strict.number < 225


def test_a_file_without_symmetry_says_so(monkeypatch):
    monkeypatch.setattr("pccd_workflows.export.symmetrised", lambda *_: None)
    assert "# symmetry: P1" in cif_text(OTHER, relaxed(OTHER))


def test_poscar_groups_elements_and_names_the_crystal(tmp_path):
    path = export_candidates([GOOD], tmp_path / "one.vasp", "poscar").files[0]
    poscar = Poscar.from_file(path, check_for_potcar=False)
    assert poscar.comment.startswith(f"candidate_id={GOOD.candidate_id} spacegroup=Fd-3m ")
    assert len(poscar.site_symbols) == len(set(poscar.site_symbols)) == 3
    assert np.allclose(poscar.structure.lattice.matrix, relaxed(GOOD).lattice.matrix, atol=1e-8)


def test_extxyz_holds_all_frames_with_their_properties(tmp_path):
    path = export_candidates(ALL, tmp_path / "all.xyz", "extxyz").files[0]
    frames = ase.io.read(path, index=":", format="extxyz")
    assert [frame.info["candidate_id"] for frame in frames] == [
        GOOD.candidate_id,
        OTHER.candidate_id,
    ]
    assert frames[0].info["energy_above_hull_ev_per_atom"] == pytest.approx(0.05)
    assert frames[0].info["novel"]
    assert not frames[1].info["novel"]
    assert np.allclose(frames[0].cell[:], relaxed(GOOD).lattice.matrix, atol=1e-6)
    assert len(frames[0]) == 14


def test_csv_has_a_row_for_every_candidate(tmp_path):
    path = export_candidates(ALL, tmp_path, "csv").files[0]
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert path.name == "candidates.csv"
    assert [row["candidate_id"] for row in rows] == [doc.candidate_id for doc in ALL]
    assert rows[0]["novel"] == "true"
    assert (rows[0]["kind_of_new"], rows[0]["known_id"]) == ("substitution", "mp-1")
    assert float(rows[0]["energy_above_hull_ev_per_atom"]) == 0.05
    assert rows[2]["energy_above_hull_ev_per_atom"] == ""
    assert rows[2]["reason_class"] == "too_close"


def test_json_is_the_documents(tmp_path):
    path = export_candidates(ALL, tmp_path / "all.json", "json").files[0]
    read = [CandidateDoc.model_validate(row) for row in json.loads(path.read_text())]
    assert read == ALL


def test_nothing_is_overwritten_without_force(tmp_path):
    path = tmp_path / f"{file_stem(OTHER, relaxed(OTHER))}.cif"
    path.write_text("mine")
    with pytest.raises(InputError, match="--force"):
        export_candidates([GOOD, OTHER], tmp_path, "cif")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "mine"
    export_candidates([GOOD, OTHER], tmp_path, "cif", force=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert "MgO" in path.read_text()


def test_a_failure_in_the_middle_leaves_nothing(tmp_path):
    def broken():
        yield GOOD
        raise InputError("The next document cannot be read.")

    with pytest.raises(InputError, match="next document"):
        export_candidates(broken(), tmp_path / "new", "cif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("docs", [[], [UNRELAXED]])
def test_an_empty_export_is_refused(tmp_path, docs):
    with pytest.raises(InputError, match="nothing was written"):
        export_candidates(docs, tmp_path / "new", "poscar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "form", "message"),
    [
        ("one.cif", "cif", "one crystal only"),
        ("file/x.csv", "csv", "cannot be written|is a file"),
        ("file", "cif", "is a file"),
        ("folder", "pdb", "Unknown format"),
    ],
)
def test_impossible_targets_get_one_sentence(tmp_path, out, form, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message) as caught:
        export_candidates([GOOD, OTHER], tmp_path / out, form)
    assert len(str(caught.value).splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_gets_one_sentence():
    with pytest.raises(InputError, match="cannot be written"):
        export_candidates([GOOD], Path("/proc/nothing/here"), "csv")


def test_text_cannot_break_out_of_a_comment(tmp_path):
    odd = OTHER.model_copy(update={"reason": "first line\ndata_fake\n_cell_length_a 1\x00"})
    text = export_candidates([odd], tmp_path, "cif").files[0].read_text()
    assert "# reason: first line data_fake _cell_length_a 1\n" in text
    assert text.count("\ndata_") == 1


def test_properties_are_those_of_the_highest_rung():
    second = GOOD.relaxations[0].model_copy(update={"level": "7net-0", "energy_per_atom": -7.0})
    doc = GOOD.model_copy(update={"relaxations": [GOOD.relaxations[0], second]})
    assert properties(doc)["relaxation_level"] == "7net-0"
    assert properties(doc)["energy_ev_per_atom"] == -7.0
    lost = second.model_copy(update={"structure": None, "verdict": "diverged"})
    doc = GOOD.model_copy(update={"relaxations": [GOOD.relaxations[0], lost]})
    assert properties(doc)["relaxation_level"] == "chgnet"
