"""What is decided before a cloud is drawn: elements, composition, space group, structure type."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.campaign import Conditions, Generate, Sampler
from pccd_workflows.diffusion.analogues import blend
from pccd_workflows.diffusion.composition import CompositionModel, electropositive_first
from pccd_workflows.diffusion.conditions import UNKNOWN, ConditionBatch
from pccd_workflows.diffusion.dataset import CRYSTAL_SYSTEMS, ORDERINGS, crystal_system
from pccd_workflows.diffusion.model import Model
from pccd_workflows.errors import InputError
from pccd_workflows.pointcloud.elements import atomic_number, canonical_elements


@dataclass(frozen=True)
class SampleRequest:
    """One crystal to draw.

    Attributes
    ----------
    index : int
        Number of the sample; with the seed it fixes everything random.
    elements : tuple of str
        Symbols that the crystal shall contain.
    conditions : Conditions
        What else it shall be like.
    """

    index: int
    elements: tuple[str, ...]
    conditions: Conditions


def stream(seed: int, index: int, purpose: str) -> int:
    """Return a 63-bit number that fixes one kind of randomness of one sample, on any machine."""
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_elements(generate: Generate, index: int) -> tuple[str, ...]:
    """Return the elements of sample `index`: given, in turn, or drawn."""
    if generate.elements is not None:
        return canonical_elements(generate.elements)
    if generate.element_sets is not None:
        return canonical_elements(generate.element_sets[index % len(generate.element_sets)])
    draw = generate.draw
    if draw is None:  # the campaign model does not let this happen
        raise InputError("generate needs elements, element_sets or draw.")
    rng = np.random.default_rng(stream(generate.seed, index, "elements"))
    low, high = draw.n_elements
    others = [e for e in draw.elements if e not in draw.always]
    always = sorted(set(draw.always))
    n = int(rng.integers(max(low, len(always), 1), min(high, len(always) + len(others)) + 1))
    drawn = rng.choice(len(others), size=n - len(always), replace=False)
    return canonical_elements([*always, *(others[i] for i in drawn)])


@dataclass(frozen=True)
class Cell:
    """What is known of a crystal before its cloud is drawn.

    Attributes
    ----------
    numbers : tuple of int
        Atomic number of each site, electropositive elements first.
    space_group : int or None
        To aim at; None if the cloud decides it. Nothing is symmetrised.
    structure_type : int
        To aim at, as CrystalArrays numbers them; 0 if the cloud decides it.
    """

    numbers: tuple[int, ...]
    space_group: int | None = None
    structure_type: int = 0


def draw_cell(model: Model, request: SampleRequest, seed: int, sampler: Sampler) -> Cell:
    """Return the composition, space group and structure type asked for, or drawn.

    Models without a network for the composition get one site per element, which only names the
    elements.

    Raises
    ------
    InputError
        If the composition asked for is none, or the model cannot make it.
    """
    elements = electropositive_first([atomic_number(e) for e in request.elements])
    counts = _composition(model, request, elements, seed, sampler)
    group = _space_group(model, request, elements, counts, seed, sampler)
    asked = request.conditions.model_copy(update={"space_group": group})
    randomness = stream(seed, request.index, "structure type")
    kind = _structure_type(model, asked, elements, counts, sampler, randomness)
    numbers = tuple(z for z, n in zip(elements, counts, strict=True) for _ in range(n))
    return Cell(numbers, group, kind)


def _composition(
    model: Model, request: SampleRequest, elements: list[int], seed: int, sampler: Sampler
) -> list[int]:
    """Return the number of atoms of each element."""
    if request.conditions.composition is not None:
        return _asked_counts(model, request, elements)
    network = model.composition
    if network is None:
        return [1] * len(elements)
    cells = network.cells.cpu().numpy()
    weights = _cell_probabilities(model, network, request, elements, sampler)
    n_sites = request.conditions.n_sites
    allowed = cells.sum(1) <= model.info.max_sites if n_sites is None else cells.sum(1) == n_sites
    weights = np.where(allowed, weights, 0.0)
    if weights.sum() <= 0:
        raise InputError(
            f"Model {model.info.name} has seen no cell of {n_sites} atoms and "
            f"{len(elements)} elements."
        )
    randomness = stream(seed, request.index, "composition")
    drawn = cells[_choice(weights, sampler.composition_temperature, randomness)]
    return [int(n) for n in drawn[: len(elements)]]


@torch.no_grad()
def _cell_probabilities(
    model: Model,
    network: CompositionModel,
    request: SampleRequest,
    elements: list[int],
    sampler: Sampler,
) -> NDArray[np.float64]:
    """Return the probabilities (V,) of the cells that the network knows."""
    padded = _slots(elements, network.cells.shape[1], model.device)
    given = condition_batch([request], [Cell(tuple(elements))]).to(model.device)
    log_p = network(padded, given)
    if sampler.guidance != 1:
        plain = network(padded, given.unconditional())
        log_p = torch.where(log_p.isinf(), log_p, plain + sampler.guidance * (log_p - plain))
    p = log_p[0].double().softmax(-1).cpu().numpy()
    group = request.conditions.space_group
    if group is not None and model.symmetry is not None:
        p = p * _space_groups(model, request, elements, network.cells)[:, group - 1]
        p = p / p.sum()
    if model.analogues is None:
        return np.asarray(p)
    votes = model.analogues.cell_votes(elements, request.conditions, recall=sampler.recall)
    return blend(p, votes)


def _slots(values: Sequence[int], places: int, device: torch.device) -> Tensor:
    """Return numbers as one row of a tensor, padded with zeros."""
    return torch.tensor([[*values, *[0] * (places - len(values))]], device=device)


@torch.no_grad()
def _space_groups(
    model: Model, request: SampleRequest, elements: Sequence[int], counts: Tensor
) -> NDArray[np.float64]:
    """Return what the network thinks (B, 230) of the space groups of cells with counts (B, E)."""
    network = model.symmetry
    if network is None:
        raise InputError(f"Model {model.info.name} has no network for space groups.")
    given = condition_batch([request] * len(counts), [Cell(tuple(elements))] * len(counts))
    slots = _slots(elements, counts.shape[1], model.device).expand(len(counts), -1)
    log_p: Tensor = network(slots, counts, network.entries_of(counts), given.to(model.device))
    return np.asarray(log_p.double().exp().cpu().numpy())


def _space_group(
    model: Model,
    request: SampleRequest,
    elements: list[int],
    counts: list[int],
    seed: int,
    sampler: Sampler,
) -> int | None:
    """Return the space group asked for, or a drawn one; None if the model does not draw it.

    It is a condition like the others: the network aims at it, nothing is symmetrised.
    """
    if request.conditions.space_group is not None or model.symmetry is None:
        return request.conditions.space_group
    places = model.symmetry.cells.shape[1]
    p = _space_groups(model, request, elements, _slots(counts, places, model.device))[0]
    if model.analogues is not None:
        votes = model.analogues.space_group_votes(
            elements, counts, request.conditions, recall=sampler.recall
        )
        p = blend(p, votes)
    return 1 + _choice(p, sampler.temperature, stream(seed, request.index, "space group"))


def _structure_type(
    model: Model,
    asked: Conditions,
    elements: list[int],
    counts: list[int],
    sampler: Sampler,
    randomness: int,
) -> int:
    """Return a structure type that analogues of the space group asked for have, or 0."""
    if model.analogues is None:
        return 0
    votes = model.analogues.structure_type_votes(elements, counts, asked, recall=sampler.recall)
    return _choice(votes, sampler.temperature, randomness) if votes.any() else 0


def _choice(weights: NDArray[np.float64], temperature: float, seed: int) -> int:
    """Return a place drawn with probability proportional to weight^(1/temperature)."""
    if temperature == 0:
        return int(weights.argmax())
    sharpened = (weights / weights.max()) ** (1 / temperature)
    rng = np.random.default_rng(seed)
    return int(rng.choice(len(weights), p=sharpened / sharpened.sum()))


def _asked_counts(model: Model, request: SampleRequest, elements: list[int]) -> list[int]:
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
    return [by_number[z] for z in elements]


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
