"""What is decided before a cloud is drawn: elements, composition, space group, structure type."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.elements import stream
from pccd_workflows.generators.pccd.analogues import Analogues, blend
from pccd_workflows.generators.pccd.composition import CompositionModel, electropositive_first
from pccd_workflows.generators.pccd.conditions import UNKNOWN, ConditionBatch
from pccd_workflows.generators.pccd.dataset import CRYSTAL_SYSTEMS, ORDERINGS, crystal_system
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.new_types import NewType, NewTypes
from pccd_workflows.generators.pccd.pointcloud.elements import (
    atomic_number,
    symbol,
)
from pccd_workflows.generators.pccd.properties import nearest_to_asked
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.symmetry import SpaceGroupModel
from pccd_workflows.generators.request import Conditions

PROPOSALS = 32
"""Cells that are drawn where a property is asked for, to take the one that fits it best."""
REMEMBERED = 256
"""Answers kept of each question about cells."""
Numbers = tuple[int, ...]
"""One number for each element of a cell, or for each site."""
Weights = NDArray[np.float64]
"""One number for each choice; those of likelier choices are greater."""


@dataclass(frozen=True)
class SampleRequest:
    """One crystal to draw.

    Attributes
    ----------
    index
        Number of the sample; with the seed it fixes everything random.
    elements
        Symbols that the crystal shall contain.
    conditions
        What else it shall be like.
    """

    index: int
    elements: tuple[str, ...]
    conditions: Conditions


@dataclass(frozen=True)
class Cell:
    """What is known of a crystal before its cloud is drawn.

    Attributes
    ----------
    numbers
        Atomic number of each site, electropositive elements first.
    space_group
        To aim at; None if the cloud decides it.
    structure_type
        To aim at, as CrystalArrays numbers them; 0 if the cloud decides it, or if it is new.
    new_type
        To aim at, instead of a known one.
    """

    numbers: tuple[int, ...]
    space_group: int | None = None
    structure_type: int = 0
    new_type: NewType | None = None


class Odds(NamedTuple):
    """How likely the choices are that make a cell; None if the model leaves them to the cloud.

    Elements are atomic numbers, most electropositive first, counts the numbers of their atoms.
    """

    compositions: Callable[[Numbers, Conditions], Weights] | None
    """Elements, conditions -> weights of the cells (V, E) that the network knows."""
    space_groups: Callable[[Numbers, Numbers, Conditions], Weights] | None
    """Elements, counts, conditions -> probabilities of the 230 space groups."""
    structure_types: Callable[[Numbers, Numbers, Conditions], Weights] | None
    """Elements, counts, conditions -> weights of the structure types; all 0 if nobody votes."""
    new_types: Callable[[Numbers, Numbers, Conditions], list[NewType]] | None
    """Elements, counts, conditions -> types that no training crystal has, likeliest first."""


def draw_cells(
    model: Model, requests: Sequence[SampleRequest], seed: int, sampler: Sampler
) -> list[Cell]:
    """Return composition, space group and structure type of each request: asked for, or drawn.

    Models without a network for the composition get one site per element, which only names the
    elements. What several requests ask for is worked out once.

    Raises
    ------
    InputError
        If the composition asked for is none, or the model cannot make it.
    """
    odds = _odds(model, sampler)
    return [_choose_cell(model, request, seed, sampler, odds) for request in requests]


def likeliest_cells(
    model: Model, requests: Sequence[SampleRequest], guesses: int, sampler: Sampler
) -> list[list[Cell]]:
    """Return `guesses` cells for each request that aim at different structure types.

    The first are the likeliest of each, the second those that come next and so on; where votes
    know fewer types than that, the last is repeated.

    Raises
    ------
    InputError
        As `draw_cells`.
    """
    odds = _odds(model, sampler)
    likeliest = sampler.model_copy(update={"temperature": 0.0, "composition_temperature": 0.0})
    ranked = []
    for request in requests:
        first = _draw_cell(model, request, 0, likeliest, odds)
        ranked.append(_others(model, request, first, odds, guesses))
    return [[cells[min(k, len(cells) - 1)] for cells in ranked] for k in range(guesses)]


def likeliest_new_cells(
    model: Model, requests: Sequence[SampleRequest], guesses: int
) -> list[list[Cell]]:
    """Return for each request cells of its composition that aim at the likeliest new types.

    Raises
    ------
    InputError
        If the model proposes none, or as `draw_cells`.
    """
    if model.new_types is None:
        raise InputError(f"Model {model.info.name} proposes no new structure types.")
    found = []
    for request in requests:
        elements = tuple(electropositive_first([atomic_number(e) for e in request.elements]))
        counts = _asked_counts(model, request, elements)
        new = _new_types(model.new_types, elements, counts, request.conditions)[:guesses]
        found.append([Cell(one.numbers, one.space_group, new_type=one) for one in new])
    return found


def _others(
    model: Model, request: SampleRequest, first: Cell, odds: Odds, guesses: int
) -> list[Cell]:
    """Return a cell with its structure type and the next likely ones."""
    if not first.structure_type or odds.structure_types is None or model.analogues is None:
        return [first]
    elements = tuple(dict.fromkeys(first.numbers))
    counts = tuple(first.numbers.count(z) for z in elements)
    weights = odds.structure_types(elements, counts, request.conditions)
    kinds = [int(kind) for kind in np.argsort(-weights, kind="stable")[:guesses] if weights[kind]]
    groups = [model.analogues.group_of_type(kind) for kind in kinds]
    return [Cell(first.numbers, group, kind) for kind, group in zip(kinds, groups, strict=True)]


def _odds(model: Model, sampler: Sampler) -> Odds:
    """Return how likely choices are, each question worked out once."""
    remembered, recall = lru_cache(REMEMBERED), sampler.recall
    composition, symmetry, known = model.composition, model.symmetry, model.analogues
    return Odds(
        remembered(partial(_compositions, model, composition, sampler)) if composition else None,
        remembered(partial(_space_groups, symmetry, known, recall)) if symmetry else None,
        remembered(partial(_structure_types, symmetry, known, recall)) if known else None,
        remembered(partial(_new_types, model.new_types)) if model.new_types else None,
    )


def _choose_cell(
    model: Model, request: SampleRequest, seed: int, sampler: Sampler, odds: Odds
) -> Cell:
    """Return a cell; where properties are asked for, of several the one that fits them best."""
    asked = request.conditions
    if model.properties is None or (asked.band_gap is None and asked.energy_above_hull is None):
        return _draw_cell(model, request, seed, sampler, odds)
    seeds = [seed, *(stream(seed, k, "proposal") for k in range(1, PROPOSALS))]
    drawn = [_draw_cell(model, request, one, sampler, odds) for one in seeds]
    told = [(cell.numbers, cell.space_group) for cell in drawn]
    return drawn[nearest_to_asked(model.properties, told, asked)]


def _draw_cell(
    model: Model, request: SampleRequest, seed: int, sampler: Sampler, odds: Odds
) -> Cell:
    asked = request.conditions
    elements = tuple(electropositive_first([atomic_number(e) for e in request.elements]))

    def draw(weights: Weights, temperature: float, purpose: str) -> int:
        return choice(weights, temperature, stream(seed, request.index, purpose))

    if asked.composition is not None:
        counts = _asked_counts(model, request, elements)
    elif model.composition is None or odds.compositions is None:
        counts = (1,) * len(elements)
    else:
        weights = odds.compositions(elements, asked)
        drawn = draw(weights, sampler.composition_temperature, "composition")
        counts = tuple(model.composition.cells[drawn, : len(elements)].tolist())
    numbers = tuple(z for z, n in zip(elements, counts, strict=True) for _ in range(n))
    if odds.new_types is not None and _aims_at_new(request, seed, sampler):
        proposed = odds.new_types(elements, counts, asked)
        if proposed:
            likely = np.exp([one.log_p - proposed[0].log_p for one in proposed])
            new = proposed[draw(likely, sampler.temperature, "new type")]
            return Cell(numbers, new.space_group, new_type=new)
    kind, group = 0, asked.space_group
    votes = odds.structure_types(elements, counts, asked) if odds.structure_types else None
    if votes is not None and model.analogues is not None and votes[1:].any():
        kind = draw(votes, sampler.temperature, "structure type")
        group = model.analogues.group_of_type(kind)
    elif group is None and odds.space_groups is not None:
        weights = odds.space_groups(elements, counts, asked)
        group = 1 + draw(weights, sampler.temperature, "space group")
    return Cell(numbers, group, kind)


def _aims_at_new(request: SampleRequest, seed: int, sampler: Sampler) -> bool:
    """Return whether a sample is among the share that aims at new types."""
    drawn = np.random.default_rng(stream(seed, request.index, "whether new")).random()
    return bool(sampler.symmetric and drawn < sampler.new_types)


def _new_types(
    known: NewTypes, elements: Numbers, counts: Numbers, asked: Conditions
) -> list[NewType]:
    """Return the types that no training crystal has; see Odds."""
    order = np.argsort(counts, kind="stable")
    return known.candidates([elements[i] for i in order], [counts[i] for i in order], asked)


@torch.no_grad()
def _compositions(
    model: Model,
    network: CompositionModel,
    sampler: Sampler,
    elements: Numbers,
    asked: Conditions,
) -> Weights:
    """Return the weights (V,) of the cells that the network knows; see Odds."""
    given = _conditions(elements, asked)
    slots = _slots(elements, network.cells.shape[1])
    log_p = network(slots, given)
    if sampler.guidance != 1:
        plain = network(slots, given.unconditional())
        log_p = torch.where(log_p.isinf(), log_p, plain + sampler.guidance * (log_p - plain))
    p = log_p[0].double().softmax(-1).numpy()
    if asked.space_group is not None and model.symmetry is not None:
        groups = _network_space_groups(model.symmetry, elements, network.cells, asked)
        p = p * groups[:, asked.space_group - 1]
        p = p / p.sum()
    if model.analogues is not None:
        votes = model.analogues.cell_votes(elements, asked, recall=sampler.recall)
        p = blend(p, votes)
    n_sites = network.cells.sum(1).numpy()
    allowed = n_sites <= model.info.max_sites if asked.n_sites is None else n_sites == asked.n_sites
    weights = np.asarray(np.where(allowed, p, 0.0))
    if weights.sum() <= 0:
        raise InputError(
            f"Model {model.info.name} has seen no cell of {asked.n_sites} atoms and "
            f"{len(elements)} elements."
        )
    return weights


@torch.no_grad()
def _space_groups(
    network: SpaceGroupModel,
    analogues: Analogues | None,
    recall: bool,
    elements: Numbers,
    counts: Numbers,
    asked: Conditions,
) -> Weights:
    """Return the probabilities (230,) of the space groups of a cell; see Odds."""
    slots = _slots(counts, network.cells.shape[1])
    p = _network_space_groups(network, elements, slots, asked)[0]
    if analogues is None:
        return np.asarray(p)
    return blend(p, analogues.space_group_votes(elements, counts, asked, recall=recall))


@torch.no_grad()
def _structure_types(
    network: SpaceGroupModel | None,
    analogues: Analogues,
    recall: bool,
    elements: Numbers,
    counts: Numbers,
    asked: Conditions,
) -> Weights:
    """Return the weights of the structure types of a cell, 0 being an unknown one; see Odds.

    What the network thinks of a type's space group counts as much as it does elsewhere, shared
    out by the votes on the types of that space group.
    """
    votes = analogues.structure_type_votes(elements, counts, asked, recall=recall)
    votes[0] = 0.0
    if network is None or not votes.any():
        return votes
    slots = _slots(counts, network.cells.shape[1])
    groups = _network_space_groups(network, elements, slots, asked)[0]
    kinds = np.flatnonzero(votes)
    of_kind = np.array([analogues.group_of_type(int(kind)) for kind in kinds]) - 1
    share = votes[kinds] / np.bincount(of_kind, votes[kinds], minlength=len(groups))[of_kind]
    weights = np.zeros_like(votes)
    weights[kinds] = groups[of_kind] * share
    if not weights.any():
        return votes
    return blend(weights / weights.sum(), votes)


def _network_space_groups(
    network: SpaceGroupModel, elements: Numbers, counts: Tensor, asked: Conditions
) -> Weights:
    """Return what the network thinks (B, 230) of the space groups of cells with counts (B, E)."""
    given = _conditions(elements, asked, len(counts))
    slots = _slots(elements, counts.shape[1]).expand(len(counts), -1)
    log_p: Tensor = network(slots, counts, network.entries_of(counts), given)
    return np.asarray(log_p.double().exp().numpy())


def _conditions(elements: Numbers, asked: Conditions, n: int = 1) -> ConditionBatch:
    """Return the conditions of `n` equal requests whose cells are not known yet."""
    request = SampleRequest(0, tuple(symbol(z) for z in elements), asked)
    return condition_batch([request] * n, [Cell(elements)] * n)


def _slots(values: Numbers, places: int) -> Tensor:
    """Return numbers as one row of a tensor, padded with zeros."""
    return torch.tensor([[*values, *[0] * (places - len(values))]])


def choice(weights: NDArray[np.float64], temperature: float, seed: int) -> int:
    """Return a place drawn with probability proportional to weight^(1/temperature)."""
    if temperature == 0:
        return int(weights.argmax())
    sharpened = (weights / weights.max()) ** (1 / temperature)
    places = np.flatnonzero(sharpened)
    rng = np.random.default_rng(seed)
    return int(rng.choice(places, p=sharpened[places] / sharpened.sum()))


def _asked_counts(model: Model, request: SampleRequest, elements: Numbers) -> Numbers:
    """Return the number of atoms of each element that is asked for, after checking it."""
    from pymatgen.core import Composition

    text = request.conditions.composition
    try:
        amounts = Composition(text).get_el_amt_dict()
    except (ValueError, KeyError):
        raise InputError(f"Condition composition: {text!r} is not a formula.") from None
    if set(amounts) != set(request.elements):
        raise InputError(
            f"Condition composition: {text!r} does not have the elements "
            f"{', '.join(request.elements)}."
        )
    if any(n != int(n) for n in amounts.values()):
        raise InputError(f"Condition composition: {text!r} has fractional amounts.")
    total = int(sum(amounts.values()))
    if total > model.info.max_sites:
        raise InputError(
            f"Condition composition: {text!r} has {total} atoms, model {model.info.name} makes "
            f"cells of up to {model.info.max_sites}."
        )
    if request.conditions.n_sites not in (None, total):
        raise InputError(
            f"Conditions composition {text!r} ({total} atoms) and n_sites "
            f"{request.conditions.n_sites} contradict each other."
        )
    by_number = {atomic_number(e): int(n) for e, n in amounts.items()}
    return tuple(by_number[z] for z in elements)


def condition_batch(requests: Sequence[SampleRequest], cells: Sequence[Cell]) -> ConditionBatch:
    """Return what requests ask for, with what was drawn for them, as tensors."""
    longest = max(len(cell.numbers) for cell in cells)
    asked = [request.conditions for request in requests]
    groups = [
        cell.space_group or conditions.space_group
        for cell, conditions in zip(cells, asked, strict=True)
    ]
    systems = [_system(group, given) for group, given in zip(groups, asked, strict=True)]

    def numbers(name: str) -> Tensor:
        values = [getattr(conditions, name) for conditions in asked]
        return torch.tensor([math.nan if v is None else float(v) for v in values])

    def classes(name: str, options: Sequence[str]) -> Tensor:
        values = [getattr(conditions, name) for conditions in asked]
        return torch.tensor([UNKNOWN if v is None else options.index(v) for v in values])

    padded = [[*cell.numbers, *[0] * (longest - len(cell.numbers))] for cell in cells]
    return ConditionBatch(
        numbers=torch.tensor(padded),
        band_gap=numbers("band_gap"),
        energy_above_hull=numbers("energy_above_hull"),
        ordering=classes("magnetic_ordering", ORDERINGS),
        crystal_system=torch.tensor(systems),
        space_group=torch.tensor([UNKNOWN if group is None else group for group in groups]),
        structure_type=torch.tensor([cell.structure_type for cell in cells]),
        known_elements=torch.ones(len(requests), dtype=torch.bool),
    )


def _system(space_group: int | None, conditions: Conditions) -> int:
    """Return the index of the crystal system that a space group has or that is asked for."""
    if space_group is not None:
        return crystal_system(space_group)
    if conditions.crystal_system is None:
        return UNKNOWN
    return CRYSTAL_SYSTEMS.index(conditions.crystal_system)
