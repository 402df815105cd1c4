"""The library of known crystals: look-ups, what is kept of a crystal, and bad input."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from pccd_workflows.core.errors import InputError
from pccd_workflows.known.build import build_library
from pccd_workflows.known.energies import LevelEnergies, write_energies
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.library_files import BLOCK, INDEX
from tests.known.made_up import (
    RECORDS,
    bcc,
    everything_trains,
    make_library,
    record,
    rocksalt,
    write_lines,
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownLibrary:
    return make_library(tmp_path_factory.mktemp("known"))


def ids(crystals: list) -> set[str]:
    return {crystal.id for crystal in crystals}


def space_group(structure: Structure) -> int:
    return SpacegroupAnalyzer(structure, symprec=1e-3).get_space_group_number()


def test_a_system_has_its_parts(known: KnownLibrary) -> None:
    assert ids(known.in_system("O-Mg")) == {"mp-1", "mp-2", "mp-10", "mp-11", "wbm-1"}
    assert ids(known.in_system("Mg-O", subsystems=False)) == {"mp-10", "mp-11", "wbm-1"}
    assert ids(known.in_system("Mg-Na-O")) == ids(known.in_system("Mg-O")) | {"mp-3"}
    assert known.in_system("Xe") == []


def test_a_composition_has_all_cells(known: KnownLibrary) -> None:
    assert ids(known.with_composition("Mg4O4")) == {"mp-10", "mp-11"}
    assert ids(known.with_composition("O2Mg")) == {"wbm-1"}
    assert known.with_composition("Mg2O") == []


def test_what_is_said_of_a_crystal(known: KnownLibrary) -> None:
    crystal = known.get("mp-10")
    assert (crystal.formula, crystal.chemsys, crystal.n_sites) == ("MgO", "Mg-O", 2)
    assert (crystal.spacegroup, crystal.split, crystal.energy_above_hull) == (225, "train", 0.0)
    assert crystal.source.licence == "CC-BY-4.0"
    assert "Materials Project" in crystal.source.attribution
    assert known.get("wbm-1").energy_above_hull is None
    assert known.get("mp-20").energy_above_hull == pytest.approx(0.02)
    assert known.get("mp-1").theoretical is False
    assert known.get("mp-2").theoretical is None


def test_geometry_and_symmetry_survive(known: KnownLibrary) -> None:
    for line in RECORDS:
        given = Structure(line["lattice"], line["species"], line["frac_coords"])
        kept = known.get(line["id"]).structure
        assert StructureMatcher(scale=False).fit(given, kept)
        assert kept.volume == pytest.approx(given.volume, rel=1e-5)
        groups = [
            SpacegroupAnalyzer(s, symprec=1e-3).get_space_group_number() for s in (given, kept)
        ]
        assert groups[0] == groups[1]


def test_coordinates_are_kept_to_a_60000th(tmp_path: Path) -> None:
    """Across several blocks, with sites given in any order."""
    rng = np.random.default_rng(0)
    crystals = [
        Structure(
            Lattice.from_parameters(4, 5, 6, 80, 95, 100), ["O", "Mg", "O"], rng.random((3, 3))
        )
        for _ in range(2 * BLOCK + 3)
    ]
    records = [record(f"mp-{number}", crystal) for number, crystal in enumerate(crystals)]
    known = make_library(tmp_path, records)
    for number, crystal in enumerate(crystals):
        kept = known.get(f"mp-{number}").structure
        given = crystal.get_sorted_structure(key=lambda site: site.specie.Z)
        assert kept.species == given.species
        gap = kept.frac_coords - given.frac_coords
        assert np.abs(gap - np.round(gap)).max() <= 0.5 / 60_000 + 1e-12
        assert kept.lattice.parameters == pytest.approx(given.lattice.parameters, abs=1e-4)


def test_the_same_sources_give_the_same_library(tmp_path: Path) -> None:
    one = make_library(tmp_path / "one")
    other = make_library(tmp_path / "other", tuple(reversed(RECORDS)))
    assert one.version == other.version
    assert (one.folder / INDEX).read_bytes() == (other.folder / INDEX).read_bytes()
    moved = [{**RECORDS[4], "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.501]]}, *RECORDS[5:]]
    assert make_library(tmp_path / "moved", [*RECORDS[:4], *moved]).version != one.version


def test_energies_of_unchanged_crystals_outlive_a_rebuild(tmp_path: Path) -> None:
    known = make_library(tmp_path)
    energies = np.arange(len(known), dtype=float)
    stored = LevelEnergies("chgnet", energies, np.full(len(known), np.nan), {"chgnet": "1"})
    write_energies(tmp_path, known.version, stored)
    before = {known.id_of(row): energies[row] for row in range(len(known))}
    changed = {**RECORDS[4], "lattice": rocksalt("Mg", "O", 4.4).lattice.matrix.tolist()}
    new = record("mp-99", bcc("Al"))
    after = make_library(tmp_path, [*RECORDS[:4], changed, *RECORDS[5:], new])
    found = after.energies("chgnet")
    assert found.software == {"chgnet": "1"}
    for crystal in after:
        energy = found.single_point[crystal.row]
        if crystal.id in ("mp-10", "mp-99"):
            assert np.isnan(energy)
        else:
            assert energy == pytest.approx(before[crystal.id])


def test_splits_of_records_and_of_the_rule(tmp_path: Path) -> None:
    records = [{**RECORDS[0], "split": "reserved"}, record("mp-5", bcc("Mg", 3.3)), RECORDS[3]]
    source = write_lines(tmp_path / "s.jsonl", records)
    build_library([source], tmp_path, lambda chemsys: {"Cl": "test"}[chemsys])
    known = KnownLibrary(tmp_path)
    # a record that names no split is of its system's
    assert [known.get(i).split for i in ("mp-1", "mp-5", "mp-4")] == [
        "reserved",
        "reserved",
        "test",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": ["Mg0.5", "O"]}, "line 2: not a crystal .'Mg0.5' is no element"),
        ({"species": ["Mg2+", "O"]}, "'Mg2.' is no element"),
        ({"lattice": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}, "flat"),
        ({"frac_coords": [[0, 0, 0], [0.5, 0.5, float("nan")]]}, "line 2: it is no JSON"),
        ({"energy_above_hull": float("nan")}, "line 2: it is no JSON, which has no NaN"),
        ({"formation_energy_per_atom": "nan"}, "formation_energy_per_atom is not a number"),
        ({"frac_coords": [[0, 0, 0]]}, "not a crystal"),
        ({"energy_above_hull": "high"}, "not a crystal"),
        ({"split": "training"}, "split 'training' is none of"),
        ({"id": "mp-1"}, "Two crystals have the same id 'mp-1'"),
        ({"split": "val", "id": "mp-12"}, "more than one split"),
    ],
)
def test_bad_records_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict, message: str
) -> None:
    good = {**RECORDS[4], "split": "train", "id": "mp-13"}
    records = [RECORDS[0], {**RECORDS[4], **change}, good]
    source = write_lines(tmp_path / "s.jsonl", records)
    with pytest.raises(InputError, match=message):
        build_library([source], tmp_path / "out", everything_trains)
    assert not (tmp_path / "out").exists()


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    whole = gzip.compress(b"\n" * 100_000 + b"{}")
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.jsonl.gz cannot be read"):
        build_library([tmp_path / "cut.jsonl.gz"], tmp_path, everything_trains)
    with pytest.raises(InputError, match="cannot be read"):
        build_library([tmp_path / "none.jsonl"], tmp_path, everything_trains)
    empty = write_lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(InputError, match="hold no crystal"):
        build_library([empty], tmp_path, everything_trains)


def test_damaged_libraries_are_refused(tmp_path: Path) -> None:
    known = make_library(tmp_path)
    with pytest.raises(InputError, match="There is no library of known crystals in"):
        KnownLibrary(tmp_path / "elsewhere")
    whole = (tmp_path / INDEX).read_bytes()
    for content, message in (
        (whole[: len(whole) - 5], "cut off"),
        (whole[:20], "damaged or cut off"),
        (b"", "cannot be read"),
        (b"PCCDcol9" + whole[8:], "of another version"),
        (b"no library" + whole[10:], "not one of this package's data files"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "is damaged"),
    ):
        (tmp_path / INDEX).write_bytes(content)
        with pytest.raises(InputError, match=message):
            KnownLibrary(tmp_path).get("mp-1").energy_above_hull  # noqa: B018
    (tmp_path / INDEX).write_bytes(whole)
    geometry = known.folder / "geometry-00.columns"
    geometry.write_bytes(geometry.read_bytes()[:-3])
    with pytest.raises(InputError, match="cut off"):
        KnownLibrary(tmp_path).get("mp-1").structure  # noqa: B018


def test_energies_of_another_library_are_refused(tmp_path: Path) -> None:
    known = make_library(tmp_path)
    energies = LevelEnergies("chgnet", np.zeros(8), np.full(8, np.nan), {})
    write_energies(tmp_path, "another version", energies)
    with pytest.raises(InputError, match="belongs to version another version"):
        known.energies("chgnet")
    with pytest.raises(InputError, match=r"no energies at level '7net-l3i5' .it has: chgnet"):
        known.energies("7net-l3i5")


def test_unknown_names(known: KnownLibrary) -> None:
    with pytest.raises(InputError, match="has no 'mp-999'"):
        known.get("mp-999")
    with pytest.raises(InputError, match="'Q' is not a chemical element"):
        known.in_system("Mg-Q")
    with pytest.raises(InputError, match="not a chemical formula"):
        known.with_composition("MgO0.5")


def test_the_library_that_ships() -> None:
    """Its size, some crystals that everybody knows, and every block readable."""
    known = library()
    assert len(known) == 119_841
    assert sum(file.stat().st_size for file in known.folder.iterdir()) < 20e6
    assert "mp-1265" in ids(known.with_composition("MgO"))
    assert {source.licence for source in known.sources} == {
        "CC-BY-4.0",
        "public domain (NIST, USA)",
    }
    for row in range(0, len(known), BLOCK):
        crystal = known.crystal(row)
        assert crystal.structure.composition.reduced_composition.chemical_system == crystal.chemsys
    assert known.get("mp-1265").structure.density == pytest.approx(3.58, rel=0.03)
