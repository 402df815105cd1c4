"""How far a made crystal is from its target: the six metrics of the seed's Fig. 2.

The metrics are those of Wei et al., Comput. Mater. Sci. 235, 112802 (2024), which the seed takes
over (their code: CSPBenchMetrics), written anew over pymatgen. All are distances, 0 for the same
crystal; none depends on the order of the sites.

| metric | what | unit |
|---|---|---|
| energy | difference of the energies of a potential, magnitude | eV/atom |
| orbital_field_matrix | norm of the difference of the mean matrices (Pham et al. 2017) | - |
| crystal_nn_fingerprint | norm of the difference of the site statistics (matminer's "ops") | - |
| superpose | RMS distance after the best rotation, translation and scaling | Å |
| rms_anonymous | RMS displacement when elements may be renamed, unit (V/N)^(1/3) | - |
| graph_edit | edits (atoms and bonds) that turn one bond graph into the other | edits |

Where we differ from that code, and why: atoms are paired by periodic distance and element before
they are superposed (it takes them in the order of the files); bonds are those of CrystalNN (it
takes all pairs below 2.5 Å, which cuts most metallic and many ionic bonds); an atom of another
element costs one edit (it takes the difference of atomic numbers). Fingerprints are equal to those
of matminer 0.10.1, orbital field matrices too except for d and f elements: matminer takes the last
subshell that pymatgen lists for the outermost, which today is 3d for iron.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure
from scipy.optimize import linear_sum_assignment

from pccd_workflows.core.intervals import bootstrapped
from pccd_workflows.core.units import BOHR_TO_ANGSTROM

Floats = NDArray[np.float64]
Energy = Callable[[Structure], float | None]
"""Energy of a crystal as it is, eV/atom; None if the potential cannot say."""

METRICS = (
    "energy",
    "orbital_field_matrix",
    "crystal_nn_fingerprint",
    "superpose",
    "rms_anonymous",
    "graph_edit",
)
ANONYMOUS_MATCHER: dict[str, Any] = {"ltol": 0.6, "stol": 0.6, "angle_tol": 20.0}
"""Tolerances of Wei et al."""
UNDEFINED = (ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError)
"""What pymatgen, qhull and numpy raise for cells without proper neighbours."""
BEAM = 48
"""Partial assignments of a graph edit path that are kept."""
SHELLS = (2, 6, 10, 14)
"""Electrons that fit in an s, p, d and f subshell."""
MOTIFS: dict[int, tuple[str, ...]] = {
    1: ("sgl_bd",),
    2: ("L-shaped", "water-like", "bent 120 degrees", "bent 150 degrees", "linear"),
    3: ("trigonal planar", "trigonal non-coplanar", "T-shaped"),
    4: (
        "square co-planar",
        "tetrahedral",
        "rectangular see-saw-like",
        "see-saw-like",
        "trigonal pyramidal",
    ),
    5: ("pentagonal planar", "square pyramidal", "trigonal bipyramidal"),
    6: ("hexagonal planar", "octahedral", "pentagonal pyramidal"),
    7: ("hexagonal pyramidal", "pentagonal bipyramidal"),
    8: ("body-centered cubic", "hexagonal bipyramidal"),
    9: ("q2", "q4", "q6"),
    10: ("q2", "q4", "q6"),
    11: ("q2", "q4", "q6"),
    12: ("cuboctahedral", "q2", "q4", "q6"),
}
"""Order parameters by coordination number of the "ops" preset (Zimmermann & Jain 2020)."""
MAX_COORDINATION = 24


@dataclass(frozen=True)
class Similarity:
    """Distances of pairs of crystals.

    Attributes
    ----------
    distances
        Shape (n,). By metric, NaN where it is not defined (no match, or the potential cannot say).
    """

    distances: dict[str, Floats]

    def summary(self) -> dict[str, Any]:
        """Return the median of each metric with its interval, and the quartiles."""
        return {name: _median(values) for name, values in self.distances.items()}


def compare_pairs(
    pairs: Sequence[tuple[Structure, Structure]], energy: Energy | None = None
) -> Similarity:
    """Return the six distances of pairs (target, made); five without an energy."""
    rows = [distances(target, made, energy) for target, made in pairs]
    names = [name for name in METRICS if name != "energy" or energy is not None]
    return Similarity({name: np.array([row[name] for row in rows], dtype=float) for name in names})


def distances(target: Structure, made: Structure, energy: Energy | None = None) -> dict[str, float]:
    """Return the distances of two crystals by metric, NaN where one is not defined.

    Neighbours are not defined for every cell (atoms on top of each other, a wide gap).
    """
    measures: dict[str, Callable[[], float]] = {
        "orbital_field_matrix": lambda: _norm(
            orbital_field_matrix(target), orbital_field_matrix(made)
        ),
        "superpose": lambda: superpose(target, made),
        "rms_anonymous": lambda: rms_anonymous(target, made),
    }
    found = {name: _or_nan(measure) for name, measure in measures.items()}
    found |= _neighbour_distances(target, made)
    if energy is not None:
        found["energy"] = energy_distance(target, made, energy)
    return found


def _or_nan(measure: Callable[[], float]) -> float:
    try:
        return measure()
    except UNDEFINED:
        return np.nan


def _neighbour_distances(target: Structure, made: Structure) -> dict[str, float]:
    """Return the two distances that rest on CrystalNN's neighbours, found once for both."""
    try:
        one, other = neighbour_shells(target), neighbour_shells(made)
        return {
            "crystal_nn_fingerprint": _norm(fingerprint(target, one), fingerprint(made, other)),
            "graph_edit": graph_edit_distance(bond_graph(target, one), bond_graph(made, other)),
        }
    except UNDEFINED:
        return {"crystal_nn_fingerprint": np.nan, "graph_edit": np.nan}


