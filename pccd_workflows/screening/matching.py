"""Which crystals are the same: groups inside a campaign, novelty against known crystals.

Two crystals match if pymatgen's StructureMatcher fits them in one direction or the other. Groups
are the connected components of that relation, hence independent of the order of the input.
"""

from collections.abc import Iterable, Sequence

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from pccd_workflows.campaign import MatcherSettings

DEFAULT_SETTINGS = MatcherSettings()


def _matcher(settings: MatcherSettings) -> StructureMatcher:
    return StructureMatcher(
        ltol=settings.ltol, stol=settings.stol, angle_tol=settings.angle_tol, primitive_cell=False
    )


def _reduce(structure: Structure) -> Structure:
    """Return the Niggli-reduced primitive cell without oxidation states and properties."""
    bare = Structure(structure.lattice, structure.species, structure.frac_coords)
    return bare.get_reduced_structure().get_primitive_structure()


def _match(matcher: StructureMatcher, a: Structure, b: Structure) -> bool:
    return len(a) == len(b) and (
        matcher.fit(a, b, skip_structure_reduction=True)
        or matcher.fit(b, a, skip_structure_reduction=True)
    )


def group(
    structures: Sequence[Structure],
    *,
    settings: MatcherSettings = DEFAULT_SETTINGS,
    processes: int = 1,  # noqa: ARG001
) -> list[list[int]]:
    """Return groups of matching structures as sorted lists of indices, by first member.

    Parameters
    ----------
    structures
        Ordered crystals.
    settings
        Tolerances of the matcher.
    processes
        Worker processes.
    """
    matcher = _matcher(settings)
    reduced = [_reduce(s) for s in structures]
    parent = list(range(len(structures)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    buckets: dict[tuple[str, int], list[int]] = {}
    for index, crystal in enumerate(reduced):
        buckets.setdefault((crystal.composition.reduced_formula, len(crystal)), []).append(index)
    for members in buckets.values():
        for n, j in enumerate(members):
            for i in members[:n]:
                if root(i) != root(j) and _match(matcher, reduced[i], reduced[j]):
                    low, high = sorted((root(i), root(j)))
                    parent[high] = low
    groups: dict[int, list[int]] = {}
    for index in range(len(structures)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())


class KnownCrystals:
    """Crystals that are known, by id; a new one is compared with those of its composition."""

    def __init__(
        self,
        crystals: Iterable[tuple[str, Structure]] = (),
        *,
        settings: MatcherSettings = DEFAULT_SETTINGS,
    ) -> None:
        self._matcher = _matcher(settings)
        self._known: dict[tuple[str, int], list[tuple[str, Structure]]] = {}
        self._count = 0
        for identifier, structure in crystals:
            self.add(identifier, structure)

    def __len__(self) -> int:
        return self._count

    def add(self, identifier: str, structure: Structure) -> None:
        """Make a crystal known."""
        reduced = _reduce(structure)
        key = (reduced.composition.reduced_formula, len(reduced))
        self._known.setdefault(key, []).append((identifier, reduced))
        self._count += 1

    def find(self, structure: Structure) -> str | None:
        """Return the smallest id of the known crystals that match, None if there is none."""
        reduced = _reduce(structure)
        known = self._known.get((reduced.composition.reduced_formula, len(reduced)), ())
        for identifier, other in sorted(known, key=lambda pair: pair[0]):
            if _match(self._matcher, reduced, other):
                return identifier
        return None
