"""Known crystals with other elements on their sites: the oldest way to predict crystals.

Elements that stand for each other in many known compounds are exchanged (after Hautier et al. 2011,
DOI 10.1021/ic102031h). A model that is not better than this has learned nothing else.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pymatgen.core import Element, Structure

from pccd_workflows.core.crystal_files import content_sha256, entries
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import Unreadable
from pccd_workflows.core.sections import CampaignPath
from pccd_workflows.generators.elements import draw_elements, stream
from pccd_workflows.generators.pccd.chemistry import MAX_Z, atomic_radii, element_features
from pccd_workflows.generators.pccd.pointcloud.elements import atomic_number
from pccd_workflows.generators.protocol import Generated, GeneratorInfo
from pccd_workflows.generators.request import AskedElements, Generation

SOFTNESS = 0.25
"""A crystal farther by this than the nearest one is taken 1/e times as often."""
MAX_ELEMENTS = 6
"""All ways to exchange n elements are tried: 720 of 6."""


@dataclass(frozen=True)
class Template:
    """A crystal to take the structure from.

    Attributes
    ----------
    id
        Where it comes from.
    lattice
        float array (3, 3), Å.
    numbers
        Atomic number of each site.
    frac_coords
        float array (n_sites, 3).
    """

    id: str
    lattice: NDArray[np.float64]
    numbers: tuple[int, ...]
    frac_coords: NDArray[np.float64]

    @classmethod
    def of(cls, name: str, crystal: Structure) -> "Template":
        """Return an ordered crystal as a template."""
        numbers = tuple(int(site.specie.Z) for site in crystal)
        return cls(name, crystal.lattice.matrix, numbers, crystal.frac_coords)


@dataclass(frozen=True)
class Templates:
    """Known crystals by their elements, each read when it is needed.

    Attributes
    ----------
    name, version
        Of the file, or of the library.
    rows
        Numbers of the crystals with exactly these elements (atomic numbers, ascending).
    read
        Returns the crystal with a number.
    """

    name: str
    version: str
    rows: Mapping[tuple[int, ...], Sequence[int]]
    read: Callable[[int], Template]


class SubstitutionOptions(AskedElements):
    """Known crystals with the elements that are asked for."""

    crystals: CampaignPath | None = Field(
        None,
        description="File or folder of known crystals, as the source `files` takes them; the "
        "training crystals of the library that comes with the project if left out",
    )


class SubstitutionGenerator:
    """Known crystals of as many elements, the most alike ones most often.

    Parameters
    ----------
    options
        Elements, and the known crystals.
    """

    options_type: ClassVar[type[SubstitutionOptions]] = SubstitutionOptions

    def __init__(self, options: SubstitutionOptions) -> None:
        self.options = options

    @cached_property
    def _templates(self) -> Templates:
        path = self.options.crystals
        return _of_library() if path is None else _of_file(path, content_sha256(path))

    def info(self) -> GeneratorInfo:
        """Return name and version of the known crystals."""
        found = self._templates
        return GeneratorInfo(name=found.name, version=found.version, max_elements=MAX_ELEMENTS)

    def check(self) -> None:
        """See that there are crystals to take structures from, and not too many elements.

        Raises
        ------
        InputError
            There are none, or more elements than can be exchanged.
        """
        most = self.options.most_elements()
        if most > MAX_ELEMENTS:
            raise InputError(f"Source substitution takes up to {MAX_ELEMENTS} elements.")
        if not self._templates.rows:
            raise InputError(f"{self._templates.name} holds no crystal to start from.")

    def generate(self, indices: Sequence[int]) -> Iterator[Generated]:
        """Yield samples, one at a time."""
        for index in indices:
            began = time.perf_counter()
            elements = draw_elements(self.options, index)
            found = self._sample(elements, index)
            structure, origin = (None, None) if found is None else found
            reason = None
            if structure is None:
                reason = f"no known crystal of {len(elements)} other elements"
            yield Generated(
                index,
                structure,
                Generation(
                    source=self.options.source,
                    model=self._templates.name,
                    weights_sha256=self._templates.version,
                    seed=self.options.seed,
                    index=index,
                    elements=list(elements),
                    origin=origin,
                    error_class=None if reason is None else "no_analogue",
                    reason=reason,
                    seconds=time.perf_counter() - began,
                ),
            )

    def _sample(self, elements: tuple[str, ...], index: int) -> tuple[Structure, str] | None:
        numbers = tuple(atomic_number(name) for name in elements)
        rows, assignments, weights = self._choices(numbers)
        if not rows:
            return None
        rng = np.random.default_rng(stream(self.options.seed, index, "substitution"))
        place = int(rng.choice(len(rows), p=weights))
        crystal = self._templates.read(rows[place])
        return exchange(crystal, assignments[place]), crystal.id

    @cached_property
    def _remembered(self) -> dict[tuple[int, ...], Any]:
        return {}

    def _choices(
        self, asked: tuple[int, ...]
    ) -> tuple[list[int], list[dict[int, int]], NDArray[np.float64]]:
        """Return rows of known crystals, how their elements are exchanged, and their weights."""
        if asked not in self._remembered:
            distance = element_distance()
            rows: list[int] = []
            assignments: list[dict[int, int]] = []
            far: list[float] = []
            for own, members in self._templates.rows.items():
                if len(own) != len(asked) or set(own) == set(asked):
                    continue
                ways = list(permutations(asked))
                costs = [sum(distance[a, b] for a, b in zip(own, w, strict=True)) for w in ways]
                best = int(np.argmin(costs))
                rows += members
                assignments += [dict(zip(own, ways[best], strict=True))] * len(members)
                far += [costs[best]] * len(members)
            weights = np.exp((min(far, default=0) - np.array(far, dtype=float)) / SOFTNESS)
            self._remembered[asked] = (rows, assignments, weights / max(weights.sum(), 1e-300))
        found: tuple[list[int], list[dict[int, int]], NDArray[np.float64]] = self._remembered[asked]
        return found


def exchange(crystal: Template, exchanged: Mapping[int, int]) -> Structure:
    """Return a crystal with other elements, its cell scaled to them.

    The volume changes as the sum of the cubes of the atomic radii does; relaxing does the rest.
    """
    numbers = [exchanged[z] for z in crystal.numbers]
    elements = [Element.from_Z(z) for z in numbers]
    radii = atomic_radii().astype(float)
    old, new = (float((radii[list(n)] ** 3).sum()) for n in (crystal.numbers, numbers))
    return Structure(crystal.lattice * math.cbrt(new / old), elements, crystal.frac_coords)


@lru_cache(maxsize=1)
def element_distance() -> NDArray[np.float64]:
    """Return how unlike two elements are, (Z, Z) by atomic number; 0 of an element to itself.

    Distance of their tabulated features (electronegativity, radius, group, block, oxidation
    states), 2 on average as the distances are that a model learns.
    """
    features = element_features().astype(float)
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    known = distance[1:, 1:]
    scaled: NDArray[np.float64] = distance * 2 / known[known > 0].mean()
    return scaled


@lru_cache(maxsize=2)
def _of_file(path: Path, sha256: str) -> Templates:
    found: list[Template] = []
    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for entry in entries(path, tolerant=True):
        crystal = entry.read()
        if isinstance(crystal, Unreadable):
            continue
        template = Template.of(entry.name, crystal)
        if max(template.numbers) <= MAX_Z:
            rows[tuple(sorted(set(template.numbers)))].append(len(found))
            found.append(template)
    return Templates(path.name, sha256, rows, found.__getitem__)


@lru_cache(maxsize=1)
def _of_library() -> Templates:
    """Return the training crystals of the library: the others choose nothing."""
    try:
        library = import_module("pccd_workflows.known.library").library()
    except ImportError:
        raise InputError(
            "Source substitution needs `crystals`, a file or folder of known crystals."
        ) from None
    rows: dict[tuple[int, ...], list[int]] = {}
    for system in library.systems:
        numbers = tuple(sorted(atomic_number(name) for name in system.split("-")))
        members = library.rows_in(system, subsystems=False)
        chosen = [row for row in members if library.crystal(row).split == "train"]
        if chosen and numbers[-1] <= MAX_Z:
            rows[numbers] = chosen

    def read(row: int) -> Template:
        crystal = library.crystal(row)
        return Template.of(crystal.id, crystal.structure)

    return Templates("library", library.version, rows, read)