def energy_distance(target: Structure, made: Structure, energy: Energy) -> float:
    """Return the magnitude of the difference of two energies, eV/atom; NaN if one is unknown."""
    first, second = energy(target), energy(made)
    return np.nan if first is None or second is None else abs(first - second)


# Orbital field matrix


@lru_cache(maxsize=128)
def valence_vector(number: int) -> Floats:
    """Return which valence subshells an atom has: one-hot s1 s2 p1..p6 d1..d10 f1..f14, (32,).

    Valence are the outermost shell, the d subshell below it and the f subshell two below.
    """
    configuration = Element.from_Z(number).full_electronic_structure
    outermost = max(n for n, _, _ in configuration)
    vector = np.zeros(sum(SHELLS))
    for n, kind, electrons in configuration:
        if n < outermost - {"s": 0, "p": 0, "d": 1, "f": 2}[kind]:
            continue
        place = "spdf".index(kind)
        start = sum(SHELLS[:place])
        vector[start : start + SHELLS[place]] = 0  # the outer of two subshells of a kind counts
        vector[start + electrons - 1] = 1
    return vector


def orbital_field_matrix(structure: Structure) -> Floats:
    """Return the orbital field matrix, averaged over the sites, (32, 32).

    Rows: subshells of the neighbours; columns: of the site. Each Voronoi neighbour counts with its
    solid angle, relative to the largest, over its distance (1/bohr).
    """
    from pymatgen.analysis.local_env import VoronoiNN

    vectors = [valence_vector(z) for z in structure.atomic_numbers]
    voronoi = VoronoiNN(allow_pathological=True)
    total = np.zeros((len(vectors[0]), len(vectors[0])))
    for site, neighbours in enumerate(voronoi.get_all_nn_info(structure)):
        for near in neighbours:
            distance = np.linalg.norm(near["site"].coords - structure[site].coords)
            weight = near["weight"] / distance * BOHR_TO_ANGSTROM
            total += weight * np.outer(vectors[near["site_index"]], vectors[site])
    return total / len(structure)


# CrystalNN fingerprint


