"""Noise -> point clouds. Crystal k depends on (seed, k) alone, not on the batch it is drawn in."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.campaign import Conditions, Generate, Sampler
from pccd_workflows.diffusion.composition import electropositive_first
from pccd_workflows.diffusion.conditions import UNKNOWN, ConditionBatch
from pccd_workflows.diffusion.dataset import CRYSTAL_SYSTEMS, ORDERINGS, crystal_system
from pccd_workflows.diffusion.model import Model
from pccd_workflows.diffusion.process import noise_from_clean
from pccd_workflows.diffusion.schedule import signal_and_noise
from pccd_workflows.errors import InputError
from pccd_workflows.pointcloud.elements import atomic_number, canonical_elements
from pccd_workflows.pointcloud.encode import N_COLUMNS, N_POINTS, PointCloud

MAX_BATCH = 256


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


def sample_clouds(
    model: Model,
    requests: Sequence[SampleRequest],
    *,
    seed: int,
    sampler: Sampler,
    start: Tensor | None = None,
) -> list[PointCloud]:
    """Draw one point cloud per request.

    Parameters
    ----------
    model : Model
    requests : sequence of SampleRequest
    seed : int
        Of the campaign.
    sampler : Sampler
        Solver, number of steps, guidance.
    start : float tensor (B, 3, 128, C)
        Clean clouds in the denoiser's units to begin with, noised to t = T with all the noise that
        the schedule says; if None, pure noise, as strong as the sampler's temperature says.

    Returns
    -------
    list of PointCloud
        In the order of the requests.

    Raises
    ------
    InputError
        If the model cannot do what is asked: an element it never saw, too many elements or atoms,
        a condition it was not trained on, or a composition of other elements.
    """
    for request in {(r.elements, r.conditions): r for r in requests}.values():
        _check(model, request)
    cells = [draw_cell(model, request, seed, sampler) for request in requests]
    groups = [
        draw_space_group(model, request, cell, seed, sampler)
        for request, cell in zip(requests, cells, strict=True)
    ]
    by_size = sorted(range(len(requests)), key=lambda i: (len(cells[i]), i))
    clouds: dict[int, PointCloud] = {}
    for first in range(0, len(by_size), MAX_BATCH):
        places = by_size[first : first + MAX_BATCH]
        chosen = [requests[i] for i in places]
        conditions = condition_batch(
            chosen, [cells[i] for i in places], [groups[i] for i in places]
        ).to(model.device)
        seeds = [stream(seed, r.index, "noise") for r in chosen]
        if start is None:
            drawn = _Noise(model, seeds, strength=math.sqrt(sampler.temperature))
        else:
            drawn = _Noise(model, seeds, start=start[places])
        values = _sample_batch(model, conditions, drawn, sampler)
        for place, request, value in zip(places, chosen, values, strict=True):
            clouds[place] = cloud_of(value, canonical_elements(request.elements))
    return [clouds[i] for i in range(len(requests))]


def cloud_of(values: NDArray[np.float64], elements: tuple[str, ...]) -> PointCloud:
    """Return the cloud of a crystal of these elements from values (3, 128, C) of a model."""
    return PointCloud(values[..., : max(N_COLUMNS, len(elements))], elements)


def _check(model: Model, request: SampleRequest) -> None:
    info = model.info
    if not 1 <= len(request.elements) <= info.max_elements:
        raise InputError(
            f"Model {info.name} takes 1 to {info.max_elements} elements, "
            f"not {len(request.elements)} ({', '.join(request.elements)})."
        )
    unseen = [e for e in request.elements if e not in info.elements]
    if unseen:
        raise InputError(f"Model {info.name} has never seen {', '.join(unseen)}.")
    asked = {name for name, value in request.conditions.model_dump().items() if value is not None}
    untrained = sorted(asked - set(info.conditions))
    if untrained:
        raise InputError(
            f"Model {info.name} was not trained on {', '.join(untrained)}; "
            f"it knows {', '.join(info.conditions)}."
        )
    n_sites = request.conditions.n_sites
    if n_sites is not None and n_sites > info.max_sites:
        raise InputError(f"Model {info.name} makes cells of up to {info.max_sites} atoms.")


def draw_cell(model: Model, request: SampleRequest, seed: int, sampler: Sampler) -> list[int]:
    """Return the atomic numbers of the sites of one cell, electropositive elements first.

    The composition asked for, or one drawn from the composition network; models without such a
    network get one site per element, which only names the elements.
    """
    elements = electropositive_first([atomic_number(e) for e in request.elements])
    if request.conditions.composition is not None:
        return _asked_cell(model, request, elements)
    if model.composition is None:
        return elements
    network = model.composition
    padded = _slots(elements, network.cells.shape[1], model.device)
    given = condition_batch([request], [elements]).to(model.device)
    with torch.no_grad():
        log_p = network(padded, given)
        if sampler.guidance != 1:
            plain = network(padded, given.unconditional())
            log_p = torch.where(log_p.isinf(), log_p, plain + sampler.guidance * (log_p - plain))
    counts = network.cells.cpu().numpy()
    weights = log_p[0].softmax(-1).double().cpu().numpy()
    n_sites = request.conditions.n_sites
    allowed = counts.sum(1) <= model.info.max_sites if n_sites is None else counts.sum(1) == n_sites
    weights = np.where(allowed, weights, 0.0)
    if request.conditions.space_group is not None and model.symmetry is not None:
        log_p = _space_groups(model, request, elements, network.cells)
        weights = weights * log_p[:, request.conditions.space_group - 1].exp().cpu().numpy()
    if weights.sum() <= 0:
        raise InputError(
            f"Model {model.info.name} has seen no cell of {n_sites} atoms and "
            f"{len(elements)} elements."
        )
    randomness = stream(seed, request.index, "composition")
    cell = counts[_choice(weights, sampler.composition_temperature, randomness)]
    return [z for z, n in zip(elements, cell, strict=False) for _ in range(n)]


def _slots(values: Sequence[int], places: int, device: torch.device) -> Tensor:
    """Return numbers as one row of a tensor, padded with zeros."""
    return torch.tensor([[*values, *[0] * (places - len(values))]], device=device)


@torch.no_grad()
def _space_groups(
    model: Model, request: SampleRequest, elements: Sequence[int], counts: Tensor
) -> Tensor:
    """Return log-probabilities (B, 230) of the space groups of cells with `counts` (B, E)."""
    network = model.symmetry
    if network is None:
        raise InputError(f"Model {model.info.name} has no network for space groups.")
    given = condition_batch([request] * len(counts), [elements] * len(counts)).to(model.device)
    slots = _slots(elements, counts.shape[1], model.device).expand(len(counts), -1)
    log_p: Tensor = network(slots, counts, network.entries_of(counts), given)
    return log_p.double()


def draw_space_group(
    model: Model, request: SampleRequest, cell: Sequence[int], seed: int, sampler: Sampler
) -> int | None:
    """Return the space group to aim at: asked for, or drawn; None if the cloud decides it.

    It is a condition like the others: the network aims at it, nothing is symmetrised.
    """
    if request.conditions.space_group is not None or model.symmetry is None:
        return request.conditions.space_group
    elements = list(dict.fromkeys(cell))
    counts = [cell.count(z) for z in elements]
    places = model.symmetry.cells.shape[1]
    log_p = _space_groups(model, request, elements, _slots(counts, places, model.device))
    weights = log_p[0].exp().cpu().numpy()
    drawn = _choice(weights, sampler.temperature, stream(seed, request.index, "space group"))
    return drawn + 1


def _choice(weights: NDArray[np.float64], temperature: float, seed: int) -> int:
    """Return a place drawn with probability proportional to weight^(1/temperature)."""
    if temperature == 0:
        return int(weights.argmax())
    sharpened = (weights / weights.max()) ** (1 / temperature)
    rng = np.random.default_rng(seed)
    return int(rng.choice(len(weights), p=sharpened / sharpened.sum()))


def _asked_cell(model: Model, request: SampleRequest, elements: list[int]) -> list[int]:
    """Return the sites of the composition asked for, after checking it."""
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
    return [z for z in elements for _ in range(by_number[z])]


def condition_batch(
    requests: Sequence[SampleRequest],
    cells: Sequence[Sequence[int]],
    space_groups: Sequence[int | None] | None = None,
) -> ConditionBatch:
    """Return what requests ask for, with the cells and space groups drawn for them, as tensors."""
    groups = space_groups or [request.conditions.space_group for request in requests]
    systems = [
        _system(group, request.conditions) for group, request in zip(groups, requests, strict=True)
    ]
    longest = max(len(cell) for cell in cells)

    def numbers(name: str) -> Tensor:
        values = [getattr(r.conditions, name) for r in requests]
        return torch.tensor([math.nan if v is None else float(v) for v in values])

    def classes(name: str, options: Sequence[str]) -> Tensor:
        values = [getattr(r.conditions, name) for r in requests]
        return torch.tensor([UNKNOWN if v is None else options.index(v) for v in values])

    return ConditionBatch(
        numbers=torch.tensor([[*cell, *[0] * (longest - len(cell))] for cell in cells]),
        band_gap=numbers("band_gap"),
        energy_above_hull=numbers("energy_above_hull"),
        ordering=classes("magnetic_ordering", ORDERINGS),
        crystal_system=torch.tensor(systems),
        space_group=torch.tensor([UNKNOWN if group is None else group for group in groups]),
        known_elements=torch.ones(len(requests), dtype=torch.bool),
    )


def _system(space_group: int | None, conditions: Conditions) -> int:
    """Return the index of the crystal system that a space group has or that is asked for."""
    if space_group is not None:
        return crystal_system(space_group)
    if conditions.crystal_system is None:
        return UNKNOWN
    return CRYSTAL_SYSTEMS.index(conditions.crystal_system)


class _Noise:
    """Normal clouds (B, 3, 128, C), one random stream per sample.

    Their standard deviation is `strength`: the square root of the temperature, for p^(1/T) of a
    normal distribution is one with T times its variance.
    """

    def __init__(
        self,
        model: Model,
        seeds: Sequence[int],
        *,
        strength: float = 1.0,
        start: Tensor | None = None,
    ) -> None:
        self.model, self.strength = model, strength
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.start = None if start is None else start.to(model.device)

    def first(self) -> Tensor:
        """Return x_T: noise, plus what is left of the clouds to begin with."""
        signal, sigma = signal_and_noise(self.model.log_snr[-1])
        noise = sigma * self()
        return noise if self.start is None else noise + signal * self.start

    def __call__(self) -> Tensor:
        """Return fresh noise."""
        shape = (3, N_POINTS, self.model.denoiser.columns)
        drawn = [torch.randn(shape, generator=g) for g in self.generators]
        return self.strength * torch.stack(drawn).to(self.model.device)


@torch.no_grad()
def _sample_batch(
    model: Model, conditions: ConditionBatch, noise: _Noise, sampler: Sampler
) -> np.ndarray:
    """Return clouds (B, 3, 128, C) in the units of a PointCloud."""

    def predict(noisy: Tensor, log_snr: Tensor) -> Tensor:
        clean = guided_prediction(model, noisy, log_snr, conditions, sampler.guidance)
        if sampler.separation > 0:
            return model.denoiser.separate(clean, conditions, sampler.separation)
        return clean

    steps = min(sampler.steps, model.info.schedule.steps)
    times = torch.linspace(model.info.schedule.steps, 0, steps + 1).round().long()
    levels = model.log_snr[times]
    if sampler.name == "ddpm":
        clean = ddpm(predict, noise.first(), noise, levels)
    elif sampler.name == "ddim":
        clean = ddim(predict, noise.first(), levels)
    else:
        clean = dpm_solver(predict, noise.first(), levels)
    return model.denoiser.decode(clean).cpu().double().numpy()


def guided_prediction(
    model: Model, noisy: Tensor, log_snr: Tensor, conditions: ConditionBatch, guidance: float
) -> Tensor:
    """Return the clean clouds that the model predicts, conditions weighted by `guidance`.

    1 evaluates the network once; other weights also without conditions (classifier-free guidance).
    """
    levels = log_snr.to(noisy.device).expand(len(noisy))
    conditional: Tensor = model.denoiser(noisy, levels, conditions)
    if guidance == 1:
        return conditional
    plain: Tensor = model.denoiser(noisy, levels, conditions.unconditional())
    return plain + guidance * (conditional - plain)


Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy clouds (B, 3, 128, 3), log_snr ()) -> predicted clean clouds."""


