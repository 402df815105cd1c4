"""Whether a crystal is physically and chemically sensible before any energy is computed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Composition, Structure

from pccd_workflows.analysis.screening import Screen, Screening

RADII: Mapping[str, float] = CovalentRadius.radius
"""Covalent radii, Å, of Cordero et al. (10.1039/b801115j) for H to Cm."""
DEFAULT_RADIUS = 1.5
"""Å, for the elements beyond Cm."""
VOLUME_PER_ATOM = (1.0, 400.0)
"""Å^3; relaxed crystals of the Materials Project have 5 to 120."""
NEIGHBOURS = np.array([cell for cell in product((-1, 0, 1), repeat=3) if any(cell)])
"""Combinations of reduced lattice vectors among which the shortest translation is."""

Problem = tuple[str, str] | None
"""Class of the reason and the reason as a sentence; None if there is nothing to object."""


def screen(structure: Structure, *, elements: Sequence[str], settings: Screen) -> Screening:
    """Return whether a crystal is sensible and, if not, the first reason why.

    The checks, in order: finite numbers, volume, density, distances (absolute and relative to
    the covalent radii), elements, charge balance.

    Parameters
    ----------
    structure
        The crystal.
    elements
        Symbols that were asked for.
    settings
        Limits of the campaign.
    """
    if problem := _not_a_crystal(structure):
        return Screening(passed=False, reason_class=problem[0], reason=problem[1])
    distances = periodic_distances(structure)
    balance = Balance(neutral=None)
    if settings.charge_neutral != "ignore":
        balance = charge_balance(structure.composition.reduced_formula)
    problem = (
        _bad_density(structure, settings)
        or _too_close(structure, distances, settings)
        or _wrong_elements(structure, elements, settings)
        or _unbalanced(structure, balance, settings)
    )
    reason_class, reason = problem or (None, None)
    return Screening(
        passed=problem is None,
        reason_class=reason_class,
        reason=reason,
        min_distance=float(distances.min()),
        density=float(structure.density),
        volume_per_atom=float(structure.volume / len(structure)),
        charge_balanced=balance.neutral,
        oxidation_states=balance.oxidation_states,
    )


def periodic_distances(structure: Structure) -> NDArray[np.float64]:
    """Return the shortest distance of each pair of sites over all images, shape (n, n), Å.

    The diagonal holds the distance of a site to its own nearest image.
    """
    coords = structure.frac_coords
    distances = np.asarray(structure.lattice.get_all_distances(coords, coords))
    reduced = structure.lattice.get_lll_reduced_lattice().matrix
    np.fill_diagonal(distances, np.linalg.norm(NEIGHBOURS @ reduced, axis=1).min())
    return distances


def _not_a_crystal(structure: Structure) -> Problem:
    if not len(structure):
        return "empty", "There are no atoms."
    numbers = np.concatenate([structure.lattice.matrix.ravel(), structure.frac_coords.ravel()])
    if not np.isfinite(numbers).all():
        return "not_finite", "Some lattice vectors or coordinates are not finite numbers."
    volume = structure.volume / len(structure)
    low, high = VOLUME_PER_ATOM
    if not low <= volume <= high:
        return "volume", f"{volume:.3g} Å^3 per atom is outside {low:g} to {high:g}."
    return None


def _bad_density(structure: Structure, settings: Screen) -> Problem:
    low, high = settings.density
    density = float(structure.density)
    if not low <= density <= high:
        return "density", f"The density {density:.3g} g/cm^3 is outside {low:g} to {high:g}."
    return None


def _too_close(structure: Structure, distances: NDArray[np.float64], settings: Screen) -> Problem:
    symbols = [site.specie.symbol for site in structure]
    radii = np.array([RADII.get(symbol, DEFAULT_RADIUS) for symbol in symbols])
    sums = radii[:, None] + radii
    needed = np.maximum(settings.min_distance, settings.min_distance_radii * sums)
    i, j = np.unravel_index(np.argmin(distances / needed), distances.shape)
    if distances[i, j] < needed[i, j]:
        pair = f"{symbols[i]} and {symbols[j]}"
        limit = needed[i, j]
        return "too_close", f"{pair} are {distances[i, j]:.2f} Å apart, less than {limit:.2f}."
    return None


def _wrong_elements(structure: Structure, elements: Sequence[str], settings: Screen) -> Problem:
    present = {element.symbol for element in structure.composition.elements}
    if extra := present.difference(elements):
        return "elements", f"{', '.join(sorted(extra))} was not asked for."
    missing = set(elements).difference(present)
    if missing and settings.all_elements:
        return "elements", f"{', '.join(sorted(missing))} is missing."
    return None


@dataclass(frozen=True)
class Balance:
    """Charge balance of a formula.

    neutral: None where oxidation states say nothing: elements, alloys, elements without any.
    oxidation_states: average per element of the first balanced assignment, if there is one.
    """

    neutral: bool | None
    oxidation_states: dict[str, float] | None = None


def _unbalanced(structure: Structure, balance: Balance, settings: Screen) -> Problem:
    if settings.charge_neutral == "require" and balance.neutral is False:
        formula = structure.composition.reduced_formula
        return "charge", f"No common oxidation states balance {formula}."
    return None


@lru_cache(maxsize=100_000)
def charge_balance(formula: str) -> Balance:
    """Return whether common oxidation states balance a formula.

    The states are those smact takes from the ICSD (2024; at least three reports), tried in all
    combinations that keep anions more electronegative than cations. If none balances, one element
    that is known for mixed valence (smact's list) may take two neighbouring states of one sign:
    Mn3O4 has Mn at +8/3. Of several balanced assignments the one with the most ionic bonds, by
    difference in electronegativity, is reported.

    Parameters
    ----------
    formula
        Reduced formula.
    """
    import smact

    amounts = Composition(formula).get_el_amt_dict()
    states = {symbol: _oxidation_states().get(symbol) for symbol in amounts}
    if len(amounts) == 1 or set(amounts).issubset(smact.metals) or not all(states.values()):
        return Balance(neutral=None)
    known = {symbol: values for symbol, values in states.items() if values}
    chi = {symbol: smact.Element(symbol).pauling_eneg for symbol in amounts}
    balanced = list(_integer_states(amounts, known, chi)) or list(
        _mixed_states(amounts, known, chi)
    )
    if not balanced:
        return Balance(neutral=False)
    best = max(balanced, key=lambda s: -sum(s[e] * (chi[e] or 0) * n for e, n in amounts.items()))
    return Balance(neutral=True, oxidation_states={e: best[e] for e in amounts})


@lru_cache(maxsize=1)
def _oxidation_states() -> dict[str, list[int]]:
    """Return the oxidation states of each element that smact's own validity test uses."""
    from smact.utils.oxidation import ICSD24OxStatesFilter

    table = ICSD24OxStatesFilter().filter(consensus=3, include_zero=False, commonality="low")
    return {
        str(row.element): [int(state) for state in str(row.oxidation_state).split()]
        for row in table.itertuples()
    }


def _integer_states(
    amounts: Mapping[str, float],
    states: Mapping[str, list[int]],
    chi: Mapping[str, float | None],
) -> Iterator[dict[str, float]]:
    symbols = list(amounts)
    for combination in product(*(states[symbol] for symbol in symbols)):
        assigned = dict(zip(symbols, map(float, combination), strict=True))
        charge = sum(assigned[symbol] * amounts[symbol] for symbol in symbols)
        if abs(charge) < 1e-6 and _anions_attract_more(assigned, chi):
            yield assigned


def _mixed_states(
    amounts: Mapping[str, float],
    states: Mapping[str, list[int]],
    chi: Mapping[str, float | None],
) -> Iterator[dict[str, float]]:
    from smact.screening import MIXED_VALENCE_ELEMENTS

    for mixed in sorted(MIXED_VALENCE_ELEMENTS.intersection(amounts)):
        others = [symbol for symbol in amounts if symbol != mixed]
        for combination in product(*(states[symbol] for symbol in others)):
            assigned = dict(zip(others, map(float, combination), strict=True))
            charge = sum(assigned[symbol] * amounts[symbol] for symbol in others)
            assigned[mixed] = -charge / amounts[mixed]
            if _between_neighbours(assigned[mixed], states[mixed]) and _anions_attract_more(
                assigned, chi
            ):
                yield assigned


def _between_neighbours(average: float, states: Sequence[int]) -> bool:
    """Return whether an average lies between two neighbouring states of the same sign."""
    ordered = sorted(states)
    return any(low <= average <= high and low * high > 0 for low, high in pairwise(ordered))


def _anions_attract_more(states: Mapping[str, float], chi: Mapping[str, float | None]) -> bool:
    """Return whether every anion is more electronegative than every cation (Pauling)."""
    cations = [chi[symbol] or 0.0 for symbol, state in states.items() if state > 0]
    anions = [chi[symbol] or np.inf for symbol, state in states.items() if state < 0]
    return bool(cations) and bool(anions) and max(cations) < min(anions)
