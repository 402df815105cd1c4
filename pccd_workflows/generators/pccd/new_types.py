"""Structure types that no training crystal has: proposed, and given coordinates to begin with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.composition import electropositive_first
from pccd_workflows.generators.pccd.dataset import CRYSTAL_SYSTEMS, crystal_system
from pccd_workflows.generators.pccd.decorate import Decorated, Donors, decorate
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.known_types import KnownTypes
from pccd_workflows.generators.pccd.pair_distances import PairDistances
from pccd_workflows.generators.pccd.space_groups import space_group
from pccd_workflows.generators.pccd.templates import Coordinates
from pccd_workflows.generators.pccd.ties import symmetric_metric
from pccd_workflows.generators.pccd.wyckoff import Orbits, wyckoff_table
from pccd_workflows.generators.pccd.wyckoff_network import (
    N_GROUPS,
    Positions,
    WyckoffNetwork,
    propose,
)
from pccd_workflows.generators.request import Conditions

STRAIN = 0.1
"""Standard deviation of the logarithm of the metric of a cell that is drawn."""


@dataclass(frozen=True)
class NewType:
    """A structure type to aim at.

    Attributes
    ----------
    space_group
    elements
        Atomic numbers, those of few atoms first, then electropositive first.
    orbits
        Wyckoff positions of each element.
    log_p
        What the network thinks of it.
    """

    space_group: int
    elements: tuple[int, ...]
    orbits: Orbits
    log_p: float

    @property
    def key(self) -> tuple[int, Orbits]:
        """What tells it from other types, whatever its elements."""
        return self.space_group, self.orbits

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic number of each site of the primitive cell, electropositive elements first."""
        sizes = wyckoff_table(self.space_group).multiplicity
        counts = {
            z: int(sizes[list(places)].sum())
            for z, places in zip(self.elements, self.orbits, strict=True)
        }
        return tuple(z for z in electropositive_first(list(counts)) for _ in range(counts[z]))


@dataclass(frozen=True)
class NewTypes:
    """What proposes structure types, and says which are new.

    Attributes
    ----------
    network
    known
        Types of the training crystals.
    distances
        In the training crystals.
    """

    network: WyckoffNetwork
    known: KnownTypes
    distances: PairDistances

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], width: int) -> "NewTypes":
        """Return what `state` was called of; KeyError or RuntimeError if it does not fit."""
        network_state = {n: t.float() for n, t in _part(state, "network").items()}
        whole = ("multiplicity", "freedom")
        network_state |= {n: t.long() for n, t in network_state.items() if n in whole}
        positions = Positions(*(network_state[name] for name in Positions._fields))
        network = WyckoffNetwork(positions, width=width)
        network.load_state_dict(network_state)
        return cls(
            network.eval(),
            KnownTypes.from_state(_part(state, "known")),
            PairDistances.from_state(_part(state, "distances")),
        )

    def state(self) -> dict[str, Tensor]:
        """Return weights and columns as tensors, by name."""
        parts = {
            "network": self.network.state_dict(),
            "known": self.known.state(),
            "distances": self.distances.state(),
        }
        return {f"{part}.{n}": t for part, state in parts.items() for n, t in state.items()}

    def candidates(
        self, elements: Sequence[int], counts: Sequence[int], asked: Conditions
    ) -> list[NewType]:
        """Return the likeliest new types of a composition, likeliest first.

        Parameters
        ----------
        elements, counts
            Those of few atoms first, then electropositive first.
        asked
            Its space group or crystal system is obeyed.
        """
        found: dict[tuple[int, Orbits], NewType] = {}
        for one in propose(self.network, elements, counts, groups=_allowed(asked)):
            key = (one.space_group, wyckoff_table(one.space_group).canonical(one.orbits))
            if key in self.known or key in found:
                continue
            found[key] = NewType(one.space_group, tuple(elements), key[1], one.log_p)
        return list(found.values())

    def sites_of(self, space_group_number: int, orbits: Orbits) -> list[list[int]]:
        """Return how many atoms of the conventional cell each orbit of each element has."""
        cells = round(1 / abs(np.linalg.det(space_group(space_group_number).axes)))
        sizes = (self.network.multiplicity[space_group_number - 1] * cells).tolist()
        return [[sizes[place] for place in of_element] for of_element in orbits]


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _allowed(asked: Conditions) -> NDArray[np.bool_] | None:
    """Return which space groups (230,) are asked for; None if all are."""
    if asked.space_group is not None:
        return np.asarray(np.arange(1, N_GROUPS + 1) == asked.space_group)
    if asked.crystal_system is None:
        return None
    system = CRYSTAL_SYSTEMS.index(asked.crystal_system)
    return np.array([crystal_system(group) == system for group in range(1, N_GROUPS + 1)])


def decorated(
    new_types: NewTypes, aim: NewType, analogues: Analogues, coordinates: Coordinates
) -> list[Decorated]:
    """Return known crystals with their elements put anew as a type wants them, the best first."""
    donors = Donors(analogues, coordinates, new_types.known, new_types.distances)
    return decorate(donors, aim.space_group, aim.orbits, aim.elements)


def draw_template(aim: NewType, distances: PairDistances, seed: int) -> Template:
    """Return a crystal of a type with free coordinates and cell at random."""
    rng = np.random.default_rng(seed)
    group, table = space_group(aim.space_group), wyckoff_table(aim.space_group)
    numbers: list[int] = []
    sites: list[NDArray[np.float64]] = []
    for element, of_element in zip(aim.elements, aim.orbits, strict=True):
        for place in of_element:
            point = table.points[place] + table.projectors[place] @ rng.random(3)
            images = (group.rotations @ point + group.translations) % 1.0
            orbit = _distinct(images)
            sites.append(orbit)
            numbers += [element] * len(orbit)
    metric = symmetric_metric(group.rotations, _random_metric(group.axes, rng))
    lattice = np.asarray(np.linalg.cholesky(metric), dtype=np.float64)
    atoms = np.array(numbers, dtype=np.int64)
    scale = (distances.volume_of(atoms) / abs(np.linalg.det(lattice))) ** (1 / 3)
    return Template(aim.space_group, atoms, np.concatenate(sites), lattice * scale)


def _random_metric(axes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a metric (3, 3) of primitive axes near that of a cubic conventional cell."""
    strain = rng.normal(scale=STRAIN, size=(3, 3))
    stretched = (np.eye(3) + strain) @ axes
    return np.asarray(stretched.T @ stretched)


def _distinct(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points (m, 3) that differ by no lattice vector."""
    kept: list[NDArray[np.float64]] = []
    for point in points:
        apart = [point - other for other in kept]
        if not any(np.abs(a - np.rint(a)).max() < 1e-4 for a in apart):
            kept.append(point)
    return np.array(kept)
