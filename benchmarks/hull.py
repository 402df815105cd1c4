"""Energy above hull of many candidates: pccd_workflows against pymatgen's PhaseDiagram.

    python benchmarks/hull.py --json [--data entries.jsonl.gz] [--n 10000]

Candidates are random compositions in 500 random chemical systems, placed on the hull of all
entries of the data (`id`, `formula` and `formation_energy_per_atom` per JSON line; elements
without an entry are at 0 eV/atom). pymatgen is timed on a sample of the systems, interleaved with
our own placement of the same candidates; times are CPU seconds of one thread.
"""

import argparse
import gzip
import json
import random
import resource
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from command import run
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from pccd_workflows.analysis.hull import Hull, HullQuery, HullResult
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet

DATA = Path(__file__).parents[2] / "shared" / "data" / "mp_legacy_formation_energies.jsonl.gz"
LEVEL = "legacy"
System = tuple[str, ...]


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="JSON lines, may be gzipped")
    parser.add_argument("--n", type=int, default=10_000, help="candidates")
    parser.add_argument("--systems", type=int, default=500, help="chemical systems")
    parser.add_argument("--sample", type=int, default=20, help="systems pymatgen is timed on")
    parser.add_argument("--growth", action="store_true", help="also time n/10 and 10 n candidates")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    result = compare(read_entries(args.data), args.n, args.systems, args.sample)
    if args.growth:
        result["seconds_by_n"] = growth(read_entries(args.data), args.n, args.systems)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(f"{key:32} {value}" for key, value in result.items()))


def read_entries(path: Path) -> list[ReferenceEntry]:
    """Return the entries of a file, completed by elements at 0 eV/atom."""
    opener = gzip.open if path.suffix == ".gz" else open
    entries, elements, present = [], set(), set()
    with opener(path, "rt") as lines:
        for row in map(json.loads, lines):
            if row.get("formation_energy_per_atom") is None:
                continue
            composition = Composition(row["formula"])
            symbols = {element.symbol for element in composition}
            elements |= symbols
            present |= symbols if len(symbols) == 1 else set()
            energy = row["formation_energy_per_atom"] * composition.num_atoms
            entries.append(
                ReferenceEntry(entry_id=row["id"], formula=row["formula"], energy=energy)
            )
    return entries + [
        ReferenceEntry(entry_id=f"element-{symbol}", formula=symbol, energy=0.0)
        for symbol in sorted(elements - present)
    ]


def make_queries(entries: list[ReferenceEntry], n: int, n_systems: int) -> list[HullQuery]:
    """Return random candidates, the same number in each of some random systems of the entries."""
    rng = random.Random(0)  # noqa: S311
    systems = sorted({_system(e.composition) for e in entries})
    chosen = rng.sample([s for s in systems if len(s) > 1], n_systems)
    queries = []
    for index in range(n):
        system = chosen[index % n_systems]
        composition = Composition({symbol: rng.randint(1, 6) for symbol in system})
        energy = rng.uniform(-3.0, 0.5) * composition.num_atoms
        queries.append(HullQuery(str(index), composition, energy, "mp2020", LEVEL))
    return queries


def compare(entries: list[ReferenceEntry], n: int, n_systems: int, sample: int) -> dict[str, float]:
    """Return times, speed-ups and the largest difference."""
    start = time.process_time()
    hull = new_hull(entries)
    build = time.process_time() - start
    queries = make_queries(entries, n, n_systems)
    start = time.process_time()
    results = hull.place(queries)
    ours = time.process_time() - start
    by_system: dict[System, list[HullQuery]] = defaultdict(list)
    for query in queries:
        by_system[_system(query.composition)].append(query)
    phases: dict[System, list[PDEntry]] = defaultdict(list)
    for entry in entries:
        phases[_system(entry.composition)].append(PDEntry(entry.composition, entry.energy))
    once, each, placed, difference, count = 0.0, 0.0, 0.0, 0.0, 0
    fresh = new_hull(entries)
    rng = random.Random(1)  # noqa: S311
    for system in rng.sample(sorted(by_system), sample):
        members = by_system[system]
        start = time.process_time()
        mine = fresh.place(members)
        placed += time.process_time() - start
        start = time.process_time()
        diagram = PhaseDiagram(_phases(phases, system))
        theirs = [_above_hull(diagram, query) for query in members]
        once += time.process_time() - start
        start = time.process_time()
        _above_hull(PhaseDiagram(_phases(phases, system)), members[0])
        each += (time.process_time() - start) * len(members)
        count += len(members)
        difference = max(difference, *_differences(mine, theirs))
        if mine != [results[int(query.id)] for query in members]:
            raise SystemExit("The placement depends on what else is placed.")
    return {
        "n_candidates": n,
        "n_systems": n_systems,
        "n_entries": len(entries),
        "index_seconds": round(build, 2),
        "seconds": round(ours, 3),
        "ms_per_candidate": round(1000 * ours / n, 4),
        "compared_systems": sample,
        "compared_candidates": count,
        "speedup_vs_per_candidate": round(each / placed, 1),
        "speedup_vs_per_system": round(once / placed, 1),
        "max_abs_difference_ev_per_atom": difference,
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def growth(entries: list[ReferenceEntry], n: int, n_systems: int) -> dict[int, float]:
    """Return CPU seconds for n/10, n and 10 n candidates, each with a fresh hull."""
    seconds = {}
    for size in (n // 10, n, 10 * n):
        queries = make_queries(entries, size, n_systems)
        hull = new_hull(entries)
        start = time.process_time()
        hull.place(queries)
        seconds[size] = round(time.process_time() - start, 3)
    return seconds


def new_hull(entries: list[ReferenceEntry]) -> Hull:
    """Return a hull of all entries, nothing computed yet."""
    return Hull(
        ReferenceSet(
            source="file", chemsys="all", level=LEVEL, convention="mp2020", entries=entries
        )
    )


def _differences(mine: list[HullResult], theirs: list[float]) -> list[float]:
    pairs = zip(mine, theirs, strict=True)
    return [abs(result.energy_above_hull - other) for result, other in pairs]


def _system(composition: Composition) -> System:
    return tuple(sorted(element.symbol for element in composition))


def _phases(phases: dict[System, list[PDEntry]], system: System) -> list[PDEntry]:
    subsystems = (s for k in range(1, len(system) + 1) for s in combinations(system, k))
    return [entry for subsystem in subsystems for entry in phases.get(subsystem, ())]


def _above_hull(diagram: PhaseDiagram, query: HullQuery) -> float:
    entry = PDEntry(query.composition, query.energy)
    return float(diagram.get_decomp_and_e_above_hull(entry, allow_negative=True)[1])


if __name__ == "__main__":
    run(main)
