"""Phonon verdicts: what counts as an instability and what as noise."""

import numpy as np
import pytest

from pccd_workflows.analysis.dynamics import judge_phonons

GAMMA, HALF = [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("lowest", "verdict"),
    [
        (1.0, "stable"),
        (-0.1, "stable"),
        (-0.11, "ambiguous"),
        (-0.5, "ambiguous"),
        (-0.6, "unstable"),
    ],
)
def test_lowest_mode_away_from_gamma_decides(lowest: float, verdict: str) -> None:
    """0.1 THz is noise, five times as much is not."""
    modes = [[-0.05, 0.0, 0.01, 4.0, 4.0, 5.0], [lowest, 2.0, 2.0, 4.0, 4.0, 5.0]]
    judged = judge_phonons(modes, [GAMMA, HALF], tolerance=0.1)
    assert judged.verdict == verdict
    assert judged.min_frequency == lowest
    assert judged.qpoint == (0.5, 0.0, 0.0)
    assert judged.gamma_residual == -0.05


def test_acoustic_noise_at_gamma_is_not_an_instability() -> None:
    """CHGNet's rock salt has -0.066 THz at Γ, also at an equivalent Γ of another zone."""
    modes = [[-0.066, -0.066, -0.066, 4.0, 4.0, 4.0]] * 2
    judged = judge_phonons(modes, [GAMMA, [1.0, 0.0, -1.0]], tolerance=0.05)
    assert (judged.verdict, judged.min_frequency) == ("stable", 4.0)


def test_soft_optical_mode_at_gamma_is_an_instability() -> None:
    """A cubic ferroelectric perovskite is unstable at Γ itself."""
    judged = judge_phonons([[-5.0, -0.02, 0.0, 0.02, 5.0, 9.0]], [GAMMA], tolerance=0.1)
    assert (judged.verdict, judged.min_frequency) == ("unstable", -5.0)
    assert judged.gamma_residual == -0.02


def test_large_acoustic_residual_makes_a_stable_verdict_ambiguous() -> None:
    """Force constants that break translation by 0.6 THz prove nothing."""
    modes = [[-0.6, -0.6, -0.6, 4.0, 4.0, 4.0], [1.0] * 6]
    assert judge_phonons(modes, [GAMMA, HALF], tolerance=0.1).verdict == "ambiguous"


def test_numbers_that_are_none_and_wrong_shapes() -> None:
    """NaN is a verdict of its own, a wrong shape is the caller's error."""
    assert judge_phonons([[np.nan] * 3], [HALF], tolerance=0.1).verdict == "error"
    with pytest.raises(ValueError, match="n_bands"):
        judge_phonons([[1.0] * 3], [GAMMA, HALF], tolerance=0.1)
