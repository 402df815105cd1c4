"""The diffusion process as pure functions on normalised clouds (B, 3, 128, 3)."""

from torch import Tensor

from pccd_workflows.generators.pccd.schedule import signal_and_noise


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return (B,) values shaped to multiply `like` (B, ...)."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def add_noise(clean: Tensor, noise: Tensor, log_snr: Tensor) -> Tensor:
    """Return x_t = sqrt(ᾱ) x_0 + sqrt(1 - ᾱ) ε for log_snr (B,)."""
    signal, sigma = signal_and_noise(log_snr)
    return _per_sample(signal, clean) * clean + _per_sample(sigma, clean) * noise


def clean_from_noise(noisy: Tensor, noise: Tensor, log_snr: Tensor) -> Tensor:
    """Return the x_0 that a predicted ε implies."""
    signal, sigma = signal_and_noise(log_snr)
    return (noisy - _per_sample(sigma, noisy) * noise) / _per_sample(signal, noisy)


def noise_from_clean(noisy: Tensor, clean: Tensor, log_snr: Tensor) -> Tensor:
    """Return the ε that a predicted x_0 implies."""
    signal, sigma = signal_and_noise(log_snr)
    return (noisy - _per_sample(signal, noisy) * clean) / _per_sample(sigma, noisy)
