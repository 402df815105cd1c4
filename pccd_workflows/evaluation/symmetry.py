"""Whether generated crystals have the symmetry they aim at, or were asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import draw_rows, elements_of
from pccd_workflows.generators.pccd.dataset import CRYSTAL_SYSTEMS, CrystalArrays, crystal_system
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.request import Conditions, Draw, Generate

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from pccd_workflows.generators.pccd.model import Model
    from pccd_workflows.generators.pccd.properties import Properties, Property
    from pccd_workflows.generators.pccd.sample import Sampled

Floats = NDArray[np.float64]
STRICT, LOOSE = 0.01, 0.1
"""Å; tolerances of spglib: of what is symmetric by construction, and of published structures."""
GAPS = (0.0, 1.0, 3.0, 6.0)
"""eV; asked for."""
WITHIN = 0.7
"""eV; the gap that is asked for is reached where the estimate is so near."""
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
    each value asked for, see `_band_gaps`; `errors_of_estimates`: of the networks that choose;
    `errors_of_medians`: its control, the median of the held-out crystals for all of them.
    """
    result: dict[str, Any] = {}
    if "crystal_system" in model.info.conditions:
        result["crystal_system"] = _crystal_systems(
            model, crystals, samples=samples, seed=seed, sampler=sampler
        )
    if model.properties is not None:
        result["band_gap"] = _band_gaps(model, crystals, samples, seed, sampler)
        estimates = _estimates(model.properties, crystals)
        medians = {name: np.nanmedian(getattr(crystals, name)) for name in estimates}
        result["errors_of_estimates"] = _errors(estimates, crystals)
        result["errors_of_medians"] = _errors(medians, crystals)
    return result


def _estimates(properties: "Properties", crystals: CrystalArrays) -> "dict[Property, Floats]":
    """Return what the choosing network says of all held-out crystals, eV and eV/atom."""
    from pccd_workflows.generators.pccd.properties import estimate

    rows = zip(crystals.numbers, crystals.space_group.tolist(), strict=True)
    cells = [(sites[sites > 0].tolist(), group) for sites, group in rows]
    return estimate(properties.choosing, cells)


def _errors(said: "Mapping[Property, Any]", crystals: CrystalArrays) -> dict[str, Any]:
    """Return mean absolute errors of what is said of crystals whose property is known."""
    return {
        name: bootstrapped(np.abs(values - getattr(crystals, name)))
        for name, values in said.items()
    }


def _band_gaps(
    model: "Model", crystals: CrystalArrays, samples: int, seed: int, sampler: Sampler
) -> dict[str, Any]:
    """Return the estimated gap, eV, of crystals asked to have one, by what was asked.

    The network that estimates is not the one that chose them, and was fitted to other chemical
    systems. Elements are those of held-out crystals: of any, and (`attainable`) of those whose
    known gap is about the one asked for, since most sets of elements have no compound with a gap.
    `drawn`: elements are drawn too, one to three of all, as a campaign may ask. `reached`: the
    share that the choosing network estimates within 0.7 eV, as the sampler says, and of these what
    the judging one thinks.
    """
    from pccd_workflows.generators.pccd.cells import SampleRequest, draw_cells
    from pccd_workflows.generators.pccd.generator import elements_for_gap
    from pccd_workflows.generators.pccd.properties import estimate

    properties = model.properties
    if properties is None:
        return {}

    def gaps(some: CrystalArrays, asked: float) -> tuple[Floats, Floats]:
        made = _generate(model, some, Conditions(band_gap=asked), samples, seed, sampler)
        cells = [(one.cell.numbers, one.cell.space_group) for one in made]
        networks = properties.choosing, properties.judging
        chosen, judged = (estimate(network, cells)["band_gap"] for network in networks)
        return chosen, judged

    def of_drawn(asked: float) -> Floats:
        drawn = Draw.model_validate({"from": list(model.info.elements), "n_elements": [1, 3]})
        options = Generate(
            draw=drawn, seed=seed, conditions=Conditions(band_gap=asked), sampler=sampler
        )
        sets = [elements_for_gap(model, options, index) for index in range(samples)]
        requests = [SampleRequest(k, of, options.conditions) for k, of in enumerate(sets)]
        made = draw_cells(model, requests, seed, sampler)
        return estimate(properties.judging, [(c.numbers, c.space_group) for c in made])["band_gap"]

    result: dict[str, Any] = {"attainable": {}, "reached": {}, "drawn": {}}
    for gap in GAPS:
        result["drawn"][f"{gap:g}"] = bootstrapped(of_drawn(gap))
        chosen, judged = gaps(crystals, gap)
        within = np.abs(chosen - gap) <= WITHIN
        result[f"{gap:g}"] = bootstrapped(judged)
        result["reached"][f"{gap:g}"] = {
            "share": share(int(within.sum()), len(within)),
            "estimate": bootstrapped(judged[within]),
        }
        near = crystals.take(np.abs(crystals.band_gap - gap) <= ABOUT)
        if len(near):
            result["attainable"][f"{gap:g}"] = bootstrapped(gaps(near, gap)[1])
    return result


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
