"""What the two small networks share that are asked before the cloud is drawn."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pccd_workflows.generators.pccd.chemistry import MAX_Z, element_features
from pccd_workflows.generators.pccd.conditions import ConditionBatch
from pccd_workflows.generators.pccd.dataset import CRYSTAL_SYSTEMS, ORDERINGS
from pccd_workflows.generators.pccd.denoiser import scalar_features

BATCH = 512
"""Crystals per step of the small networks."""


class CellNetwork(nn.Module):
    """Embeddings of elements and properties, and layers from their sum to classes.

    Parameters
    ----------
    cells
        Shape (V, E). Numbers of atoms of each element, most electropositive first, of the cells it
        knows; unused places are 0.
    width
        Size of the hidden layers.
    n_classes
        Of the answer.
    dropout
        For training.
    """

    cells: Tensor
    element_features: Tensor

    def __init__(self, cells: Tensor, *, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        features = torch.from_numpy(element_features())
        self.register_buffer("cells", cells)
        self.register_buffer("element_features", features, persistent=False)
        self.element_table = nn.Embedding(MAX_Z + 1, width // 4)
        nn.init.normal_(self.element_table.weight, std=0.02)
        self.element_linear = nn.Linear(features.shape[1], width // 4)
        self.ordering_table = nn.Embedding(len(ORDERINGS) + 1, width)
        self.system_table = nn.Embedding(len(CRYSTAL_SYSTEMS) + 1, width)
        self.number_in = nn.Linear(6, width)
        layers: list[nn.Module] = []
        for size in (width, width, n_classes):
            layers += [nn.GELU(), nn.Dropout(dropout), nn.Linear(width, size)]
        self.hidden = nn.Sequential(*layers)

    def of_elements(self, elements: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the embeddings (B, E, width / 4) of atomic numbers (B, E); hidden ones as 0."""
        shown = elements * conditions.known_elements[:, None]
        embedded: Tensor = self.element_table(shown) + self.element_linear(
            self.element_features[shown]
        )
        return embedded

    def element_vectors(self) -> Tensor:
        """Return the embedding (Z, width / 4) of each atomic number; row 0 is a hidden element."""
        vectors: Tensor = self.element_table.weight + self.element_linear(self.element_features)
        return vectors

    def of_properties(self, conditions: ConditionBatch) -> Tensor:
        """Return the embedding (B, width) of gap, energy above hull, ordering, crystal system."""
        gap = scalar_features(conditions.band_gap, 0.05, 2.0)
        energy = scalar_features(conditions.energy_above_hull, 0.01, 0.1)
        embedded: Tensor = (
            self.number_in(torch.cat([gap, energy], -1))
            + self.ordering_table(conditions.ordering + 1)
            + self.system_table(conditions.crystal_system + 1)
        )
        return embedded


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
    loss_of
        Mean loss of some rows; draws what it leaves open from the generator.

    Returns
    -------
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
