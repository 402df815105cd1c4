"""The seed paper's network, kept as the baseline of every comparison."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pccd_workflows.generators.pccd.chemistry import MAX_Z
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.dataset import ORDERINGS, CrystalArrays
from pccd_workflows.generators.pccd.denoiser import Denoiser, scalar_features
from pccd_workflows.generators.pccd.pointcloud.encode import (
    ANGLE_SCALE,
    LENGTH_SCALE,
    N_POINTS,
    site_of_point,
)
from pccd_workflows.generators.pccd.process import add_noise, clean_from_noise

N_SLOTS = 3
GROUPS = 8


class PaperUNet(Denoiser):
    """The U-Net of the seed: the cloud is an image of 3 channels, 128 rows and 3 columns.

    Widths 64·(1, 2, 4, 8, 16), two residual blocks and self-attention per level, noise prediction,
    conditioned on elements, band gap and magnetic ordering. The rows are halved from level to
    level; the three columns are kept.

    Parameters
    ----------
    width
        Channels of the first level.
    depth
        Levels; each doubles the channels.
    heads
        Of the attention.
    """

    draws_composition = False
    conditions = ("band_gap", "magnetic_ordering")

    def __init__(self, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        sizes = [width, *(width * 2**level for level in range(depth))]
        context = 4 * width
        self.width = width
        self.time_in = nn.Sequential(
            nn.Linear(width, context), nn.GELU(), nn.Linear(context, context)
        )
        self.element_table = nn.Embedding(MAX_Z + 1, width)
        self.elements_in = nn.Linear(N_SLOTS * width, context)
        self.gap_in = nn.Linear(3, context)
        self.ordering_table = nn.Embedding(len(ORDERINGS) + 1, context)
        self.first = nn.Conv2d(3, width, 7, padding=3)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, (size, following) in enumerate(pairwise(sizes)):
            halving = level < depth - 1
            self.down.append(
                nn.ModuleList(
                    [
                        ResidualBlock(size, size, context),
                        ResidualBlock(size, size, context),
                        Attention(size, heads),
                        nn.Conv2d(size, following, (4, 3), stride=(2, 1), padding=(1, 1))
                        if halving
                        else nn.Conv2d(size, following, 3, padding=1),
                    ]
                )
            )
            self.up.insert(
                0,
                nn.ModuleList(
                    [
                        ResidualBlock(following + size, following, context),
                        ResidualBlock(following + size, following, context),
                        Attention(following, heads),
                        nn.Conv2d(following, size, 3, padding=1),
                    ]
                ),
            )
        middle = sizes[-1]
        self.middle = nn.ModuleList(
            [
                ResidualBlock(middle, middle, context),
                Attention(middle, heads),
                ResidualBlock(middle, middle, context),
            ]
        )
        self.last = ResidualBlock(2 * width, width, context)
        self.out = nn.Conv2d(width, 3, 1)

    def encode(self, crystals: CrystalArrays) -> Tensor:
        """Return clean clouds (B, 3, 128, 3) exactly as the seed writes them, unscaled."""
        clouds = np.zeros((len(crystals), 3, N_POINTS, 3), dtype=np.float32)
        half = N_POINTS // 2
        for row, n in enumerate(crystals.n_sites):
            owner = site_of_point(int(n), spread="seed")
            numbers = crystals.numbers[row, :n]
            slots = np.searchsorted(np.unique(numbers), numbers)
            clouds[row, 0] = (crystals.frac_coords[row, :n] % 1.0)[owner]
            clouds[row, 1, np.arange(N_POINTS), slots[owner]] = 1.0
            clouds[row, 2, :half] = np.radians(crystals.angles[row]) / ANGLE_SCALE
            clouds[row, 2, half:] = crystals.lengths[row] / LENGTH_SCALE
        return torch.from_numpy(clouds)

    def decode(self, cloud: Tensor) -> Tensor:
        """Return the clouds as they are."""
        return cloud

    def forward(self, noisy: Tensor, log_snr: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the predicted clean clouds."""
        return clean_from_noise(noisy, self.predict_noise(noisy, log_snr, conditions), log_snr)

    def separate(self, clean: Tensor, conditions: ConditionBatch, closest: float) -> Tensor:
        """Return the clouds as they are."""
        del conditions, closest
        return clean

    def loss(
        self, clean: Tensor, noise: Tensor, log_snr: Tensor, conditions: ConditionBatch
    ) -> Tensor:
        """Return the mean absolute error of ε (seed Eq. 7)."""
        noisy = add_noise(clean, noise, log_snr)
        return functional.l1_loss(self.predict_noise(noisy, log_snr, conditions), noise)

    def predict_noise(self, noisy: Tensor, log_snr: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the predicted ε (B, 3, 128, 3)."""
        context = self.context(log_snr, conditions)
        x = first = self.first(noisy)
        skips: list[Tensor] = []
        for block1, block2, attention, shrink in (_parts(level) for level in self.down):
            x = block1(x, context)
            skips.append(x)
            x = attention(block2(x, context))
            skips.append(x)
            x = shrink(x)
        block1, attention, block2 = _parts(self.middle)
        x = block2(attention(block1(x, context)), context)
        for block1, block2, attention, narrow in (_parts(level) for level in self.up):
            x = block1(torch.cat([x, skips.pop()], 1), context)
            x = attention(block2(torch.cat([x, skips.pop()], 1), context))
            if skips and skips[-1].shape[2] > x.shape[2]:
                x = functional.interpolate(x, scale_factor=(2, 1), mode="nearest")
            x = narrow(x)
        noise: Tensor = self.out(self.last(torch.cat([x, first], 1), context))
        return noise

    def context(self, log_snr: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the embedding (B, 4·width) of noise level and conditions."""
        frequencies = torch.exp(torch.linspace(0.0, -4.0, self.width // 2, device=log_snr.device))
        angles = 25.0 * log_snr[:, None] * frequencies
        shown = element_slots(conditions.numbers) * conditions.known_elements[:, None]
        context: Tensor = (
            self.time_in(torch.cat([angles.sin(), angles.cos()], -1))
            + self.elements_in(self.element_table(shown).flatten(1))
            + self.gap_in(scalar_features(conditions.band_gap, 0.05, 2.0))
            + self.ordering_table(conditions.ordering + 1)
        )
        return context


class ResidualBlock(nn.Module):
    """Two convolutions with a shift and scale from the context between them."""

    def __init__(self, n_in: int, n_out: int, context: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(context, 2 * n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm1 = nn.GroupNorm(GROUPS, n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return features (B, n_out, rows, 3)."""
        scale, shift = self.modulation(functional.silu(context))[:, :, None, None].chunk(2, 1)
        h = functional.silu(self.norm1(self.conv1(x)) * (1 + scale) + shift)
        h = functional.silu(self.norm2(self.conv2(h)))
        out: Tensor = h + self.skip(x)
        return out


class Attention(nn.Module):
    """Self-attention over all rows and columns."""

    def __init__(self, width: int, heads: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * heads * head_width, 1, bias=False)
        self.mix = nn.Conv2d(heads * head_width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        b, _, rows, columns = x.shape
        parts = self.qkv(self.norm(x)).reshape(b, 3, self.heads, -1, rows * columns)
        q, k, v = parts.transpose(3, 4).unbind(1)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        out: Tensor = x + self.mix(attended.reshape(b, -1, rows, columns))
        return out


def element_slots(numbers: Tensor) -> Tensor:
    """Return the elements of cells by atomic number: (B, N) sites -> (B, 3), 0 where none."""
    slots = torch.zeros(len(numbers), N_SLOTS, dtype=torch.long, device=numbers.device)
    remaining = numbers.clone()
    large = MAX_Z + 1
    for column in range(N_SLOTS):
        lowest = torch.where(remaining > 0, remaining, large).amin(1)
        slots[:, column] = torch.where(lowest == large, 0, lowest)
        remaining = torch.where(remaining == lowest[:, None], 0, remaining)
    return slots


def _parts(modules: nn.Module) -> Any:
    """Return the parts of one level."""
    return tuple(modules.children())
