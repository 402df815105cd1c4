"""What a crystal may still choose once its symmetry is decided, in the cell that a network reads.

A frame is a known crystal of the structure type aimed at, with the elements asked for, written as
the network has learned to read cells. It says which sites belong together and how: coordinates
are projected on those that have the symmetry exactly, lattices on those of its crystal system.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd.canonical import canonical_cell
from pccd_workflows.generators.pccd.config import Setting
from pccd_workflows.generators.pccd.space_groups import space_group
from pccd_workflows.generators.pccd.ties import Ties, cell_parameters, find_ties

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Template:
    """A known crystal in the primitive setting of its space group, with other elements.

    Attributes
    ----------
    space_group
    numbers
        Shape (n,). Atomic numbers.
    frac_coords
        Shape (n, 3).
    lattice
        Shape (3, 3). Lattice vectors in rows, Å.
    """

    space_group: int
    numbers: NDArray[np.int64]
    frac_coords: Floats
    lattice: Floats


@dataclass(frozen=True)
class Frame:
    """The cell of a template and what its symmetry leaves free.

    Attributes
    ----------
    numbers
        Shape (n,). In the order of the network's sites.
    frac_coords
        Shape (n, 3).
    lengths, angles
        Shape (3,). Å, degrees.
    matrix, offset
        Shape (3n, 3n), and (3n,). A and b: A x + b has the symmetry, with the origin where the
        network expects it.
    loudness
        Shape (n,). What makes noise that went through A as strong as it was, along the free
        directions.
    metric
        Shape (9, 9). Takes a metric tensor to the nearest of the crystal system.
    """

    numbers: NDArray[np.int64]
    frac_coords: Floats
    lengths: Floats
    angles: Floats
    matrix: Floats
    offset: Floats
    loudness: Floats
    metric: Floats


def frame_of(template: Template, setting: Setting) -> Frame | None:
    """Return the frame of a template; None if its sites do not have its symmetry.

    Parameters
    ----------
    template
    setting
        "reduced" or "standard". Of the crystals that the network was trained on.
    """
    group = space_group(template.space_group)
    n = len(template.numbers)
    if setting == "standard":
        turned, shift, order, anchor = np.eye(3), np.zeros(3), np.arange(n), 0
    else:
        turned, shift, order, anchor = _reduction(template)
    axes = np.linalg.inv(turned).T @ template.lattice
    numbers = template.numbers[order]
    frac = template.frac_coords[order] @ turned.T + shift
    margin = 1 / 96
    frac = frac - np.floor(frac + margin)
    rotations = np.rint(turned @ group.rotations @ np.linalg.inv(turned)).astype(np.int64)
    translations = group.translations @ turned.T + shift - rotations @ shift
    ties = find_ties(rotations, translations, axes, numbers, frac)
    if ties is None:
        return None
    free = np.eye(3) if setting == "reduced" else group.free_shift
    matrix, offset = _with_origin(ties, free, anchor, fitted=setting == "reduced")
    lengths, angles = cell_parameters(axes @ axes.T)
    m = len(rotations)
    metric = np.einsum("gki,glj->ijkl", rotations, rotations).reshape(9, 9) / m
    return Frame(
        numbers,
        (matrix @ frac.ravel() + offset).reshape(n, 3),
        lengths,
        angles,
        matrix,
        offset,
        _loudness(matrix, ties),
        metric,
    )


def _reduction(template: Template) -> tuple[Floats, Floats, NDArray[np.int64], int]:
    """Return how the network's cell comes from the standard one: x -> T x + p, order, origin."""
    import spglib

    niggli = np.asarray(spglib.niggli_reduce(template.lattice, eps=1e-4))
    steps = np.rint(niggli @ np.linalg.inv(template.lattice))
    frac = template.frac_coords @ np.linalg.inv(steps)
    cell = canonical_cell(steps @ template.lattice, template.numbers, frac)
    turned = np.linalg.inv(cell.axes @ steps).T
    shift = -turned @ template.frac_coords[cell.order[cell.anchor]]
    return turned, shift, cell.order, cell.anchor


def _with_origin(ties: Ties, free: Floats, anchor: int, *, fitted: bool) -> tuple[Floats, Floats]:
    """Return the projection with the origin on a site, along `free` directions.

    Parameters
    ----------
    fitted
        Whether coordinates may come with any origin: it is the one that needs the least change.
    """
    matrix, offset = ties.projection()
    n = ties.images.shape[1]
    ones = np.tile(np.eye(3), (n, 1))
    if fitted:
        misfit = matrix - np.eye(3 * n)
        shift = -np.linalg.pinv(misfit @ ones, rcond=1e-6)
        offset = matrix @ (ones @ (shift @ offset)) + offset
        matrix = matrix + matrix @ ones @ (shift @ misfit)
    rows = slice(3 * anchor, 3 * anchor + 3)
    return matrix - ones @ (free @ matrix[rows]), offset - ones @ (free @ offset[rows])


