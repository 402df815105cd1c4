"""Wyckoff positions in the primitive setting of each space group, and types as sequences of them.

They are worked out from the operations: every point of a grid that meets all special positions
is asked which operations keep it.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.generators.pccd.space_groups import grid_points, space_group
from pccd_workflows.generators.pccd.standard import label_everywhere, locus
from pccd_workflows.generators.pccd.ties import find_ties

Orbits = tuple[tuple[int, ...], ...]
"""Of each element the Wyckoff positions of its orbits, as places in the table, rising."""


@dataclass(frozen=True)
class WyckoffTable:
    """The w Wyckoff positions of a space group, from few sites to many.

    Attributes
    ----------
    number
        Of the space group.
    multiplicity
        Shape (w,). Sites of an orbit in the primitive cell.
    points, projectors
        Shape (w, 3), (w, 3, 3). A site of the position is at point + projector @ u, u any vector.
    labels
        Shape (w, k). Of each position in each of the k descriptions; see `standard`.
    site_symmetry
        Shape (w, 10). How many operations of each order (1, 2, 3, 4, 6, then with inversion) keep a
        site.
    """

    number: int
    multiplicity: NDArray[np.int64]
    points: NDArray[np.float64]
    projectors: NDArray[np.float64]
    labels: NDArray[np.int64]
    site_symmetry: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.multiplicity)

    @cached_property
    def freedom(self) -> NDArray[np.int64]:
        """Number of free coordinates (w,) of each position."""
        return np.asarray(np.rint(np.trace(self.projectors, axis1=1, axis2=2)).astype(np.int64))

    @cached_property
    def places(self) -> dict[int, int]:
        """Place of each position by its label in the first description."""
        return {int(label): place for place, label in enumerate(self.labels[:, 0])}

    @cached_property
    def by_locus(self) -> dict[bytes, int]:
        """Place of each position by what fixes any of its sites; see `locus`."""
        found: dict[bytes, int] = {}
        for place, (point, projector) in enumerate(zip(self.points, self.projectors, strict=True)):
            loci = _image_loci(self.number, point, projector)
            found |= {one.tobytes(): place for one in loci}
        return found

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """Place (k, w) that each position has in each description."""
        named = np.array([[self.places[int(x)] for x in row] for row in self.labels])
        return np.unique(named.T, axis=0)

    def canonical(self, orbits: Orbits) -> Orbits:
        """Return the description of orbits that sorts first."""
        return min(
            tuple(tuple(sorted(image[list(of_element)].tolist())) for of_element in orbits)
            for image in self.images
        )


@lru_cache(maxsize=230)
def wyckoff_table(number: int) -> WyckoffTable:
    """Return the Wyckoff positions of a space group (1 to 230)."""
    group = space_group(number)
    seen: set[bytes] = set()
    found = []
    for keeps, points in _by_site_symmetry(number):
        projector = group.rotations[keeps].mean(0)
        loci = locus(points, np.broadcast_to(projector, (len(points), 3, 3)))
        for point, one in zip(points, loci, strict=True):
            if one.tobytes() not in seen:
                seen |= {image.tobytes() for image in _image_loci(number, point, projector)}
                labels = label_everywhere(number, point, projector)
                found.append((keeps, projector, point, labels))
    found.sort(key=lambda p: (-p[0].sum(), tuple(p[2]), int(p[3][0])))
    keeps, projectors, points, labels = (np.array(column) for column in zip(*found, strict=True))
    return WyckoffTable(
        number,
        len(group.rotations) // keeps.sum(1),
        points,
        projectors,
        labels,
        np.array([_orders(group.rotations[of_site]) for of_site in keeps]),
    )


def _image_loci(
    number: int, point: NDArray[np.float64], projector: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Return what fixes each of the sites (m, planes) that a space group takes a site to."""
    group = space_group(number)
    images = group.rotations @ point + group.translations
    return locus(images, group.rotations @ projector @ np.linalg.inv(group.rotations))


def _by_site_symmetry(number: int) -> list[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Return points (p, 3) of the grid by which operations (m,) keep them; one point if none."""
    group, points = space_group(number), grid_points()
    bits = np.zeros(len(points), dtype=np.uint64)
    for place, (w, t) in enumerate(zip(group.rotations, group.translations, strict=True)):
        apart = points @ (w - np.eye(3, dtype=np.int64)).T + t
        kept = (np.abs(apart - np.rint(apart)) < 1e-6).all(1)
        bits |= kept.astype(np.uint64) << np.uint64(place)
    order = np.argsort(bits, kind="stable")
    kinds, first = np.unique(bits[order], return_index=True)
    places = np.arange(len(group.rotations), dtype=np.uint64)
    found = []
    for kind, of_kind in zip(kinds, np.split(order, first[1:]), strict=True):
        keeps = (kind >> places & np.uint64(1)).astype(bool)
        found.append((keeps, points[of_kind if keeps.sum() > 1 else of_kind[:1]]))
    return found


def _orders(rotations: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many rotations (m, 3, 3) are 1, 2, 3, 4, 6, -1, m, -3, -4, -6."""
    traces = np.trace(rotations, axis1=1, axis2=2)
    proper = np.rint(np.linalg.det(rotations)).astype(np.int64) > 0
    place = {3: 0, -1: 1, 0: 2, 1: 3, 2: 4}
    kinds = [
        place[int(t)] if right else 5 + place[-int(t)]
        for t, right in zip(traces, proper, strict=True)
    ]
    return np.bincount(kinds, minlength=10)


@dataclass(frozen=True)
class PlacedOrbit:
    """Sites of a crystal that its space group takes to each other.

    Attributes
    ----------
    place
        Of their Wyckoff position in the table of the space group.
    sites
        Places in the crystal.
    """

    place: int
    sites: tuple[int, ...]


def placed_orbits(
    number: int,
    numbers: NDArray[np.int64],
    frac_coords: NDArray[np.float64],
    lattice: NDArray[np.float64],
) -> list[PlacedOrbit] | None:
    """Return the orbits of a crystal in the primitive setting of its space group.

    Parameters
    ----------
    number
        Of the space group.
    numbers, frac_coords, lattice
        As of `find_ties`.

    Returns
    -------
    None if it does not have that symmetry.
    """
    group, table = space_group(number), wyckoff_table(number)
    ties = find_ties(group.rotations, group.translations, lattice, numbers, frac_coords)
    if ties is None:
        return None
    projectors, orbits = ties.site_projectors(), ties.orbits
    found = []
    for first in np.unique(orbits).tolist():
        key = locus(frac_coords[first][None], projectors[first][None]).tobytes()
        if key not in table.by_locus:
            return None
        sites = tuple(np.flatnonzero(orbits == first).tolist())
        found.append(PlacedOrbit(table.by_locus[key], sites))
    return found
