"""The convex hull at a potential's own level, from the known crystals of a data file.

Errors of a potential that are the same for a crystal and for what it competes with cancel only if
both are computed alike. So the competing phases are taken from a data file (those near the hull it
knows, or of unknown place) and computed with the same potential: all of them as they are, then
those near the resulting hull relaxed. What computes is given by the caller.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from pymatgen.core import Composition, Structure

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_mp2020
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import share
from pccd_workflows.core.records import EnergyConvention
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation

NEAR_IN_DATA = 0.05
"""eV/atom above the hull that the data file states: phases below it are computed."""
NEAR_AT_LEVEL = 0.03
"""eV/atom above the unrelaxed hull at the potential's level: phases below it are relaxed. Data
files hold relaxed PBE geometries; a potential's own minimum lies some meV/atom lower, so that what
is further up does not come to the hull."""
THRESHOLDS = {"stable_0": 0.0, "stable_80": 0.08, "stable_100": 0.1, "stable_250": 0.25}
"""eV/atom above the hull, at most; the seed counts at 80 and 250 meV/atom."""
SAME_ENERGY = 1e-6
"""eV/atom; a crystal on the hull is not above it for rounding."""

_SYMBOL = re.compile("[A-Z][a-z]?")

SinglePoint = Callable[[Structure], float | None]
"""Energy of a crystal as it is, eV/atom; None if the potential cannot say."""
Relax = Callable[[Structure], Relaxation]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and the total."""