def neighbour_shells(structure: Structure) -> list[Any]:
    """Return the neighbour shells of each site by coordination number (CrystalNN's NNData)."""
    from pymatgen.analysis.local_env import CrystalNN

    finder = CrystalNN(distance_cutoffs=None, x_diff_weight=0)
    return [finder.get_nn_data(structure, site) for site in range(len(structure))]


def fingerprint(structure: Structure, shells: list[Any]) -> Floats:
    """Return mean, standard deviation, minimum and maximum of the site fingerprints, (244,)."""
    sites = np.array([site_fingerprint(structure, site, data) for site, data in enumerate(shells)])
    return np.concatenate([sites.mean(0), sites.std(0), sites.min(0), sites.max(0)])


def site_fingerprint(structure: Structure, site: int, shells: Any) -> list[float]:
    """Return the likelihood of each coordination number, times each of its motifs, (61,)."""
    values: list[float] = []
    for coordination in range(1, MAX_COORDINATION + 1):
        weight = shells.cn_weights.get(coordination, 0)
        values.append(weight)
        for motif in MOTIFS.get(coordination, ()):
            if weight == 0:
                values.append(0.0)
                continue
            sites = [structure[site], *(n["site"] for n in shells.cn_nninfo[coordination])]
            found = _order_parameter(coordination, motif).get_order_parameters(
                sites, 0, indices_neighs=list(range(1, len(sites)))
            )[0]
            values.append(weight * (found or 0.0))
    return values


@lru_cache(maxsize=64)
def _order_parameter(coordination: int, motif: str) -> Any:
    from pymatgen.analysis.local_env import LocalStructOrderParams, cn_opt_params

    found: list[Any] = [*cn_opt_params.get(coordination, {}).get(motif, [motif])]
    kind, *parameters = found
    return LocalStructOrderParams([kind], parameters=[parameters[0] if parameters else None])


# Superpose


def superpose(target: Structure, made: Structure) -> float:
    """Return the RMS distance (Å) of paired atoms after the best rigid motion and scaling.

    The atoms of two cells are paired within their element by nearest images, with each atom of
    the rarest element as common origin; the best counts. NaN for different compositions. The
    cells must be described alike (as training cells are); a cell of one atom always superposes.
    """
    if target.composition != made.composition:
        return np.nan
    other = np.array([[a != b for b in made.species] for a in target.species])
    anchor = min(range(len(target)), key=lambda site: int((~other[site]).sum()))
    return min(
        _superposed_on(target, made, other, made.frac_coords[site] - target.frac_coords[anchor])
        for site in np.flatnonzero(~other[anchor])
    )


def _superposed_on(
    target: Structure, made: Structure, other: NDArray[np.bool_], shift: Floats
) -> float:
    """Return the RMS distance (Å) with atoms paired after shifting `made` (fractional)."""
    gaps = made.frac_coords[None] - shift - target.frac_coords[:, None]
    gaps -= np.rint(gaps)
    costs = np.where(other, 1e6, np.linalg.norm(gaps @ target.lattice.matrix, axis=2))
    rows, partner = linear_sum_assignment(costs)
    moved = (target.frac_coords + gaps[rows, partner]) @ made.lattice.matrix
    return _superposed_rms(target.cart_coords, moved)


def _superposed_rms(fixed: Floats, moving: Floats) -> float:
    """Return the RMS distance of two sets of points (n, 3) after Umeyama's best similarity."""
    a, b = fixed - fixed.mean(0), moving - moving.mean(0)
    spread = (b**2).sum()
    if spread < 1e-12:  # one atom, or all at one place
        return float(np.sqrt((a**2).sum() / len(a)))
    _, singular, _ = np.linalg.svd(a.T @ b)
    if np.linalg.det(a.T @ b) < 0:  # no reflections
        singular[-1] *= -1
    left = (a**2).sum() - singular.sum() ** 2 / spread
    return float(np.sqrt(max(left, 0.0) / len(a)))


# RMS anonymous


