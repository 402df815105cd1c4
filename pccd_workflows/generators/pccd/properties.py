"""Band gap and energy above the hull, estimated from elements and space group alone.

Small networks, asked before a crystal is drawn: of several cells the one whose estimate is nearest
to what is asked is taken. Two are fitted, each to the chemical systems that the other did not see,
so that one can judge what the other has chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.cell_network import fit
from pccd_workflows.generators.pccd.chemistry import MAX_Z, element_features
from pccd_workflows.generators.pccd.config import SmallNetwork
from pccd_workflows.generators.request import Conditions

Property = Literal["band_gap", "energy_above_hull"]
PROPERTIES: tuple[Property, ...] = ("band_gap", "energy_above_hull")
SCALES = {"band_gap": 1.0, "energy_above_hull": 0.1}
"""eV and eV/atom: what is fitted is log(1 + value / scale), so that small values count."""
LARGEST = {"band_gap": 12.0, "energy_above_hull": 2.0}
"""Greater values are cut, e.g. energies of unphysical crystals."""


class PropertyNetwork(nn.Module):
    """Estimates of log(1 + property / scale), (B, 2), given elements, counts and space group.

    Parameters
    ----------
    width
        Of the hidden layers.
    dropout
        For training.
    """

    features: Tensor

    def __init__(self, *, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("features", torch.from_numpy(element_features()), persistent=False)
        self.element_table = nn.Embedding(MAX_Z + 1, 24)
        self.element_in = nn.Linear(self.features.shape[1], 24)
        self.group_table = nn.Embedding(231, 24)
        nn.init.normal_(self.element_table.weight, std=0.05)
        nn.init.normal_(self.group_table.weight, std=0.05)
        self.hidden = nn.Sequential(
            nn.Linear(4 * 24 + 24 + 2, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, len(PROPERTIES)),
        )

    def forward(self, elements: Tensor, counts: Tensor, group: Tensor) -> Tensor:
        """Return the estimates.

        Parameters
        ----------
        elements, counts
            Shape (B, E), int64. Atomic numbers and numbers of atoms; 0 where there is none.
        group
            Shape (B,), int64. Space group, 0 = unknown.
        """
        vectors = self.element_table(elements) + self.element_in(self.features[elements])
        there = (counts > 0)[..., None]
        share = (counts / counts.sum(1, keepdim=True))[..., None]
        mean = (share * vectors).sum(1)
        spread = (share * (vectors - mean[:, None]) ** 2).sum(1).add(1e-6).sqrt()
        highest = vectors.masked_fill(~there, -1e4).amax(1)
        lowest = vectors.masked_fill(~there, 1e4).amin(1)
        total = counts.sum(1, keepdim=True) / 10
        kinds = there[..., 0].sum(1, keepdim=True) / 5
        told = [mean, spread, highest, lowest, self.group_table(group), total, kinds]
        estimates: Tensor = self.hidden(torch.cat(told, 1))
        return estimates


@dataclass(frozen=True)
class Properties:
    """Two networks fitted to different chemical systems: one chooses, the other judges."""

    choosing: PropertyNetwork
    judging: PropertyNetwork

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], width: int) -> "Properties":
        """Return what `state` was called of; RuntimeError if it does not fit."""
        networks = []
        for part in ("choosing", "judging"):
            network = PropertyNetwork(width=width)
            prefix = f"{part}."
            weights = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            network.load_state_dict(weights)
            networks.append(network.eval())
        return cls(*networks)

    def state(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        parts = {"choosing": self.choosing, "judging": self.judging}
        return {
            f"{part}.{n}": t for part, net in parts.items() for n, t in net.state_dict().items()
        }


@torch.no_grad()
def estimate(
    network: PropertyNetwork, cells: Sequence[tuple[Sequence[int], int | None]]
) -> dict[Property, NDArray[np.float64]]:
    """Return band gaps, eV, and energies above the hull, eV/atom, (n,) each.

    Parameters
    ----------
    network
    cells
        Atomic number of each site, and space group; None where it is not known.
    """
    kinds = [np.unique(np.array(numbers), return_counts=True) for numbers, _ in cells]
    most = max(len(elements) for elements, _ in kinds)
    elements, counts = (np.zeros((len(cells), most), dtype=np.int64) for _ in range(2))
    for row, (z, n) in enumerate(kinds):
        elements[row, : len(z)], counts[row, : len(z)] = z, n
    group = torch.tensor([number or 0 for _, number in cells])
    found = network(torch.from_numpy(elements), torch.from_numpy(counts), group).double().numpy()
    return {
        name: np.maximum(np.expm1(found[:, column]), 0) * SCALES[name]
        for column, name in enumerate(PROPERTIES)
    }


def nearest_to_asked(
    properties: Properties, cells: Sequence[tuple[Sequence[int], int | None]], asked: Conditions
) -> int:
    """Return which of some cells is estimated to be the nearest to what is asked.

    Parameters
    ----------
    cells
        As of `estimate`.
    """
    found = estimate(properties.choosing, cells)
    off = np.zeros(len(cells))
    for name, values in found.items():
        if (wanted := getattr(asked, name)) is not None:
            off += np.abs(np.log1p(values / SCALES[name]) - np.log1p(wanted / SCALES[name]))
    return int(off.argmin())


def train_properties(analogues: Analogues, *, width: int, epochs: int, seed: int) -> Properties:
    """Return networks fitted to the training crystals whose properties are known."""
    half = halves(analogues)
    networks = [
        _train(analogues, half == part, SmallNetwork(width=width, epochs=epochs), seed + part)
        for part in (0, 1)
    ]
    return Properties(*networks)


def halves(analogues: Analogues) -> NDArray[np.int64]:
    """Return which half (n,), 0 or 1, the chemical system of each crystal belongs to."""
    _, system = np.unique(np.sort(analogues.elements, axis=1), axis=0, return_inverse=True)
    system = system.reshape(-1)
    return np.random.default_rng(0).integers(0, 2, int(system.max()) + 1)[system]


def _train(
    analogues: Analogues, chosen: NDArray[np.bool_], size: SmallNetwork, seed: int
) -> PropertyNetwork:
    known = [getattr(analogues, name).astype(np.float32) for name in PROPERTIES]
    has = np.stack([np.isfinite(column) for column in known], 1)
    rows = np.flatnonzero(chosen & has.any(1))
    limits = [(SCALES[name], LARGEST[name]) for name in PROPERTIES]
    truth = np.stack(
        [
            np.log1p(np.clip(column[rows], 0, largest) / scale)
            for column, (scale, largest) in zip(known, limits, strict=True)
        ],
        1,
    )
    elements, counts = (torch.from_numpy(c[rows].astype(np.int64)) for c in analogues.by_count)
    group = torch.from_numpy(analogues.space_group[rows].astype(np.int64))
    target, there = torch.from_numpy(np.nan_to_num(truth)), torch.from_numpy(has[rows])
    torch.manual_seed(seed)
    network = PropertyNetwork(width=size.width, dropout=0.1)

    def loss_of(batch: Tensor, generator: torch.Generator) -> Tensor:
        hidden = torch.rand(len(batch), generator=generator) < 0.1
        shown = group[batch].masked_fill(hidden, 0)
        off = network(elements[batch], counts[batch], shown) - target[batch]
        loss: Tensor = (off.abs() * there[batch]).sum() / there[batch].sum()
        return loss

    fit(network, len(rows), loss_of, epochs=size.epochs, seed=seed)
    return network
