"""New structure types: held-out crystals whose type no training crystal has, are they found?

A crystal's type is its space group (0.1 Å) with the Wyckoff positions of its elements. Composition
and number of atoms are given. Beside the guesses that aim at new types: as many that aim at known
ones (a distorted variant of a known type has a type of its own, but matches), and as many with
random Wyckoff positions in the right space group with the right numbers of sites.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import composition_requests, match_all
from pccd_workflows.evaluation.prediction import overlap
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.cells import Cell, SampleRequest
    from pccd_workflows.generators.pccd.model import Model
    from pccd_workflows.generators.pccd.new_types import NewType, NewTypes
    from pccd_workflows.generators.pccd.wyckoff import Orbits

GUESSES = 20


@dataclass(frozen=True)
class Lacking:
    """Held-out crystals whose structure type no training crystal has.

    Attributes
    ----------
    crystals
    types
        Of each.
    looked_at
        Crystals of which they are all that lack.
    """

    crystals: CrystalArrays
    types: "list[NewType]"
    looked_at: int


def crystals_of_new_types(
    model: "Model", crystals: CrystalArrays, samples: int, seed: int
) -> Lacking:
    """Return crystals drawn from those whose structure type training lacks.

    Raises
    ------
    InputError
        If the model proposes no new types, or there is no such crystal.
    """
    if model.new_types is None:
        raise InputError(f"Model {model.info.name} proposes no new types: it has no part types.")
    rows: list[int] = []
    types: list[NewType] = []
    order = np.random.default_rng(seed).permutation(len(crystals)).tolist()
    looked_at = 0
    for row in order:
        found = _type_of(model.new_types, crystals, row)
        looked_at += 1
        if found is not None:
            rows.append(row)
            types.append(found)
        if len(rows) == samples:
            break
    if not rows:
        raise InputError("Training crystals have the structure types of all held-out crystals.")
    return Lacking(crystals.take(np.array(rows)), types, looked_at)


def _type_of(new_types: "NewTypes", crystals: CrystalArrays, row: int) -> "NewType | None":
    """Return the structure type of a crystal; None if training has it, or it has no symmetry."""
    from pccd_workflows.generators.pccd.known_types import fewest_first, orbits_of
    from pccd_workflows.generators.pccd.new_types import NewType
    from pccd_workflows.generators.pccd.templates import template_of
    from pccd_workflows.generators.pccd.wyckoff import wyckoff_table

    template = template_of(crystals, row)
    orbits = orbits_of(template)
    if orbits is None:
        return None
    canonical = wyckoff_table(template.space_group).canonical(orbits)
    if (template.space_group, canonical) in new_types.known:
        return None
    elements = tuple(fewest_first(template.numbers))
    return NewType(template.space_group, elements, canonical, 0.0)


def evaluate_types(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Return how often crystals of new types are found in 20 guesses; see the module."""
    from pccd_workflows.generators.pccd.cells import likeliest_cells, likeliest_new_cells

    lacking = crystals_of_new_types(model, crystals, samples, seed)
    likeliest = sampler.model_copy(update={"temperature": 0.0, "new_types": 0.0})
    requests = composition_requests(lacking.crystals, model.info)
    targets = [lacking.crystals.structure(row) for row in range(len(lacking.crystals))]
    match = partial(_best, model, requests, targets, seed=seed, sampler=likeliest)
    new_cells = likeliest_new_cells(model, requests, GUESSES)
    new = match(new_cells)
    known = match(list(zip(*likeliest_cells(model, requests, GUESSES, likeliest), strict=True)))
    random = match(_random_cells(lacking.types, seed))
    half = np.fmin(new[:, : GUESSES // 2].min(1), known[:, : GUESSES // 2].min(1))
    exact = [
        any(cell.new_type is not None and cell.new_type.key == kind.key for cell in cells)
        for cells, kind in zip(new_cells, lacking.types, strict=True)
    ]
    of_new, of_known, of_random = (_found(rmse) for rmse in (new, known, random))
    return {
        "crystals": len(targets),
        "of": lacking.looked_at,
        "guesses": GUESSES,
        **_rates(of_new),
        "type_among_guesses": share(sum(exact), len(targets)),
        "known_types": _rates(of_known),
        "random_positions": _rates(of_random),
        "half_new_half_known": _rates(np.where(np.isfinite(half), half, np.nan)),
        "overlap": overlap(of_new, of_known),
    }


def _rates(rmse: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "match_rate": share(int(np.isfinite(rmse).sum()), len(rmse)),
        "rmse": bootstrapped(rmse),
    }


def _found(rmse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best of all guesses (n,), NaN where none matches."""
    best = rmse.min(1)
    return np.where(np.isfinite(best), best, np.nan)


def _best(
    model: "Model",
    requests: "Sequence[SampleRequest]",
    targets: Sequence[Structure],
    cells: "Sequence[Sequence[Cell]]",
    *,
    seed: int,
    sampler: Sampler,
) -> NDArray[np.float64]:
    """Return the RMSE (n, guesses) of crystals drawn for some cells each, inf where no match."""
    from pccd_workflows.generators.pccd.sample import sample_crystals

    rmse = np.full((len(targets), GUESSES), np.inf)
    for attempt in range(GUESSES):
        rows = [i for i, of_target in enumerate(cells) if attempt < len(of_target)]
        drawn = sample_crystals(
            model,
            [requests[i] for i in rows],
            seed=seed + attempt,
            sampler=sampler,
            cells=[cells[i][attempt] for i in rows],
        )
        matched = match_all([one.structure for one in drawn], [targets[i] for i in rows])
        rmse[rows, attempt] = np.where(np.isfinite(matched), matched, np.inf)
    return rmse


def _random_cells(types: "Sequence[NewType]", seed: int) -> "list[list[Cell]]":
    """Return cells with random positions of the right multiplicities in the right space group."""
    from pccd_workflows.generators.pccd.cells import Cell
    from pccd_workflows.generators.pccd.new_types import NewType

    rng = np.random.default_rng(seed)
    found = []
    for kind in types:
        drawn: dict[Orbits, Cell] = {}
        for _ in range(20 * GUESSES):
            orbits = _random_orbits(kind, rng)
            if orbits is not None and len(drawn) < GUESSES:
                aim = NewType(kind.space_group, kind.elements, orbits, 0.0)
                drawn[orbits] = Cell(aim.numbers, kind.space_group, new_type=aim)
        found.append(list(drawn.values()))
    return found


def _random_orbits(kind: "NewType", rng: np.random.Generator) -> "Orbits | None":
    """Return orbits of the same multiplicities at random positions; None if a point is full."""
    from pccd_workflows.generators.pccd.wyckoff import wyckoff_table

    table = wyckoff_table(kind.space_group)
    drawn = []
    for of_element in kind.orbits:
        sizes = table.multiplicity[list(of_element)]
        places = [int(rng.choice(np.flatnonzero(table.multiplicity == size))) for size in sizes]
        drawn.append(tuple(sorted(places)))
    taken = [p for places in drawn for p in places if table.freedom[p] == 0]
    return tuple(drawn) if len(set(taken)) == len(taken) else None
