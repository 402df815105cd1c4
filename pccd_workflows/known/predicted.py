"""Known phases without a structure: predicted from known crystals, their elements exchanged.

A table of formation energies knows phases of which nobody here has the structure, whole chemical
systems among them. A hull without them is no hull. So the known crystals of the same numbers of
atoms, of elements as alike as can be, get the elements of the phase (after Hautier et al. 2011,
DOI 10.1021/ic102031h) and are relaxed; the lowest competes for the phase. Its energy is an upper
bound: `benchmarks/predicted_phases.py` says how close.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from pccd_workflows.core.reference_set import MissingPhase
from pccd_workflows.core.systems import atomic_number, parse_formula
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.known.library import KnownLibrary
from pccd_workflows.known.relaxed_hull import Phase

if TYPE_CHECKING:
    from pymatgen.core import Structure

Relax = Callable[["Structure"], Relaxation]
Amounts = tuple[tuple[str, int], ...]
"""Symbol and number of atoms in lowest terms of each element, by symbol."""
NEAR_TABLE = 0.01
"""eV/atom above the table's hull: phases below it are predicted; the others hardly carry a hull
that these are on."""
NEAR_IN_SOURCES = 0.05
"""eV/atom above the hull that the sources state: known crystals below it lend their structure."""
HEIGHT = 5.0
"""What 1 eV/atom above the hull counts as, in units of the distance of elements: of crystals of
the same elements the lowest comes first."""
MAX_SITES = 40
"""Of crystals that lend their structure."""
TYPES = 2
"""Structure types that are relaxed for a composition: more lower few of them further."""
FROM = "predicted from "
WHAT = "predicting missing phases"


def wanted(missing: Iterable[MissingPhase]) -> list[MissingPhase]:
    """Return the missing phases that are predicted: of each composition the lowest.

    Those are the ones on or near the hull of the table that could move the hull of what is at hand.
    """
    lowest: dict[Amounts, MissingPhase] = {}
    for phase in sorted(missing, key=lambda phase: (phase.energy_above_hull, phase.id)):
        if phase.could_move_hull and phase.energy_above_hull <= NEAR_TABLE:
            lowest.setdefault(_composition(phase), phase)
    return list(lowest.values())


def predict_phases(
    missing: Iterable[MissingPhase],
    known: KnownLibrary,
    relax: Relax,
    progress: Progress = silent,
) -> list[Phase]:
    """Return predicted phases, at rest, for the missing ones.

    Parameters
    ----------
    missing
        Phases of one chemical system and its parts.
    known
        The crystals that lend their structures.
    relax
        Relaxes one crystal at the level of the hull.
    progress
        Told after each relaxation.

    Returns
    -------
    list of Phase
        None for phases of whose numbers of atoms there is no known crystal, or none of these
        could be relaxed. `Phase.database` names the crystal that lent the structure.
    """
    guesses = {_name(phase): predict_structures(phase.formula, known) for phase in wanted(missing)}
    total, done = sum(map(len, guesses.values())), 0
    found: dict[str, Phase] = {}
    for name, chosen in guesses.items():
        for template, structure in chosen:
            relaxation = relax(structure)
            done += 1
            progress(WHAT, done, total)
            energy, crystal = relaxation.energy_per_atom, relaxation.structure
            if not relaxation.usable or energy is None or crystal is None:
                continue
            if name not in found or energy < found[name].energy:
                origin = FROM + template
                found[name] = Phase(name, origin, crystal, energy, relaxed=True)
    return list(found.values())


def with_predictions(missing: Sequence[MissingPhase], found: Iterable[Phase]) -> list[MissingPhase]:
    """Return missing phases that say if they were predicted, and what they still could change.

    found: the predicted phases of the set, each for all missing phases of its composition. Where
    none is wanting, the other missing phases lie above the hull, as they do in the table.
    """
    origin = {phase.id: phase.database.removeprefix(FROM) for phase in found}
    names = {_composition(phase): _name(phase) for phase in wanted(missing)}
    complete = set(names.values()) <= set(origin)
    result = []
    for phase in missing:
        predicted_from = origin.get(names.get(_composition(phase), ""), "")
        shift = 0.0 if complete or predicted_from else phase.shift
        result.append(phase.model_copy(update={"predicted_from": predicted_from, "shift": shift}))
    return result


def predict_structures(
    formula: str, known: KnownLibrary, most: int = TYPES, *, without_own: bool = False
) -> list[tuple[str, "Structure"]]:
    """Return known crystals with the elements of a formula, the most alike first.

    Parameters
    ----------
    formula
        Of the phase.
    known
        The crystals that lend their structures.
    most
        Structure types (space group and sites of the cell) at most.
    without_own
        Leave crystals of the formula itself out: to measure what this is worth.

    Returns
    -------
    list of (id of the known crystal, structure)
        Cells scaled to the new elements.
    """
    from pccd_workflows.generators.substitution import Template, exchange

    amounts = parse_formula(formula)
    rows = known.rows_by_pattern.get(tuple(sorted(amounts.values())), np.empty(0, dtype=np.int64))
    above = np.nan_to_num(known.energy_above_hull[rows], nan=0.0).clip(min=0.0)
    fits = (known.n_sites[rows] <= MAX_SITES) & (above <= NEAR_IN_SOURCES)
    if without_own:
        fits &= ~np.isin(rows, known.rows_of(amounts))
    exchanges = _Exchanges(amounts)
    ranked = []
    for row, height in zip(rows[fits].tolist(), above[fits].tolist(), strict=True):
        distance, exchanged = exchanges.of(known.amounts(row))
        ranked.append((distance + HEIGHT * height, int(known.n_sites[row]), row, exchanged))
    found: dict[tuple[int, int], tuple[str, Structure]] = {}
    for _, n_sites, row, exchanged in sorted(ranked, key=lambda one: one[:3]):
        kind = int(known.spacegroup[row]), n_sites
        if kind not in found:
            template = Template.of(known.id_of(row), known.structure(row))
            found[kind] = template.id, exchange(template, exchanged)
        if len(found) == most:
            break
    return list(found.values())


class _Exchanges:
    """The best way to put elements in the place of others, by numbers of atoms; remembered."""

    def __init__(self, amounts: Mapping[str, int]) -> None:
        from pccd_workflows.generators.substitution import element_distance

        self._distance = element_distance()
        self._asked = _by_amount(amounts)
        self._found: dict[Amounts, tuple[float, dict[int, int]]] = {}

    def of(self, amounts: Mapping[str, int]) -> tuple[float, dict[int, int]]:
        """Return how unlike the elements are in total, and which atomic number becomes which."""
        key = tuple(amounts.items())
        if key not in self._found:
            self._found[key] = self._best(_by_amount(amounts))
        return self._found[key]

    def _best(self, own: dict[int, list[int]]) -> tuple[float, dict[int, int]]:
        total = 0.0
        exchanged: dict[int, int] = {}
        for amount, numbers in own.items():
            ways = np.array(list(permutations(self._asked[amount])))
            costs = self._distance[np.array(numbers), ways].sum(axis=1)
            best = int(np.argmin(costs))
            total += float(costs[best])
            exchanged |= dict(zip(numbers, ways[best].tolist(), strict=True))
        return total, exchanged


def _by_amount(amounts: Mapping[str, int]) -> dict[int, list[int]]:
    """Return the atomic numbers of the elements of which there are so many atoms."""
    found: dict[int, list[int]] = defaultdict(list)
    for symbol, amount in amounts.items():
        found[amount].append(atomic_number(symbol))
    return found


def _name(phase: MissingPhase) -> str:
    return f"{phase.id}:predicted"


def _composition(phase: MissingPhase) -> Amounts:
    return tuple(sorted(parse_formula(phase.formula).items()))