def silent(what: str, done: int, total: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class Phase:
    """A known crystal that may compete.

    Attributes
    ----------
    energy_above_hull : float or None
        As its data file states it, eV/atom.
    """

    id: str
    structure: Structure
    energy_above_hull: float | None


@dataclass(frozen=True)
class Judged:
    """Where a crystal ends.

    Attributes
    ----------
    energy_above_hull : float or None
        eV/atom at the level of `relaxation`; None if it cannot be placed.
    """

    relaxation: Relaxation
    energy_above_hull: float | None


Judge = Callable[[Sequence[Structure]], list[Judged]]
"""Relaxes crystals and places them on the hull."""


def competing_phases(
    rows: Iterable[Mapping[str, Any]],
    systems: Iterable[Collection[str]],
    *,
    limit: float = NEAR_IN_DATA,
) -> list[Phase]:
    """Return the crystals of a data file that may lie on the hulls of chemical systems.

    Taken are all elements, and of compounds those at most `limit` above the hull that the file
    states, or with no such statement.

    Parameters
    ----------
    rows
        Crystals with id, lattice (3x3, Å), species and frac_coords and, where known,
        energy_above_hull or energy_above_hull_legacy_derived, eV/atom.
    systems
        Elements of each system; subsystems are included.
    limit
        eV/atom.
    """
    wanted = with_subsystems(systems)
    phases = []
    for row in rows:
        species = row.get("species")
        if not species or frozenset(species) not in wanted:
            continue
        above = stated_energy_above_hull(row)
        if len(set(species)) == 1 or above is None or above <= limit:
            structure = Structure(row["lattice"], species, row["frac_coords"])
            phases.append(Phase(str(row["id"]), structure, above))
    return phases


def with_subsystems(systems: Iterable[Collection[str]]) -> set[frozenset[str]]:
    """Return chemical systems and all their parts, down to the elements."""
    return {
        frozenset(part)
        for system in {frozenset(s) for s in systems}
        for n in range(1, len(system) + 1)
        for part in combinations(sorted(system), n)
    }


def stated_energy_above_hull(row: Mapping[str, Any]) -> float | None:
    """Return what a data file says, eV/atom; the hull of one database and vintage comes first."""
    for name in ("energy_above_hull_legacy_derived", "energy_above_hull"):
        if row.get(name) is not None:
            return float(row[name])
    return None


def hull_at_level(
    phases: Sequence[Phase],
    level: str,
    *,
    single_point: SinglePoint,
    relax: Relax | None = None,
    progress: Progress = silent,
) -> ReferenceSet:
    """Return the phases with their energies at `level`, in the convention ``mp2020``.

    Parameters
    ----------
    phases
        Of all the systems that will be asked for.
    level
        Name of a potential.
    single_point
        Energy at that level.
    relax
        Relaxes at that level; None leaves all phases as they are.
    progress
        Told after each crystal.
    """
    convention = get_level(level).convention
    entries: list[ReferenceEntry] = []
    for done, phase in enumerate(phases, start=1):
        energy = single_point(phase.structure)
        total = None if energy is None else energy * len(phase.structure)
        total = corrected(phase.structure, total, convention)
        if total is not None:
            entries.append(_entry(phase.id, phase.structure, total, "as it is"))
        progress("single points of known phases", done, len(phases))
    known = _reference_set(entries, level)
    if relax is None or not entries:
        return known
    near = _near_hull(known)
    for done, place in enumerate(near, start=1):
        start = entries[place]
        relaxation = relax(start.structure) if start.structure is not None else None
        if relaxation is not None and relaxation.usable and relaxation.structure is not None:
            total = corrected(relaxation.structure, relaxation.energy, convention)
            # one that went uphill or apart is no better than its start
            if total is not None and total < start.energy:
                entries[place] = _entry(start.entry_id, relaxation.structure, total, "relaxed")
        progress("relaxing phases near the hull", done, len(near))
    return _reference_set(entries, level)


def corrected(
    structure: Structure, energy: float | None, convention: EnergyConvention
) -> float | None:
    """Return a total energy (eV) with the MP2020 corrections, None where there is none."""
    if energy is None or not math.isfinite(energy):
        return None
    try:
        return correct_mp2020(structure, energy, convention=convention)
    except InputError:
        return None


def _entry(identifier: str, structure: Structure, energy: float, how: str) -> ReferenceEntry:
    formula = structure.composition.formula.replace(" ", "")
    return ReferenceEntry(
        entry_id=identifier,
        formula=formula,
        energy=energy,
        structure=structure,
        data={"geometry": how},
    )


def _reference_set(entries: list[ReferenceEntry], level: str) -> ReferenceSet:
    elements = sorted({e.symbol for entry in entries for e in entry.composition})
    return ReferenceSet(
        source="file",
        chemsys="-".join(elements),
        level=level,
        convention="mp2020",
        entries=list(entries),
    )


def _near_hull(known: ReferenceSet) -> list[int]:
    """Return the numbers of the entries that are worth a relaxation."""
    have = elemental(known)
    places = [i for i, e in enumerate(known.entries) if symbols(e.composition) <= have]
    entries = [known.entries[i] for i in places]
    placed = Hull(known).place(
        [HullQuery(e.entry_id, e.composition, e.energy, "mp2020", known.level) for e in entries]
    )
    return [
        i
        for i, result in zip(places, placed, strict=True)
        if result.energy_above_hull <= NEAR_AT_LEVEL
    ]


def elemental(references: ReferenceSet) -> set[str]:
    """Return the elements of which there is an elemental phase."""
    found = [symbols(entry.composition) for entry in references.entries]
    return set().union(*(s for s in found if len(s) == 1))


def symbols(composition: Composition) -> frozenset[str]:
    """Return the elements of a composition."""
    return frozenset(element.symbol for element in composition)


def place(relaxations: Sequence[Relaxation], references: ReferenceSet) -> list[float | None]:
    """Return how far relaxed crystals lie above the hull, eV/atom.

    None where a crystal has no usable energy or an element no reference.
    """
    have = elemental(references)
    queries = []
    for number, relaxation in enumerate(relaxations):
        structure, convention = relaxation.structure, relaxation.convention
        if not relaxation.usable or structure is None or convention is None:
            continue
        total = corrected(structure, relaxation.energy, convention)
        if total is not None and symbols(structure.composition) <= have:
            composition = structure.composition
            queries.append(HullQuery(str(number), composition, total, "mp2020", relaxation.level))
    placed = Hull(references).place(queries)
    above: list[float | None] = [None] * len(relaxations)
    for query, result in zip(queries, placed, strict=True):
        above[int(query.id)] = result.energy_above_hull
    return above


def is_within(energy_above_hull: float | None, limit: float) -> bool:
    """Return whether a crystal is at most `limit` eV/atom above the hull."""
    return energy_above_hull is not None and energy_above_hull <= limit + SAME_ENERGY


def flattery(
    table: Iterable[Mapping[str, Any]],
    present: Collection[str],
    crystals: Sequence[tuple[Composition, float | None]],
) -> dict[str, Any]:
    """Return by how much a hull is too high for lack of phases, and which verdicts that changes.

    A table of formation energies (one self-consistent hull) is taken twice: whole, and only its
    phases in `present`. Where the second hull is higher, crystals judged by `present` look better
    by the difference.

    Parameters
    ----------
    table
        id, formula and formation_energy_per_atom (eV/atom) of each phase.
    present
        Ids of the phases whose crystals are at hand.
    crystals
        Composition and energy above hull (eV/atom, None if unknown) of judged crystals.

    Returns
    -------
    dict
        shift (mean, median, 95th percentile, largest; eV/atom), raised (share of compositions by
        more than 1 meV/atom) and, by threshold, the share of the crystals below it that would not
        be with all phases.
    """
    systems = {symbols(c) for c, _ in crystals}
    rows = _relevant(table, systems)
    at_hand = [entry for entry in rows if entry.entry_id in present]
    elements = frozenset().union(*systems)
    whole, partial = _table_hull(rows, elements), _table_hull(at_hand, elements)
    queries = [
        HullQuery(str(i), c, 0.0, "uncorrected", "table") for i, (c, _) in enumerate(crystals)
    ]
    shifts = [
        a.energy_above_hull - b.energy_above_hull
        for a, b in zip(whole.place(queries), partial.place(queries), strict=True)
    ]
    flips = {}
    for name, limit in THRESHOLDS.items():
        below = [i for i, (_, above) in enumerate(crystals) if is_within(above, limit)]
        lost = sum(not is_within((crystals[i][1] or 0.0) + shifts[i], limit) for i in below)
        flips[name] = share(lost, len(below))
    return {
        "unit": "eV/atom",
        "phases_in_table": len(rows),
        "phases_at_hand": len(at_hand),
        "shift": {
            "mean": round(float(np.mean(shifts)), 4),
            "median": round(float(np.median(shifts)), 4),
            "percentile_95": round(float(np.percentile(shifts, 95)), 4),
            "largest": round(float(np.max(shifts)), 4),
        }
        if shifts
        else None,
        "raised": share(sum(s > 1e-3 for s in shifts), len(shifts)),
        "verdicts_lost": flips,
    }


def _relevant(
    table: Iterable[Mapping[str, Any]], systems: Collection[frozenset[str]]
) -> list[ReferenceEntry]:
    """Return the phases of a table that consist of the elements of one of the systems."""
    wanted, entries = with_subsystems(systems), []
    for row in table:
        per_atom = row.get("formation_energy_per_atom")
        if per_atom is not None and frozenset(_SYMBOL.findall(row["formula"])) in wanted:
            composition = Composition(row["formula"])
            energy = float(per_atom) * composition.num_atoms
            entry_id = str(row["id"])
            entries.append(ReferenceEntry(entry_id=entry_id, formula=row["formula"], energy=energy))
    return entries


def _table_hull(entries: Sequence[ReferenceEntry], elements: Collection[str]) -> Hull:
    """Return the hull of a table's phases; elements are at 0 whichever phases are at hand."""
    zero = [ReferenceEntry(entry_id=f"element-{s}", formula=s, energy=0.0) for s in elements]
    return Hull(
        ReferenceSet(
            source="file",
            chemsys="-".join(sorted(elements)),
            level="table",
            convention="uncorrected",
            entries=[*entries, *zero],
        )
    )


def disagreement(one: Sequence[float | None], other: Sequence[float | None]) -> dict[str, Any]:
    """Return how often two potentials disagree on what is stable, by threshold.

    Parameters
    ----------
    one, other
        Energy above hull of the same crystals, each at its own hull, eV/atom; None is no verdict
        and leaves the crystal out.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    gaps = np.array([a - b for a, b in pairs]) if pairs else np.zeros(1)
    return {
        "crystals": len(one),
        "judged_by_both": len(pairs),
        "rate": {
            name: share(sum(is_within(a, x) != is_within(b, x) for a, b in pairs), len(pairs))
            for name, x in THRESHOLDS.items()
        },
        "mean_difference": round(float(gaps.mean()), 4),
        "mean_absolute_difference": round(float(np.abs(gaps).mean()), 4),
        "unit": "eV/atom, first minus second",
    }
