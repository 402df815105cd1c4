"""The seed's test (its Table 1 and Fig. 1): noise known crystals to t = T, denoise, compare.

After T steps almost nothing is left of a crystal, so the seed's figures measure conditioning and
memory. The control says how much: it starts from pure noise, with the same conditions.

What the seed does, and what is done here: the samples are given elements, band gap and magnetic
ordering. Where the number of atoms is right, cells are compared as generated: relative errors of
a, b, c; atoms paired greedily by periodic distance, whatever their element; differences of
fractional coordinates x, y, z. "Efficiency" is the share of errors within the whiskers of their
box plot. The seed takes differences of coordinates without regard to periodicity (0.99 and 0.01
are 0.98 apart; it counts such pairs as wrong); `periodic` takes the nearest image. Whiskers adapt
to the errors, so a share of errors within the seed's own published whiskers is given too.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.intervals import Estimate, bootstrapped, share
from pccd_workflows.evaluation.crystals import (
    decoded,
    draw_rows,
    match_all,
    seed_requests,
)
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.sampler import Sampler

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model

LENGTHS = ("a", "b", "c")
COORDINATES = ("x", "y", "z")
SEED_LIMITS = {
    "a": (-0.0512, 0.0381),
    "b": (-0.0523, 0.0366),
    "c": (-0.0490, 0.0357),
    "x": (-0.0650, 0.1005),
    "y": (-0.0384, 0.0544),
    "z": (-0.0409, 0.0644),
}
"""Whiskers of the seed's Table 1."""
SEED_COUNT_ACCURACY = 0.6781
SEED_EFFICIENCY = {
    "a": 0.8848,
    "b": 0.9055,
    "c": 0.8940,
    "x": 0.7083,
    "y": 0.7160,
    "z": 0.7202,
}
"""The seed's Table 1, on 868 of 1,280 of its training crystals."""
FIRST_COORDINATE = -1 / 96
"""Coordinates are read in the unit interval from here, as training cells are written."""

Floats = NDArray[np.float64]
Columns = dict[str, Floats]


@dataclass(frozen=True)
class Reconstruction:
    """Crystals and what was made from their noised clouds (or from pure noise).

    Attributes
    ----------
    targets
    made
    rmse
        Shape (n,). Normalised RMSE of the literature's matcher, NaN where they do not match.
    ceiling
        From `count_ceiling`, of all crystals that the targets were drawn from.
    """

    targets: list[Structure]
    made: list[Structure | None]
    rmse: Floats
    ceiling: Estimate | None = None

    @cached_property
    def counted(self) -> list[tuple[Structure, Structure]]:
        """Pairs (target, made) with the right number of atoms."""
        pairs = zip(self.targets, self.made, strict=True)
        return [(t, m) for t, m in pairs if m is not None and len(m) == len(t)]

    @cached_property
    def lengths(self) -> tuple[Floats, Floats]:
        """Lengths (m, 3) of `counted`, targets and made, Å."""
        return _cell_lengths(self.counted)

    @cached_property
    def coordinates(self) -> tuple[Floats, Floats]:
        """Fractional coordinates (atoms, 3) of paired atoms of `counted`, targets and made."""
        pairs = [paired_coordinates(target, made) for target, made in self.counted]
        empty = [np.empty((0, 3))]
        return (
            np.concatenate(empty + [p[0] for p in pairs]),
            np.concatenate(empty + [p[1] for p in pairs]),
        )

    def errors(self, *, periodic: bool) -> Columns:
        """Return the errors of a, b, c (relative) and x, y, z (fractional) of `counted`."""
        before, after = self.coordinates
        gap = after - before
        if periodic:
            gap = gap - np.rint(gap)
        columns = [*_relative(*self.lengths).T, *gap.T]
        return dict(zip((*LENGTHS, *COORDINATES), columns, strict=True))

    def summary(self) -> dict[str, Any]:
        """Return the seed's figures, the periodic ones, and how many crystals match."""
        n = len(self.targets)
        some = [(t, m) for t, m in zip(self.targets, self.made, strict=True) if m is not None]
        everywhere = dict(zip(LENGTHS, _relative(*_cell_lengths(some)).T, strict=True))
        same = sum(m.composition == t.composition for t, m in some)
        return {
            "atom_count_accuracy": share(len(self.counted), n),
            "atom_count_ceiling": self.ceiling,
            **box_plots(self.errors(periodic=False)),
            "periodic": box_plots(self.errors(periodic=True)),
            "efficiency_of_all_samples": box_plots(everywhere)["efficiency"],
            "composition_accuracy": share(same, n),
            "match_rate": share(int(np.isfinite(self.rmse).sum()), n),
            "rmse": bootstrapped(self.rmse),
        }


