"""The hull: hand-checked energies, pymatgen's PhaseDiagram, and what is refused."""

import random

import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_mp2020, correct_references
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import EnergyConvention
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet


def references(
    energies: dict[str, tuple[str, float]], convention: EnergyConvention = "mp2020"
) -> ReferenceSet:
    """Return a set of entries by id: formula and total energy, eV."""
    entries = [
        ReferenceEntry(entry_id=identifier, formula=formula, energy=energy)
        for identifier, (formula, energy) in energies.items()
    ]
    return ReferenceSet(
        source="file", chemsys="Al-Mg", level="chgnet", convention=convention, entries=entries
    )


def query(formula: str, energy: float, level: str = "chgnet") -> HullQuery:
    """Return a crystal of a total energy, eV."""
    return HullQuery(formula, Composition(formula), energy, "mp2020", level)


BINARY = {"mg": ("Mg", -1.0), "al": ("Al2", -6.0), "mg-high": ("Mg", -0.5), "mgal": ("MgAl", -4.4)}


@pytest.mark.parametrize(
    ("formula", "energy", "above", "decomposition"),
    [
        ("MgAl", -4.4, 0.0, {"mgal": 1.0}),  # equal to a reference
        ("MgAl", -4.0, 0.2, {"mgal": 1.0}),
        ("MgAl", -4.6, -0.1, {"mgal": 1.0}),  # a new ground state stays negative
        ("Mg3Al", -6.4, 0.0, {"mg": 0.5, "mgal": 0.5}),
        ("Mg3Al", -6.0, 0.1, {"mg": 0.5, "mgal": 0.5}),
        ("Mg", -0.7, 0.3, {"mg": 1.0}),
        ("Al4", -12.4, -0.1, {"al": 1.0}),
    ],
)
def test_hand_calculation(
    formula: str, energy: float, above: float, decomposition: dict[str, float]
) -> None:
    """Mg -1, Al -3 eV/atom and MgAl 0.2 eV/atom below their mean."""
    (result,) = Hull(references(BINARY)).place([query(formula, energy)])
    assert result.energy_above_hull == pytest.approx(above)
    assert result.decomposition == pytest.approx(decomposition)


def test_formation_energy_and_order_of_results() -> None:
    """Results come in the order of the queries, whatever their systems."""
    queries = [query("MgAl", -4.4), query("Mg2", -1.0), query("Al", -3.0), query("MgAl", -4.2)]
    formation = [r.formation_energy_per_atom for r in Hull(references(BINARY)).place(queries)]
    assert formation == pytest.approx([-0.2, 0.5, 0.0, -0.1])


def test_agrees_with_phase_diagram_in_a_quaternary_system() -> None:
    """Random phases, among them collinear and coplanar ones at exactly equal energies."""
    rng = random.Random(3)  # noqa: S311
    symbols = ["Mg", "Mn", "O", "S"]
    phases = {symbol: (symbol, rng.uniform(-5, -1)) for symbol in symbols}
    elements = dict(phases.values())
    for index in range(60):
        composition = Composition(
            {s: rng.randint(1, 4) for s in rng.sample(symbols, rng.randint(2, 4))}
        )
        ideal = sum(elements[e.symbol] * n for e, n in composition.items())
        step = rng.choice([0.0, -0.25, -0.5, -0.5, 0.1])
        phases[f"p{index}"] = (composition.formula, ideal + step * composition.num_atoms)
    diagram = PhaseDiagram([PDEntry(Composition(f), e, name=i) for i, (f, e) in phases.items()])
    queries = [
        query(Composition({s: rng.randint(1, 5) for s in symbols[: rng.randint(1, 4)]}).formula, -9)
        for _ in range(40)
    ]
    hull = Hull(references(phases))
    for crystal, result in zip(queries, hull.place(queries), strict=True):
        entry = PDEntry(crystal.composition, crystal.energy)
        expected = diagram.get_e_above_hull(entry, allow_negative=True)
        assert result.energy_above_hull == pytest.approx(expected, abs=1e-8)
        # the decomposition has the composition and the energy of the hull
        total = sum(result.decomposition.values())
        energy = sum(
            w * phases[i][1] / Composition(phases[i][0]).num_atoms
            for i, w in result.decomposition.items()
        )
        assert total == pytest.approx(1.0)
        assert min(result.decomposition.values()) > 0
        per_atom = crystal.energy / crystal.composition.num_atoms
        assert per_atom - energy == pytest.approx(expected, abs=1e-6)
        for symbol in symbols:
            fraction = sum(
                w * Composition(phases[i][0]).get_atomic_fraction(symbol)
                for i, w in result.decomposition.items()
            )
            assert fraction == pytest.approx(
                crystal.composition.get_atomic_fraction(symbol), abs=1e-6
            )


