"""`judge_stability`: energies of crystals and references are corrected once, and only once."""

import pytest
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.hull import correct_mp2020
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.stages.hull import judge_stability
from pccd_workflows.stages.rung import Rung

HALF = [0.5, 0.5, 0.5]
MGO = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], HALF])
MG = Structure(
    Lattice.hexagonal(3.2, 5.2), ["Mg"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
)
O2 = Structure(Lattice.cubic(8.0), ["O", "O"], [[0, 0, 0], [0.15, 0, 0]])
OF_OXIDE = -0.687
"""eV per O of an oxide in MP2020 (10.1038/s41598-021-94550-5)."""
BEFORE = {"Mg": -1.6, "O": -4.9, "MgO": -6.0}
"""eV/atom, before any correction."""


def references(level: str, convention: str, *, with_compound: bool = True) -> ReferenceSet:
    phases = {"Mg": MG, "O": O2} | ({"MgO": MGO} if with_compound else {})
    return ReferenceSet(
        source="file",
        chemsys="Mg-O",
        level=level,
        convention=convention,
        entries=[
            ReferenceEntry(
                entry_id=name,
                formula=crystal.formula,
                energy=BEFORE[name] * len(crystal),
                structure=crystal,
            )
            for name, crystal in phases.items()
        ],
    )


def judged(level: str, convention: str, per_atom: float, **options: bool):
    relaxation = Relaxation(
        level=level,
        key="a",
        verdict="converged",
        structure=MGO,
        energy=per_atom * len(MGO),
        energy_per_atom=per_atom,
        convention=convention,
    )
    known = references(level, convention, **options)
    return judge_stability({"one": relaxation}, Rung(level=level), [known])["one"]


@pytest.mark.parametrize(
    ("level", "convention", "per_oxygen"),
    [
        ("7net-l3i5", "uncorrected", OF_OXIDE),
        ("chgnet", "mp2020", 0.0),
        ("gpaw/pbe", "as_computed", 0.0),
    ],
)
def test_uncorrected_energies_get_the_correction_of_their_anion_and_others_none(
    level, convention, per_oxygen
):
    """Half of the atoms are O; elements are not corrected."""
    found = judged(level, convention, -6.0, with_compound=False)
    expected = -6.0 + per_oxygen / 2 - (-1.6 - 4.9) / 2
    assert found.energy_above_hull == pytest.approx(expected, abs=1e-3)
    assert found.formation_energy_per_atom == pytest.approx(expected, abs=1e-3)
    assert found.convention == ("mp2020" if convention == "uncorrected" else convention)
    assert found.passed


@pytest.mark.parametrize("level", ["7net-0", "7net-l3i5", "chgnet"])
def test_crystal_and_references_are_corrected_alike(level):
    convention = "mp2020" if level == "chgnet" else "uncorrected"
    found = judged(level, convention, -5.9)
    assert found.energy_above_hull == pytest.approx(0.1, abs=1e-6)
    assert found.decomposition == {"MgO": pytest.approx(1.0)}
    assert not judged(level, convention, -5.7).passed


def test_the_correction_is_that_of_an_oxide():
    corrected = correct_mp2020(MGO, -6.0 * len(MGO), convention="uncorrected")
    assert (corrected + 6.0 * len(MGO)) / 4 == pytest.approx(OF_OXIDE, abs=1e-3)
