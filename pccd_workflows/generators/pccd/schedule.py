"""How much noise each step holds: the cosine schedule, shifted for repeated points."""

import math

import torch
from torch import Tensor

LOG_SNR_RANGE = (-13.0, 11.0)
"""Signal-to-noise is kept between these, so that the first step is noise and the last is exact."""


def cosine_log_snr(n_steps: int, shift: float = 1.0) -> Tensor:
    """Return log(ᾱ / (1 - ᾱ)) of the steps 0 (clean) to `n_steps` (noise).

    Parameters
    ----------
    n_steps
        T of the diffusion.
    shift
        Noise amplitudes are multiplied by it relative to the signal. A site is written k times into
        the cloud, so the mean of its points has 1/k of the noise variance; a shift of about sqrt(k)
        gives the site the noise that the unshifted schedule means.

    Returns
    -------
    Shape (n_steps + 1,), float64, falling.
    """
    offset = 0.008  # as Nichol & Dhariwal
    time = torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)
    angle = (time + offset) / (1 + offset) * math.pi / 2
    log_snr = -2.0 * torch.log(torch.tan(angle)) - 2.0 * math.log(shift)
    return log_snr.clamp(*LOG_SNR_RANGE)


def signal_and_noise(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Return sqrt(ᾱ) and sqrt(1 - ᾱ) for log signal-to-noise ratios, same shape."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