def test_a_missing_element_is_refused_by_name() -> None:
    """No hull without elemental references: a wrong one would look right."""
    with pytest.raises(InputError, match="no elemental phase of O"):
        Hull(references(BINARY)).place([query("MgO", -6.0)])


def test_mixed_levels_conventions_and_numbers_are_refused() -> None:
    """Energies of different kinds never share a hull."""
    hull = Hull(references(BINARY))
    with pytest.raises(InputError, match="level '7net-0'"):
        hull.place([query("MgAl", -4.0, level="7net-0")])
    with pytest.raises(InputError, match="energy convention 'mp2020'"):
        Hull(references(BINARY, "uncorrected")).place([query("MgAl", -4.0)])
    with pytest.raises(InputError, match="finite"):
        hull.place([query("MgAl", float("nan"))])


def test_duplicate_ids_are_refused() -> None:
    """Two entries of one id would silently replace each other downstream."""
    twice = references(BINARY)
    twice.entries.append(twice.entries[0])
    with pytest.raises(InputError, match="same id 'mg'"):
        Hull(twice)


def cell(lattice: Lattice, species: list[str], coords: list[list[float]]) -> Structure:
    """Return a structure."""
    return Structure(lattice, species, coords)


ROCK_SALT = [[0, 0, 0], [0.5, 0.5, 0.5]]
FCC = Lattice([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]])
BAO2 = cell(
    Lattice.tetragonal(3.8, 6.8),
    ["Ba"] * 2 + ["O"] * 4,
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.11], [0.5, 0.5, 0.89], [0, 0, 0.39], [0, 0, 0.61]],
)
KO2 = cell(
    Lattice.tetragonal(4.03, 6.7),
    ["K"] * 2 + ["O"] * 4,
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.1], [0.5, 0.5, 0.9], [0, 0, 0.4], [0, 0, 0.6]],
)


@pytest.mark.parametrize(
    ("structure", "correction"),
    [
        (cell(FCC, ["Mg", "O"], ROCK_SALT), -0.687),  # oxide, per O
        (cell(FCC, ["Mn", "O"], ROCK_SALT), -0.687 - 1.668),  # and the +U of Mn
        (BAO2, 4 * -0.465),  # peroxide, O-O 1.5 Å
        (KO2, 4 * -0.161),  # superoxide, O-O 1.3 Å
        (cell(Lattice.cubic(3), ["Mg"], [[0, 0, 0]]), 0.0),
    ],
)
def test_mp2020_corrections(structure: Structure, correction: float) -> None:
    """Published MP2020 values (10.1038/s41598-021-94550-5), eV per cell; corrected ones stay."""
    raw = correct_mp2020(structure, -10.0, convention="uncorrected")
    assert raw + 10.0 == pytest.approx(correction, abs=2e-3)
    assert correct_mp2020(structure, -10.0, convention="mp2020") == -10.0


def test_references_are_corrected_once() -> None:
    """A corrected set is not corrected again."""
    structure = cell(FCC, ["Mg", "O"], ROCK_SALT)
    entry = ReferenceEntry(entry_id="mgo", formula="Mg2O2", energy=-24.0, structure=structure)
    raw = references({}, "uncorrected").model_copy(update={"entries": [entry]})
    corrected = correct_references(raw)
    assert corrected.convention == "mp2020"
    assert corrected.entries[0].energy == pytest.approx(-24.0 - 2 * 0.687, abs=2e-3)
    assert correct_references(corrected) is corrected


def test_phases_add_up_to_the_crystal_where_facets_lie_in_one_plane() -> None:
    """Four phases span a plane: two facets tie everywhere in it, one of them holds a point."""
    square = {"a": "Mg3Al2", "b": "Mg3Zn2", "c": "Mg2Al3", "d": "Mg2Zn3"}
    elements = {symbol: (symbol, 0.0) for symbol in ("Mg", "Al", "Zn")}
    whole = references(elements | {name: (formula, -5.0) for name, formula in square.items()})
    formulas = ["Mg10Al4Zn3", "Mg10Al3Zn4", "Mg9Al5Zn3", "Mg9Al3Zn5", "Mg5Al2Zn2", "Mg10Al7Zn2"]
    results = Hull(whole).place([query(formula, 0.0) for formula in formulas])
    for formula, found in zip(formulas, results, strict=True):
        mixed = Composition({})
        assert sum(found.decomposition.values()) == pytest.approx(1)
        assert min(found.decomposition.values()) > 0
        for name, part in found.decomposition.items():
            mixed += Composition(square.get(name, name)).fractional_composition * part
        assert mixed.almost_equals(Composition(formula).fractional_composition, 1e-6, 1e-6)
