"""Training crystals of like elements vote on compositions, space groups and structure types.

What a compound crystallises as is told best by compounds in which other elements take the same
places (Hautier et al. 2011, DOI 10.1021/ic102031h, learn from such pairs which ions replace each
other). The votes say what has been seen; the small networks add what has not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd.cell_network import CellNetwork
from pccd_workflows.generators.pccd.composition import CompositionModel, cells_of
from pccd_workflows.generators.pccd.conditions import conditions_of
from pccd_workflows.generators.pccd.dataset import (
    CRYSTAL_SYSTEMS,
    ORDERINGS,
    CrystalArrays,
    crystal_system,
)
from pccd_workflows.generators.pccd.denoiser import N_SPACE_GROUPS
from pccd_workflows.generators.pccd.symmetry import SpaceGroupModel
from pccd_workflows.generators.request import Conditions

SOFTNESS = 0.25
"""Farther by this than the nearest crystal, a vote counts 1/e of its vote."""
SHARE = 0.7
"""Of the votes in what is drawn; the rest is the network's."""
UNKNOWN_PROPERTY = 1.0
"""Distance to a crystal of which an asked property is not known."""
PROPERTY = 6.0
"""Distance of properties whose log(1 + value / scale) differ by 1."""
UNKNOWN_ORDERING, OTHER_ORDERING = 0.1, 0.2
"""Distance to a crystal whose magnetic ordering is not known (99 % of them), or not the one asked
for: small, so that the few known ones do not outvote those of likelier elements."""
GAP_SCALE, HULL_SCALE = 2.0, 0.1
"""eV and eV/atom: properties are compared as log(1 + value / scale)."""


