"""Structure types and what is made of them; the honesty of the shipped hull."""

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.engines.levels import LEVELS, Level
from pccd_workflows.engines.potential import relax
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known import prototypes as module
from pccd_workflows.known.prototypes import (
    Guess,
    at_best_volume,
    build_reference_set,
    charge_balanced,
    decorate,
    prototypes,
    rank,
)
from pccd_workflows.known.reference_files import shipped_path, shipped_reference_set

GROUND_STATE_LIMIT = 0.030
"""eV/atom: known ground states lie no higher above the shipped hull."""


def structure_type(label: str) -> Structure:
    return next(p.structure for p in prototypes() if p.label == label)


def spacegroup(structure: Structure) -> int:
    return structure.get_space_group_info(symprec=0.05)[1]


def shortest(structure: Structure, one: str, other: str) -> float:
    i, j = (
        [k for k, site in enumerate(structure) if site.specie.symbol == s] for s in (one, other)
    )
    return float(structure.distance_matrix[np.ix_(i, j)].min())


@pytest.fixture
def emt(monkeypatch: pytest.MonkeyPatch) -> str:
    """A potential that costs next to nothing and knows Cu, Au, O and some others."""
    level = Level("emt", "potential", "uncorrected", "ase.calculators.emt:EMT", {}, "ase")
    monkeypatch.setitem(LEVELS, "emt", level)
    return "emt"


