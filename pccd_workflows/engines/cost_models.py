"""How the cost of a run depends on the crystal: one model per kind of engine, its numbers by level.

All give core-seconds before any run of the level is known; `pccd_workflows.cost` corrects them by
what finished runs took.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

VOLUME_PER_ATOM = 15.0
"""Å^3; the middle of inorganic crystals."""
SYMMETRY = 4
"""A mesh has so many times the irreducible points: time reversal, and a mirror or so."""

Facts = Mapping[str, Any]
"""What a run's cost depends on: n_atoms, n_electrons (valence), n_kpoints, n_spins, n_steps."""


@dataclass(frozen=True)
class Crystal:
    """What the cost of a crystal depends on: ``n_atoms``, ``n_electrons`` (valence)."""

    n_atoms: float
    n_electrons: float


class CostModel(Protocol):
    """What runs of a level cost."""

    def seconds(self, facts: Facts) -> float | None:
        """Return the core-seconds of a run by the model; None where a fact is not known."""

    def expected(self, crystal: Crystal, *, bands: bool = False) -> dict[str, Facts]:
        """Return the facts of each run that relaxes a crystal; `bands`: of those of its bands, too.

        Keys are the runs' names.
        """


@dataclass(frozen=True)
class PotentialCost:
    """A potential's relaxation: core-seconds = seconds_per_atom * n_atoms * n_steps."""

    seconds_per_atom: float = 0.01
    steps: float = 100

    def seconds(self, facts: Facts) -> float | None:
        """Return the core-seconds of a run by the model."""
        size = float(facts.get("n_atoms") or 0) * float(facts.get("n_steps") or 0)
        return self.seconds_per_atom * size or None

    def expected(self, crystal: Crystal, *, bands: bool = False) -> dict[str, Facts]:  # noqa: ARG002
        """Return the facts of the one run that relaxes a crystal."""
        return {"relax": {"n_atoms": crystal.n_atoms, "n_steps": self.steps}}


@dataclass(frozen=True)
class PlaneWaveCost:
    """DFT in plane waves.

    core-seconds = A * n_steps * n_kpoints * n_spins * (n_electrons / 100)^2 (1 + n_electrons / 400)

    with n_kpoints irreducible: the square is the Fourier transforms of n bands over a cell that
    grows with n, the cube their orthogonalisation, which overtakes near 400 electrons.

    Attributes
    ----------
    scale
        A, core-seconds: 100 electrons, one k-point, twelve SCF cycles.
    kpoint_volume
        k-points per Å^-3 of reciprocal space, 2π included; KSPACING 0.22 is 1 / 0.22^3.
    steps
        Ionic steps of each run of a relaxation.
    bands
        k-points of the runs of a band structure, one step each: multiples of a relaxation's, and
        points on the path (200 for rock salt; more for large or less symmetric cells).
    n_spins
        Spins that a crystal is computed with before it is known.
    """

    scale: float
    kpoint_volume: float
    steps: Mapping[str, float]
    bands: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    n_spins: int = 2

    def seconds(self, facts: Facts) -> float | None:
        """Return the core-seconds of a run by the model."""
        names = ("n_electrons", "n_kpoints", "n_spins", "n_steps")
        if any(not facts.get(name) for name in names):
            return None
        n_electrons, n_kpoints, n_spins, n_steps = (float(facts[name]) for name in names)
        size = (n_electrons / 100) ** 2 * (1 + n_electrons / 400)
        return self.scale * n_steps * n_kpoints * n_spins * size

    def irreducible_kpoints(self, n_atoms: float) -> float:
        """Return how many k-points a cell of that many atoms has, about."""
        reciprocal = (2 * math.pi) ** 3 / (VOLUME_PER_ATOM * n_atoms)
        return max(1.0, self.kpoint_volume * reciprocal / SYMMETRY)

    def expected(self, crystal: Crystal, *, bands: bool = False) -> dict[str, Facts]:
        """Return the facts of each run that relaxes a crystal, and of those of its bands."""
        mesh = self.irreducible_kpoints(crystal.n_atoms)
        runs = {name: (mesh, steps) for name, steps in self.steps.items()}
        if bands:
            runs |= {name: (times * mesh + path, 1) for name, (times, path) in self.bands.items()}
        return {
            name: {
                "n_electrons": crystal.n_electrons,
                "n_kpoints": n_kpoints,
                "n_spins": self.n_spins,
                "n_steps": n_steps,
            }
            for name, (n_kpoints, n_steps) in runs.items()
        }
