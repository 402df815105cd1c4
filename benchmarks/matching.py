"""Grouping and novelty: pccd_workflows against pymatgen's StructureMatcher.

    python benchmarks/matching.py --json [--data structures.jsonl.gz] [--n 10000]

*Group.* A campaign of n crystals of few formulas: the polymorphs of the data's most frequent
formulas, as near-duplicates (0 to 0.3 Å noise, 0 to 4 % strain), supercells, other cells, permuted
and shifted. Ours is timed on all of them. ``StructureMatcher.group_structures`` is quadratic in the
crystals of a formula, so its time is composed of what it does: n reductions, and one fit for each
comparison its algorithm makes (counted exactly, for groups like ours), each timed on a sample.
`group_speedup_measured` is the plain ratio on the sample itself, both sides in full; it grows with
the size of the sample. Disagreements are counted on another sample, of few polymorphs so
that many pairs match: its groups against the connected components of all pairs, fitted by
StructureMatcher in both directions.

*Novelty.* 1,000 candidates (variants of known crystals, and those with two elements swapped)
against all crystals of the data; StructureMatcher compares a sample of the candidates with the
references of the same formula, in both directions, as ``fit`` does it: cells are reduced when they
are needed and the last 300 kept.

Times are CPU seconds of one thread, so that other work on the machine does not count, but for
`group_seconds`: the time on the clock with --processes (all cores by default), in which everything
is grouped once more. `group_speedup` compares it with StructureMatcher, which knows one process
only; `group_speedup_one_process` compares CPU seconds. What is done is printed to standard error,
part by part. `disagreements` lists all that were found.
"""

import argparse
import gzip
import json
import os
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from command import run
from pymatgen.core import Composition, Structure
from pymatgen.core.structure_matcher import StructureMatcher
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pccd_workflows.matching.groups import DEFAULT_SETTINGS, group
from pccd_workflows.matching.known_crystals import KnownCrystals

