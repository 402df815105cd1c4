"""Noise schedule, process and solvers against what is known exactly."""

import math

import pytest
import torch

from pccd_workflows.generators.pccd.process import add_noise, clean_from_noise, noise_from_clean
from pccd_workflows.generators.pccd.schedule import cosine_log_snr, signal_and_noise
from pccd_workflows.generators.pccd.solvers import ddim, ddpm, dpm_solver


def test_schedule_falls_from_clean_to_noise():
    levels = cosine_log_snr(1000)
    assert len(levels) == 1001
    assert (levels.diff() <= 0).all()
    signal, sigma = signal_and_noise(levels)
    assert signal[0] > 0.999
    assert signal[-1] < 0.002
    assert torch.allclose(signal**2 + sigma**2, torch.ones_like(signal))
    assert levels[500] == pytest.approx(0.0, abs=0.05)


def test_shift_multiplies_the_noise():
    plain, shifted = cosine_log_snr(1000)[500], cosine_log_snr(1000, 4.0)[500]
    assert plain - shifted == pytest.approx(2 * math.log(4))


def test_predictions_of_noise_and_clean_clouds_agree():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 4, 3, 128, 3), generator=generator)
    log_snr = torch.tensor([-4.0, 0.0, 2.0, 6.0])
    noisy = add_noise(clean, noise, log_snr)
    assert torch.allclose(clean_from_noise(noisy, noise, log_snr), clean, atol=1e-4)
    assert torch.allclose(noise_from_clean(noisy, clean, log_snr), noise, atol=1e-3)


@pytest.mark.parametrize(("solver", "steps"), [("ddpm", 250), ("ddim", 250), ("dpm", 40)])
def test_solvers_turn_noise_into_the_distribution(solver, steps):
    """For data N(2, 0.5²) the best prediction is known; samples must have its mean and width."""
    mean, width = 2.0, 0.5
    generator = torch.Generator().manual_seed(1)

    def noise():
        return torch.randn((200, 3, 8, 3), generator=generator)

    def predict(noisy, log_snr):
        signal, sigma = signal_and_noise(log_snr)
        gain = signal * width**2 / (signal**2 * width**2 + sigma**2)
        return mean + gain * (noisy - signal * mean)

    levels = cosine_log_snr(1000).float()[torch.linspace(1000, 0, steps + 1).round().long()]
    made = {
        "ddpm": lambda: ddpm(predict, noise(), noise, levels),
        "ddim": lambda: ddim(predict, noise(), levels),
        "dpm": lambda: dpm_solver(predict, noise(), levels),
    }[solver]()
    assert made.mean() == pytest.approx(mean, abs=0.03)
    assert made.std() == pytest.approx(width, abs=0.03)
