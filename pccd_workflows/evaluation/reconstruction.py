"""The seed's test (its Table 1 and Fig. 1): noise known crystals to t = T, denoise, compare.

After T steps almost nothing is left of a crystal, so the seed's figures measure conditioning and
memory. The control says how much: it starts from pure noise, with the same conditions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.campaign import Conditions, Sampler
from pccd_workflows.diffusion.canonical import canonical_cell
from pccd_workflows.diffusion.dataset import ORDERINGS, CrystalArrays
from pccd_workflows.evaluation.intervals import share
from pccd_workflows.pointcloud.decode import DecodeError, decode
from pccd_workflows.pointcloud.elements import canonical_elements, symbol
from pccd_workflows.pointcloud.encode import PointCloud

if TYPE_CHECKING:
    from pccd_workflows.diffusion.model import Model

AXES = ("a", "b", "c")
COORDINATES = ("x", "y", "z")


def evaluate_reconstruction(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Reconstruct crystals as the seed does, and from pure noise.

    Parameters
    ----------
    crystals : CrystalArrays
        `samples` of them are drawn.

    Returns
    -------
    dict
        "reconstruction" and "control", each with atom_count_accuracy, efficiency (share of errors
        within the whiskers of their box plot), limits (of the whiskers) and median_absolute_error:
        relative errors of a, b, c, differences of fractional coordinates x, y, z. As in the seed
        they are taken where the number of atoms is right; cells in canonical form, periodic.
    """
    from pccd_workflows.diffusion.sample import SampleRequest, sample_clouds

    size = min(samples, len(crystals))
    rows = np.random.default_rng(seed).choice(len(crystals), size=size, replace=False)
    chosen = crystals.take(rows)
    requests = [
        SampleRequest(i, _elements(chosen.numbers[i]), _seed_conditions(model, chosen, i))
        for i in range(len(chosen))
    ]
    clean = model.denoiser.encode(chosen)
    return {
        name: _compare(
            chosen,
            sample_clouds(
                model,
                requests,
                seed=seed,
                sampler=sampler,
                start=clean if name == "reconstruction" else None,
            ),
        )
        for name in ("reconstruction", "control")
    }


def _seed_conditions(model: "Model", crystals: CrystalArrays, row: int) -> Conditions:
    """Return what the seed conditions on: band gap and magnetic ordering, where known."""
    gap, ordering = crystals.band_gap[row], crystals.ordering[row]
    knows = model.info.conditions
    return Conditions(
        band_gap=float(gap) if np.isfinite(gap) and "band_gap" in knows else None,
        magnetic_ordering=(
            ORDERINGS[ordering] if ordering >= 0 and "magnetic_ordering" in knows else None
        ),
    )


def _compare(crystals: CrystalArrays, clouds: Sequence[PointCloud]) -> dict[str, Any]:
    right = 0
    lengths: list[NDArray[np.float64]] = []
    coordinates: list[NDArray[np.float64]] = []
    for row, cloud in enumerate(clouds):
        try:
            made = decode(cloud)
        except DecodeError:
            continue
        cell = canonical_cell(made.lattice.matrix, np.array(made.atomic_numbers), made.frac_coords)
        n = int(crystals.n_sites[row])
        if len(made) == n:
            right += 1
            lengths.append(cell.lengths / crystals.lengths[row] - 1)
            gap = cell.frac_coords - crystals.frac_coords[row, :n]
            coordinates.append(gap - np.rint(gap))
    empty = np.empty((0, 3))
    errors = [*np.concatenate([empty, *(e[None] for e in lengths)]).T]
    errors += [*np.concatenate([empty, *coordinates]).T]
    names = (*AXES, *COORDINATES)
    return {
        "atom_count_accuracy": share(right, len(clouds)),
        **_box_plots(dict(zip(names, errors, strict=True))),
    }


def _box_plots(errors: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return efficiency, whisker limits and median absolute error of each column."""
    efficiency: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    medians: dict[str, Any] = {}
    for name, values in errors.items():
        if len(values) == 0:
            efficiency[name], limits[name], medians[name] = share(0, 0), None, None
            continue
        low, high = np.percentile(values, [25, 75])
        reach = 1.5 * (high - low)
        inside = (values >= low - reach) & (values <= high + reach)
        efficiency[name] = share(int(inside.sum()), len(values))
        limits[name] = [round(float(low - reach), 4), round(float(high + reach), 4)]
        medians[name] = round(float(np.median(np.abs(values))), 4)
    return {"efficiency": efficiency, "limits": limits, "median_absolute_error": medians}


def _elements(numbers: NDArray[np.uint8]) -> tuple[str, ...]:
    return canonical_elements(symbol(int(z)) for z in numbers if z > 0)
