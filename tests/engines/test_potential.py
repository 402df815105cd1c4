"""Relaxation with potentials: physics with CHGNet and EMT, verdicts with calculators that fail."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure
from pymongo.errors import PyMongoError

from pccd_workflows.analysis.hull import correct_mp2020
from pccd_workflows.core.errors import (
    DeviceFault,
    InputError,
    MachineFault,
    MissingDependencyError,
    OutOfMemory,
)
from pccd_workflows.engines.engine import Task, Work, compute, engine_of, static
from pccd_workflows.engines.levels import LEVELS, MPTRJ_ELEMENTS, Level, get_level
from pccd_workflows.engines.optimize import to_atoms
from pccd_workflows.engines.potential import (
    _make_calculator,
    calculator,
    calculator_elements,
    forces,
    relax,
    relaxation_key,
    single_point,
    supported_elements,
)
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.settings import get_settings


class CountingEMT(EMT):
    """EMT that counts its evaluations."""

    evaluations = 0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        type(self).evaluations += 1
        super().calculate(*args, **kwargs)


class Faulty(Calculator):
    """Raises, or returns values that are no numbers, as `fault` says."""

    implemented_properties = ("energy", "forces", "stress")
    atomic_numbers = frozenset({29})

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.fault in RAISED:
            raise RAISED[self.fault]
        if self.fault == "picky" and len(self.atoms) > 1:
            raise RuntimeError("no neighbours\nsecond line")
        wrong = {"nan": np.nan, "hole": -1e4}.get(self.fault, 0.0)
        push = 1e6 if self.fault == "force" else 0.0
        self.results = {
            "energy": wrong,
            "forces": np.full((len(self.atoms), 3), push),
            "stress": np.zeros(6),
        }


class NetworkError(PyMongoError):
    """As pymongo raises it."""


RAISED: dict[str, BaseException] = {
    "refused": ValueError("no such cell\nsecond line"),
    "memory": MemoryError("all is used"),
    "interrupt": KeyboardInterrupt(),
    "cuda": RuntimeError("CUDA error: an illegal memory access was encountered\nmore"),
    "cuda memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "cpu memory": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    "disk": OSError(28, "No space left on device"),
    "database": NetworkError("no primary"),
    "runtime": RuntimeError("nobody knows"),
}


@pytest.fixture(autouse=True)
def cheap_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels that cost nothing."""
    monkeypatch.setitem(
        LEVELS, "emt", Level("emt", "potential", "uncorrected", f"{__name__}:CountingEMT")
    )
    for fault in (*RAISED, "picky", "nan", "hole", "force"):
        path, options = f"{__name__}:Faulty", {"fault": fault}
        monkeypatch.setitem(LEVELS, fault, Level(fault, "potential", "uncorrected", path, options))


def copper(a: float = 3.7, displaced: float = 0.0) -> Structure:
    crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Cu"], [[0, 0, 0]])
    if displaced:
        noise = np.random.default_rng(0).normal(0, displaced, (4, 3))
        coords = crystal.cart_coords + noise
        crystal = Structure(crystal.lattice, crystal.species, coords, coords_are_cartesian=True)
    return crystal


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    cell = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    return cell.get_primitive_structure()


def test_relaxed_copper_is_the_known_minimum_of_emt() -> None:
    found = relax(copper(3.75, displaced=0.15), "emt", fmax=0.005, steps=200)
    assert found.verdict == "converged"
    # EMT's fcc copper: a = 3.59 Å, E = -0.007 eV/atom (its zero is the ideal crystal)
    assert found.structure is not None
    assert (found.structure.volume) ** (1 / 3) == pytest.approx(3.59, abs=0.01)
    assert found.energy_per_atom == pytest.approx(-0.007, abs=0.002)
    assert found.energy == pytest.approx(4 * found.energy_per_atom)
    assert found.volume_change == pytest.approx((3.59 / 3.75) ** 3 - 1, abs=0.01)
    # 0.15 Å along each axis less the common drift of four atoms
    assert 0.1 < found.rms_displacement < 0.4
    assert found.max_force < 0.005
    assert found.max_stress < 0.1
    assert found.energies[-1] == pytest.approx(found.energy_per_atom, abs=1e-6)
    assert found.energies[-1] < found.energies[0]
    assert len(found.energies) == found.n_steps + 1
    assert found.convention == "uncorrected"
    assert found.key == relaxation_key(copper(3.75, displaced=0.15), "emt", fmax=0.005, steps=200)


