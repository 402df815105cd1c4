"""How many atoms of each element a cell holds: a small network, asked before the cloud is drawn."""

from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pccd_workflows.generators.pccd.cell_network import CellNetwork, fit
from pccd_workflows.generators.pccd.chemistry import electronegativity_rank
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.config import MAX_ELEMENTS
from pccd_workflows.generators.pccd.dataset import CrystalArrays


class CompositionModel(CellNetwork):
    """Probabilities of the cells (a, b, c, ...) = atoms of each element, given the elements.

    Elements are ordered by electronegativity, so (1, 2, 4) says the same of every spinel.

    Parameters
    ----------
    cells, width, dropout
        As of CellNetwork; it chooses among these cells.
    """

    def __init__(self, cells: Tensor, *, width: int, dropout: float = 0.0) -> None:
        super().__init__(cells, width=width, n_classes=len(cells), dropout=dropout)
        self.elements_in = nn.Linear(cells.shape[1] * (width // 4), width)

    def forward(self, elements: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return log-probabilities (B, V) of the cells.

        Parameters
        ----------
        elements
            Shape (B, E), int64. Atomic numbers, most electropositive first, 0 where there is none.
        conditions
            Its `numbers` are not read.
        """
        slots = self.of_elements(elements, conditions)
        hidden = self.elements_in(slots.flatten(1)) + self.of_properties(conditions)
        logits = self.hidden(hidden)
        fits = (self.cells > 0).sum(-1)[None, :] == (elements > 0).sum(-1)[:, None]
        log_p: Tensor = logits.masked_fill(~fits, -torch.inf).log_softmax(-1)
        return log_p


def cells_of(numbers: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return elements and their counts of cells in canonical order.

    Parameters
    ----------
    numbers
        Shape (N, M). Sites as in CrystalArrays.

    Returns
    -------
    elements, counts
        Shape (N, E). Most electropositive element first, padded with 0.
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
