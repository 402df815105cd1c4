"""Dynamical stability from phonon frequencies: a verdict with its evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

GAMMA_RADIUS = 1e-4
"""A q-point this close (reduced units) to a reciprocal lattice vector is Γ."""
AMBIGUOUS_FACTOR = 5.0
"""Imaginary modes between -tolerance and -5 tolerance are ambiguous: an ML potential's soft modes
scatter by a few tenths of a THz, so with the usual 0.1 THz a mode down to -0.5 THz may be either
noise or a real instability (15 % of crystals are misjudged by CHGNet on PhononDB-103)."""
N_ACOUSTIC = 3
SIMPLE = 12
"""Reduced coordinates with a denominator up to this are shown as fractions."""


@dataclass(frozen=True)
class PhononVerdict:
    """Dynamical stability of one crystal.

    min_frequency: lowest frequency of all modes but the acoustic ones at Γ, THz, imaginary as
    negative; None if Γ of a one-atom cell is all there is.
    qpoint: its reduced q-point.
    gamma_residual: lowest of the three acoustic frequencies at Γ, THz (0 in exact arithmetic);
    None if Γ is not among the q-points.
    """

    verdict: Literal["stable", "unstable", "ambiguous", "error"]
    min_frequency: float | None
    qpoint: tuple[float, float, float] | None
    gamma_residual: float | None
    reason: str


def judge_phonons(
    frequencies: ArrayLike, qpoints: ArrayLike, *, tolerance: float = 0.1
) -> PhononVerdict:
    """Return whether a crystal is dynamically stable.

    The three modes of smallest magnitude at Γ are translations of the whole crystal: their
    deviation from zero is numerical noise and is reported apart. Of all other modes (the optical
    ones at Γ included, so that a ferroelectric soft mode counts) the lowest, f, decides:
    f >= -tolerance is stable, f < -5 tolerance is unstable, between them the verdict is ambiguous.
    So is a stable one whose acoustic residual at Γ is beyond 5 tolerance: such force constants
    are not trustworthy.

    Parameters
    ----------
    frequencies
        Shape (n_q, n_bands), THz, imaginary ones negative; along paths or on a mesh.
    qpoints
        Shape (n_q, 3), in reciprocal lattice vectors.
    tolerance
        Largest imaginary frequency that is taken for noise, THz.

    Raises
    ------
    ValueError
        If the shapes disagree, nothing is given or the tolerance is negative.
    """
    values = np.asarray(frequencies, dtype=float)
    points = np.asarray(qpoints, dtype=float)
    _check(values, points, tolerance)
    if not np.isfinite(values).all():
        return PhononVerdict("error", None, None, None, "Some phonon frequencies are not numbers.")
    at_gamma = (np.abs(points - np.round(points)) < GAMMA_RADIUS).all(axis=1)
    acoustic = _acoustic_modes(values, at_gamma)
    residual = float(values[acoustic].min()) if acoustic.any() else None
    if acoustic.all():
        reason = "Only the acoustic modes at Γ are known, which say nothing about stability."
        return PhononVerdict("ambiguous", None, None, residual, reason)
    others = np.where(acoustic, np.inf, values)
    row = int(others.min(axis=1).argmin())
    lowest = float(others[row].min())
    x, y, z = (float(v) for v in points[row])
    verdict, reason = _verdict(lowest, residual, tolerance)
    return PhononVerdict(verdict, lowest, (x, y, z), residual, reason)


def _check(
    frequencies: NDArray[np.float64], qpoints: NDArray[np.float64], tolerance: float
) -> None:
    if frequencies.ndim != 2 or not frequencies.size or qpoints.shape != (len(frequencies), 3):
        raise ValueError(
            "frequencies must be (n_q, n_bands) and qpoints (n_q, 3), "
            f"not {frequencies.shape} and {qpoints.shape}"
        )
    if not tolerance >= 0:
        raise ValueError(f"{tolerance=} must not be negative")


def _acoustic_modes(
    frequencies: NDArray[np.float64], at_gamma: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which modes, shape (n_q, n_bands), are the three of smallest magnitude at Γ."""
    rank = np.argsort(np.argsort(np.abs(frequencies), axis=1), axis=1)
    return np.asarray(at_gamma[:, None] & (rank < N_ACOUSTIC), dtype=bool)


def _verdict(
    lowest: float, residual: float | None, tolerance: float
) -> tuple[Literal["stable", "unstable", "ambiguous"], str]:
    limit = AMBIGUOUS_FACTOR * tolerance
    mode = f"The lowest mode, {lowest:.3f} THz,"
    if lowest < -limit:
        return "unstable", f"{mode} is below -{limit:g} THz."
    if lowest < -tolerance:
        return "ambiguous", f"{mode} lies between -{limit:g} and -{tolerance:g} THz."
    if residual is not None and abs(residual) > limit:
        return "ambiguous", f"The acoustic modes miss zero at Γ by {abs(residual):.3f} THz."
    return "stable", f"{mode} is not below -{tolerance:g} THz."


def reduced_point(point: Sequence[float]) -> str:
    """Return a q-point as ``(0 1/2 1/2)``; coordinates that are no simple fractions as decimals."""
    return f"({' '.join(_reduced(value) for value in point)})"


def _reduced(value: float) -> str:
    near = Fraction(value).limit_denominator(SIMPLE)
    return str(near) if abs(near - value) < GAMMA_RADIUS else f"{value:.3f}"
