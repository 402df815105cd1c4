"""From noise to what the network predicts: three solvers over falling noise levels."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from pccd_workflows.generators.pccd.process import noise_from_clean
from pccd_workflows.generators.pccd.schedule import signal_and_noise

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy states (B, ...), log_snr ()) -> predicted clean states."""


def solve(
    name: str, predict: Predict, x: Tensor, noise: Callable[[], Tensor], levels: Tensor
) -> Tensor:
    """Return what noise becomes by the solver of this name (see Sampler), from `levels[0]` on."""
    if name == "ddpm":
        return ddpm(predict, x, noise, levels)
    if name == "ddim":
        return ddim(predict, x, levels)
    return dpm_solver(predict, x, levels)


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
