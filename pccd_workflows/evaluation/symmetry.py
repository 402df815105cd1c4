"""Whether generated crystals have the symmetry they aim at, or were asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pccd_workflows.core.intervals import Estimate, bootstrapped, share
from pccd_workflows.evaluation.crystals import draw_rows, elements_of
from pccd_workflows.generators.pccd.dataset import CRYSTAL_SYSTEMS, CrystalArrays, crystal_system
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.generators.pccd.model import Model
    from pccd_workflows.generators.pccd.properties import Properties
    from pccd_workflows.generators.pccd.sample import Sampled

STRICT, LOOSE = 0.01, 0.1
"""Å; tolerances of spglib: of what is symmetric by construction, and of published structures."""
GAPS = (0.0, 1.0, 3.0, 6.0)
"""eV; asked for."""
ABOUT = 0.5
"""eV; a crystal whose gap is so near to the one asked for shows that its elements can have it."""
TRIVIAL = 1
"""Space group P1."""


def space_group_of(structure: "Structure | None", symprec: float) -> int | None:
    """Return the space group that spglib finds; None for no crystal, or none found."""
    import spglib

    if structure is None:
        return None
    numbers = list(structure.atomic_numbers)
    cell = (structure.lattice.matrix, structure.frac_coords, numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=symprec)
    return None if found is None else int(found.number)


def evaluate_symmetry(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Generate crystals for the elements of held-out ones; compare aim and outcome.

    Returns
    -------
    `obtained`: share of raw samples with the space group they aim at (symprec 0.01 Å);
    `obtained_loose`: the same at 0.1 Å, where crystals near a higher symmetry have that; `p1`:
    share of raw samples without symmetry; `aimed_at_p1`: of those that aim at none.
    """
    made = _generate(model, crystals, Conditions(), samples, seed, sampler)
    aims = [one.cell.space_group for one in made]
    strict, loose = (
        [space_group_of(one.structure, symprec) for one in made] for symprec in (STRICT, LOOSE)
    )
    total = len(made)
    return {
        "obtained": share(_equal(aims, strict), total),
        "obtained_loose": share(_equal(aims, loose), total),
        "p1": share(strict.count(TRIVIAL), total),
        "p1_loose": share(loose.count(TRIVIAL), total),
        "aimed_at_p1": share(aims.count(TRIVIAL), total),
        "with_analogue": share(sum(one.analogue is not None for one in made), total),
    }


def evaluate_conditions(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Ask for each crystal system in turn, and for band gaps.

    Returns
    -------
    `crystal_system`: of each the share of crystals that have it (symprec 0.01 Å); `band_gap`: of
    each value asked for, see `_band_gaps`; `errors_of_estimates`: of the networks that choose.
    """
    result: dict[str, Any] = {}
    if "crystal_system" in model.info.conditions:
        result["crystal_system"] = _crystal_systems(
            model, crystals, samples=samples, seed=seed, sampler=sampler
        )
    if model.properties is not None:
        result["band_gap"] = _band_gaps(model, crystals, samples, seed, sampler)
        result["errors_of_estimates"] = _errors_of_estimates(model.properties, crystals)
    return result


def _errors_of_estimates(properties: "Properties", crystals: CrystalArrays) -> dict[str, Any]:
    """Return mean absolute errors, eV and eV/atom, of what chooses, on all held-out crystals."""
    from pccd_workflows.generators.pccd.properties import estimate

    rows = zip(crystals.numbers, crystals.space_group.tolist(), strict=True)
    cells = [(sites[sites > 0].tolist(), group) for sites, group in rows]
    found = estimate(properties.choosing, cells)
    return {
        name: bootstrapped(np.abs(values - getattr(crystals, name)))
        for name, values in found.items()
    }


def _band_gaps(
    model: "Model", crystals: CrystalArrays, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Return the estimated gap, eV, of crystals asked to have one, by what was asked.

    The network that estimates is not the one that chose them, and was fitted to other chemical
    systems. Elements are those of held-out crystals: of any, and (`attainable`) of those whose
    known gap is about the one asked for, since most sets of elements have no compound with a gap.
    """
    from pccd_workflows.generators.pccd.properties import estimate

    properties = model.properties
    if properties is None:
        return {}

    def estimated(some: CrystalArrays, asked: float) -> Estimate:
        made = _generate(model, some, Conditions(band_gap=asked), samples, seed, sampler)
        cells = [(one.cell.numbers, one.cell.space_group) for one in made]
        return bootstrapped(estimate(properties.judging, cells)["band_gap"])

    near = {gap: crystals.take(np.abs(crystals.band_gap - gap) <= ABOUT) for gap in GAPS}
    result: dict[str, Any] = {f"{gap:g}": estimated(crystals, gap) for gap in GAPS}
    attainable = {f"{gap:g}": estimated(some, gap) for gap, some in near.items() if len(some)}
    return {**result, "attainable": attainable}


def _crystal_systems(
    model: "Model", crystals: CrystalArrays, *, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for place, name in enumerate(CRYSTAL_SYSTEMS):
        made = _generate(
            model, crystals, Conditions(crystal_system=name), samples, seed + place, sampler
        )
        groups = [space_group_of(one.structure, STRICT) for one in made]
        right = sum(group is not None and crystal_system(group) == place for group in groups)
        result[name] = share(right, len(made))
    return result


def _generate(
    model: "Model",
    crystals: CrystalArrays,
    conditions: Conditions,
    samples: int,
    seed: int,
    sampler: Sampler,
) -> "list[Sampled]":
    """Return samples for the elements of held-out crystals."""
    from pccd_workflows.generators.pccd.cells import SampleRequest
    from pccd_workflows.generators.pccd.sample import sample_crystals

    chosen = draw_rows(crystals, samples, seed)
    asked = [SampleRequest(i, elements_of(chosen, i), conditions) for i in range(len(chosen))]
    return sample_crystals(model, asked, seed=seed, sampler=sampler)


def _equal(aims: Sequence[int | None], found: Sequence[int | None]) -> int:
    return sum(a == b and a is not None for a, b in zip(aims, found, strict=True))