def ddpm(predict: Predict, x: Tensor, noise: Callable[[], Tensor], levels: Tensor) -> Tensor:
    """Return clean clouds by ancestral sampling over falling noise `levels` (log_snr)."""
    for now, then in pairwise(levels):
        clean = predict(x, now)
        (a, _), (a2, s2) = signal_and_noise(now), signal_and_noise(then)
        keep = torch.exp(now - then)  # share of the noise variance that is older than this step
        mean = a2 * (1 - keep) * clean + keep * (a2 / a) * x
        is_last = bool(then == levels[-1])
        x = clean if is_last else mean + s2 * (1 - keep).sqrt() * noise()
    return x


def ddim(predict: Predict, x: Tensor, levels: Tensor) -> Tensor:
    """Return clean clouds by the deterministic first-order solver."""
    clean = x
    for now, then in pairwise(levels):
        clean = predict(x, now)
        epsilon = noise_from_clean(x, clean, now[None])
        a, s = signal_and_noise(then)
        x = a * clean + s * epsilon
    return clean


def dpm_solver(predict: Predict, x: Tensor, levels: Tensor) -> Tensor:
    """Return clean clouds by DPM-Solver++(2M) (Lu et al. 2022), the deterministic second order."""
    clean = x
    previous: tuple[Tensor, Tensor] | None = None
    for now, then in pairwise(levels):
        clean = predict(x, now)
        step = (then - now) / 2
        direction = clean
        if previous is not None and step > 0:
            last_clean, last_step = previous
            ratio = last_step / step
            direction = clean + (clean - last_clean) / (2 * ratio)
        (_, s), (a2, s2) = signal_and_noise(now), signal_and_noise(then)
        x = (s2 / s) * x - a2 * torch.expm1(-step) * direction
        previous = (clean, step)
    return clean
