"""The project's own model as a source of crystals: loaded, asked, decoded, in one place."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError, OutOfMemory
from pccd_workflows.core.faults import machine_fault
from pccd_workflows.generators.elements import draw_elements, stream
from pccd_workflows.generators.pccd.checkpoint import (
    check_weights,
    find_model,
    load_model,
    read_model_info,
)
from pccd_workflows.generators.pccd.model_info import ModelInfo
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.protocol import Generated, GeneratorInfo
from pccd_workflows.generators.request import Aim, Conditions, Generate, Generation
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.cells import Cell, SampleRequest
    from pccd_workflows.generators.pccd.model import Model
    from pccd_workflows.generators.pccd.pointcloud.encode import PointCloud
    from pccd_workflows.generators.pccd.sample import Sampled

SETS = 32
"""Sets of elements that are drawn where a band gap is asked for, to take the one that fits it."""
BATCH = 32
"""Crystals sampled together: what a kill costs at most."""


@dataclass(frozen=True)
class Drawn:
    """What the model made of one request.

    Attributes
    ----------
    request
        Number, elements and conditions.
    structure
        None where the cloud is no crystal.
    error_class, reason
        Of the DecodeError.
    seconds
        Wall time of this sample's share of its batch, s.
    aim
        Structure type that it was drawn for; None if there is none.
    """

    request: "SampleRequest"
    structure: Structure | None
    error_class: str | None
    reason: str | None
    seconds: float
    aim: Aim | None = None


def draw_crystals(
    model: "Model",
    requests: Sequence["SampleRequest"],
    *,
    seed: int,
    sampler: Sampler,
    batch: int = BATCH,
) -> Iterator[Drawn]:
    """Yield what a model makes of requests, in their order, as soon as each batch is done.

    Raises
    ------
    InputError
        The model cannot do what a request asks for.
    """
    for first in range(0, len(requests), batch):
        chosen = requests[first : first + batch]
        began = time.perf_counter()
        sampled = _sampled(model, chosen, seed, sampler)
        seconds = (time.perf_counter() - began) / len(chosen)
        for request, found in zip(chosen, sampled, strict=True):
            error = found.error
            error_class, reason = (error.error_class, str(error)) if error else (None, None)
            aim = aim_of(model, found.cell, request.conditions)
            yield Drawn(request, found.structure, error_class, reason, seconds, aim)


def aim_of(model: "Model", cell: "Cell", asked: Conditions) -> Aim | None:
    """Return the structure type that a cell was to have; None if the cloud decided it.

    Where properties were asked for it comes with what is expected of it.
    """
    from pccd_workflows.generators.pccd.known_types import fewest_first
    from pccd_workflows.generators.pccd.pointcloud.elements import symbol

    new, types = cell.new_type, model.new_types
    if cell.space_group is None:
        return None
    estimates = _estimates(model, cell, asked)
    if types is None or (new is None and not cell.structure_type):
        return Aim(space_group=cell.space_group, new_type=False, estimates=estimates)
    orbits = types.known.orbits[cell.structure_type] if new is None else new.orbits
    elements = fewest_first(np.array(cell.numbers))
    sites = types.sites_of(cell.space_group, orbits)
    named = {symbol(z): sizes for z, sizes in zip(elements, sites, strict=True)}
    return Aim(
        space_group=cell.space_group,
        orbits=named,
        new_type=new is not None,
        estimates=estimates,
    )


def _estimates(model: "Model", cell: "Cell", asked: Conditions) -> dict[str, float] | None:
    """Return what is expected of a cell, of the properties that are asked for; None if none is."""
    from pccd_workflows.generators.pccd.properties import PROPERTIES, estimate

    names = [name for name in PROPERTIES if getattr(asked, name) is not None]
    if model.properties is None or not names:
        return None
    found = estimate(model.properties.choosing, [(cell.numbers, cell.space_group)])
    return {name: round(float(found[name][0]), 3) for name in names}


def _sampled(
    model: "Model", requests: Sequence["SampleRequest"], seed: int, sampler: Sampler
) -> list["Sampled"]:
    """Return what comes of requests; where memory does not suffice, of one half and the other.

    Raises
    ------
    OutOfMemory
        It does not suffice for one.
    """
    from pccd_workflows.generators.pccd.sample import sample_crystals

    try:
        return sample_crystals(model, requests, seed=seed, sampler=sampler)
    except Exception as error:
        fault = machine_fault(error)
        if not isinstance(fault, OutOfMemory):
            raise
        if len(requests) == 1:
            raise fault from error
    # outside of the block, whose error would keep what the attempt holds in memory
    middle = len(requests) // 2
    halves = (requests[:middle], requests[middle:])
    return [one for half in halves for one in _sampled(model, half, seed, sampler)]


def elements_for_gap(model: "Model", options: Generate, index: int) -> tuple[str, ...]:
    """Return the elements of a sample: given, or drawn, with a band gap asked for as fit it best.

    Whether a compound has a gap is a matter of its elements before all else, so where they are
    drawn it is they that are chosen, each set by a likely cell of it.
    """
    from pccd_workflows.generators.pccd.cells import SampleRequest, draw_cells
    from pccd_workflows.generators.pccd.properties import nearest_to_asked

    first = draw_elements(options, index)
    asked = Conditions(band_gap=options.conditions.band_gap)
    if options.draw is None or model.properties is None or asked.band_gap is None:
        return first
    seeds = [stream(options.seed, k, "elements that fit") for k in range(1, SETS)]
    others = [draw_elements(options.model_copy(update={"seed": s}), index) for s in seeds]
    sets = list(dict.fromkeys([first, *others]))
    without = options.conditions.model_copy(update={"band_gap": None, "energy_above_hull": None})
    requests = [SampleRequest(index, elements, without) for elements in sets]
    cells = draw_cells(model, requests, options.seed, options.sampler)
    told = [(cell.numbers, cell.space_group) for cell in cells]
    return sets[nearest_to_asked(model.properties, told, asked)]


def decode_or_say_why(cloud: "PointCloud") -> tuple[Structure | None, str | None, str | None]:
    """Return the crystal of a cloud, or class and reason why it is none."""
    from pccd_workflows.generators.pccd.pointcloud.decode import DecodeError, decode

    try:
        return decode(cloud), None, None
    except DecodeError as error:
        return None, error.error_class, str(error)


class PccdGenerator:
    """The model in a folder of model/.

    Parameters
    ----------
    options
        What it is asked for.
    """

    options_type: ClassVar[type[Generate]] = Generate

    def __init__(self, options: Generate) -> None:
        self.options = options

    @cached_property
    def _folder(self) -> Path:
        return find_model(self.options.model, get_settings())

    @cached_property
    def _model_info(self) -> ModelInfo:
        return read_model_info(self._folder)

    @cached_property
    def _model(self) -> "Model":
        return load_model(self._folder, get_settings().device)

    def info(self) -> GeneratorInfo:
        """Return what model.json says."""
        found = self._model_info
        return GeneratorInfo(
            name=found.name,
            version=found.weights_sha256,
            elements=tuple(found.elements),
            max_elements=found.max_elements,
            conditions=tuple(found.conditions),
        )

    def check(self) -> None:
        """See that the weights are whole and that the model knows elements and conditions.

        Raises
        ------
        InputError
            The model cannot do what the options ask.
        """
        info, options = self._model_info, self.options
        check_weights(self._folder, info)
        if options.most_elements() > info.max_elements:
            raise InputError(
                f"Model {info.name!r} handles at most {info.max_elements} elements in one crystal, "
                f"not {options.most_elements()}."
            )
        if foreign := sorted(options.possible_elements() - set(info.elements)):
            raise InputError(f"Model {info.name!r} was not trained on {', '.join(foreign)}.")
        asked = options.conditions.model_dump(exclude_none=True)
        if untrained := sorted(set(asked) - set(info.conditions)):
            raise InputError(
                f"Model {info.name!r} was not trained on {', '.join(untrained)}; it knows "
                f"{', '.join(info.conditions) or 'no condition'}."
            )

    def generate(self, indices: Sequence[int]) -> Iterator[Generated]:
        """Yield samples, batch by batch.

        A batch is drawn whole, whichever of its samples are asked for: sums round differently in
        batches of other sizes, and a sample that is made again shall be the same to the last bit.
        """
        from pccd_workflows.generators.pccd.cells import SampleRequest

        options = self.options
        for batch, asked in groupby(indices, key=self._batch_of):
            requests = [
                SampleRequest(
                    index, elements_for_gap(self._model, options, index), options.conditions
                )
                for index in batch
            ]
            drawn = {
                made.request.index: made
                for made in draw_crystals(
                    self._model, requests, seed=options.seed, sampler=options.sampler
                )
            }
            for index in asked:
                made = drawn[index]
                yield Generated(index, made.structure, self._generation(made))

    def _batch_of(self, index: int) -> range:
        """Return the samples that are drawn together with one: neighbours of its shard.

        No job has a part of a shard, so that no sample is drawn by two of them.
        """
        shard = index - index % self.options.shard
        first = index - (index - shard) % BATCH
        last = min(first + BATCH, shard + self.options.shard)
        return range(first, min(last, max(self.options.samples, index + 1)))

    def _generation(self, drawn: Drawn) -> Generation:
        options = self.options
        return Generation(
            model=self._model_info.name,
            weights_sha256=self._model_info.weights_sha256,
            seed=options.seed,
            index=drawn.request.index,
            elements=list(drawn.request.elements),
            conditions=options.conditions.model_dump(exclude_none=True),
            sampler=options.sampler.model_dump(),
            aim=drawn.aim,
            error_class=drawn.error_class,
            reason=drawn.reason,
            seconds=drawn.seconds,
        )