def rms_anonymous(target: Structure, made: Structure) -> float:
    """Return the RMS displacement in units of (V/N)^(1/3) if elements may be renamed, else NaN."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if target.composition.anonymized_formula != made.composition.anonymized_formula:
        return np.nan
    rms = StructureMatcher(**ANONYMOUS_MATCHER).get_rms_anonymous(target, made)[0]
    return np.nan if rms is None else float(rms)


# Graph edit distance


@dataclass(frozen=True)
class BondGraph:
    """Atoms of one cell and how many bonds join them, images counted.

    Attributes
    ----------
    numbers
        Shape (n,). Atomic numbers.
    bonds
        Shape (n, n). Symmetric.
    """

    numbers: NDArray[np.int64]
    bonds: Floats


def bond_graph(structure: Structure, shells: list[Any]) -> BondGraph:
    """Return the bonds to the neighbours of each site's likeliest coordination number."""
    bonds = np.zeros((len(structure), len(structure)))
    for site, data in enumerate(shells):
        likeliest = max(data.cn_weights, key=data.cn_weights.get, default=0)
        for near in data.cn_nninfo.get(likeliest, []):
            bonds[site, near["site_index"]] += 1
    np.fill_diagonal(bonds, np.diag(bonds) / 2)  # a bond to an image of itself is seen twice
    return BondGraph(np.array(structure.atomic_numbers), np.maximum(bonds, bonds.T))


def graph_edit_distance(one: BondGraph, other: BondGraph) -> float:
    """Return the number of edits that turn one graph into the other.

    Edits: add, remove or rename an atom; add or remove a bond. The least number is found by beam
    search, atom by atom along the bonds: exact for small cells, else an upper bound.
    """
    n, m = len(one.numbers), len(other.numbers)
    order = _along_bonds(one)
    paths: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for step, atom in enumerate(order):
        done = one.bonds[atom, order[:step]]
        grown: list[tuple[float, tuple[int, ...]]] = []
        for cost, images in paths:
            used = np.array(images, dtype=np.intp)
            kept = used < m  # index m stands for "removed"
            base = cost + done[~kept].sum()
            free = np.setdiff1d(np.arange(m), used[kept])
            change = np.abs(other.bonds[np.ix_(free, used[kept])] - done[kept]).sum(1)
            change += np.abs(other.bonds[free, free] - one.bonds[atom, atom])
            change += other.numbers[free] != one.numbers[atom]
            grown += [
                (base + extra, (*images, image))
                for extra, image in zip(change.tolist(), free.tolist(), strict=True)
            ]
            removed = 1 + done[kept].sum() + one.bonds[atom, atom]
            grown.append((base + removed, (*images, m)))
        paths = sorted(grown)[:BEAM]
    return min(cost + _insertions(other, images) for cost, images in paths) if n else float(m)


def _along_bonds(graph: BondGraph) -> list[int]:
    """Return the atoms so that each has as many bonds as possible to those before it."""
    order: list[int] = []
    rest = set(range(len(graph.numbers)))
    degrees = graph.bonds.sum(1)
    while rest:
        best = max(rest, key=lambda i: (graph.bonds[i, order].sum(), degrees[i], -i))
        order.append(best)
        rest.remove(best)
    return order


def _insertions(graph: BondGraph, images: tuple[int, ...]) -> float:
    """Return the edits that add the atoms nobody is mapped to, with their bonds."""
    new = np.setdiff1d(np.arange(len(graph.numbers)), images)
    old = np.setdiff1d(np.arange(len(graph.numbers)), new)
    inner = graph.bonds[np.ix_(new, new)]
    bonds = np.triu(inner).sum() + graph.bonds[np.ix_(new, old)].sum()
    return float(len(new) + bonds)


def _norm(one: Floats, other: Floats) -> float:
    return float(np.linalg.norm(one - other))


def _median(values: Floats) -> dict[str, Any]:
    """Return the median with its interval, and the quartiles."""
    known = values[np.isfinite(values)]
    quartiles = [round(float(q), 4) for q in np.percentile(known, [25, 75])] if len(known) else None
    return {**bootstrapped(values, np.median), "quartiles": quartiles}
