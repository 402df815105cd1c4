"""Files of crystals that others wrote: every kind, every damage, and no object that they name."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import ase.io
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from pccd_workflows.core import crystal_files
from pccd_workflows.core.crystal_files import content_sha256, entries, read_crystals
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import Unreadable, plain_structure

SALT = Structure(
    Lattice([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
)
CSCL = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0] * 3, [0.5] * 3])
BOTH = [SALT, CSCL]


def same(found, wanted):
    return len(found) == len(wanted) and all(
        StructureMatcher(scale=False, primitive_cell=False).fit(a, b)
        for a, b in zip(found, wanted, strict=True)
    )


def extxyz():
    stream = io.StringIO()
    ase.io.write(stream, [AseAtomsAdaptor.get_atoms(s) for s in BOTH], format="extxyz")
    return stream.getvalue()


def blocks():
    return "".join(s.to(fmt="cif") for s in BOTH)


def csv_of(cells, column="cif"):
    stream = io.StringIO()
    writer = crystal_files.csv.writer(stream)
    writer.writerows([["number", column], *enumerate(cells)])
    return stream.getvalue()


def as_tensors(structure):
    """As FlowMM, DiffCSP and CDVAE keep a crystal."""
    return {
        "lengths": list(structure.lattice.abc),
        "angles": list(structure.lattice.angles),
        "atom_types": [site.specie.Z for site in structure],
        "frac_coords": structure.frac_coords.tolist(),
    }


TEXTS = {
    "two.cif": blocks(),
    "two.extxyz": extxyz(),
    "two.xyz": extxyz(),
    "crystalformer_struct.csv": csv_of([repr(s.as_dict()) for s in BOTH]),
    "mp_20.csv": csv_of([s.to(fmt="cif") for s in BOTH]),
    "dicts.csv": csv_of([json.dumps(s.as_dict()) for s in BOTH], "structure"),
    "flowmm.jsonl": "\n".join(json.dumps(as_tensors(s)) for s in BOTH),
    "with_cif.json": json.dumps([{"cif": s.to(fmt="cif")} for s in BOTH]),
    "exported.json": json.dumps(
        [{"candidate_id": f"a-{i}", "structure": s.as_dict()} for i, s in enumerate(BOTH)]
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text(tmp_path, name):
    (tmp_path / name).write_text(TEXTS[name])
    assert same([crystal for _, crystal in read_crystals(tmp_path / name)], BOTH)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_compressed(tmp_path, suffix):
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"two.extxyz{suffix}"
    path.write_bytes(compress(extxyz().encode()))
    assert same([crystal for _, crystal in read_crystals(path)], BOTH)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged or cut off"):
        list(read_crystals(path))
    *_, last = entries(path, tolerant=True)
    assert "damaged or cut off" in last.read().reason


def test_poscars(tmp_path):
    for name, structure in (("POSCAR_1", SALT), ("b.vasp", CSCL)):
        (tmp_path / name).write_text(structure.to(fmt="poscar"))
    assert same([crystal for _, crystal in read_crystals(tmp_path)], BOTH)
    lines = SALT.to(fmt="poscar").splitlines()
    nameless = [line.replace("Na", "").replace("Cl", "") for line in lines]
    (tmp_path / "CONTCAR").write_text("\n".join(["x", *nameless[1:5], *nameless[6:]]))
    found = dict(read_crystals(tmp_path))
    assert found["CONTCAR"] == Unreadable("it does not name its elements", "no_element")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_hold_any_kind(tmp_path, kind):
    path = tmp_path / f"made.{kind}"
    texts = {"in/a.extxyz": extxyz(), "in/b.cif": SALT.to(fmt="cif"), "in/notes.txt": "-"}
    texts |= {"__MACOSX/in/b.cif": "-", "../../out.cif": CSCL.to(fmt="cif")}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    else:
        with tarfile.open(path, f"w:{kind.partition('.')[2]}") as tar:
            for name, text in texts.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
    found = [entry.read() for entry in entries(path)]
    formulas = sorted(s.composition.reduced_formula for s in found)
    assert formulas == ["CsCl", "CsCl", "NaCl", "NaCl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]  # nothing is unpacked


def test_mattergen_s_folder_is_read_once(tmp_path):
    (tmp_path / "generated_crystals.extxyz").write_text(extxyz())
    for name in ("generated_crystals_cif.zip", "generated_trajectories.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("gen_0.cif", SALT.to(fmt="cif"))
    assert [entry.name for entry in entries(tmp_path)] == [
        "generated_crystals.extxyz-1",
        "generated_crystals.extxyz-2",
    ]
    (tmp_path / "generated_crystals.extxyz").unlink()
    assert {entry.name for entry in entries(tmp_path)} == {"gen_0"}


def test_the_hash_is_of_names_and_content(tmp_path):
    (tmp_path / "a.cif").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    first = content_sha256(tmp_path)
    (tmp_path / "notes.txt").write_text("y")
    assert content_sha256(tmp_path) == first
    (tmp_path / "a.cif").rename(tmp_path / "b.cif")
    renamed = content_sha256(tmp_path)
    (tmp_path / "b.cif").write_text("y")
    assert len({first, renamed, content_sha256(tmp_path)}) == 3


HALF = Structure(Lattice.cubic(3), [{"Mg": 0.5, "Mn": 0.5}], [[0] * 3])


@pytest.mark.parametrize(
    ("name", "text", "reason", "error_class"),
    [
        ("a.cif", HALF.to(fmt="cif"), "it has disorder", "partial_occupancy"),
        ("a.json", json.dumps(HALF.as_dict()), "it has disorder", "partial_occupancy"),
        ("a.cif", "just words", "", "unreadable"),
        ("a.cif", "", "", "unreadable"),
        ("a.xyz", "2\nno lattice\nNa 0 0 0\nCl 1 1 1\n", "not periodic in three", "not_periodic"),
        ("a.xyz", "2\n\nNa 0 0 0\n", "cut off", "unreadable"),
        ("a.xyz", "9999999999\n", "does not begin with a number of atoms", "unreadable"),
        ("a.xyz", "Na 0 0 0\n", "does not begin with a number of atoms", "unreadable"),
        ("a.json", json.dumps({**SALT.as_dict(), "lattice": {"matrix": SALT.lattice.matrix.tolist(),
         "pbc": [True, True, False]}}), "not periodic in three", "not_periodic"),
        ("a.json", json.dumps({"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "species": ["H"],
         "frac_coords": [[float("nan"), 0, 0]]}), "not finite", "not_finite"),
        ("a.csv", csv_of(["{'a': __import__('os')}"]), "", "unreadable"),
    ],
)  # fmt: skip
def test_what_is_no_crystal_has_a_reason(tmp_path, name, text, reason, error_class):
    (tmp_path / name).write_text(text)
    (found,) = [entry.read() for entry in entries(tmp_path / name, tolerant=True)]
    assert isinstance(found, Unreadable)
    assert reason in found.reason
    assert found.error_class == error_class
    assert found.reason


def test_no_class_that_a_document_names_is_made(tmp_path, monkeypatch):
    """pymatgen's own from_dict decodes site properties with monty: any class, by its name."""
    made = []
    monkeypatch.setattr("pymatgen.core.composition.Composition.from_dict", made.append)
    named = {"@module": "pymatgen.core.composition", "@class": "Composition", "Na": 1}
    document = json.loads(json.dumps(SALT.as_dict()))
    for site in document["sites"]:
        site["properties"] = {"magmom": 0.5, "bad": named, "worse": [named]}
    document["properties"] = {"bad": named}
    (tmp_path / "a.json").write_text(json.dumps({"structure": document}))
    ((_, found),) = read_crystals(tmp_path / "a.json")
    assert made == []
    assert same([found], [SALT])
    assert found.site_properties == {"magmom": [0.5, 0.5]}
    Structure.from_dict(document)
    assert made  # the test would see it


def test_a_plain_structure_is_the_one_that_was_written():
    charged = SALT.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    for structure in (SALT, charged, CSCL):
        document = json.loads(json.dumps(structure.as_dict()))
        assert plain_structure(document).as_dict() == Structure.from_dict(document).as_dict()


def test_large_texts_are_refused_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(crystal_files, "MAX_TEXT", 3000)
    monkeypatch.setattr(crystal_files, "CHUNK", 500)
    (tmp_path / "a.cif").write_text(SALT.to(fmt="cif") + "#" * 4000)
    (tmp_path / "b.json").write_text(json.dumps({"x": "y" * 9000}))
    reasons = [entry.read().reason for entry in entries(tmp_path, tolerant=True)]
    assert "a.cif has more than" in reasons[0]
    assert "b.json holds a JSON object of more than" in reasons[1]


def test_pickles_are_not_opened(tmp_path):
    (tmp_path / "predictions_00.pt").write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / "predictions_00.pt"):
        with pytest.raises(InputError, match=r"Pickles .* are not opened"):
            list(entries(path))
