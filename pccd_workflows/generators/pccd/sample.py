"""Requests -> crystals. Crystal k depends on (seed, k) alone, not on the batch it is drawn in.

Networks that are told the sites (`draws_composition`) draw one position per site, tied by the
symmetry that was decided before; the others draw whole clouds, in which the sites are found.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.elements import stream
from pccd_workflows.generators.pccd.cells import (
    Cell,
    SampleRequest,
    condition_batch,
    draw_cells,
)
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.denoiser import PointTransformer, cell_of, frac_of
from pccd_workflows.generators.pccd.means import Framed, find_frames, sample_means
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.pointcloud.decode import (
    DecodeError,
    decode,
    lattice_of,
    structure_of,
)
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.pccd.pointcloud.encode import N_COLUMNS, N_POINTS, PointCloud
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.schedule import signal_and_noise
from pccd_workflows.generators.pccd.solvers import solve

CPU_BATCH = 64
GPU_BATCH = 512
"""Crystals, alike in size, that go through the network together."""


@dataclass(frozen=True)
class Sampled:
    """What came of one request.

    Attributes
    ----------
    structure
    error
        Why there is no structure.
    cell
        What was decided before it was drawn: what it aims at.
    analogue
        Row of the known crystal that it got its symmetry from, among the model's analogues.
    """

    structure: Structure | None
    error: DecodeError | None
    cell: Cell
    analogue: int | None = None


def sample_crystals(
    model: Model,
    requests: Sequence[SampleRequest],
    *,
    seed: int,
    sampler: Sampler,
    cells: Sequence[Cell] | None = None,
    refined: bool = True,
) -> list[Sampled]:
    """Draw one crystal per request.

    Parameters
    ----------
    model
    requests
    seed
        Of the campaign.
    sampler
        Solver, number of steps, guidance.
    cells
        Composition, space group and structure type of each; drawn if None.
    refined
        Whether analogues are moved to where others like them say; False copies them.

    Returns
    -------
    In the order of the requests.

    Raises
    ------
    InputError
        If the model cannot do what is asked: an element it never saw, too many elements or atoms,
        a condition it was not trained on, or a composition of other elements.
    """
    check_requests(model, requests)
    if cells is None:
        cells = draw_cells(model, requests, seed, sampler)
    denoiser = model.denoiser
    if not isinstance(denoiser, PointTransformer):
        clouds = sample_clouds(model, requests, seed=seed, sampler=sampler, cells=cells)
        return [_decoded(cloud, cell) for cloud, cell in zip(clouds, cells, strict=True)]
    made: dict[int, Sampled] = {}
    frames = find_frames(model, requests, cells, seed, sampler, refined=refined)
    for places in _batches(model, cells, frames):
        chosen, of_batch = [requests[i] for i in places], [cells[i] for i in places]
        conditions = condition_batch(chosen, of_batch).to(model.device)
        seeds = [stream(seed, request.index, "noise") for request in chosen]
        tied = [frames[i] for i in places]
        sites, lattice = sample_means(model, denoiser, conditions, tied, seeds, sampler)
        frac = frac_of(sites).double().cpu().numpy()
        lengths, angles = (x.double().cpu().numpy() for x in cell_of(lattice))
        for row, place in enumerate(places):
            structure, error = _crystal(of_batch[row], frac[row], lengths[row], angles[row])
            made[place] = Sampled(structure, error, of_batch[row], frames[place].row)
    return [made[i] for i in range(len(requests))]


def sample_clouds(
    model: Model,
    requests: Sequence[SampleRequest],
    *,
    seed: int,
    sampler: Sampler,
    start: Tensor | None = None,
    cells: Sequence[Cell] | None = None,
) -> list[PointCloud]:
    """Draw one point cloud per request; see `sample_crystals`.

    Parameters
    ----------
    start
        Shape (B, 3, 128, C). Clean clouds in the denoiser's units to begin with, noised to t = T
        with all the noise that the schedule says, nothing tied by symmetry; if None, pure noise, as
        strong as the sampler's temperature says.

    Returns
    -------
    In the order of the requests.
    """
    check_requests(model, requests)
    if cells is None:
        cells = draw_cells(model, requests, seed, sampler)
    clouds: dict[int, PointCloud] = {}
    denoiser = model.denoiser
    frames = find_frames(model, requests, cells, seed, sampler) if start is None else None
    for places in _batches(model, cells, frames):
        chosen, of_batch = [requests[i] for i in places], [cells[i] for i in places]
        conditions = condition_batch(chosen, of_batch).to(model.device)
        seeds = [stream(seed, r.index, "noise") for r in chosen]
        if frames is not None and isinstance(denoiser, PointTransformer):
            tied = [frames[i] for i in places]
            means = sample_means(model, denoiser, conditions, tied, seeds, sampler)
            drawn = denoiser.spread(*means, conditions)
        else:
            strength = math.sqrt(sampler.temperature) if start is None else 1.0
            noise = _Noise(model, seeds, strength, None if start is None else start[places])
            drawn = _sample_batch(model, conditions, noise, sampler)
        values = denoiser.decode(drawn).cpu().double().numpy()
        for place, request, value in zip(places, chosen, values, strict=True):
            clouds[place] = cloud_of(value, canonical_elements(request.elements))
    return [clouds[i] for i in range(len(requests))]


def _batches(
    model: Model, cells: Sequence[Cell], frames: Sequence[Framed] | None
) -> Iterator[list[int]]:
    """Yield the places of cells that go through the network together: alike in size, all with a
    frame or none, and all beginning with as much noise.
    """
    size = CPU_BATCH if model.device.type == "cpu" else GPU_BATCH
    framed = frames or [Framed(None, None)] * len(cells)
    kinds = [(one.frame is None, one.begin) for one in framed]
    for kind in sorted(set(kinds)):
        places = [i for i in range(len(cells)) if kinds[i] == kind]
        places.sort(key=lambda i: len(cells[i].numbers))
        for first in range(0, len(places), size):
            yield places[first : first + size]


def _crystal(
    cell: Cell, frac: NDArray[np.float64], lengths: NDArray[np.float64], angles: NDArray[np.float64]
) -> tuple[Structure | None, DecodeError | None]:
    """Return the crystal of sites and lattice, or why they are none."""
    try:
        lattice = lattice_of(lengths, angles)
        return structure_of(lattice, cell.numbers, frac[: len(cell.numbers)]), None
    except DecodeError as error:
        return None, error


def _decoded(cloud: PointCloud, cell: Cell) -> Sampled:
    try:
        return Sampled(decode(cloud), None, cell)
    except DecodeError as error:
        return Sampled(None, error, cell)


def cloud_of(values: NDArray[np.float64], elements: tuple[str, ...]) -> PointCloud:
    """Return the cloud of a crystal of these elements from values (3, 128, C) of a model."""
    return PointCloud(values[..., : max(N_COLUMNS, len(elements))], elements)


def check_requests(model: Model, requests: Sequence[SampleRequest]) -> None:
    """Raise InputError if a model cannot do what is asked."""
    for request in {(r.elements, r.conditions): r for r in requests}.values():
        _check(model, request)


def _check(model: Model, request: SampleRequest) -> None:
    info = model.info
    if not 1 <= len(request.elements) <= info.max_elements:
        raise InputError(
            f"Model {info.name} takes 1 to {info.max_elements} elements, "
            f"not {len(request.elements)} ({', '.join(request.elements)})."
        )
    unseen = [e for e in request.elements if e not in info.elements]
    if unseen:
        raise InputError(f"Model {info.name} has never seen {', '.join(unseen)}.")
    asked = {name for name, value in request.conditions.model_dump().items() if value is not None}
    untrained = sorted(asked - set(info.conditions))
    if untrained:
        raise InputError(
            f"Model {info.name} was not trained on {', '.join(untrained)}; "
            f"it knows {', '.join(info.conditions)}."
        )
    n_sites = request.conditions.n_sites
    if n_sites is not None and n_sites > info.max_sites:
        raise InputError(f"Model {info.name} makes cells of up to {info.max_sites} atoms.")


class _Noise:
    """Normal clouds (B, 3, 128, C), one random stream per sample.

    Their standard deviation is `strength`: the square root of the temperature, for p^(1/T) of a
    normal distribution is one with T times its variance.
    """

    def __init__(
        self, model: Model, seeds: Sequence[int], strength: float, start: Tensor | None
    ) -> None:
        self.model, self.strength = model, strength
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.start = None if start is None else start.to(model.device)

    def first(self) -> Tensor:
        """Return x_T: noise, plus what is left of the clouds to begin with."""
        signal, sigma = signal_and_noise(self.model.log_snr[-1])
        noise = sigma * self()
        return noise if self.start is None else noise + signal * self.start

    def __call__(self) -> Tensor:
        """Return fresh noise."""
        shape = (3, N_POINTS, self.model.denoiser.columns)
        drawn = [torch.randn(shape, generator=g) for g in self.generators]
        return self.strength * torch.stack(drawn).to(self.model.device)


@torch.no_grad()
def _sample_batch(
    model: Model, conditions: ConditionBatch, noise: _Noise, sampler: Sampler
) -> Tensor:
    """Return clean clouds (B, 3, 128, C) in the denoiser's units."""

    def predict(noisy: Tensor, log_snr: Tensor) -> Tensor:
        clean = guided_prediction(model, noisy, log_snr, conditions, sampler.guidance)
        if sampler.separation > 0:
            return model.denoiser.separate(clean, conditions, sampler.separation)
        return clean

    steps = min(sampler.steps, model.info.schedule.steps)
    times = torch.linspace(model.info.schedule.steps, 0, steps + 1).round().long()
    return solve(sampler.name, predict, noise.first(), noise, model.log_snr[times])


def guided_prediction(
    model: Model, noisy: Tensor, log_snr: Tensor, conditions: ConditionBatch, guidance: float
) -> Tensor:
    """Return the clean clouds that the model predicts, conditions weighted by `guidance`.

    1 evaluates the network once; other weights also without conditions (classifier-free guidance).
    """
    levels = log_snr.to(noisy.device).expand(len(noisy))
    conditional: Tensor = model.denoiser(noisy, levels, conditions)
    if guidance == 1:
        return conditional
    plain: Tensor = model.denoiser(noisy, levels, conditions.unconditional())
    return plain + guidance * (conditional - plain)