def test_nobody_is_told_how_exact_the_logarithm_of_a_cell_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import scipy.linalg

    exact = scipy.linalg.logm

    def doubtful(matrix: Any) -> Any:
        message = "logm result may be inaccurate, approximate err = 3.1e-13"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        warnings.warn("overflow", RuntimeWarning, stacklevel=2)
        return exact(matrix)

    monkeypatch.setattr(scipy.linalg, "logm", doubtful)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        relax(copper(displaced=0.1), "emt", steps=3)
    assert {str(warning.message) for warning in told} == {"overflow"}  # nothing else is hushed


def test_each_step_costs_one_evaluation() -> None:
    CountingEMT.evaluations = 0
    found = relax(copper(3.75, displaced=0.3), "emt", fmax=0.01, steps=100)
    assert found.verdict == "converged"
    assert CountingEMT.evaluations == found.n_steps + 1


def test_step_cap_is_a_verdict_with_a_usable_structure() -> None:
    found = relax(copper(3.75, displaced=0.15), "emt", fmax=1e-4, steps=3)
    assert found.verdict == "unconverged"
    assert found.n_steps == 3
    assert found.usable
    assert "3 steps" in (found.reason or "")


def test_drift_is_no_displacement() -> None:
    found = relax(copper(3.75), "emt", fmax=0.01, steps=50)
    assert found.n_steps > 0
    assert found.rms_displacement == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("fault", "verdict", "words"),
    [
        ("nan", "not_a_number", "not a number"),
        ("refused", "error", "ValueError: no such cell."),
        ("picky", "error", "RuntimeError: no neighbours."),  # it takes a plain crystal
        ("hole", "diverged", "deeper than any real crystal"),
        ("force", "diverged", "beyond reason"),
    ],
)
def test_failures_of_the_potential_are_verdicts(fault: str, verdict: str, words: str) -> None:
    found = relax(copper(), fault)
    assert found.verdict == verdict
    assert words in (found.reason or "")
    assert found.structure is None
    assert not found.usable


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("memory", OutOfMemory, "MemoryError: all is used"),
        ("cuda memory", OutOfMemory, "CUDA out of memory"),
        ("cpu memory", OutOfMemory, "DefaultCPUAllocator"),
        ("cuda", DeviceFault, "CUDA error: an illegal memory access"),
        ("disk", MachineFault, "No space left on device"),
        ("database", MachineFault, "NetworkError: no primary"),
        ("runtime", MachineFault, "RuntimeError: nobody knows"),  # of plain crystals, too
        ("interrupt", KeyboardInterrupt, ""),
    ],
)
def test_a_fault_of_the_machine_is_no_verdict(
    fault: str, error: type[BaseException], words: str
) -> None:
    storage = MemoryStorage()
    for kind in ("relax", "static", "forces"):
        with pytest.raises(error, match=words) as raised:
            compute(copper(), fault, Task(kind), Work(storage))
        assert type(raised.value) is error
        key = engine_of(fault).key(get_level(fault), copper(), Task(kind))
        assert storage.get_result(key) is None


