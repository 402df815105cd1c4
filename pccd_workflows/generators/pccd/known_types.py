"""The structure types of the training crystals as sequences of Wyckoff positions."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.chemistry import electronegativity_rank
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.templates import Templates
from pccd_workflows.generators.pccd.wyckoff import Orbits, placed_orbits, wyckoff_table


@dataclass(frozen=True)
class KnownTypes:
    """K structure types with S orbits in all, in the description that sorts first.

    Attributes
    ----------
    space_group
        Shape (K,). 0 of a type without known positions.
    n_orbits
        Shape (K,).
    element
        Shape (S,). Which element an orbit has: 0 is that of fewest atoms (then the most
        electropositive) and so on.
    place
        Shape (S,). Of its Wyckoff position among those of the space group.
    """

    space_group: NDArray[np.int16]
    n_orbits: NDArray[np.int16]
    element: NDArray[np.uint8]
    place: NDArray[np.uint8]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "KnownTypes":
        """Return the types that `state` was called of; KeyError if a column is missing."""
        return cls(**{f.name: state[f.name].cpu().numpy() for f in fields(cls)})

    def state(self) -> dict[str, Tensor]:
        """Return the columns as tensors, by name."""
        return {f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self)}

    @cached_property
    def orbits(self) -> list[Orbits]:
        """Orbits of each type."""
        ends = np.cumsum(self.n_orbits.astype(np.int64))
        found = []
        for element, place in zip(
            np.split(self.element, ends[:-1]), np.split(self.place, ends[:-1]), strict=True
        ):
            n = int(element.max()) + 1 if len(element) else 0
            found.append(tuple(tuple(place[element == e].tolist()) for e in range(n)))
        return found

    def __contains__(self, key: tuple[int, Orbits]) -> bool:
        """Return whether a type has this space group and these orbits, described canonically."""
        return key in self._keys

    def of_positions(self, space_group: int, orbits: Orbits) -> list[int]:
        """Return the types whose sites are on the same positions, whatever elements they hold."""
        return self._by_positions(space_group).get(uncoloured(space_group, orbits), [])

    @cached_property
    def _keys(self) -> set[tuple[int, Orbits]]:
        return set(zip(self.space_group.tolist(), self.orbits, strict=True))

    @cached_property
    def _indexed(self) -> dict[int, dict[tuple[int, ...], list[int]]]:
        return {}

    def _by_positions(self, space_group: int) -> dict[tuple[int, ...], list[int]]:
        if space_group not in self._indexed:
            found: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for kind in np.flatnonzero(self.space_group == space_group).tolist():
                found[uncoloured(space_group, self.orbits[kind])].append(kind)
            self._indexed[space_group] = found
        return self._indexed[space_group]


def uncoloured(space_group: int, orbits: Orbits) -> tuple[int, ...]:
    """Return the positions of all sites, elements left out, in the description that sorts first."""
    places = [place for of_element in orbits for place in of_element]
    images = np.sort(wyckoff_table(space_group).images[:, places], axis=1)
    return min(map(tuple, images.tolist()))


def find_known_types(analogues: Analogues, templates: Templates) -> KnownTypes:
    """Return the structure types of training crystals, by their number among the analogues."""
    kinds, first = np.unique(analogues.structure_type, return_index=True)
    groups = np.zeros(int(kinds.max()) + 1, dtype=np.int16)
    sequences: list[list[tuple[int, int]]] = [[] for _ in groups]
    for kind, row in zip(kinds.tolist(), first.tolist(), strict=True):
        if kind == 0:
            continue
        orbits = orbits_of(templates.template(row))
        if orbits is None:
            continue
        groups[kind] = templates.space_group[row]
        canonical = wyckoff_table(int(groups[kind])).canonical(orbits)
        sequences[kind] = [(e, p) for e, places in enumerate(canonical) for p in places]
    flat = np.array([pair for sequence in sequences for pair in sequence], dtype=np.uint8)
    flat = flat.reshape(-1, 2)
    return KnownTypes(
        space_group=groups,
        n_orbits=np.array([len(s) for s in sequences], dtype=np.int16),
        element=np.ascontiguousarray(flat[:, 0]),
        place=np.ascontiguousarray(flat[:, 1]),
    )


def orbits_of(crystal: Template) -> Orbits | None:
    """Return the orbits of a crystal in its own description; None without that symmetry."""
    placed = placed_orbits(
        crystal.space_group, crystal.numbers, crystal.frac_coords, crystal.lattice
    )
    if placed is None:
        return None
    elements = fewest_first(crystal.numbers)
    return tuple(
        tuple(sorted(o.place for o in placed if crystal.numbers[o.sites[0]] == z)) for z in elements
    )


def fewest_first(numbers: NDArray[np.int64]) -> list[int]:
    """Return the elements of a cell, those of few atoms first, then electropositive first."""
    elements, counts = np.unique(numbers, return_counts=True)
    rank = electronegativity_rank()
    return [int(z) for _, _, z in sorted(zip(counts, rank[elements], elements, strict=True))]
