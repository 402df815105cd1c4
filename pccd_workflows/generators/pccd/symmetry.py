"""Which space group a cell has: a small network, asked between composition and cloud.

Given the composition and the space group, most cells have one plausible structure; drawing the
group first leaves the diffusion a choice among few structures instead of many.
"""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pccd_workflows.generators.pccd.cell_network import CellNetwork, fit
from pccd_workflows.generators.pccd.composition import cells_of
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.dataset import CrystalArrays, crystal_system
from pccd_workflows.generators.pccd.denoiser import N_SPACE_GROUPS


class SpaceGroupModel(CellNetwork):
    """Probabilities of the 230 space groups, given elements and numbers of atoms.

    Parameters
    ----------
    cells, width, dropout
        As of CellNetwork; these cells have an entry of their own, others are known by their
        numbers alone.
    """

    system_of_group: Tensor

    def __init__(self, cells: Tensor, *, width: int, dropout: float = 0.0) -> None:
        super().__init__(cells, width=width, n_classes=N_SPACE_GROUPS, dropout=dropout)
        systems = [crystal_system(group) for group in range(1, N_SPACE_GROUPS + 1)]
        self.register_buffer("system_of_group", torch.tensor(systems), persistent=False)
        self.count_in = nn.Linear(2, width // 4)
        self.slots_in = nn.Linear(cells.shape[1] * (width // 4), width)
        self.cell_table = nn.Embedding(len(cells) + 1, width)  # row 0: a cell without entry
        nn.init.normal_(self.cell_table.weight, std=0.02)

    def forward(
        self, elements: Tensor, counts: Tensor, entries: Tensor, conditions: ConditionBatch
    ) -> Tensor:
        """Return log-probabilities (B, 230) of the space groups 1 to 230.

        Parameters
        ----------
        elements, counts
            Shape (B, E), int64. Atomic numbers, most electropositive first, and their numbers of
            atoms; 0 where none.
        entries
            Shape (B,), int64. From `entries_of`.
        conditions
            Its `numbers` and `space_group` are not read.
        """
        amount = torch.stack([counts / counts.sum(1, keepdim=True), counts / 10], -1)
        slots = self.of_elements(elements, conditions) + self.count_in(amount)
        hidden = (
            self.slots_in(slots.flatten(1))
            + self.cell_table(entries)
            + self.of_properties(conditions)
        )
        logits = self.hidden(hidden)
        system = conditions.crystal_system
        excluded = (system[:, None] >= 0) & (self.system_of_group != system[:, None])
        log_p: Tensor = logits.masked_fill(excluded, -torch.inf).log_softmax(-1)
        return log_p

    def entries_of(self, counts: Tensor) -> Tensor:
        """Return the row of `cell_table` for numbers of atoms (B, E)."""
        rows = [self._entries.get(tuple(cell), 0) for cell in counts.tolist()]
        return torch.tensor(rows, device=counts.device)

    @cached_property
    def _entries(self) -> dict[tuple[int, ...], int]:
        return {tuple(cell): row for row, cell in enumerate(self.cells.tolist(), start=1)}


def frequent_cells(counts: NDArray[np.int64], at_least: int = 5) -> NDArray[np.int64]:
    """Return the distinct rows (V, E) of numbers of atoms (N, E) that occur that often."""
    cells, occurrences = np.unique(counts, axis=0, return_counts=True)
    return np.asarray(cells[occurrences >= at_least])


def train_space_group_model(
    arrays: CrystalArrays,
    conditions: ConditionBatch,
    held_out: tuple[CrystalArrays, ConditionBatch] | None,
    *,
    width: int,
    epochs: int,
    seed: int,
) -> tuple[SpaceGroupModel, dict[str, float]]:
    """Fit the network; return it with its losses (nats per crystal) and held-out accuracy.

    Parameters
    ----------
    arrays, conditions
        Training crystals and everything that is known of them.
    held_out
        Crystals to measure it on, given their composition alone.
    """
    elements, counts = (torch.from_numpy(a) for a in cells_of(arrays.numbers))
    torch.manual_seed(seed)
    cells = torch.from_numpy(frequent_cells(counts.numpy()))
    model = SpaceGroupModel(cells, width=width, dropout=0.2)
    entries = model.entries_of(counts)

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        truth = conditions.space_group[rows] - 1
        given = conditions.take(rows).drop(0.6, 0.05, generator)
        hidden_entry = torch.rand(len(rows), generator=generator) < 0.1
        shown = entries[rows].masked_fill(hidden_entry, 0)
        log_p = model(elements[rows], counts[rows], shown, given)
        loss: Tensor = -log_p.gather(1, truth[:, None]).mean()
        return loss

    figures = {"train": fit(model, len(arrays), loss_of, epochs=epochs, seed=seed)}
    if held_out is not None:
        figures["held_out"], figures["held_out_accuracy"] = space_group_loss(model, *held_out)
    return model, figures


@torch.no_grad()
def space_group_loss(
    model: SpaceGroupModel, arrays: CrystalArrays, conditions: ConditionBatch
) -> tuple[float, float]:
    """Return mean -log p (nats) and share of right first guesses, given composition alone."""
    elements, counts = (torch.from_numpy(a) for a in cells_of(arrays.numbers))
    only_elements = conditions.only_elements()
    log_p = model(elements, counts, model.entries_of(counts), only_elements)
    truth = conditions.space_group - 1
    loss = -log_p.gather(1, truth[:, None]).clamp(min=-20).mean()
    return float(loss), float((log_p.argmax(1) == truth).float().mean())