@dataclass(frozen=True)
class Analogues:
    """What votes need to know of N training crystals; at most E elements, V distinct cells.

    Attributes
    ----------
    cells
        Shape (V, E). Numbers of atoms of each element, most electropositive first, 0 in unused
        places.
    cell
        Shape (N,). Row of `cells`.
    elements
        Shape (N, E). Atomic numbers, most electropositive first.
    space_group
        Shape (N,).
    structure_type
        Shape (N,). As in CrystalArrays.
    band_gap, energy_above_hull
        Shape (N,). eV and eV/atom, NaN where unknown.
    ordering
        Shape (N,). Index into ORDERINGS, -1 unknown.
    distance
        Shape (Z, Z). How unlike two elements are, by atomic number; 0 of an element to itself, 2 on
        average.
    """

    cells: NDArray[np.int64]
    cell: NDArray[np.integer[Any]]
    elements: NDArray[np.uint8]
    space_group: NDArray[np.int16]
    structure_type: NDArray[np.integer[Any]]
    band_gap: NDArray[np.float16]
    energy_above_hull: NDArray[np.float16]
    ordering: NDArray[np.int8]
    distance: NDArray[np.float16]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Analogues":
        """Return the analogues that `state` was called of.

        Raises
        ------
        KeyError
            If a column is missing.
        """
        return cls(**{f.name: state[f.name].cpu().numpy() for f in fields(cls)})

    def state(self) -> dict[str, Tensor]:
        """Return the columns as tensors, by name."""
        return {f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self)}

    def cell_votes(
        self, elements: Sequence[int], asked: Conditions, *, recall: bool = False
    ) -> NDArray[np.float64]:
        """Return the votes (V,) on the numbers of atoms of the given elements.

        Parameters
        ----------
        elements
            Atomic numbers, most electropositive first.
        asked
            Crystals of another space group or crystal system do not vote, those with other
            properties vote with less weight.
        recall
            Crystals of exactly these elements vote alone, where there are any; else they do not.

        Returns
        -------
        Shape (V,). They sum to 1, or are all 0 if no crystal may vote.
        """
        rows = self._of_n_elements.get(len(elements), NOBODY)
        rows = self._voters(rows, elements, recall=recall)
        votes = self._vote(rows, self.elements, elements, asked)
        return _tally(self.cell[rows], votes, len(self.cells))

    def space_group_votes(
        self,
        elements: Sequence[int],
        counts: Sequence[int],
        asked: Conditions,
        *,
        recall: bool = False,
    ) -> NDArray[np.float64]:
        """Return the votes (230,) on the space group of a cell with so many atoms of each element.

        Voters have the same numbers of atoms, whichever of their elements has how many; see
        `cell_votes` for the rest.
        """
        rows, votes = self._votes_of_cell(elements, counts, asked, recall=recall)
        return _tally(self.space_group[rows] - 1, votes, N_SPACE_GROUPS)

    def structure_type_votes(
        self,
        elements: Sequence[int],
        counts: Sequence[int],
        asked: Conditions,
        *,
        recall: bool = False,
    ) -> NDArray[np.float64]:
        """Return the votes (T,) on the structure type, 0 being an unknown one."""
        rows, votes = self._votes_of_cell(elements, counts, asked, recall=recall)
        return _tally(self.structure_type[rows], votes, int(self.structure_type.max()) + 1)

    def group_of_type(self, structure_type: int) -> int:
        """Return the space group of a structure type."""
        return int(self._type_groups[structure_type])

    def rows_of_type(self, structure_type: int) -> NDArray[np.int64]:
        """Return the crystals (k,) of a structure type."""
        order, first = self._by_type
        return order[first[structure_type] : first[structure_type + 1]]

    def of_type(
        self,
        structure_type: int,
        elements: Sequence[int],
        counts: Sequence[int],
        asked: Conditions,
        *,
        recall: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the crystals (k,) of a structure type that vote on a cell, and their votes.

        The nearest of them has the vote 1, unless none fits what is asked.
        """
        rows, _ = self._votes_of_cell(elements, counts, Conditions(), recall=recall)
        rows = rows[self.structure_type[rows] == structure_type]
        order = np.argsort(counts, kind="stable")
        return rows, self._vote(rows, self.by_count[0], [elements[i] for i in order], asked)

    def nearest_of_types(self, elements: Sequence[int], counts: Sequence[int]) -> NDArray[np.int64]:
        """Return of each structure type with these numbers of atoms the most alike crystal (k,).

        The nearest first; crystals of exactly these elements do not count.
        """
        rows, votes = self._votes_of_cell(elements, counts, Conditions(), recall=False)
        rows = rows[np.argsort(-votes, kind="stable")]
        _, first = np.unique(self.structure_type[rows], return_index=True)
        return np.asarray(rows[np.sort(first)])

    def _votes_of_cell(
        self, elements: Sequence[int], counts: Sequence[int], asked: Conditions, *, recall: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the crystals that vote on a cell with these numbers of atoms, and their votes."""
        order = np.argsort(counts, kind="stable")
        rows = self._of_counts.get(tuple(counts[i] for i in order), NOBODY)
        rows = self._voters(rows, elements, recall=recall)
        return rows, self._vote(rows, self.by_count[0], [elements[i] for i in order], asked)

    def _voters(
        self, rows: NDArray[np.int64], elements: Sequence[int], *, recall: bool
    ) -> NDArray[np.int64]:
        """Return those of the crystals `rows` that may vote, see `cell_votes`."""
        if not len(rows):
            return rows
        systems, system = self._systems
        known = system[rows] == systems.get(tuple(elements), -1)
        return np.asarray(rows[known if recall and known.any() else ~known])

    def _vote(
        self,
        rows: NDArray[np.int64],
        slots: NDArray[np.uint8],
        elements: Sequence[int],
        asked: Conditions,
    ) -> NDArray[np.float64]:
        """Return the votes of crystals `rows`, whose elements are in `slots` (N, E)."""
        if not len(rows):
            return np.zeros(0)
        apart = np.zeros(len(rows))
        for place, element in enumerate(elements):
            apart += self.distance[element].astype(np.float64)[slots[rows, place]]
        apart += _unlike(self.band_gap[rows], asked.band_gap, GAP_SCALE)
        apart += _unlike(self.energy_above_hull[rows], asked.energy_above_hull, HULL_SCALE)
        if asked.magnetic_ordering is not None:
            ordering = self.ordering[rows]
            same = ordering == ORDERINGS.index(asked.magnetic_ordering)
            apart += np.where(same, 0, np.where(ordering < 0, UNKNOWN_ORDERING, OTHER_ORDERING))
        if asked.crystal_system is not None:
            wanted = CRYSTAL_SYSTEMS.index(asked.crystal_system)
            apart[self._system[rows] != wanted] = np.inf
        if asked.space_group is not None:
            apart[self.space_group[rows] != asked.space_group] = np.inf
        nearest = apart.min(initial=np.inf)
        if np.isinf(nearest):
            return np.zeros(len(rows))
        return np.asarray(np.exp((nearest - apart) / SOFTNESS))

    @cached_property
    def _system(self) -> NDArray[np.int64]:
        """Crystal system of each crystal."""
        systems = [0, *(crystal_system(group) for group in range(1, N_SPACE_GROUPS + 1))]
        return np.array(systems)[self.space_group]

    @cached_property
    def _by_type(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Crystals in the order of their structure types, and where each type begins."""
        order = np.argsort(self.structure_type, kind="stable")
        counts = np.bincount(self.structure_type)
        return order, np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def _type_groups(self) -> NDArray[np.int64]:
        """Space group of each structure type."""
        groups = np.zeros(int(self.structure_type.max()) + 1, dtype=np.int64)
        groups[self.structure_type] = self.space_group
        return groups

    @cached_property
    def _systems(self) -> tuple[dict[tuple[int, ...], int], NDArray[np.int64]]:
        """Chemical systems, numbered, and that of each crystal."""
        kinds, kind = np.unique(self.elements, axis=0, return_inverse=True)
        names = [tuple(z for z in elements if z > 0) for elements in kinds.tolist()]
        return dict(zip(names, range(len(names)), strict=True)), kind.reshape(-1)

    @cached_property
    def by_count(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Elements and counts (N, E) by number of atoms, then from electropositive on."""
        counts = self.cells[self.cell]
        order = np.argsort(np.where(counts > 0, counts, np.iinfo(np.int64).max), 1, kind="stable")
        return np.take_along_axis(self.elements, order, 1), np.take_along_axis(counts, order, 1)

    @cached_property
    def _of_counts(self) -> dict[tuple[int, ...], NDArray[np.int64]]:
        """Crystals by their numbers of atoms, in rising order."""
        kinds, kind = np.unique(self.by_count[1], axis=0, return_inverse=True)
        rows = np.split(
            np.argsort(kind.reshape(-1), kind="stable"),
            np.cumsum(np.bincount(kind.reshape(-1)))[:-1],
        )
        names = [tuple(n for n in counts if n > 0) for counts in kinds.tolist()]
        return dict(zip(names, rows, strict=True))

    @cached_property
    def _of_n_elements(self) -> dict[int, NDArray[np.int64]]:
        """Crystals by their number of elements."""
        n = (self.elements > 0).sum(1)
        return {int(k): np.flatnonzero(n == k) for k in np.unique(n)}


NOBODY = np.zeros(0, dtype=np.int64)


def find_analogues(arrays: CrystalArrays, network: CellNetwork) -> Analogues:
    """Return training crystals as analogues; `network` has learned which elements are alike."""
    elements, counts = cells_of(arrays.numbers)
    cells, cell = np.unique(counts, axis=0, return_inverse=True)
    return Analogues(
        cells=cells,
        cell=cell.reshape(-1).astype(np.int32),
        elements=elements.astype(np.uint8),
        space_group=arrays.space_group.astype(np.int16),
        structure_type=arrays.structure_type.astype(np.int32),
        band_gap=arrays.band_gap.astype(np.float16),
        energy_above_hull=arrays.energy_above_hull.astype(np.float16),
        ordering=arrays.ordering.astype(np.int8),
        distance=element_distances(network),
    )


@torch.no_grad()
def element_distances(network: CellNetwork) -> NDArray[np.float16]:
    """Return distances (Z, Z) of the embeddings of the elements, 2 on average."""
    vectors = network.element_vectors()[1:].double()
    apart = torch.cdist(vectors, vectors)
    padded = torch.nn.functional.pad(2 * apart / apart.mean(), (1, 0, 1, 0))
    return np.asarray(padded.numpy().astype(np.float16))


def blend(
    network: NDArray[np.float64], votes: NDArray[np.float64], *, share: float = SHARE
) -> NDArray[np.float64]:
    """Return the probabilities of network and votes together; the network's if nobody voted."""
    return share * votes + (1 - share) * network if votes.any() else network


@torch.no_grad()
def measure(
    analogues: Analogues,
    symmetry: SpaceGroupModel,
    composition: CompositionModel,
    held_out: CrystalArrays,
    *,
    share: float = SHARE,
) -> dict[str, float]:
    """Return how well networks and votes together tell held-out crystals.

    Returns
    -------
    `space_group_accuracy`: share of right first guesses, given the composition;
    `composition_accuracy`: of right numbers of atoms, given the elements.
    """
    elements, counts = (torch.from_numpy(a) for a in cells_of(held_out.numbers))
    given = conditions_of(held_out).only_elements()
    groups = symmetry(elements, counts, symmetry.entries_of(counts), given).double().exp().numpy()
    cells = composition(elements, given).double().exp().numpy()
    asked = Conditions()
    right_groups = right_cells = 0
    for row, group in enumerate(held_out.space_group.tolist()):
        n = int((elements[row] > 0).sum())
        names, numbers = elements[row, :n].tolist(), counts[row, :n].tolist()
        group_votes = analogues.space_group_votes(names, numbers, asked)
        drawn = blend(groups[row], group_votes, share=share).argmax()
        cell = blend(cells[row], analogues.cell_votes(names, asked), share=share).argmax()
        right_groups += drawn + 1 == group
        right_cells += analogues.cells[cell].tolist()[:n] == numbers
    return {
        "space_group_accuracy": right_groups / len(held_out),
        "composition_accuracy": right_cells / len(held_out),
    }


def _tally(
    choices: NDArray[np.integer[Any]], votes: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Return the share (n,) of the votes that each choice gets."""
    counted = np.bincount(choices, votes, minlength=n).astype(np.float64)
    return counted / counted.sum() if counted.any() else counted


def _unlike(
    values: NDArray[np.float16], asked: float | None, scale: float
) -> NDArray[np.float64] | float:
    """Return the distance between values (n,) of a property and the one asked for."""
    if asked is None:
        return 0.0
    values = values.astype(np.float64).clip(min=0)
    apart = PROPERTY * np.abs(np.log1p(values / scale) - np.log1p(max(asked, 0.0) / scale))
    return np.asarray(np.nan_to_num(apart, nan=UNKNOWN_PROPERTY))
