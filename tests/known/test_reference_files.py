"""Reference sets from files: what is read, and what is refused in one sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known import reference_files
from pccd_workflows.known.reference_files import (
    check_reference_file,
    load_reference_set,
    read_reference_set,
    shipped_path,
    shipped_reference_set,
    write_reference_set,
)

MAGNESIUM = Structure(
    Lattice.hexagonal(3.2, 5.2), ["Mg"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
)
OXYGEN = Structure(Lattice.cubic(4), ["O"] * 2, [[0, 0, 0], [0, 0, 0.3]])
MAGNESIA = Structure(
    Lattice([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]),
    ["Mg", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5]],
)
COPPER = Structure(Lattice.cubic(2.6), ["Cu"], [[0, 0, 0]])


def explicit(name: str, structure: Structure, **energy: float) -> dict[str, Any]:
    """A row as in the shared data: lattice, species and fractional coordinates."""
    return {
        "id": name,
        "lattice": structure.lattice.matrix.tolist(),
        "species": [site.specie.symbol for site in structure],
        "frac_coords": structure.frac_coords.tolist(),
        **energy,
    }


def rows() -> list[dict[str, Any]]:
    return [
        explicit("mg", MAGNESIUM, energy_per_atom=-1.6),
        {"id": "o2", "structure": OXYGEN.as_dict(), "energy": -9.8},
        explicit("mgo", MAGNESIA, energy=-12.6),
        explicit("cu", COPPER, energy=-4.1),
    ]


def write_lines(path: Path, lines: list[Any]) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load(path: Path, chemsys: str = "Mg-O", **options: Any) -> ReferenceSet:
    return load_reference_set(path, chemsys, "chgnet", "mp2020", **options)


@pytest.mark.parametrize("name", ["known.jsonl", "known.jsonl.gz"])
def test_json_lines_give_the_phases_of_the_system(tmp_path: Path, name: str) -> None:
    found = load(write_lines(tmp_path / name, [*rows(), ""]))
    assert {e.entry_id: round(e.energy_per_atom, 6) for e in found.entries} == {
        "mg": -1.6,
        "o2": -4.9,
        "mgo": -6.3,
    }
    assert (found.source, found.chemsys, found.convention) == ("file", "Mg-O", "mp2020")
    assert found.source_version.startswith("sha256 ")
    mgo = next(e for e in found.entries if e.entry_id == "mgo")
    assert mgo.structure == MAGNESIA


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "line 2: not valid JSON"),
        ('{"energy": 1}', "line 2: a phase needs an 'id'"),
        ("[1, 2]", "line 2: a phase needs an 'id'"),
        (explicit("x", COPPER), "line 2: 'energy' (eV per cell) or 'energy_per_atom' is missing"),
        ({**explicit("x", COPPER), "energy": "low"}, "the energy 'low' is not a number"),
        ({"id": "x", "energy": 1, "species": ["Cu"]}, "line 2: 'lattice' is missing"),
        ({**explicit("x", COPPER, energy=1), "species": ["Xx"]}, "line 2: not a crystal"),
        ({"id": "x", "structure": 7, "energy": 1}, "line 2: not a crystal"),
        ({**explicit("x", COPPER, energy=1), "level": "7net-0"}, "level '7net-0', not 'chgnet'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, words: str) -> None:
    path = write_lines(tmp_path / "known.jsonl", [rows()[0], line])
    with pytest.raises(InputError) as caught:
        load(path, "Cu-Mg-O")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no reference file"):
        load(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="is empty"):
        load(write_lines(tmp_path / "empty.jsonl", ["", " "]))
    with pytest.raises(InputError, match="no phase that consists of Fe-S only"):
        load(write_lines(tmp_path / "known.jsonl", rows()), "Fe-S")
    with pytest.raises(InputError, match="'mg' occurs twice"):
        load(write_lines(tmp_path / "twice.jsonl", [rows()[0], rows()[0]]))
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b"{}")[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        load(broken)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"energy": float("nan")}, "the energy nan is not a number"),
        ({"energy": -1e30}, "phase 'mgo' has an impossible energy, -5e+29 eV/atom"),
        ({"energy": -126.0}, "phase 'mgo' has a formation energy of -59.8 eV/atom"),
        ({"id": "mg"}, "'mg' occurs twice"),
        ({"species": ["O", "O"]}, None),
        ({"species": [{"Mg": 0.5, "Ca": 0.5}, "O"]}, "not a crystal of whole atoms"),
    ],
)
def test_phases_that_no_hull_can_be_made_of_are_found_before_anything_runs(
    tmp_path: Path, changed: dict[str, Any], words: str | None
) -> None:
    lines = [*rows()[:2], {**rows()[2], **changed}]
    path = write_lines(tmp_path / "known.jsonl", lines)

    def check() -> None:
        check_reference_file(path, "Mg-O", "chgnet", "mp2020", computes=True)

    if words is None:
        check()
        return
    with pytest.raises(InputError) as caught:
        check()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_element_without_a_phase_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "known.jsonl", [rows()[0], rows()[2]])
    with pytest.raises(InputError, match="has no phase of the element O, so that"):
        check_reference_file(path, "Mg-O", "chgnet", "mp2020", computes=True)


def test_written_sets_are_checked_as_well(tmp_path: Path) -> None:
    entries = [
        ReferenceEntry(entry_id=name, formula=name, energy=energy)
        for name, energy in (("Mg1", -1.5), ("O1", -1e30))
    ]
    sets = {
        "deep": (entries, "mp2020", "'O1' has an impossible energy"),
        "twice": ([entries[0], entries[0]], "mp2020", "'Mg1' occurs twice"),
        "bare": (entries[:1], "uncorrected", "'Mg1' needs a structure"),
    }
    for name, (some, convention, words) in sets.items():
        found = ReferenceSet(
            source="file", chemsys="Mg-O", level="chgnet", convention=convention, entries=some
        )
        write_reference_set(tmp_path / f"{name}.json.gz", found)
        with pytest.raises(InputError, match=words):
            load_reference_set(tmp_path / f"{name}.json.gz", "Mg-O", "chgnet", convention)


def test_cifs_without_energies_are_checked_and_not_relaxed(tmp_path: Path) -> None:
    folder = cif_folder(tmp_path / "cifs")
    check_reference_file(folder, "Mg-O", "chgnet", "mp2020", computes=True)
    with pytest.raises(InputError, match="has no energy in"):
        check_reference_file(folder, "Mg-O", "vasp/mp-gga", "uncorrected", computes=False)
    (folder / "odd.cif").write_text((folder / "mg.cif").read_text().replace("  1\n", "  0.5\n"))
    with pytest.raises(InputError, match=r"odd\.cif has partially occupied sites"):
        check_reference_file(folder, "Mg-O", "chgnet", "mp2020", computes=True)


def cif_folder(path: Path) -> Path:
    path.mkdir()
    for name, structure in (("mg", MAGNESIUM), ("o2", OXYGEN), ("mgo", MAGNESIA), ("cu", COPPER)):
        structure.to(filename=str(path / f"{name}.cif"))
    return path


def test_cifs_take_their_energies_from_a_file_or_from_the_caller(tmp_path: Path) -> None:
    folder = cif_folder(tmp_path / "cifs")
    energies = {"mg.cif": -3.2, "o2.cif": -9.8}
    (folder / "energies.json").write_text(json.dumps(energies))
    relaxed: list[str] = []

    def relax(structure: Structure) -> Relaxation:
        relaxed.append(structure.composition.reduced_formula)
        return Relaxation(
            level="chgnet", key="k", verdict="converged", structure=structure, energy=-50.4
        )

    found = load(folder, relax=relax)
    assert relaxed == ["MgO"]
    mgo = next(e for e in found.entries if e.entry_id == "mgo")
    assert mgo.energy == -50.4
    assert mgo.data["relaxation"] == "k"
    assert {e.entry_id for e in found.entries} == {"mg", "o2", "mgo"}


def test_folders_of_cifs_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="has no CIF file"):
        load(empty)
    folder = cif_folder(tmp_path / "cifs")
    with pytest.raises(InputError, match=r"mg\.cif has no energy"):
        load(folder)

    def hopeless(structure: Structure) -> Relaxation:
        return Relaxation(level="chgnet", key="k", verdict="diverged", reason="The cell exploded.")

    with pytest.raises(InputError, match="cannot be relaxed at chgnet: The cell exploded"):
        load(folder, relax=hopeless)
    (folder / "energies.json").write_text("[1]")
    with pytest.raises(InputError, match=r"energies\.json must hold"):
        load(folder)
    (folder / "energies.json").unlink()
    (folder / "a.cif").write_text("data_nothing\n")
    with pytest.raises(InputError, match=r"a\.cif is not a crystal"):
        load(folder)


def small_set(chemsys: str = "Mg-O") -> ReferenceSet:
    entries = [
        ReferenceEntry(entry_id="mg", formula="Mg2", energy=-3.2, structure=MAGNESIUM),
        ReferenceEntry(entry_id="o2", formula="O2", energy=-9.8, structure=OXYGEN),
        ReferenceEntry(entry_id="mgo", formula="MgO", energy=-12.6, structure=MAGNESIA),
    ]
    return ReferenceSet(
        source="prototypes", chemsys=chemsys, level="chgnet", convention="mp2020", entries=entries
    )


def test_a_written_set_comes_back_and_is_reproducible(tmp_path: Path) -> None:
    paths = [tmp_path / "one.json.gz", tmp_path / "two.json.gz"]
    for path in paths:
        write_reference_set(path, small_set())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found = read_reference_set(paths[0])
    assert found == small_set()
    assert found.reference_id == small_set().reference_id
    part = load(paths[0], "O")
    assert [e.entry_id for e in part.entries] == ["o2"]
    with pytest.raises(InputError, match="lacks Mn"):
        load(paths[0], "Mg-Mn-O")
    with pytest.raises(InputError, match="holds mp2020 energies of level 'chgnet'"):
        load_reference_set(paths[0], "Mg-O", "7net-0", "uncorrected")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no gzip", "not a readable reference set"),
        (gzip.compress(b"[]"), "not a readable reference set"),
        (gzip.compress(b'{"source": "file"}'), "see its field 'chemsys'"),
    ],
)
def test_a_damaged_set_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "set.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_reference_set(path)


def test_a_set_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    document = {**small_set().model_dump(mode="json"), "schema_version": 99}
    path = tmp_path / "set.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="newer version"):
        read_reference_set(path)


def test_a_shipped_set_serves_its_subsystems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_files, "resource", lambda *_: tmp_path)
    assert shipped_reference_set("Mg-O", "chgnet") is None
    write_reference_set(shipped_path("O-Mg", "chgnet"), small_set())
    assert shipped_path("O-Mg", "chgnet").name == "mg-o.chgnet.json.gz"
    found = shipped_reference_set("Mg-O", "chgnet")
    assert found is not None
    assert len(found.entries) == 3
    part = shipped_reference_set("Mg", "chgnet")
    assert part is not None
    assert (part.chemsys, len(part.entries)) == ("Mg", 1)
    assert part.reference_id != found.reference_id
    assert shipped_reference_set("Mg-Mn-O", "chgnet") is None
    assert shipped_reference_set("Mg-O", "7net-0") is None
