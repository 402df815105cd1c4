"""What a crystal is asked to be like, as tensors; everything but the composition may be unknown."""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from pccd_workflows.generators.pccd.dataset import CrystalArrays

UNKNOWN = -1


@dataclass(frozen=True)
class ConditionBatch:
    """Conditions of B crystals of at most N sites.

    Attributes
    ----------
    numbers
        Shape (B, N), int64. Atomic number of each site, electropositive elements first, 0 beyond
        the last site.
    band_gap, energy_above_hull
        Shape (B,), float32. eV and eV/atom; NaN = open.
    ordering, crystal_system
        Shape (B,), int64. Index into ORDERINGS and CRYSTAL_SYSTEMS; -1 = open.
    space_group
        Shape (B,), int64. 1 to 230; -1 = open.
    structure_type
        Shape (B,), int64. Number of the structure type in the training data, see CrystalArrays; 0 =
        open.
    known_elements
        Shape (B,), bool. False hides which elements the sites hold (not how many of each), for
        guidance.
    """

    numbers: Tensor
    band_gap: Tensor
    energy_above_hull: Tensor
    ordering: Tensor
    crystal_system: Tensor
    space_group: Tensor
    structure_type: Tensor
    known_elements: Tensor

    def to(self, device: torch.device) -> "ConditionBatch":
        """Return the batch on another device."""
        return ConditionBatch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def take(self, rows: Tensor) -> "ConditionBatch":
        """Return some of the crystals, without columns that are empty in all of them."""
        taken = ConditionBatch(*(getattr(self, f.name)[rows] for f in fields(self)))
        longest = int((taken.numbers > 0).sum(1).max())
        return replace(taken, numbers=taken.numbers[:, :longest])

    def unconditional(self) -> "ConditionBatch":
        """Return the batch with everything open that guidance may strengthen."""
        return replace(
            self,
            band_gap=torch.full_like(self.band_gap, torch.nan),
            energy_above_hull=torch.full_like(self.energy_above_hull, torch.nan),
            ordering=torch.full_like(self.ordering, UNKNOWN),
            crystal_system=torch.full_like(self.crystal_system, UNKNOWN),
            space_group=torch.full_like(self.space_group, UNKNOWN),
            structure_type=torch.zeros_like(self.structure_type),
            known_elements=torch.zeros_like(self.known_elements),
        )

    def only_elements(self) -> "ConditionBatch":
        """Return the batch with everything open but the elements."""
        return replace(self.unconditional(), known_elements=torch.ones_like(self.known_elements))

    def drop(
        self, properties: float, elements: float, generator: torch.Generator | None = None
    ) -> "ConditionBatch":
        """Return the batch with conditions left open at random, each on its own.

        The crystal system says less than the space group, so it is dropped only with it, and then
        every other time. The structure type says more: it is dropped with it and on its own.

        Parameters
        ----------
        properties
            Probability of dropping each of gap, energy, ordering, space group and structure type.
        elements
            Probability of hiding the elements and all properties (what guidance compares with).
        generator
            Source of the random numbers (on the CPU).
        """
        chance = torch.rand((6, len(self.band_gap)), generator=generator).to(self.numbers.device)
        hide = chance[5] < elements
        gap, energy, ordering, group, kind = (chance[i] < properties for i in range(5))
        system = chance[3] < properties / 2
        return replace(
            self,
            band_gap=self.band_gap.masked_fill(gap | hide, torch.nan),
            energy_above_hull=self.energy_above_hull.masked_fill(energy | hide, torch.nan),
            ordering=self.ordering.masked_fill(ordering | hide, UNKNOWN),
            crystal_system=self.crystal_system.masked_fill(system | hide, UNKNOWN),
            space_group=self.space_group.masked_fill(group | hide, UNKNOWN),
            structure_type=self.structure_type.masked_fill(kind | group | hide, 0),
            known_elements=self.known_elements & ~hide,
        )


def conditions_of(arrays: CrystalArrays) -> ConditionBatch:
    """Return everything that is known of crystals of a dataset."""
    return ConditionBatch(
        numbers=torch.from_numpy(arrays.numbers.astype(np.int64)),
        band_gap=torch.from_numpy(arrays.band_gap),
        energy_above_hull=torch.from_numpy(arrays.energy_above_hull),
        ordering=torch.from_numpy(arrays.ordering.astype(np.int64)),
        crystal_system=torch.from_numpy(arrays.crystal_system.astype(np.int64)),
        space_group=torch.from_numpy(arrays.space_group.astype(np.int64)),
        structure_type=torch.from_numpy(arrays.structure_type.astype(np.int64)),
        known_elements=torch.ones(len(arrays), dtype=torch.bool),
    )
