"""Sampling one position per site: what is drawn lives on the coordinates that symmetry leaves free.

All copies of a site in a cloud carry nothing but their mean. The state of B crystals of at most N
sites is therefore a tensor (B, N + 2, 3): the means of the sites, of the angles and of the lengths,
in the network's units. Noise is as strong as that of the means of copies.
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pccd_workflows.generators.elements import stream
from pccd_workflows.generators.pccd.arrange import arrange
from pccd_workflows.generators.pccd.cells import Cell, SampleRequest, choice
from pccd_workflows.generators.pccd.composition import electropositive_first
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.denoiser import (
    PointTransformer,
    cell_of,
    frac_of,
    lattice_rows,
    sites_of,
)
from pccd_workflows.generators.pccd.frames import (
    Frame,
    FrameBatch,
    Template,
    batch_frames,
    frame_of,
)
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.new_types import NewType, decorated, draw_template
from pccd_workflows.generators.pccd.pointcloud.elements import atomic_number
from pccd_workflows.generators.pccd.refine import MEMBERS, refine
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.schedule import signal_and_noise
from pccd_workflows.generators.pccd.solvers import solve

DECORATED, DECORATED_STEPS = 6, 60
"""Known crystals with elements put anew whose atoms are arranged for a new type, and how long."""
AT_RANDOM, AT_RANDOM_STEPS = 24, 120
"""The same where there is none, of crystals with free coordinates at random."""
STEP = 1e-3
"""Of the numerical derivative of the lattice's projection, in the network's units."""


class Framed(NamedTuple):
    """What a crystal is drawn in.

    Attributes
    ----------
    frame
        None if nothing is tied.
    row
        Known crystal that the frame comes from, among the model's analogues; None if none.
    begin
        Noise that it begins with, as a share of T; see `Sampler.start`.
    """

    frame: Frame | None
    row: int | None
    begin: float = 1.0


def find_frames(
    model: Model,
    requests: Sequence[SampleRequest],
    cells: Sequence[Cell],
    seed: int,
    sampler: Sampler,
    *,
    refined: bool = True,
) -> list[Framed]:
    """Return the frame that each crystal is drawn in: that of an analogue of its structure type.

    A new type has none: there atoms are arranged as known crystals have them (see `arrange`).

    Parameters
    ----------
    refined
        Whether its atoms are moved to where the other crystals of the type say; see `refine`.
    """
    framed = lru_cache(len(cells))(partial(_frame, model))
    placed = lru_cache(len(cells))(partial(_decorated, model))
    frames = []
    for request, cell in zip(requests, cells, strict=True):
        if cell.new_type is not None:
            drawn = stream(seed, request.index, "free coordinates")
            aim = cell.new_type
            found = placed(aim) or _at_random(model, aim, drawn)
            frames.append(found or Framed(None, None))
            continue
        rows = _analogues(model, request, cell, seed, sampler)
        frame = framed(rows if refined else rows[:1], cell.numbers) if rows else None
        known = frame is not None
        frames.append(Framed(frame, rows[0][0] if known else None, sampler.start if known else 1.0))
    return frames


def _decorated(model: Model, aim: NewType) -> Framed | None:
    """Return the frame of the best known crystal with elements put anew on its sites, if any."""
    if model.new_types is None or model.analogues is None or model.templates is None:
        return None
    found = decorated(model.new_types, aim, model.analogues, model.templates)[:DECORATED]
    return _arranged(
        model, aim, [one.template for one in found], [one.row for one in found], DECORATED_STEPS
    )


def _at_random(model: Model, aim: NewType, seed: int) -> Framed | None:
    """Return the frame of the best of some crystals with free coordinates at random, if any."""
    if model.new_types is None:
        return None
    distances = model.new_types.distances
    drawn = [draw_template(aim, distances, seed + start) for start in range(AT_RANDOM)]
    return _arranged(model, aim, drawn, [None] * AT_RANDOM, AT_RANDOM_STEPS)


def _arranged(
    model: Model,
    aim: NewType,
    templates: Sequence[Template],
    rows: Sequence[int | None],
    steps: int,
) -> Framed | None:
    """Return the best of some starts; None if none has the symmetry aimed at, or becomes one."""
    framed = (
        (frame_of(one, model.info.setting), row) for one, row in zip(templates, rows, strict=True)
    )
    starts = [
        (frame, row)
        for frame, row in framed
        if frame is not None and tuple(frame.numbers.tolist()) == aim.numbers
    ]
    if model.new_types is None or not starts:
        return None
    best = arrange([frame for frame, _ in starts], model.new_types.distances, steps)
    if not math.isfinite(best.misfit):
        return None
    return Framed(best.frame, starts[best.start][1], begin=0.0)


def _analogues(
    model: Model, request: SampleRequest, cell: Cell, seed: int, sampler: Sampler
) -> tuple[tuple[int, float], ...]:
    """Return an analogue of the structure type aimed at, then others like it, nearest first.

    Each is its row among the model's analogues, and its vote.
    """
    known = model.analogues
    if not (sampler.symmetric and cell.structure_type) or known is None or model.templates is None:
        return ()
    elements = electropositive_first([atomic_number(e) for e in request.elements])
    counts = [cell.numbers.count(z) for z in elements]
    asked = request.conditions.model_copy(update={"space_group": cell.space_group})
    rows, votes = known.of_type(cell.structure_type, elements, counts, asked, recall=sampler.recall)
    if not votes.any():
        return ()
    first = choice(votes, sampler.temperature, stream(seed, request.index, "analogue"))
    order = np.argsort(-votes, kind="stable")
    order = np.concatenate([[first], order[(order != first) & (votes[order] > 0)]])[:MEMBERS]
    return tuple(zip(rows[order].tolist(), votes[order].tolist(), strict=True))


def _frame(
    model: Model, analogues: tuple[tuple[int, float], ...], numbers: tuple[int, ...]
) -> Frame | None:
    """Return the frame of analogues with these elements; None if the first has no symmetry."""
    if model.templates is None:
        return None
    counts = {z: numbers.count(z) for z in numbers}
    rows, votes = (np.array(column) for column in zip(*analogues, strict=True))
    template = refine(model.templates, rows, votes, counts)
    frame = frame_of(template, model.info.setting)
    return frame if frame is not None and tuple(frame.numbers.tolist()) == numbers else None


@torch.no_grad()
def sample_means(
    model: Model,
    denoiser: PointTransformer,
    conditions: ConditionBatch,
    framed: Sequence[Framed],
    seeds: Sequence[int],
    sampler: Sampler,
) -> tuple[Tensor, Tensor]:
    """Return clean sites (B, N, 3) and lattices (B, 6) in the network's units.

    Parameters
    ----------
    conditions
    framed
        All of them with a frame or none, and all beginning with as much noise.
    seeds
        One for each crystal: what fixes its noise.
    sampler
    """
    n = conditions.numbers.shape[1]
    ties = batch_frames([one.frame for one in framed], n).to(model.device)
    begin = framed[0].begin
    known = _packed(sites_of(ties.frac_coords), lattice_rows(ties.lengths, ties.angles))
    if begin == 0:
        return known[:, :n], known[:, n:].flatten(1)

    def tied(sites: Tensor, lattice: Tensor) -> tuple[Tensor, Tensor]:
        return sites_of(ties.place(frac_of(sites))), tie_lattice(ties, lattice)

    def predict(noisy: Tensor, log_snr: Tensor) -> Tensor:
        levels = log_snr.to(noisy.device).expand(len(noisy))
        means = noisy[:, :n], noisy[:, n:].flatten(1)
        sites, lattice = tied(*_guided(denoiser, means, levels, conditions, sampler.guidance))
        if sampler.separation > 0:
            sites = denoiser.push_apart(sites, lattice, conditions, sampler.separation)
            sites = sites_of(ties.place(frac_of(sites)))
        return _packed(sites, lattice)

    noise = _MeanNoise(denoiser, conditions, ties, seeds, math.sqrt(sampler.temperature))
    last = max(1, round(begin * model.info.schedule.steps))
    steps = min(max(1, round(begin * sampler.steps)), last)
    levels = model.log_snr[torch.linspace(last, 0, steps + 1).round().long()]
    signal, sigma = signal_and_noise(levels[0])
    first = sigma * noise() if begin == 1 else sigma * noise() + signal * known
    clean = solve(sampler.name, predict, first, noise, levels)
    return clean[:, :n], clean[:, n:].flatten(1)


def _guided(
    denoiser: PointTransformer,
    means: tuple[Tensor, Tensor],
    levels: Tensor,
    conditions: ConditionBatch,
    guidance: float,
) -> tuple[Tensor, Tensor]:
    """Return predicted means, conditions weighted by `guidance` (see `guided_prediction`)."""
    sites, lattice = denoiser.predict_means(*means, levels, conditions)
    if guidance == 1:
        return sites, lattice
    plain, bare = denoiser.predict_means(*means, levels, conditions.unconditional())
    return plain + guidance * (sites - plain), bare + guidance * (lattice - bare)


def _packed(sites: Tensor, lattice: Tensor) -> Tensor:
    return torch.cat([sites, lattice.reshape(-1, 2, 3)], 1)


def tie_lattice(ties: FrameBatch, lattice: Tensor) -> Tensor:
    """Return lattices (B, 6), in the network's units, that obey the frames' crystal systems."""
    return lattice_rows(*ties.shape_cell(*cell_of(lattice)))


class _MeanNoise:
    """Noise of the state (B, N + 2, 3), one random stream per sample, tied by symmetry."""

    def __init__(
        self,
        denoiser: PointTransformer,
        conditions: ConditionBatch,
        ties: FrameBatch,
        seeds: Sequence[int],
        strength: float,
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.sizes = (conditions.numbers > 0).sum(1).tolist()
        self.longest = conditions.numbers.shape[1]
        self.ties, self.strength = ties, strength
        zero = torch.zeros(len(seeds), device=conditions.numbers.device)
        variances = denoiser.noise_of_means(zero, conditions)
        self.widths = [variance.sqrt() for variance in variances]
        self.lattice_ties = _lattice_ties(ties)

    def __call__(self) -> Tensor:
        """Return fresh noise."""
        drawn = torch.zeros(len(self.sizes), self.longest + 2, 3)
        for row, (size, generator) in enumerate(zip(self.sizes, self.generators, strict=True)):
            fresh = torch.randn((size + 2, 3), generator=generator)
            drawn[row, :size], drawn[row, -2:] = fresh[:-2], fresh[-2:]
        drawn = self.strength * drawn.to(self.widths[0].device)
        sites = self.ties.tie(drawn[:, :-2] * self.widths[0])
        lattice = drawn[:, -2:].flatten(1) * self.widths[1]
        return _packed(sites, (self.lattice_ties @ lattice[..., None])[..., 0])


def _lattice_ties(ties: FrameBatch) -> Tensor:
    """Return what takes noise of lattices to noise along their free parameters, (B, 6, 6)."""
    at = lattice_rows(ties.lengths.double(), ties.angles.double())
    double = ties.double()
    here = tie_lattice(double, at)
    moved = [tie_lattice(double, at + STEP * step) - here for step in torch.eye(6).to(at)]
    ties_ = torch.stack(moved, 2) / STEP
    freedom = ties_.diagonal(dim1=1, dim2=2).sum(1)
    power = (ties_**2).sum((1, 2)).clamp(min=1e-9)
    return (ties_ * (freedom / power).clamp(min=0).sqrt()[:, None, None]).float()