@pytest.fixture
def few_prototypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cubic packings and their ordered forms only."""
    labels = ("A_cF4_225_a", "A_cI2_229_a", "AB3_cP4_221_a_c", "AB_tP2_123_a_d", "AB_cP2_221_b_a")
    few = tuple(p for p in prototypes() if p.label in labels)
    assert len(few) == 5
    monkeypatch.setattr(module, "prototypes", lambda: few)


# --- the structure types ---------------------------------------------------------------------


def test_the_library_is_complete_and_its_labels_are_unique() -> None:
    labels = [p.label for p in prototypes()]
    assert len(labels) > 270
    assert len(set(labels)) == len(labels)
    for prototype in prototypes():
        assert len(prototype.species) == len(prototype.orbits) == len(prototype.structure)
        assert max(prototype.orbits) >= max(prototype.species)


@pytest.mark.parametrize(
    ("label", "number", "formula", "pair", "distance"),
    [
        # the shortest bond of each type, as its paper or any textbook has it, Å
        ("Mg6MnO8", 225, "Mg6MnO8", ("Mn", "O"), 1.93),
        ("ramsdellite", 62, "MnO2", ("Mn", "O"), 1.86),
        ("hollandite", 87, "MnO2", ("Mn", "O"), 1.88),
        ("olivine", 62, "Mg2SiO4", ("Si", "O"), 1.61),
        ("delafossite", 166, "FeCuO2", ("Cu", "O"), 1.83),
        ("pyrochlore", 227, "Y2Ti2O7", ("Ti", "O"), 1.94),
        ("La2O3-A", 164, "La2O3", ("La", "O"), 2.37),
        ("bixbyite", 206, "In2O3", ("In", "O"), 2.12),
        ("CaC2", 139, "CaC2", ("C", "C"), 1.20),
    ],
)
def test_additional_types_are_the_textbooks(
    label: str, number: int, formula: str, pair: tuple[str, str], distance: float
) -> None:
    structure = structure_type(label)
    assert spacegroup(structure) == number
    assert structure.composition.reduced_composition == Composition(formula)
    neighbours = structure.get_all_neighbors(3.0)
    bonds = [
        n.nn_distance
        for site, near in zip(structure, neighbours, strict=True)
        if site.specie.symbol == pair[0]
        for n in near
        if n.specie.symbol == pair[1]
    ]
    assert min(bonds) == pytest.approx(distance, abs=0.02)


# --- decoration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chemsys", "formula", "number"),
    [
        ("Mg", "Mg", 194),  # hcp
        ("Mn", "Mn", 217),  # alpha-Mn
        ("Mg-O", "MgO", 225),  # rock salt
        ("Mn-O", "MnO2", 136),  # rutile: pyrolusite
        ("Mn-O", "Mn2O3", 206),  # bixbyite: two elements on the three sites of its namesake
        ("Mn-O", "Mn3O4", 141),  # hausmannite
        ("Mn-O", "Mn3O4", 227),  # one element on both cation sites of spinel
        ("Mg-Mn-O", "MgMn2O4", 141),  # hausmannite's two Mn orbits told apart
        ("Mg-Mn-O", "MgMn2O4", 227),
        ("Mg-Mn-O", "MgMnO3", 148),  # ilmenite
        ("Mg-Mn-O", "Mg6MnO8", 225),
    ],
)
def test_known_crystals_are_among_the_decorations(chemsys: str, formula: str, number: int) -> None:
    of_formula = [s for _, s in decorate(chemsys) if s.composition.reduced_formula == formula]
    assert number in {spacegroup(structure) for structure in of_formula}


def test_decorations_are_whole_and_reproducible() -> None:
    first, second = decorate("Mg-Mn-O"), decorate("O-Mn-Mg")
    assert [label for label, _ in first] == [label for label, _ in second]
    assert first[17][1] == second[17][1]
    assert len({label for label, _ in first}) == len(first)
    for _, structure in first:
        assert {element.symbol for element in structure.elements} == {"Mg", "Mn", "O"}
        # wide at the top: molecular types keep their short bonds when ions sit on them
        assert 4 < structure.volume / len(structure) < 400


def test_elements_with_diatomic_molecules_get_molecular_crystals() -> None:
    crystals = dict(decorate("O"))
    molecule = crystals["dimer-stacked:O"]
    assert molecule.get_distance(0, 1) == pytest.approx(1.21)
    assert all(distance > 2.5 for distance in molecule.lattice.abc)
    assert not any(label.startswith("dimer") for label, _ in decorate("Mg"))


@pytest.mark.parametrize(
    ("formula", "balanced"),
    [
        ("MgO", True),
        ("Mn3O4", True),  # mixed valence
        ("Mn2O7", True),
        ("Mn2O9", False),
        ("MgO2", True),  # a peroxide
        ("KO2", True),  # a superoxide
        ("MgO3", False),
        ("Mg2Mn", True),  # an alloy has none
        ("Fe", True),
        ("MgSO4", True),  # sulphur as a cation
        ("MgS", True),  # ... and as an anion
        ("Mg2S", False),
        ("CaCO3", True),
        ("LiF", True),
        ("LiF2", False),
    ],
)
def test_charge_balance(formula: str, balanced: bool) -> None:
    assert charge_balanced(Composition(formula)) is balanced


# --- ranking and building, with a cheap potential ----------------------------------------------


@pytest.mark.parametrize("first", [3.2, 3.9])
def test_the_best_volume_is_found(emt: str, first: float) -> None:
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(first), ["Cu"], [[0, 0, 0]])
    guess = Guess("fcc", copper, module.single_point(copper, emt))
    found = at_best_volume(guess, emt)
    assert found.structure.volume ** (1 / 3) == pytest.approx(3.59, rel=0.02)
    assert found.energy_per_atom < guess.energy_per_atom


def test_ranking_puts_the_ground_state_first_and_drops_twins(
    emt: str, few_prototypes: None
) -> None:
    twice = [*decorate("Cu"), *((f"again-{label}", s) for label, s in decorate("Cu"))]
    ranked = rank(twice, emt, [])
    assert list(ranked) == ["Cu"]
    assert [guess.label.partition(":")[0] for guess in ranked["Cu"]] == [
        "A_cF4_225_a",
        "A_cI2_229_a",
    ]


def emt_set(chemsys: str) -> ReferenceSet:
    return build_reference_set(chemsys, "emt", relax=lambda s: relax(s, "emt", fmax=0.02))


def test_a_subsystem_is_the_same_alone_and_within(emt: str, few_prototypes: None) -> None:
    alone, within = emt_set("Cu"), emt_set("Au-Cu")
    assert within.chemsys == "Au-Cu"
    assert {e.composition.chemical_system for e in within.entries} == {"Au", "Cu", "Au-Cu"}
    copper = [e for e in within.entries if e.composition.chemical_system == "Cu"]
    assert [(e.entry_id, e.energy) for e in copper] == [
        (e.entry_id, e.energy) for e in alone.entries
    ]
    assert emt_set("Cu-Au").reference_id == within.reference_id
    # EMT orders Cu and Au, as nature does
    ordered = [e for e in within.entries if len(e.composition) == 2]
    diagram = {e.composition.reduced_formula for e in ordered}
    assert {"Cu3Au", "CuAu"} & {Composition(f).reduced_formula for f in diagram}


def test_progress_counts_to_the_end(emt: str, few_prototypes: None) -> None:
    seen: list[tuple[str, int, int]] = []
    build_reference_set(
        "Cu", "emt", relax=lambda s: relax(s, "emt"), progress=lambda *a: seen.append(a)
    )
    assert seen == [("Cu", 1, 2), ("Cu", 2, 2)]


def test_an_element_that_cannot_be_relaxed_is_an_error(emt: str, few_prototypes: None) -> None:
    def hopeless(structure: Structure) -> Relaxation:
        return Relaxation(level="emt", key="", verdict="diverged")

    with pytest.raises(PccdError, match="No crystal of the element Cu"):
        build_reference_set("Cu", "emt", relax=hopeless)


def test_foreign_elements_are_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="chgnet was not trained on Po"):
        build_reference_set("O-Po", "chgnet", relax=lambda s: relax(s, "chgnet"))


# --- the set that ships ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> ReferenceSet:
    found = shipped_reference_set("Mg-Mn-O", "chgnet")
    assert found is not None
    return found


def lowest(reference_set: ReferenceSet, formula: str) -> float:
    wanted = Composition(formula).reduced_formula
    energies = [
        e.energy_per_atom for e in reference_set.entries if e.composition.reduced_formula == wanted
    ]
    assert energies, f"no {formula} in the set"
    return min(energies)


@pytest.mark.parametrize(
    "formula", ["Mg", "Mn", "O2", "MgO", "MnO", "Mn3O4", "Mn2O3", "MnO2", "MgMn2O4", "Mg6MnO8"]
)
def test_known_ground_states_lie_on_or_near_the_shipped_hull(
    shipped: ReferenceSet, formula: str
) -> None:
    energy = lowest(shipped, formula)
    composition = Composition(formula)
    query = HullQuery("q", composition, energy * composition.num_atoms, "mp2020", "chgnet")
    (result,) = Hull(shipped).place([query])
    assert 0 <= round(result.energy_above_hull, 6) <= GROUND_STATE_LIMIT


@pytest.mark.parametrize(
    ("formula", "formation"),
    # experiment, 298 K: -601.6, -385.2 kJ/mol (CRC Handbook), in eV/atom
    [("MgO", -3.118), ("MnO", -1.996)],
)
def test_formation_energies_are_those_of_experiment(
    shipped: ReferenceSet, formula: str, formation: float
) -> None:
    metal = formula.removesuffix("O")
    found = lowest(shipped, formula) - (lowest(shipped, metal) + lowest(shipped, "O2")) / 2
    assert found == pytest.approx(formation, abs=0.15)


@pytest.mark.parametrize("formula", ["MgO", "Mg"])
def test_a_shipped_energy_can_be_recomputed(shipped: ReferenceSet, formula: str) -> None:
    entries = [e for e in shipped.entries if e.composition.reduced_formula == formula]
    entry = min(entries, key=lambda e: e.energy_per_atom)
    assert entry.structure is not None
    again = relax(entry.structure, "chgnet")
    assert again.verdict == "converged"
    assert again.energy_per_atom == pytest.approx(entry.energy_per_atom, abs=2e-3)


def test_the_shipped_file_is_small() -> None:
    path: Path = shipped_path("Mg-Mn-O", "chgnet")
    assert path.stat().st_size < 500_000