def test_an_error_that_does_not_recur_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    calculate, calls = CountingEMT.calculate, []

    def once(self, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("a hiccup")
        calculate(self, *args, **kwargs)

    monkeypatch.setattr(CountingEMT, "calculate", once)
    with pytest.raises(MachineFault, match="a hiccup"):
        relax(copper(displaced=0.1), "emt")


def test_a_broken_device_is_not_asked_again_by_this_process() -> None:
    before = calculator(get_level("emt"))
    assert calculator(get_level("emt")) is before
    with pytest.raises(DeviceFault):
        relax(copper(), "cuda")
    assert calculator(get_level("emt")) is not before
    assert _make_calculator.cache_info().currsize == 1


def test_a_damaged_result_is_computed_again() -> None:
    storage, task = MemoryStorage(), Task("relax", fmax=0.01, steps=50)
    whole = compute(copper(), "emt", task, Work(storage))
    key = engine_of("emt").key(get_level("emt"), copper(), task)
    for damaged in ({"verdict": "converged"}, {"level": "emt", "key": key, "verdict": "no such"}):
        storage.drop_results([key])
        storage.put_result(key, "relaxation", damaged)
        again = compute(copper(), "emt", task, Work(storage))
        assert again.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})
        stored = storage.get_result(key)
        assert stored is not None
        assert Relaxation.model_validate(stored).usable


def test_what_was_computed_is_not_computed_again() -> None:
    storage = MemoryStorage()
    work = Work(storage, "c")
    first = [compute(copper(), "emt", Task(kind), work) for kind in ("relax", "static", "forces")]
    CountingEMT.evaluations = 0
    again = [compute(copper(), "emt", Task(kind), work) for kind in ("relax", "static", "forces")]
    assert CountingEMT.evaluations == 0
    assert [a.model_dump() for a in again] == [f.model_dump() for f in first]
    assert storage.spent("c", "emt") > 0
    assert static(copper(), "emt", work).energy_per_atom == single_point(copper(), "emt")
    found, stress = forces(copper(displaced=0.1), "emt")
    assert found.shape == (4, 3)
    assert stress is not None
    assert stress.shape == (6,)


def test_what_a_level_does_not_compute_is_said() -> None:
    with pytest.raises(InputError, match="'emt' does not compute bands"):
        compute(copper(), "emt", Task("bands"), Work(MemoryStorage()))


def test_foreign_elements_and_partial_sites_are_verdicts() -> None:
    silver = Structure(Lattice.cubic(4), ["Ag"], [[0, 0, 0]])
    found = relax(silver, "nan")
    assert found.verdict == "unsupported_element"
    assert found.reason == "nan was not trained on Ag."
    mixed = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Ag": 0.5}], [[0, 0, 0]])
    assert relax(mixed, "emt").verdict == "error"


def test_too_dense_a_cell_is_not_walked_at_all() -> None:
    found = relax(Structure(Lattice.cubic(1.1), ["Cu"], [[0, 0, 0]]), "emt")
    assert found.verdict == "diverged"
    assert found.n_steps == 0


def test_keys_address_content() -> None:
    start = copper()
    key = relaxation_key(start, "emt", fmax=0.05, steps=300)
    moved = Structure(start.lattice, start.species, start.frac_coords + np.array([1, -1, 1e-9]))
    assert relaxation_key(moved, "emt", fmax=0.05, steps=300) == key
    others = [
        relaxation_key(copper(3.70001), "emt", fmax=0.05, steps=300),
        relaxation_key(start, "emt", fmax=0.04, steps=300),
        relaxation_key(start, "emt", fmax=0.05, steps=299),
        relaxation_key(start, "chgnet", fmax=0.05, steps=300),
        relaxation_key(start.copy().replace_species({"Cu": "Au"}), "emt", fmax=0.05, steps=300),
    ]
    assert len({key, *others}) == 6


def test_levels_that_cannot_run_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    dft = Level("dft", "vasp", "uncorrected")
    with pytest.raises(InputError, match="not a potential"):
        calculator(dft)
    absent = Level("absent", "potential", "uncorrected", "no_such_package:X", {}, "no-such-package")
    with pytest.raises(MissingDependencyError, match="install no-such-package"):
        calculator(absent)
    with pytest.raises(InputError, match="Unknown level"):
        relax(copper(), "nothing")


