"""The probability-flow ODE in both directions: clouds -> the noise they come from, and back.

The way back is the deterministic first-order solver (DDIM), taken down to the last noise level
instead of to the last prediction. The way there undoes its steps one by one: each is an implicit
equation for the noisier cloud, solved to a tolerance, so that the round trip is exact up to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pccd_workflows.generators.pccd.schedule import signal_and_noise

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy clouds (B, ...), log_snr (), rows (B,) of the batch they are) -> clean clouds."""
MEMORY = 5
"""Earlier iterates that Anderson acceleration mixes."""


@dataclass(frozen=True)
class Inverted:
    """Noise that clouds come from.

    Attributes
    ----------
    noise
        Shape (B, ...). Clouds at the last of the levels.
    residual
        Shape (B,). Largest mismatch that was left in any step, in units of the noise amplitude.
    """

    noise: Tensor
    residual: Tensor


def ode_levels(log_snr: Tensor, steps: int) -> Tensor:
    """Return `steps` + 1 rising noise levels, evenly spaced in log_snr, of a noise schedule."""
    return torch.linspace(float(log_snr[0]), float(log_snr[-1]), steps + 1, dtype=torch.float64)


def invert(
    predict: Predict, clean: Tensor, levels: Tensor, *, tolerance: float = 1e-6, rounds: int = 60
) -> Inverted:
    """Return the noise that `generate` takes back to the clean clouds.

    Parameters
    ----------
    predict
        The denoiser, see Predict.
    clean
        Shape (B, ...), float64. Clouds in the denoiser's units.
    levels
        Shape (steps + 1,), float64. Falling log_snr.
    tolerance
        Of each step, in units of the noise amplitude.
    rounds
        Most network evaluations per step.
    """
    x = signal_and_noise(levels[0])[0] * clean
    residual = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    last_clean = clean
    for now, then in pairwise(levels):
        (a, s), (a2, s2) = signal_and_noise(now), signal_and_noise(then)

        def step_back(
            y: Tensor,
            rows: Tensor,
            level: Tensor = then,
            base: Tensor = x * (s2 / s),
            weight: Tensor = a2 - a * s2 / s,
        ) -> Tensor:
            """Return the noisier cloud that the prediction at the noisier cloud y implies."""
            return base[rows] + weight * predict(y, level, rows)

        guess = (s2 / s) * (x - a * last_clean) + a2 * last_clean
        y, left = fixed_point(step_back, guess, tolerance=tolerance * float(s2), rounds=rounds)
        residual = torch.maximum(residual, left / s2)
        last_clean = (y - (s2 / s) * x) / (a2 - a * s2 / s)  # what the network predicted for y
        x = y
    return Inverted(x, residual)


def generate(predict: Predict, noise: Tensor, levels: Tensor) -> Tensor:
    """Return the clouds that noise at the last of the falling `levels` flows to, at the first."""
    x, rows = noise, torch.arange(len(noise), device=noise.device)
    for now, then in pairwise(levels.flip(0)):
        (a, s), (a2, s2) = signal_and_noise(now), signal_and_noise(then)
        x = (s2 / s) * x + (a2 - a * s2 / s) * predict(x, now, rows)
    return x / signal_and_noise(levels[0])[0]


def fixed_point(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, tolerance: float, rounds: int
) -> tuple[Tensor, Tensor]:
    """Solve x = function(x) for each row of a batch by Anderson acceleration.

    Rows that have converged are evaluated no more.

    Parameters
    ----------
    function
        (x of some rows, which rows) -> values of the same shape.
    x
        Shape (B, ...). First guess.
    tolerance
        Largest |function(x) - x| of a row that counts as solved.
    rounds
        Most evaluations.

    Returns
    -------
    x
        Shape (B, ...).
    residual
        Shape (B,). Largest |function(x) - x| at the last evaluation.
    """
    solution, residual = x.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    points: list[Tensor] = []
    values: list[Tensor] = []
    for _ in range(rounds):
        value = function(x, rows)
        left = (value - x).flatten(1).abs().amax(1)
        better = left < residual[rows]
        solution[rows[better]], residual[rows[better]] = value[better], left[better]
        points, values = [*points, x.flatten(1)][-MEMORY:], [*values, value.flatten(1)][-MEMORY:]
        open_ = left > tolerance
        if not open_.any():
            break
        rows = rows[open_]
        points, values = [p[open_] for p in points], [v[open_] for v in values]
        x = _mixed(points, values).reshape(-1, *x.shape[1:])
    return solution, residual


def _mixed(points: list[Tensor], values: list[Tensor]) -> Tensor:
    """Return the combination of earlier values whose residuals cancel best, (B, n)."""
    if len(points) == 1:
        return values[0]
    residuals = torch.stack([v - p for p, v in zip(points, values, strict=True)], -1)
    changes = residuals[..., 1:] - residuals[..., :-1]
    gram = changes.mT @ changes
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    damping = 1e-10 * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(
        gram + damping * scale.clamp(min=torch.finfo(gram.dtype).tiny),
        changes.mT @ residuals[..., -1:],
    )
    steps = torch.stack(values, -1)
    mixed: Tensor = values[-1] - ((steps[..., 1:] - steps[..., :-1]) @ weights)[..., 0]
    return mixed
