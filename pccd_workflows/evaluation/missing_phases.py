"""How much better crystals look because known phases are missing from a hull."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Composition

from pccd_workflows.analysis.hull import Hull, HullQuery
from pccd_workflows.core.intervals import Estimate, share
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.evaluation.results import Result
from pccd_workflows.evaluation.thresholds import THRESHOLDS, is_within
from pccd_workflows.known.phases import Systems, elements_of, with_subsystems

NOTICED = 1e-3
"""eV/atom; a hull that rises by less has not risen."""
_SYMBOL = re.compile("[A-Z][a-z]?")


class Rise(Result):
    """By how much a hull lies too high, eV/atom."""

    mean: float
    median: float
    percentile_95: float
    largest: float


class MissingPhaseBias(Result):
    """What phases that the data lacks would change.

    Attributes
    ----------
    table
        Where all phases are known.
    shift
        Of the compositions of the crystals; None without crystals.
    raised
        Share of the compositions whose hull rises by more than NOTICED.
    verdicts_lost
        By threshold, the share of the crystals below it that would not be with all phases.
    """

    table: str = ""
    unit: str = "eV/atom"
    phases_in_table: int
    phases_at_hand: int
    shift: Rise | None
    raised: Estimate
    verdicts_lost: dict[str, Estimate]


def missing_phase_bias(
    table: Iterable[Mapping[str, Any]],
    present: Collection[str],
    crystals: Sequence[tuple[Composition, float | None]],
    *,
    name: str = "",
) -> MissingPhaseBias:
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
    name
        Of the table.
    """
    systems = {elements_of(composition) for composition, _ in crystals}
    phases = _phases_in(table, systems)
    at_hand = [entry for entry in phases if entry.entry_id in present]
    rises = _rises([composition for composition, _ in crystals], phases, at_hand)
    return MissingPhaseBias(
        table=name,
        phases_in_table=len(phases),
        phases_at_hand=len(at_hand),
        shift=_distribution(rises) if rises else None,
        raised=share(sum(rise > NOTICED for rise in rises), len(rises)),
        verdicts_lost={
            threshold: _lost(crystals, rises, limit) for threshold, limit in THRESHOLDS.items()
        },
    )


def _phases_in(table: Iterable[Mapping[str, Any]], systems: Systems) -> list[ReferenceEntry]:
    """Return the phases of a table that consist of the elements of one of the systems."""
    wanted, entries = with_subsystems(systems), []
    for row in table:
        per_atom = row.get("formation_energy_per_atom")
        if per_atom is not None and frozenset(_SYMBOL.findall(row["formula"])) in wanted:
            energy = float(per_atom) * Composition(row["formula"]).num_atoms
            entry_id = str(row["id"])
            entries.append(ReferenceEntry(entry_id=entry_id, formula=row["formula"], energy=energy))
    return entries


def _rises(
    compositions: Sequence[Composition],
    phases: Sequence[ReferenceEntry],
    at_hand: Sequence[ReferenceEntry],
) -> list[float]:
    """Return by how much the hull of the phases at hand lies above that of all, eV/atom."""
    symbols = frozenset().union(*map(elements_of, compositions))
    queries = [
        HullQuery(str(i), composition, 0.0, "uncorrected", "table")
        for i, composition in enumerate(compositions)
    ]
    whole, partial = (_hull(entries, symbols).place(queries) for entries in (phases, at_hand))
    return [a.energy_above_hull - b.energy_above_hull for a, b in zip(whole, partial, strict=True)]


def _hull(entries: Sequence[ReferenceEntry], elements: Collection[str]) -> Hull:
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


def _distribution(rises: Sequence[float]) -> Rise:
    return Rise(
        mean=round(float(np.mean(rises)), 4),
        median=round(float(np.median(rises)), 4),
        percentile_95=round(float(np.percentile(rises, 95)), 4),
        largest=round(float(np.max(rises)), 4),
    )


def _lost(
    crystals: Sequence[tuple[Composition, float | None]], rises: Sequence[float], limit: float
) -> Estimate:
    below = [
        above + rise
        for (_, above), rise in zip(crystals, rises, strict=True)
        if above is not None and is_within(above, limit)
    ]
    return share(sum(not is_within(above, limit) for above in below), len(below))