def test_threads_are_not_left_to_torch() -> None:
    import torch

    torch.set_num_threads(2)
    calculator(get_level("chgnet"))
    assert torch.get_num_threads() == 1


def test_chgnet_agrees_with_the_packages_own_calculator() -> None:
    from chgnet.model.dynamics import CHGNetCalculator

    crystal = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.4, 2.9), ["Mn", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    skewed = crystal.apply_strain([0.02, -0.01, 0.03], inplace=False)
    skewed.perturb(0.05)
    ours, theirs = (to_atoms(skewed) for _ in range(2))
    ours.calc, theirs.calc = calculator(get_level("chgnet")), CHGNetCalculator(use_device="cpu")
    assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), atol=2e-4)
    np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), atol=2e-5)
    moments = ours.calc.results["magmoms"]
    np.testing.assert_allclose(moments, theirs.get_magnetic_moments(), atol=1e-4)


def test_chgnet_relaxes_rock_salt_to_the_known_lattice() -> None:
    found = relax(rock_salt("Mg", "O", 4.4), "chgnet")
    assert found.verdict == "converged"
    assert found.structure is not None
    # PBE: a = 4.25 Å; the Materials Project's corrected energy is -6.3 eV/atom
    assert (4 * found.structure.volume) ** (1 / 3) == pytest.approx(4.25, abs=0.06)
    assert found.energy_per_atom == pytest.approx(-6.3, abs=0.1)
    assert found.convention == "mp2020"
    assert found.software["model"] == "CHGNet 0.3.0"
    assert single_point(found.structure, "chgnet") == pytest.approx(found.energy_per_atom, abs=1e-5)


@pytest.mark.parametrize("name", ["chgnet", "7net-0", "7net-l3i5"])
def test_rows_of_levels_say_of_their_models_what_is_so(name: str) -> None:
    """Corrected if it has to be, a level's energies are near the Materials Project's."""
    level = get_level(name)
    assert calculator_elements(calculator(level)) == level.elements == supported_elements(level)
    for symbols, a, of_mp in ((["Na", "Cl"], 5.69, -3.70), (["Mg", "O"], 4.26, -6.33)):
        sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
        crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), symbols, sites)
        energy = single_point(crystal, name) * len(crystal)
        corrected = correct_mp2020(crystal, energy, convention=level.convention)
        # corrections are 0.31 and 0.34 eV/atom: none or two of them would not do
        assert corrected / len(crystal) == pytest.approx(of_mp, abs=0.1)


def test_elements_that_a_level_does_not_know_are_refused_at_the_door() -> None:
    assert {"H", "Mg", "Mn", "O", "Pu"} <= MPTRJ_ELEMENTS
    for name in ("chgnet", "7net-l3i5"):
        level = get_level(name)
        with pytest.raises(InputError, match=f"Level '{name}' was not trained on Po, Rn: ask"):
            engine_of(level).check(level, ["O", "Po", "Rn"], get_settings())
        engine_of(level).check(level, ["O", "Pu"], get_settings())
    polonium = Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]])
    assert relax(polonium, "chgnet").verdict == "unsupported_element"


def test_chgnet_survives_nonsense() -> None:
    same_place = Structure(Lattice.cubic(4), ["Mg", "O"], [[0, 0, 0], [0, 0, 0]])
    assert relax(same_place, "chgnet").verdict == "not_a_number"
    lonely = Structure(Lattice.cubic(25), ["Mg"], [[0, 0, 0]])
    assert relax(lonely, "chgnet").verdict in ("converged", "diverged")
    atom = relax(Structure(Lattice.cubic(2.5), ["Mg"], [[0, 0, 0]]), "chgnet", steps=40)
    assert atom.usable
    assert atom.energy_per_atom < -1
