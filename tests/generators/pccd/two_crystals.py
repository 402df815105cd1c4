"""A batch of two crystals with everything open but their elements, for tests of networks."""

import torch

from pccd_workflows.generators.pccd.conditions import ConditionBatch


def only_elements(numbers: torch.Tensor) -> ConditionBatch:
    """Return conditions on two crystals; numbers: (2, n) atomic numbers, 0 where there is none."""
    open_value, unknown = torch.full((2,), torch.nan), torch.full((2,), -1)
    return ConditionBatch(
        numbers,
        open_value,
        open_value,
        unknown,
        unknown,
        unknown,
        torch.zeros(2, dtype=torch.long),
        torch.ones(2, dtype=torch.bool),
    )