def _loudness(matrix: Floats, ties: Ties) -> Floats:
    """Return the factor (n,) that restores the strength of noise, 1 for sites that cannot move."""
    n = ties.images.shape[1]
    freedom = np.trace(ties.site_projectors(), axis1=1, axis2=2)
    power = (matrix.reshape(n, 3, -1) ** 2).sum((1, 2))
    moves = power > 1e-9
    return np.where(moves, np.sqrt(freedom / np.where(moves, power, 1)), 1)


@dataclass(frozen=True)
class FrameBatch:
    """Frames of B crystals of at most N sites as tensors; those without one are left as they are.

    Attributes
    ----------
    matrix
        Shape (B, 3N, 3N).
    offset
        Shape (B, 3N).
    loudness
        Shape (B, N, 1).
    metric
        Shape (B, 9, 9).
    frac_coords
        Shape (B, N, 3).
    lengths, angles
        Shape (B, 3).
    known
        Shape (B,), bool. Which crystals have a frame.
    """

    matrix: Tensor
    offset: Tensor
    loudness: Tensor
    metric: Tensor
    frac_coords: Tensor
    lengths: Tensor
    angles: Tensor
    known: Tensor

    def to(self, device: torch.device) -> "FrameBatch":
        """Return the batch on another device."""
        return FrameBatch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def double(self) -> "FrameBatch":
        """Return the batch in double precision."""
        columns = (getattr(self, f.name) for f in fields(self))
        return FrameBatch(*(c.double() if c.is_floating_point() else c for c in columns))

    def place(self, frac: Tensor) -> Tensor:
        """Return fractional coordinates (B, N, 3) with the symmetry."""
        flat = self.matrix @ frac.flatten(1)[..., None] + self.offset[..., None]
        return flat.reshape(frac.shape)

    def tie(self, noise: Tensor) -> Tensor:
        """Return noise (B, N, 3) along the free coordinates, about as strong as it was."""
        flat = self.matrix @ noise.flatten(1)[..., None]
        return flat.reshape(noise.shape) * self.loudness

    def shape_cell(self, lengths: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Return lengths and angles (B, 3), Å and degrees, of the crystal system."""
        metric = metric_of(lengths, angles)
        tied = (self.metric @ metric.flatten(1)[..., None]).reshape(metric.shape)
        new_lengths, new_angles = parameters_of(tied)
        known = self.known[:, None]
        return torch.where(known, new_lengths, lengths), torch.where(known, new_angles, angles)


def batch_frames(frames: Sequence[Frame | None], n_sites: int) -> FrameBatch:
    """Return frames as tensors, padded to `n_sites`."""
    size = len(frames)
    matrix = np.tile(np.eye(3 * n_sites, dtype=np.float32), (size, 1, 1))
    offset = np.zeros((size, 3 * n_sites), dtype=np.float32)
    loudness = np.ones((size, n_sites, 1), dtype=np.float32)
    metric = np.tile(np.eye(9, dtype=np.float32), (size, 1, 1))
    frac = np.zeros((size, n_sites, 3), dtype=np.float32)
    lengths = np.full((size, 3), 5.0, dtype=np.float32)
    angles = np.full((size, 3), 90.0, dtype=np.float32)
    for row, frame in enumerate(frames):
        if frame is None:
            continue
        n = len(frame.numbers)
        matrix[row, : 3 * n, : 3 * n] = frame.matrix
        offset[row, : 3 * n] = frame.offset
        loudness[row, :n, 0] = frame.loudness
        metric[row] = frame.metric
        frac[row, :n] = frame.frac_coords
        lengths[row], angles[row] = frame.lengths, frame.angles
    known = np.array([frame is not None for frame in frames])
    columns = (matrix, offset, loudness, metric, frac, lengths, angles, known)
    return FrameBatch(*(torch.from_numpy(column) for column in columns))


def metric_of(lengths: Tensor, angles: Tensor) -> Tensor:
    """Return metric tensors (B, 3, 3) of lengths and angles (B, 3), Å and degrees."""
    cosines = torch.deg2rad(angles).cos()
    ones = torch.ones_like(cosines[:, 0])
    alpha, beta, gamma = cosines.unbind(1)
    rows = [
        torch.stack([ones, gamma, beta], 1),
        torch.stack([gamma, ones, alpha], 1),
        torch.stack([beta, alpha, ones], 1),
    ]
    return torch.stack(rows, 1) * lengths[:, :, None] * lengths[:, None, :]


def parameters_of(metric: Tensor) -> tuple[Tensor, Tensor]:
    """Return lengths and angles (B, 3), Å and degrees, of metric tensors (B, 3, 3)."""
    lengths = metric.diagonal(dim1=1, dim2=2).clamp(min=1e-6).sqrt()
    cosines = metric / (lengths[:, :, None] * lengths[:, None, :])
    chosen = torch.stack([cosines[:, 1, 2], cosines[:, 0, 2], cosines[:, 0, 1]], 1)
    return lengths, torch.rad2deg(chosen.clamp(-0.999, 0.999).acos())