DATA = Path(__file__).parents[2] / "shared" / "data" / "structures.jsonl.gz"
SUPERCELLS = np.array(
    [
        [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 1, 0], [-1, 1, 0], [0, 0, 1]],
        [[0, 1, 1], [1, 0, 1], [1, 1, 0]],
    ]
)
BASES = np.array(
    [
        [[1, 2, 0], [0, 1, 3], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ]
)
Row = dict[str, Any]


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="JSON lines, may be gzipped")
    parser.add_argument("--n", type=int, default=10_000, help="crystals to group")
    parser.add_argument("--candidates", type=int, default=1000, help="candidates for novelty")
    parser.add_argument("--sample", type=int, default=160, help="crystals for group_structures")
    parser.add_argument("--exact", type=int, default=200, help="crystals matched exhaustively")
    parser.add_argument("--formulas", type=int, default=8, help="formulas of the campaign")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="to group with")
    parser.add_argument("--known", type=int, help="known crystals at most (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    rows = read_rows(args.data)
    result: Row = {"n": args.n}
    for part in (
        lambda: compare_novelty(rows[: args.known], args.candidates, args.sample),
        lambda: count_disagreements(rows, args.exact),
        lambda: compare_groups(rows, args.n, args.formulas, args.sample, args.processes),
    ):
        result |= part()
        print(json.dumps(result), file=sys.stderr)
    result["disagreements"] = result.pop("group_list") + result.pop("novelty_list")
    result["peak_rss_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(f"{key:32} {value}" for key, value in result.items()))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file, only the fields that are needed."""
    opener = gzip.open if path.suffix == ".gz" else open
    keep = ("id", "formula", "lattice", "species", "frac_coords")
    with opener(path, "rt") as lines:
        return [{key: row[key] for key in keep} for row in map(json.loads, lines)]


def structure_of(row: Row) -> Structure:
    """Return the crystal of a row."""
    return Structure(row["lattice"], row["species"], row["frac_coords"])


@cache
def reduced_formula(formula: str) -> str:
    """Return a formula as pymatgen writes it."""
    return Composition(formula).reduced_formula


# groups ------------------------------------------------------------------------------------------


def make_campaign(
    rows: Sequence[Row], n: int, n_formulas: int, seed: int, n_polymorphs: int | None = None
) -> list[Structure]:
    """Return n variants of the polymorphs, or the first few, of the most frequent formulas."""
    polymorphs: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        polymorphs[row["formula"]].append(row)
    formulas = sorted(polymorphs, key=lambda f: (-len(polymorphs[f]), f))[:n_formulas]
    rng = np.random.default_rng(seed)
    crystals = []
    for index in range(n):
        choices = polymorphs[formulas[index % n_formulas]][:n_polymorphs]
        crystals.append(variant(structure_of(choices[rng.integers(len(choices))]), rng))
    return crystals


def variant(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return a crystal in another cell, order and origin, scaled and slightly distorted."""
    kind = rng.random()
    if kind < 0.15:
        structure = structure.make_supercell(rng.choice(SUPERCELLS), in_place=False)
    elif kind < 0.4:
        basis = rng.choice(BASES)
        coords = structure.frac_coords @ np.linalg.inv(basis)
        structure = Structure(basis @ structure.lattice.matrix, structure.species, coords)
    noise = rng.choice([0.0, 0.01, 0.03, 0.08, 0.3], p=[0.2, 0.3, 0.25, 0.1, 0.15])
    strain = rng.choice([0.0, 0.003, 0.01, 0.04], p=[0.3, 0.3, 0.3, 0.1])
    deformation = np.eye(3) + rng.normal(0, strain, (3, 3))
    matrix = structure.lattice.matrix @ deformation * rng.uniform(0.95, 1.05)
    coords = structure.frac_coords @ matrix + rng.normal(0, noise, (len(structure), 3))
    coords += rng.random(3) @ matrix
    order = rng.permutation(len(structure))
    species = [structure.species[i] for i in order]
    return Structure(matrix, species, coords[order], coords_are_cartesian=True, to_unit_cell=True)


def compare_groups(
    rows: Sequence[Row], n: int, n_formulas: int, sample: int, processes: int
) -> Row:
    """Return the times of grouping n crystals and of StructureMatcher on a sample."""
    crystals = make_campaign(rows, n, n_formulas, seed=0)
    start = time.process_time()
    groups = group(crystals, settings=DEFAULT_SETTINGS)
    ours = time.process_time() - start
    start = time.perf_counter()
    shared_out = group(crystals, settings=DEFAULT_SETTINGS, processes=processes)
    wall = time.perf_counter() - start
    if shared_out != groups:
        raise SystemExit(f"{processes} processes find other groups than one.")
    few = crystals[:sample]
    start = time.process_time()
    ours_few = group(few, settings=DEFAULT_SETTINGS)
    ours_sample = time.process_time() - start
    matcher = StructureMatcher()
    start = time.process_time()
    for crystal in few:
        matcher._get_reduced_structure(crystal)
    reduction = time.process_time() - start
    start = time.process_time()
    StructureMatcher().group_structures(few)
    theirs_sample = time.process_time() - start
    # the cache of 300 reduced structures makes the second reduction free
    reductions = 0.0 if sample <= 300 else reduction
    per_fit = (theirs_sample - reductions) / count_fits(few, ours_few)
    theirs = n * reduction / sample + per_fit * count_fits(crystals, groups)
    return {
        "group_processes": processes,
        "group_seconds": round(wall, 1),
        "group_cpu_seconds_one_process": round(ours, 1),
        "groups": len(groups),
        "group_structures_seconds_extrapolated": round(theirs, 1),
        "group_structures_ms_per_fit": round(1000 * per_fit, 2),
        "group_structures_fits": count_fits(crystals, groups),
        "group_speedup": round(theirs / wall, 1),
        "group_speedup_one_process": round(theirs / ours, 1),
        "group_sample": sample,
        "group_speedup_measured": round((reduction + theirs_sample) / ours_sample, 1),
    }


def count_fits(crystals: Sequence[Structure], groups: Sequence[Sequence[int]]) -> int:
    """Return how many fits group_structures makes if it finds these groups.

    It compares the first crystal of each group with all crystals of the same reduced formula that
    no earlier group has taken.
    """
    left = Counter(crystal.composition.reduced_formula for crystal in crystals)
    count = 0
    for members in groups:
        formula = crystals[members[0]].composition.reduced_formula
        count += left[formula] - 1
        left[formula] -= len(members)
    return count


def count_disagreements(rows: Sequence[Row], n: int) -> Row:
    """Return how many pairs our groups join or part otherwise than exhaustive matching."""
    crystals = make_campaign(rows, n, n_formulas=3, seed=1, n_polymorphs=6)
    labels = np.empty(n, dtype=int)
    for number, members in enumerate(group(crystals, settings=DEFAULT_SETTINGS)):
        labels[members] = number
    matcher = StructureMatcher()
    reduced = [matcher._get_reduced_structure(c) for c in crystals]
    edges = [
        (i, j)
        for i, j in combinations(range(n), 2)
        if len(reduced[i]) == len(reduced[j])
        and reduced[i].composition == reduced[j].composition
        and (
            matcher.fit(reduced[i], reduced[j], skip_structure_reduction=True)
            or matcher.fit(reduced[j], reduced[i], skip_structure_reduction=True)
        )
    ]
    one, other = np.array(edges).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(n, n))
    exact = connected_components(graph, directed=False)[1]
    ours = labels[:, None] == labels
    theirs = exact[:, None] == exact
    return {
        "disagreement_sample": n,
        "disagreement_pairs": n * (n - 1) // 2,
        "matching_pairs": len(edges),
        "group_disagreements": int((ours != theirs).sum()) // 2,
        "group_list": [
            f"{i} and {j} ({crystals[i].composition.reduced_formula}): "
            f"{'joined' if ours[i, j] else 'parted'} by us alone"
            for i, j in np.argwhere(np.triu(ours != theirs)).tolist()
        ],
    }


# novelty -----------------------------------------------------------------------------------------


def make_candidates(rows: Sequence[Row], n: int) -> list[Structure]:
    """Return variants of known crystals; of every second one two elements are swapped."""
    rng = np.random.default_rng(2)
    candidates = []
    for index in range(n):
        crystal = structure_of(rows[rng.integers(len(rows))])
        symbols = [element.symbol for element in crystal.elements]
        if index % 2 and len(symbols) > 1:
            swapped = dict(pairwise([*symbols, symbols[0]]))
            crystal.replace_species(swapped)
        candidates.append(variant(crystal, rng))
    return candidates


def compare_novelty(rows: Sequence[Row], n: int, sample: int) -> Row:
    """Return the times of looking candidates up among known crystals."""
    start = time.process_time()
    known = KnownCrystals((row["id"], structure_of(row)) for row in rows)
    build = time.process_time() - start
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.npz"
        known.save(path)
        size = path.stat().st_size
        start = time.process_time()
        known = KnownCrystals.load(path)
        load = time.process_time() - start
    candidates = make_candidates(rows, n)
    start = time.process_time()
    found = known.find_all(candidates)
    ours = time.process_time() - start
    matcher = StructureMatcher()
    references: dict[str, list[tuple[str, Structure]]] = defaultdict(list)
    formulas = {c.composition.reduced_formula for c in candidates[:sample]}
    for row in rows:
        formula = reduced_formula(row["formula"])
        if formula in formulas:
            references[formula].append((row["id"], structure_of(row)))
    start = time.process_time()
    expected = [_find(matcher, crystal, references) for crystal in candidates[:sample]]
    theirs = (time.process_time() - start) / len(expected)
    different = [i for i in range(len(expected)) if found[i] != expected[i]]
    return {
        "known_crystals": len(known),
        "index_seconds": round(build, 1),
        "index_mb": round(size / 1e6, 1),
        "index_load_seconds": round(load, 1),
        "candidates": n,
        "candidates_known": sum(identifier is not None for identifier in found),
        "novelty_ms_per_candidate": round(1000 * ours / n, 3),
        "novelty_sample": len(expected),
        "structure_matcher_ms_per_candidate": round(1000 * theirs, 1),
        "novelty_speedup": round(theirs / (ours / n), 1),
        "novelty_disagreements": len(different),
        "novelty_list": [f"candidate {i}: {found[i]}, not {expected[i]}" for i in different],
    }


def _find(
    matcher: StructureMatcher,
    crystal: Structure,
    references: dict[str, list[tuple[str, Structure]]],
) -> str | None:
    """Return the smallest id of the references that match in either direction."""
    known = references[crystal.composition.reduced_formula]
    for identifier, other in sorted(known, key=lambda pair: pair[0]):
        if matcher.fit(crystal, other) or matcher.fit(other, crystal):
            return identifier
    return None


if __name__ == "__main__":
    run(main)
