"""Hulls of many elements: the linear programme says what facets say, and never gives up."""

import gzip
from pathlib import Path

import numpy as np
import orjson
import pytest
from pymatgen.core import Composition
from scipy.spatial import QhullError

from pccd_workflows.analysis import hull as hull_module
from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet

TABLE = "mp_legacy_formation_energies.jsonl.gz"
ELEMENTS = ("Al", "Ca", "F", "Li", "Mg", "O", "P", "Si", "Ti")


def made_up(n_elements: int, n_phases: int = 60) -> ReferenceSet:
    """Return phases of random composition and formation energy, and the elements at 0."""
    rng = np.random.default_rng(n_elements)
    symbols = ELEMENTS[:n_elements]
    entries = [ReferenceEntry(entry_id=s, formula=s, energy=0.0) for s in symbols]
    for number in range(n_phases):
        chosen = rng.choice(symbols, size=rng.integers(2, min(n_elements, 5) + 1), replace=False)
        counts = rng.integers(1, 5, size=len(chosen))
        formula = "".join(f"{s}{n}" for s, n in zip(chosen, counts, strict=True))
        energy = -float(rng.random()) * int(counts.sum())
        entries.append(ReferenceEntry(entry_id=f"p-{number}", formula=formula, energy=energy))
    return reference_set(entries)


def reference_set(entries: list[ReferenceEntry]) -> ReferenceSet:
    return ReferenceSet(
        source="file", chemsys="-".join(ELEMENTS), level="t", convention="mp2020", entries=entries
    )


def queries(n_elements: int) -> list[HullQuery]:
    rng = np.random.default_rng(1)
    found = []
    for number in range(20):
        counts = rng.integers(1, 6, size=n_elements)
        pairs = zip(ELEMENTS[:n_elements], counts.tolist(), strict=True)
        composition = Composition(dict(pairs))
        found.append(HullQuery(f"q-{number}", composition, 0.0, "mp2020", "t"))
    return found


@pytest.mark.parametrize("n_elements", [2, 3, 5, 6])
def test_both_ways_agree(n_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Energies to 1e-6 eV/atom, and decompositions that add up to the composition."""
    references, asked = made_up(n_elements), queries(n_elements)
    by_facets = Hull(references).place(asked)
    monkeypatch.setattr(hull_module, "MOST_ELEMENTS", 1)
    by_programme = Hull(references).place(asked)
    compositions = {e.entry_id: e.composition.fractional_composition for e in references.entries}
    for query, a, b in zip(asked, by_facets, by_programme, strict=True):
        assert b.energy_above_hull == pytest.approx(a.energy_above_hull, abs=1e-6)
        assert b.energy_above_hull > 0.01  # the hull is not just the elements
        mixed = sum((compositions[i] * w for i, w in b.decomposition.items()), Composition())
        assert mixed.almost_equals(query.composition.fractional_composition, rtol=1e-5, atol=1e-6)


def test_a_hull_that_qhull_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems of six elements whose facets merge too widely are placed all the same."""
    references, asked = made_up(6), queries(6)
    expected = Hull(references).place(asked)

    def refuse(points: object) -> None:
        raise QhullError("QH6271 topology error: wide merge")

    monkeypatch.setattr(hull_module, "ConvexHull", refuse)
    placed = Hull(references).place(asked)
    for a, b in zip(expected, placed, strict=True):
        assert b.energy_above_hull == pytest.approx(a.energy_above_hull, abs=1e-6)


@pytest.mark.shared_data
@pytest.mark.slow
def test_every_system_of_the_legacy_table(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All phases of 6 to 9 elements are placed; none lies below a hull that it is part of."""
    entries, many = legacy_table(shared_data / TABLE)
    references = reference_set(entries)
    asked = [HullQuery(e.entry_id, e.composition, e.energy, "mp2020", "t") for e in many]
    placed = Hull(references).place(asked)
    assert {len(e.composition) for e in many} == {6, 7, 8, 9}
    above = np.array([result.energy_above_hull for result in placed])
    assert above.min() > -1e-6
    assert (above < 1e-6).sum() > 100
    six = [i for i, e in enumerate(many) if len(e.composition) == 6][:100]
    monkeypatch.setattr(hull_module, "MOST_ELEMENTS", 1)
    by_programme = Hull(references).place([asked[i] for i in six])
    for i, result in zip(six, by_programme, strict=True):
        assert result.energy_above_hull == pytest.approx(above[i], abs=1e-6)


def legacy_table(path: Path) -> tuple[list[ReferenceEntry], list[ReferenceEntry]]:
    """Return all phases, with the elements at 0, and those of six and more elements."""
    entries, many = [], []
    symbols = set()
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row = orjson.loads(line)
        composition = Composition(row["formula"])
        energy = row["formation_energy_per_atom"] * composition.num_atoms
        entry = ReferenceEntry(entry_id=row["id"], formula=row["formula"], energy=energy)
        entries.append(entry)
        symbols |= {e.symbol for e in composition}
        if len(composition) >= 6:
            many.append(entry)
    entries += [ReferenceEntry(entry_id=s, formula=s, energy=0.0) for s in sorted(symbols)]
    return entries, many
