"""Noise -> point clouds. Crystal k depends on (seed, k) alone, not on the batch it is drawn in."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.cells import (
    Cell,
    SampleRequest,
    condition_batch,
    draw_cells,
    stream,
)
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.pccd.pointcloud.encode import N_COLUMNS, N_POINTS, PointCloud
from pccd_workflows.generators.pccd.process import noise_from_clean
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.schedule import signal_and_noise

CPU_BATCH = 64
GPU_BATCH = 512
"""Crystals, alike in size, that go through the network together."""


def sample_clouds(
    model: Model,
    requests: Sequence[SampleRequest],
    *,
    seed: int,
    sampler: Sampler,
    start: Tensor | None = None,
    cells: Sequence[Cell] | None = None,
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
    cells : sequence of Cell
        Composition, space group and structure type of each; drawn if None.

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
    if cells is None:
        cells = draw_cells(model, requests, seed, sampler)
    by_size = sorted(range(len(requests)), key=lambda i: (len(cells[i].numbers), i))
    clouds: dict[int, PointCloud] = {}
    batch = CPU_BATCH if model.device.type == "cpu" else GPU_BATCH
    for first in range(0, len(by_size), batch):
        places = by_size[first : first + batch]
        chosen = [requests[i] for i in places]
        conditions = condition_batch(chosen, [cells[i] for i in places]).to(model.device)
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
        epsilon = noise_from_clean(x, clean, now.to(x.device)[None])
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
