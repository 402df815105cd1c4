"""Phonons through atomate2's flow: copper with EMT (cheap), rock salt with CHGNet."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from pccd_workflows.core.errors import PccdError
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.phonons import (
    dft_phonon_record,
    displaced_cells,
    phonon_flow,
    phonon_key,
    phonon_record,
    supercell_matrix,
    tight_cell,
)
from pccd_workflows.engines.records import Phonons
from pccd_workflows.stages.phonons import PhononsSection


@pytest.fixture(autouse=True)
def emt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A level that costs nothing, and a folder for what the jobs write."""
    monkeypatch.chdir(tmp_path)
    level = Level("emt", "potential", "uncorrected", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)


def crystal(group: str, a: float, symbols: list[str], sites: list[list[float]]) -> Structure:
    cell = Structure.from_spacegroup(group, Lattice.cubic(a), symbols, sites)
    return cell.get_primitive_structure()


def fcc() -> Structure:
    return crystal("Fm-3m", 3.6, ["Cu"], [[0, 0, 0]])


def rock_salt() -> Structure:
    return crystal("Fm-3m", 5.7, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def compute(structure: Structure, level: str, settings: PhononsSection) -> tuple[Phonons, Any]:
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = phonon_flow(structure, level, settings)
    run_locally(flow, store=store, log=False, ensure_success=True, create_folders=True)
    document = store.get_output(flow.output.uuid, load=True)
    return phonon_record(document, level, settings, seconds=1.5), document


@pytest.mark.parametrize(
    ("structure", "n_cells"),
    [
        (fcc(), 64),  # 4 x 4 x 4 primitive: the nearest image is at 10.2 Å
        (rock_salt(), 27),  # 3 x 3 x 3: 12.1 Å
        (Structure(Lattice.tetragonal(4.4, 2.9), ["Ti"], [[0, 0, 0]]), 36),  # 3 x 3 x 4
    ],
)
def test_supercells_are_long_enough_and_as_small_as_symmetry_allows(
    structure: Structure, n_cells: int
) -> None:
    matrix = supercell_matrix(structure, 10)
    assert round(abs(np.linalg.det(matrix))) == n_cells
    supercell = structure.make_supercell(matrix, in_place=False)
    assert supercell.lattice.get_niggli_reduced_lattice().a >= 10
    assert supercell.get_space_group_info()[1] == structure.get_space_group_info()[1]


def test_supercells_that_would_be_endless_are_refused() -> None:
    with pytest.raises(PccdError, match="shorter than 50"):
        supercell_matrix(fcc(), 50)


def test_a_crystal_out_of_place_is_brought_to_rest_and_made_symmetric() -> None:
    start = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Cu"], [[0, 0, 0]])
    noise = np.random.default_rng(3).normal(0, 0.05, (4, 3))
    moved = Structure(
        start.lattice, start.species, start.cart_coords + noise, coords_are_cartesian=True
    )
    tight = tight_cell(moved, "emt")
    assert len(tight) == 1
    assert tight.get_space_group_info()[1] == 225
    assert tight.volume == pytest.approx(3.59**3 / 4, rel=0.01)


def test_what_cannot_be_relaxed_has_no_phonons() -> None:
    with pytest.raises(PccdError, match="No phonons"):
        tight_cell(Structure(Lattice.cubic(1.0), ["Cu"], [[0, 0, 0]]), "emt")


def test_keys_follow_structure_level_and_settings() -> None:
    settings = PhononsSection(level="emt")
    keys = {
        phonon_key(fcc(), "emt", settings),
        phonon_key(rock_salt(), "emt", settings),
        phonon_key(fcc(), "chgnet", settings),
        phonon_key(fcc(), "emt", PhononsSection(level="emt", min_length=12)),
        phonon_key(fcc(), "emt", PhononsSection(level="emt", displacement=0.02)),
        phonon_key(fcc(), "emt", PhononsSection(level="emt", tolerance_thz=0.2)),
    }
    assert len(keys) == 6
    assert phonon_key(fcc(), "emt", settings) in keys


def test_face_centred_copper_is_stable_and_simple_cubic_copper_is_not() -> None:
    settings = PhononsSection(level="emt", min_length=7)
    stable, _ = compute(tight_cell(fcc(), "emt"), "emt", settings)
    assert stable.verdict == "stable"
    assert stable.n_displacements == 1
    assert stable.supercell_matrix == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert stable.seconds == 1.5
    assert stable.software["model"] == "emt"
    assert stable.bands is not None
    highest = max(max(max(band) for band in leg) for leg in stable.bands["frequencies"])
    assert 6 < highest < 9  # THz; measured: 7.4 at L

    simple = crystal("Pm-3m", 2.4, ["Cu"], [[0, 0, 0]])
    unstable, _ = compute(tight_cell(simple, "emt"), "emt", settings)
    assert unstable.verdict == "unstable"
    assert unstable.min_frequency is not None
    assert unstable.min_frequency < -0.5


def test_rock_salt_is_stable_with_chgnet() -> None:
    settings = PhononsSection(level="chgnet", min_length=10)
    record, document = compute(tight_cell(rock_salt(), "chgnet"), "chgnet", settings)
    assert record.verdict == "stable", record.reason
    assert record.n_displacements == 2
    assert record.gamma_residual is not None
    assert -1 < record.gamma_residual < 0.1
    bands = record.bands
    assert bands is not None
    assert bands["labels"][0] == ["Γ", "X"]
    for distances, leg in zip(bands["distances"], bands["frequencies"], strict=True):
        assert len(leg) == 6
        assert {len(band) for band in leg} == {len(distances)}
    # the acoustic branches start at zero, and the pictured bands are those judged
    assert [leg[0] for leg in bands["frequencies"][0][:3]] == pytest.approx([0, 0, 0], abs=0.01)
    lowest = min(min(min(band) for band in leg) for leg in bands["frequencies"])
    assert lowest > -0.1

    as_dict = document if isinstance(document, dict) else document.model_dump()
    again = phonon_record(as_dict, "chgnet", settings)
    assert again.min_frequency == pytest.approx(record.min_frequency)
    with pytest.raises(PccdError, match="no band structure"):
        phonon_record({}, "chgnet", settings)


def test_forces_one_by_one_give_the_frequencies_of_the_flow():
    from ase.calculators.emt import EMT

    from pccd_workflows.engines.potential import to_atoms

    settings = PhononsSection(min_length=7.0)
    cell = tight_cell(fcc(), "emt")
    forces = []
    for displaced in displaced_cells(cell, settings, moments=[0.5]):
        assert displaced.site_properties["magmom"] == [0.5] * len(displaced)
        atoms = to_atoms(displaced)
        atoms.calc = EMT()
        forces.append(atoms.get_forces())
    ours = dft_phonon_record(cell, forces, "emt", settings, {"emt": "1"})
    theirs, _ = compute(cell, "emt", settings)
    assert (ours.verdict, ours.n_displacements) == (theirs.verdict, 1)
    highest = [
        max(max(band) for leg in record.bands["frequencies"] for band in leg)
        for record in (ours, theirs)
    ]
    assert highest[0] == pytest.approx(highest[1], abs=0.02)
    with pytest.raises(PccdError, match="0 of 1 displacements"):
        dft_phonon_record(cell, [], "emt", settings, {})
