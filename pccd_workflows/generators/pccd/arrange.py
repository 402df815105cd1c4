"""Coordinates for a structure type that nobody has seen: atoms as far apart as in known crystals.

From several starts with the symmetry of the type, free coordinates and cell are moved downhill
until the distances of neighbours are those that pairs of elements have in known crystals, no two
atoms touch, and the volume is the one expected. No energy is asked for; the best end is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd import pair_distances
from pccd_workflows.generators.pccd.chemistry import covalent_radii
from pccd_workflows.generators.pccd.frames import Frame, FrameBatch, batch_frames, metric_of
from pccd_workflows.generators.pccd.pair_distances import TOO_SHORT, PairDistances
from pccd_workflows.generators.pccd.ties import cell_parameters

STEP = 0.03
"""Largest change of a fractional coordinate in the first step; half of it of a strain."""
LAST_STEP = 1e-3
VOLUME_WIDTH = 0.15
"""Standard deviation of the logarithm of a volume about the one expected."""
TOUCHING = 0.8
"""Of the sum of two covalent radii: atoms closer than that push each other away ..."""
PUSH = 5.0
"""... by so much for each Å², beside the misfit of the distances."""
NEIGHBOURS = torch.from_numpy(pair_distances.NEIGHBOURS.astype(np.float32))
REFRESH = 10
"""Steps between two looks at which images of the atoms are the nearest."""


@dataclass(frozen=True)
class Arranged:
    """The best end of several starts.

    Attributes
    ----------
    frame
        The start's, with coordinates and cell of the end.
    start
        Its number.
    misfit
        How unlike known crystals it is; 0 is like them.
    """

    frame: Frame
    start: int
    misfit: float


def arrange(frames: Sequence[Frame], distances: PairDistances, steps: int) -> Arranged:
    """Return the best of crystals whose atoms have been moved to where known crystals have them.

    Parameters
    ----------
    frames
        Starts, at least one, with the same atoms in the same order.
    distances
        Of known crystals.
    steps
        Of the descent (Adam; the step shrinks to LAST_STEP).

    Returns
    -------
    Its misfit is infinite where no start came to a crystal.
    """
    target = _Target.of(frames[0].numbers, distances)
    cells = _Cells(frames)
    optimizer = torch.optim.Adam([{"params": [cells.frac]}, {"params": [cells.strain]}])
    images = torch.empty(0)
    for step in range(steps):
        if step % REFRESH == 0:
            images = _nearest_images(*cells.build())
        rate = STEP * (1 - step / steps) + LAST_STEP
        for group, share in zip(optimizer.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = share * rate
        moved = (cells.frac, cells.strain)
        with torch.enable_grad():
            total = target.misfit(*cells.build(), images).sum()
        slopes = torch.autograd.grad(total, moved)
        for parameter, slope in zip(moved, slopes, strict=True):
            parameter.grad = slope.nan_to_num(0, 0, 0)
        optimizer.step()
    with torch.no_grad():
        built = cells.build()
        misfit = target.misfit(*built, _nearest_images(*built)).nan_to_num(torch.inf)
    best = int(misfit.argmin())
    return Arranged(cells.frame(best), best, float(misfit[best]))


class _Cells:
    """Crystals with the symmetry of their frames, as functions of what is moved.

    Attributes
    ----------
    frac
        Shape (B, n, 3). Any coordinates: they are projected.
    strain
        Shape (B, 3, 3). Of the starts' cells.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.ties: FrameBatch = batch_frames(frames, len(frames[0].numbers))
        self.metric = metric_of(self.ties.lengths, self.ties.angles)
        self.frac = self.ties.frac_coords.clone().requires_grad_()
        self.strain = torch.zeros_like(self.metric).requires_grad_()

    def build(self) -> tuple[Tensor, Tensor]:
        """Return coordinates (B, n, 3) and lattices (B, 3, 3), vectors in rows, Å."""
        turned = torch.eye(3) + self.strain
        metric = turned.transpose(1, 2) @ self.metric @ turned
        tied = (self.ties.metric @ metric.flatten(1)[..., None]).reshape(metric.shape)
        # of a cell without volume come NaNs, and no error
        return self.ties.place(self.frac), torch.linalg.cholesky_ex(tied).L

    def frame(self, row: int) -> Frame:
        """Return a frame with the coordinates and cell that its start has come to."""
        frame = self.frames[row]
        moved = self.frac[row].detach().double().numpy()
        turned = np.eye(3) + self.strain[row].detach().double().numpy()
        metric = turned.T @ self.metric[row].double().numpy() @ turned
        lengths, angles = cell_parameters((frame.metric @ metric.ravel()).reshape(3, 3))
        frac = (frame.matrix @ moved.ravel() + frame.offset).reshape(moved.shape)
        return replace(frame, frac_coords=frac, lengths=lengths, angles=angles)


@dataclass(frozen=True)
class _Target:
    """What the distances of n atoms of E elements shall be.

    Attributes
    ----------
    is_element
        Shape (E, n), bool.
    mean, width
        Shape (n, E). Of the logarithm of the distance to the nearest atom of each element.
    closest
        Shape (n, n). Distance below which two atoms touch, Å.
    volume
        Å³.
    """

    is_element: Tensor
    mean: Tensor
    width: Tensor
    closest: Tensor
    volume: float

    @classmethod
    def of(cls, numbers: NDArray[np.int64], distances: PairDistances) -> "_Target":
        elements = np.unique(numbers)
        pairs = np.ix_(numbers, elements)
        radii = torch.from_numpy(covalent_radii()[numbers].astype(np.float32))
        return cls(
            torch.from_numpy(elements[:, None] == numbers),
            torch.from_numpy(distances.mean[pairs].astype(np.float32)),
            torch.from_numpy(distances.width[pairs].astype(np.float32)),
            TOUCHING * (radii[:, None] + radii),
            distances.volume_of(numbers),
        )

    def misfit(self, frac: Tensor, lattice: Tensor, images: Tensor) -> Tensor:
        """Return how unlike known crystals some (B,) are; `images` as from `_nearest_images`."""
        apart = (frac[:, :, None] - frac[:, None] + images) @ lattice[:, None]
        nearest = apart.square().sum(-1).clamp(min=1e-4).sqrt()
        shortest = torch.stack([nearest[:, :, same].min(2).values for same in self.is_element], 2)
        off = (shortest.log() - self.mean) / self.width
        distances = torch.where(off < 0, TOO_SHORT * off, off).square().mean((1, 2))
        overlap = (self.closest - nearest).clamp(min=0).square().sum((1, 2))
        off_volume = (torch.linalg.det(lattice) / self.volume).log() / VOLUME_WIDTH
        misfit: Tensor = distances + PUSH * overlap + off_volume.square()
        return misfit


@torch.no_grad()
def _nearest_images(frac: Tensor, lattice: Tensor) -> Tensor:
    """Return the lattice vector (B, n, n, 3) to the nearest image of each atom, not itself."""
    apart = frac[:, :, None] - frac[:, None]
    home = -apart.round()
    squares = (
        (((apart + home)[:, :, :, None] + NEIGHBOURS) @ lattice[:, None, None]).square().sum(-1)
    )
    itself = torch.eye(frac.shape[1], dtype=torch.bool)[..., None] & (NEIGHBOURS == 0).all(1)
    return home + NEIGHBOURS[squares.masked_fill(itself, torch.inf).argmin(3)]
