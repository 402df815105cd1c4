"""How many atoms of each element a cell holds: a small network, asked before the cloud is drawn."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pccd_workflows.diffusion.chemistry import (
    MAX_Z,
    electronegativity_rank,
    element_features,
)
from pccd_workflows.diffusion.conditions import ConditionBatch
from pccd_workflows.diffusion.config import MAX_ELEMENTS
from pccd_workflows.diffusion.dataset import CRYSTAL_SYSTEMS, ORDERINGS, CrystalArrays
from pccd_workflows.diffusion.denoiser import scalar_features

BATCH = 512
"""Crystals per step of the small networks."""


def hidden_layers(width: int, n_out: int, dropout: float) -> nn.Sequential:
    """Return the layers between the sum of the embeddings (B, width) and the logits (B, n_out)."""
    layers: list[nn.Module] = []
    for size in (width, width, n_out):
        layers += [nn.GELU(), nn.Dropout(dropout), nn.Linear(width, size)]
    return nn.Sequential(*layers)


def fit(
    model: nn.Module,
    n: int,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    *,
    epochs: int,
    seed: int,
) -> float:
    """Fit a network to n crystals with AdamW and a rate that rises and falls once.

    Parameters
    ----------
    loss_of : callable
        Mean loss of some rows; draws what it leaves open from the generator.

    Returns
    -------
    float
        Loss of the last batch.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    total = epochs * -(-n // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total, pct_start=0.1)
    loss = torch.tensor(torch.nan)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(n, generator=generator), BATCH):
            loss = loss_of(rows, generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()
    model.eval()
    return float(loss.detach())


def property_features(conditions: ConditionBatch) -> Tensor:
    """Return what is known of band gap and energy above hull, (B, 6)."""
    gap = scalar_features(conditions.band_gap, 0.05, 2.0)
    return torch.cat([gap, scalar_features(conditions.energy_above_hull, 0.01, 0.1)], -1)


class CompositionModel(nn.Module):
    """Probabilities of the cells (a, b, c, ...) = atoms of each element, given the elements.

    Elements are ordered by electronegativity, so (1, 2, 4) says the same of every spinel.

    Parameters
    ----------
    cells : int tensor (V, E)
        The cells it chooses from; unused places are 0.
    width : int
        Size of the hidden layers.
    dropout : float
        For training.
    """

    cells: Tensor
    element_features: Tensor

    def __init__(self, cells: Tensor, *, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        features = torch.from_numpy(element_features())
        self.register_buffer("cells", cells)
        self.register_buffer("element_features", features, persistent=False)
        size = width // 4
        self.element_table = nn.Embedding(MAX_Z + 1, size)
        nn.init.normal_(self.element_table.weight, std=0.02)
        self.element_linear = nn.Linear(features.shape[1], size)
        self.ordering_table = nn.Embedding(len(ORDERINGS) + 1, width)
        self.system_table = nn.Embedding(len(CRYSTAL_SYSTEMS) + 1, width)
        self.number_in = nn.Linear(6, width)
        self.elements_in = nn.Linear(cells.shape[1] * size, width)
        self.hidden = hidden_layers(width, len(cells), dropout)

    def forward(self, elements: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return log-probabilities (B, V) of the cells.

        Parameters
        ----------
        elements : int64 tensor (B, E)
            Atomic numbers, most electropositive first, 0 where there is none.
        conditions : ConditionBatch
            Its `numbers` are not read.
        """
        shown = elements * conditions.known_elements[:, None]
        slots = self.element_table(shown) + self.element_linear(self.element_features[shown])
        hidden = (
            self.elements_in(slots.flatten(1))
            + self.number_in(property_features(conditions))
            + self.ordering_table(conditions.ordering + 1)
            + self.system_table(conditions.crystal_system + 1)
        )
        logits = self.hidden(hidden)
        fits = (self.cells > 0).sum(-1)[None, :] == (elements > 0).sum(-1)[:, None]
        log_p: Tensor = logits.masked_fill(~fits, -torch.inf).log_softmax(-1)
        return log_p


def cells_of(numbers: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return elements and their counts of cells in canonical order.

    Parameters
    ----------
    numbers : uint8 array (N, M)
        Sites as in CrystalArrays.

    Returns
    -------
    elements, counts : int arrays (N, E)
        Most electropositive element first, padded with 0.
    """
    elements = np.zeros((len(numbers), MAX_ELEMENTS), dtype=np.int64)
    counts = np.zeros_like(elements)
    for row, sites in enumerate(numbers):
        for column, (number, count) in enumerate(Counter(sites[sites > 0].tolist()).items()):
            elements[row, column] = number
            counts[row, column] = count
    return elements, counts


def electropositive_first(numbers: list[int]) -> list[int]:
    """Return atomic numbers in the order that the networks use."""
    return sorted(numbers, key=lambda z: electronegativity_rank()[z])


def train_composition_model(
    arrays: CrystalArrays,
    conditions: ConditionBatch,
    held_out: tuple[CrystalArrays, ConditionBatch] | None,
    *,
    width: int,
    epochs: int,
    seed: int,
) -> tuple[CompositionModel, dict[str, float]]:
    """Fit the composition model; return it with its losses (nats per crystal).

    Parameters
    ----------
    arrays, conditions
        Training crystals and everything that is known of them.
    held_out
        Crystals to measure it on.
    """
    elements, counts = cells_of(arrays.numbers)
    cells, labels = np.unique(counts, axis=0, return_inverse=True)
    torch.manual_seed(seed)
    model = CompositionModel(torch.from_numpy(cells), width=width, dropout=0.2)
    element_tensor, label_tensor = torch.from_numpy(elements), torch.from_numpy(labels.reshape(-1))

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        given = conditions.take(rows).drop(0.5, 0.1, generator)
        log_p = model(element_tensor[rows], given)
        loss: Tensor = -log_p.gather(1, label_tensor[rows, None]).mean()
        return loss

    losses = {"train": fit(model, len(labels), loss_of, epochs=epochs, seed=seed)}
    if held_out is not None:
        losses["held_out"] = composition_loss(model, *held_out)
    return model, losses


@torch.no_grad()
def composition_loss(
    model: CompositionModel, arrays: CrystalArrays, conditions: ConditionBatch
) -> float:
    """Return the mean -log p (nats) of crystals given only their elements.

    Cells that the model does not know count as the least likely known one.
    """
    elements, counts = cells_of(arrays.numbers)
    known = {tuple(cell): place for place, cell in enumerate(model.cells.tolist())}
    log_p = model(torch.from_numpy(elements), conditions.only_elements())
    floor = torch.where(log_p.isinf(), 0.0, log_p).amin(1)
    values = [
        log_p[row, known[tuple(count)]] if tuple(count) in known else floor[row]
        for row, count in enumerate(counts.tolist())
    ]
    return float(-torch.stack(values).mean())