def reconstruct(
    model: "Model",
    crystals: CrystalArrays,
    *,
    samples: int,
    seed: int,
    sampler: Sampler,
    control: bool = False,
) -> Reconstruction:
    """Noise crystals to t = T and denoise them.

    Parameters
    ----------
    crystals
        `samples` of them are drawn.
    control
        Start from the noise alone (the same noise).
    """
    import torch

    from pccd_workflows.generators.pccd.sample import sample_clouds

    chosen = draw_rows(crystals, samples, seed)
    clean = model.denoiser.encode(chosen)
    clouds = sample_clouds(
        model,
        seed_requests(chosen, model.info),
        seed=seed,
        sampler=sampler,
        start=torch.zeros_like(clean) if control else clean,
    )
    targets = [chosen.structure(row) for row in range(len(chosen))]
    made = decoded(clouds)[0]
    return Reconstruction(targets, made, match_all(made, targets), count_ceiling(crystals))


def count_ceiling(crystals: CrystalArrays) -> Estimate:
    """Return how often the commonest number of atoms of equal conditions is the right one.

    Asked for elements, band gap (to 1 meV) and magnetic ordering, the best answer is the commonest
    number among the crystals that have them: no model can be right more often.
    """
    sizes = crystals.n_sites
    gaps = np.nan_to_num(crystals.band_gap, nan=-1.0).round(3)
    counts: defaultdict[object, Counter[int]] = defaultdict(Counter)
    for row, numbers in enumerate(crystals.numbers):
        asked = (
            frozenset(numbers[numbers > 0].tolist()),
            float(gaps[row]),
            int(crystals.ordering[row]),
        )
        counts[asked][int(sizes[row])] += 1
    return share(sum(max(c.values()) for c in counts.values()), len(sizes))


def paired_coordinates(target: Structure, made: Structure) -> tuple[Floats, Floats]:
    """Return the fractional coordinates of paired atoms, (n, 3) each.

    Greedy: of all pairs the nearest (nearest images, in the target's cell) are paired first.
    """
    before, after = _in_interval(target.frac_coords), _in_interval(made.frac_coords)
    gaps = after[None] - before[:, None]
    distances = np.linalg.norm((gaps - np.rint(gaps)) @ target.lattice.matrix, axis=2)
    partner = np.empty(len(before), dtype=np.intp)
    for _ in range(len(before)):
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        partner[i] = j
        distances[i], distances[:, j] = np.inf, np.inf
    return before, after[partner]


def box_plots(errors: Columns) -> dict[str, Any]:
    """Return what the box plot of each column says.

    Returns
    -------
    efficiency (share within the whiskers), limits (of the whiskers, at most 1.5 box widths from the
    box), median_absolute_error, within_seed_limits; each by column.
    """
    boxes = {name: whiskers(values) for name, values in errors.items()}
    return {
        "efficiency": {name: _share_within(values, boxes[name]) for name, values in errors.items()},
        "limits": {
            name: None if box is None else [round(limit, 4) for limit in box]
            for name, box in boxes.items()
        },
        "median_absolute_error": {
            name: bootstrapped(np.abs(values), np.median) for name, values in errors.items()
        },
        "within_seed_limits": {
            name: _share_within(values, SEED_LIMITS[name]) for name, values in errors.items()
        },
    }


def whiskers(values: Floats) -> tuple[float, float] | None:
    """Return the ends of a box plot's whiskers: the last values within 1.5 box widths."""
    if len(values) == 0:
        return None
    low, high = np.percentile(values, [25, 75])
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    return float(inside.min()), float(inside.max())


def _share_within(values: Floats, limits: tuple[float, float] | None) -> Estimate:
    if limits is None:
        return share(0, 0)
    inside = (values >= limits[0]) & (values <= limits[1])
    return share(int(inside.sum()), len(values))


def _relative(before: Floats, after: Floats) -> Floats:
    return after / before - 1


def _cell_lengths(pairs: list[tuple[Structure, Structure]]) -> tuple[Floats, Floats]:
    lengths = np.array([[t.lattice.abc, m.lattice.abc] for t, m in pairs]).reshape(-1, 2, 3)
    return lengths[:, 0], lengths[:, 1]


def _in_interval(coordinates: Floats) -> Floats:
    return np.asarray((coordinates - FIRST_COORDINATE) % 1.0 + FIRST_COORDINATE)
