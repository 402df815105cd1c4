"""Phonons in this process: copper with EMT (cheap), rock salt with CHGNet."""

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.kpaths import symmetric_cell
from pccd_workflows.core.errors import MachineFault, PccdError
from pccd_workflows.engines import potential
from pccd_workflows.engines.engine import Task, Work, relax
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.optimize import to_atoms
from pccd_workflows.engines.phonons import (
    cell_to_displace,
    compute_phonons,
    judge_displacements,
    phonon_key,
    phonon_record,
    tight_cell,
)
from pccd_workflows.engines.records import Forces, Phonons
from pccd_workflows.engines.supercells import displaced_cells, supercell_matrix
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.stages.phonons import PhononsSection


@pytest.fixture(autouse=True)
def emt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that costs nothing."""
    level = Level("emt", "potential", "uncorrected", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)


def crystal(group: str, a: float, symbols: list[str], sites: list[list[float]]) -> Structure:
    cell = Structure.from_spacegroup(group, Lattice.cubic(a), symbols, sites)
    return cell.get_primitive_structure()


def fcc() -> Structure:
    return crystal("Fm-3m", 3.6, ["Cu"], [[0, 0, 0]])


def rock_salt() -> Structure:
    return crystal("Fm-3m", 5.7, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def phonons(structure: Structure, level: str, **settings: float) -> Phonons:
    section = PhononsSection(level=level, **settings)
    return compute_phonons(structure, section, Work(MemoryStorage()))


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


@pytest.mark.parametrize(
    ("cell", "min_length"),
    [
        (Structure.from_spacegroup("Cmmm", Lattice.orthorhombic(3, 5, 4), ["Cu"], [[0] * 3]), 6),
        (Structure.from_spacegroup("R-3m", Lattice.hexagonal(4, 9), ["Cu"], [[0] * 3]), 8),
    ],
)
def test_displaced_cells_are_those_of_the_matrix(cell: Structure, min_length: float) -> None:
    """Rows are vectors: such matrices are not symmetric, so one transposed makes another cell."""
    primitive = symmetric_cell(cell)
    settings = PhononsSection(level="emt", min_length=min_length)
    matrix = supercell_matrix(primitive, min_length)
    assert not np.allclose(matrix, matrix.T)
    (displaced,) = displaced_cells(primitive, settings)
    assert displaced.lattice.matrix == pytest.approx(matrix @ primitive.lattice.matrix)
    # every atom but the one that is moved lies where the crystal has one
    crystal = primitive.make_supercell(matrix, in_place=False)
    apart = displaced.lattice.get_all_distances(displaced.frac_coords, crystal.frac_coords)
    nearest = np.sort(apart.min(axis=1))
    assert nearest[-1] == pytest.approx(settings.displacement, abs=1e-6)
    assert nearest[:-1].max() < 1e-6


def test_supercells_that_would_be_endless_are_refused() -> None:
    with pytest.raises(PccdError, match="shorter than 50"):
        supercell_matrix(fcc(), 50)


def test_a_crystal_out_of_place_is_brought_to_rest_and_made_symmetric() -> None:
    start = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Cu"], [[0, 0, 0]])
    noise = np.random.default_rng(3).normal(0, 0.05, (4, 3))
    moved = Structure(
        start.lattice, start.species, start.cart_coords + noise, coords_are_cartesian=True
    )
    tight = tight_cell(moved, "emt", Work(MemoryStorage()))
    assert len(tight) == 1
    assert tight.get_space_group_info()[1] == 225
    assert tight.volume == pytest.approx(3.59**3 / 4, rel=0.01)


def test_what_cannot_be_relaxed_has_no_phonons() -> None:
    with pytest.raises(PccdError, match="No phonons"):
        tight_cell(Structure(Lattice.cubic(1.0), ["Cu"], [[0, 0, 0]]), "emt", Work(MemoryStorage()))
    found = phonons(Structure(Lattice.cubic(1.0), ["Cu"], [[0, 0, 0]]), "emt")
    assert (found.verdict, found.tolerance) == ("error", 0.1)
    assert "No phonons: the relaxation diverged" in (found.reason or "")


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
    stable = phonons(fcc(), "emt", min_length=7)
    assert stable.verdict == "stable"
    assert stable.n_displacements == 1
    assert stable.supercell_matrix == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert stable.seconds > 0
    assert stable.software["model"] == "emt"
    assert stable.bands is not None
    highest = max(max(max(band) for band in leg) for leg in stable.bands["frequencies"])
    assert 6 < highest < 9  # THz; measured: 7.4 at L

    unstable = phonons(crystal("Pm-3m", 2.4, ["Cu"], [[0, 0, 0]]), "emt", min_length=7)
    assert unstable.verdict == "unstable"
    assert unstable.min_frequency is not None
    assert unstable.min_frequency < -0.5


def test_rock_salt_is_stable_with_chgnet() -> None:
    record = phonons(rock_salt(), "chgnet", min_length=10)
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


def test_forces_of_one_crystal_make_its_frequencies_whoever_computed_them() -> None:
    from ase.calculators.emt import EMT

    settings = PhononsSection(level="emt", min_length=7.0)
    work = Work(MemoryStorage())
    tight = relax(fcc(), "emt", work, Task("tight", "phonons"))
    cell, count = cell_to_displace(
        tight.model_copy(update={"settings": {"moments": [0.5]}}), settings
    )
    cells = displaced_cells(cell, settings)
    assert len(cells) == count == 1
    assert cells[0].site_properties["magmom"] == [0.5] * len(cells[0])
    forces = []
    for displaced in cells:
        atoms = to_atoms(displaced)
        atoms.calc = EMT()
        forces.append(Forces(forces=atoms.get_forces().tolist(), seconds=2.0))
    ours = judge_displacements(tight, forces, settings)
    theirs = compute_phonons(fcc(), settings, work)
    assert ours.seconds == pytest.approx(tight.seconds + 2.0)
    assert (ours.verdict, ours.n_displacements) == (theirs.verdict, 1)
    assert ours.min_frequency == pytest.approx(theirs.min_frequency, abs=1e-3)
    assert ours.bands == theirs.bands
    with pytest.raises(PccdError, match="0 of 1 displacements"):
        judge_displacements(tight, [], settings)


def test_phonons_that_were_cut_short_go_on_from_the_stored_forces(monkeypatch) -> None:
    """Each displacement's forces are stored, in kilobytes; no supercell is."""
    settings, storage = PhononsSection(level="emt", min_length=7), MemoryStorage()
    start = Structure(Lattice.tetragonal(3.6, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    computed = []
    forces = potential.forces

    def counted(structure: Structure, level: str):
        computed.append(len(structure))
        if len(computed) == 2:
            raise MachineFault("MachineFault: no device")
        return forces(structure, level)

    monkeypatch.setattr(potential, "forces", counted)
    key = phonon_key(start, "emt", settings)
    with pytest.raises(MachineFault):
        compute_phonons(start, settings, Work(storage))
    assert storage.get_result(key) is None
    whole = compute_phonons(start, settings, Work(storage))
    assert len(computed) == whole.n_displacements + 1  # the first is not computed again
    assert compute_phonons(start, settings, Work(storage)) == whole
    assert len(computed) == whole.n_displacements + 1
    storage.drop_results([key])
    storage.put_result(key, "phonons", {"verdict": "stable"})  # torn, or of an older version
    again = compute_phonons(start, settings, Work(storage))
    assert (again.verdict, again.min_frequency) == (whole.verdict, whole.min_frequency)
    assert len(computed) == whole.n_displacements + 1
    results = [r for r in storage._results.values() if "forces" in r]
    assert len(results) == whole.n_displacements
    assert all(set(r) == {"forces", "seconds"} for r in results)
    assert max(len(json.dumps(r)) for r in storage._results.values()) < 100_000


def test_documents_of_twenty_atoms_in_p1_stay_below_a_megabyte() -> None:
    """MongoDB takes 16 MB; with its supercells such a crystal had more."""
    from ase.calculators.emt import EMT

    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.8), ["Cu"], [[0, 0, 0]])
    cell.make_supercell([5, 1, 1])
    cell.perturb(0.05, seed=1)
    settings = PhononsSection(level="emt", min_length=7.0)
    cells, found = displaced_cells(cell, settings), []
    assert len(cells) == 6 * len(cell) == 120
    for displaced in cells:
        atoms = to_atoms(displaced)
        atoms.calc = EMT()
        found.append(atoms.get_forces())
    record = phonon_record(cell, found, settings, software_versions={})
    stored = Forces(forces=found[0].tolist()), record
    assert max(len(one.model_dump_json()) for one in stored) < 1_000_000


class Told(MemoryStorage):
    """Remembers what it is told of progress."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, int, int]] = []

    def note_progress(self, campaign_id: str, what: str, done: int, total: int) -> None:
        self.told.append((campaign_id, what, done, total))


def test_displacements_say_how_far_they_are():
    storage, sites = Told(), [[0, 0, 0], [0.5, 0.5, 0.5]]
    settings = PhononsSection(level="emt", min_length=7.0)
    compute_phonons(crystal("Pm-3m", 3.7, ["Cu", "Au"], sites), settings, Work(storage, "c"))
    told = [row for row in storage.told if row[1] == "displacements of CuAu at emt"]
    total = told[0][3]
    assert total > 1
    assert [row[2] for row in told] == [*range(1, total + 1)]
