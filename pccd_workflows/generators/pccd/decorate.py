"""Known crystals whose sites are on the positions of a new type, with elements put on them anew.

Most new types are other orders of elements on sites that some known crystal has (a superstructure,
a ternary variant of a binary type): its cell and free coordinates are a start, and all ways to put
the elements on its orbits are compared by the distances of atoms.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.chemistry import covalent_radii
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.known_types import KnownTypes
from pccd_workflows.generators.pccd.pair_distances import PairDistances, nearest_images
from pccd_workflows.generators.pccd.templates import Coordinates
from pccd_workflows.generators.pccd.wyckoff import (
    Orbits,
    placed_orbits,
    wyckoff_table,
)

DONORS = 15
"""Known crystals that are tried, those of the most like elements first."""
CLOSEST = 0.7
"""Of the sum of two atoms' covalent radii: with atoms closer than that a crystal is left out."""
WAYS = 64
"""Ways to put elements on the orbits of one crystal that are tried."""


@dataclass(frozen=True)
class Decorated:
    """A known crystal with elements put on its orbits anew.

    Attributes
    ----------
    template
        Its cell scaled to the volume expected.
    row
        Of the known crystal, among the analogues.
    misfit
        How unlike known crystals its distances are, and its elements those that were there.
    """

    template: Template
    row: int
    misfit: float


@dataclass(frozen=True)
class Donors:
    """What known crystals are to be found in."""

    analogues: Analogues
    coordinates: Coordinates
    types: KnownTypes
    distances: PairDistances


def decorate(
    donors: Donors, space_group: int, orbits: Orbits, elements: Sequence[int]
) -> list[Decorated]:
    """Return known crystals with elements on orbits as a type wants them, the best first.

    Parameters
    ----------
    donors
    space_group, orbits
        Of the type.
    elements
        Atomic numbers, in the order of the orbits.
    """
    found = []
    for row in _nearest(donors, space_group, orbits, elements):
        crystal = donors.coordinates.template(row)
        placed = placed_orbits(space_group, crystal.numbers, crystal.frac_coords, crystal.lattice)
        if placed is None:
            continue
        nearest = nearest_images(crystal.lattice, crystal.frac_coords)
        for assigned in _assignments(space_group, orbits, [orbit.place for orbit in placed]):
            numbers = np.zeros(len(crystal.numbers), dtype=np.int64)
            for element, orbit in zip(assigned, placed, strict=True):
                numbers[list(orbit.sites)] = elements[element]
            one = _decorated(donors, crystal, numbers, row, nearest)
            if one is not None:
                found.append(one)
    return sorted(found, key=lambda one: one.misfit)


def _nearest(
    donors: Donors, space_group: int, orbits: Orbits, elements: Sequence[int]
) -> list[int]:
    """Return crystals with the same positions, those of the most like elements first."""
    known = donors.analogues
    kinds = donors.types.of_positions(space_group, orbits)
    rows = np.concatenate([known.rows_of_type(kind) for kind in kinds] or [np.zeros(0, int)])
    there = known.elements[rows].astype(np.int64)
    apart = known.distance.astype(np.float64)[np.array(elements)][:, there]  # (E, rows, slots)
    apart = np.where(there > 0, apart, np.inf)
    back = np.where(there > 0, apart.min(0, initial=np.inf), 0).sum(1)
    order = np.argsort(apart.min(2, initial=np.inf).sum(0) + back, kind="stable")
    return [int(row) for row in rows[order[:DONORS]]]


def _assignments(
    space_group: int, orbits: Orbits, places: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Yield which element each of the orbits at some places gets, in all ways that differ."""
    wanted = [place for of_element in orbits for place in of_element]
    owner = [element for element, of_element in enumerate(orbits) for _ in of_element]
    seen: set[tuple[int, ...]] = set()
    for image in wyckoff_table(space_group).images:
        if sorted(image[wanted].tolist()) != sorted(places):
            continue
        needed = defaultdict(list)
        for place, element in zip(image[wanted].tolist(), owner, strict=True):
            needed[place].append(element)
        ways = itertools.islice(_fill(places, needed), WAYS)
        fresh = [way for way in ways if way not in seen]
        seen |= set(fresh)
        yield from fresh


def _fill(places: Sequence[int], needed: Mapping[int, list[int]]) -> Iterator[tuple[int, ...]]:
    """Yield the ways to hand out the elements needed at each place to the orbits there."""
    distinct = sorted(set(places))
    choices = [
        sorted(set(itertools.islice(itertools.permutations(needed[place]), 40 * WAYS)))
        for place in distinct
    ]
    for chosen in itertools.product(*choices):
        left = {place: list(way) for place, way in zip(distinct, chosen, strict=True)}
        yield tuple(left[place].pop(0) for place in places)


def _decorated(
    donors: Donors,
    crystal: Template,
    numbers: NDArray[np.int64],
    row: int,
    nearest: NDArray[np.float64],
) -> Decorated | None:
    """Return a crystal with other elements; None if atoms are too close."""
    volume = abs(float(np.linalg.det(crystal.lattice)))
    scale = (donors.distances.volume_of(numbers) / volume) ** (1 / 3)
    radii = covalent_radii()[numbers].astype(np.float64)
    if (nearest * scale < CLOSEST * (radii[:, None] + radii)).any():
        return None
    unlike = donors.analogues.distance[numbers, crystal.numbers].astype(np.float64).mean()
    misfit = donors.distances.misfit(nearest * scale, numbers) + float(unlike)
    template = Template(crystal.space_group, numbers, crystal.frac_coords, crystal.lattice * scale)
    return Decorated(template, row, misfit)
