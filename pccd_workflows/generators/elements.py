"""Which elements a sample is asked for, and the random numbers that are its own."""

import hashlib

import numpy as np

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.pointcloud.elements import canonical_elements
from pccd_workflows.generators.request import AskedElements


def stream(seed: int, index: int, purpose: str) -> int:
    """Return a 63-bit number that fixes one kind of randomness of one sample, on any machine."""
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_elements(asked: AskedElements, index: int) -> tuple[str, ...]:
    """Return the elements of sample `index`, by atomic number: given, in turn, or drawn.

    Raises
    ------
    InputError
        The options name no elements.
    """
    if asked.elements is not None:
        return canonical_elements(asked.elements)
    if asked.element_sets is not None:
        return canonical_elements(asked.element_sets[index % len(asked.element_sets)])
    draw = asked.draw
    if draw is None:  # the options do not let this happen
        raise InputError("generate needs elements, element_sets or draw.")
    rng = np.random.default_rng(stream(asked.seed, index, "elements"))
    low, high = draw.n_elements
    others = [e for e in draw.elements if e not in draw.always]
    always = sorted(set(draw.always))
    n = int(rng.integers(max(low, len(always), 1), min(high, len(always) + len(others)) + 1))
    drawn = rng.choice(len(others), size=n - len(always), replace=False)
    return canonical_elements([*always, *(others[i] for i in drawn)])
