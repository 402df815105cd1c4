"""How the work on known materials grows with the number of candidates, and what a million costs.

    python benchmarks/growth.py --json --plot docs/images/known-materials-growth.svg

Crystals of the data, replicated with noise (0.05 Å, 1 % strain, another origin and order of sites),
are the candidates. Three things are timed, each in batches as a campaign hands them over:

*hull*       placing on the 100 k-entry legacy hull, in 500 chemical systems;
*novelty*    looking up among all crystals of the data;
*group*      grouping; a hundred candidates per formula, whatever their number.

Times are CPU seconds of one process, memory is what it holds after each size. `--replicas` makes
the known crystals themselves more: reduced cells copied with noise, up to a million of them.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from command import run
from hull import DATA as ENTRIES
from hull import make_queries, new_hull, read_entries
from matching import DATA, Row, make_campaign, read_rows, structure_of
from pymatgen.core import Structure

from pccd_workflows.matching.cells import Cell
from pccd_workflows.matching.groups import group
from pccd_workflows.matching.known_crystals import KnownCrystals

BATCH = 1000
"""Candidates per batch."""
MILLION = 1_000_000
Steps = list[dict[str, float]]


def main() -> None:
    """Measure what is asked for, print it, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="crystals: JSON lines, gzipped")
    parser.add_argument("--entries", type=Path, default=ENTRIES, help="phases of the hull")
    parser.add_argument("--n", type=int, default=100_000, help="candidates, hull")
    parser.add_argument("--novelty", type=int, default=100_000, help="candidates, novelty")
    parser.add_argument("--group", type=int, default=10_000, help="candidates, grouping")
    parser.add_argument("--replicas", type=int, default=11, help="known crystals, times")
    parser.add_argument("--index", type=Path, help="keep the index of known crystals here (.npz)")
    parser.add_argument("--plot", type=Path, help="where to draw it (.svg or .png)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    result: dict[str, Any] = {}

    def note(name: str, found: Steps) -> None:
        result[name] = found
        print(json.dumps({name: found}), file=sys.stderr)

    note("hull", grow_hull(args.entries, args.n))
    rows = read_rows(args.data)
    note("group", grow_groups(rows, args.group))
    known = index_of(rows, args.index)
    note("novelty", grow_novelty(known, rows, args.novelty))
    note("more_known", more_known(known, rows, args.replicas))
    result["million"] = {name: of_a_million(result[name]) for name in ("hull", "novelty", "group")}
    if args.plot:
        draw(result, args.plot)
    print(json.dumps(result, indent=1) if args.json else _table(result))


def index_of(rows: Sequence[Row], path: Path | None) -> KnownCrystals:
    """Return the index of the data's crystals, from the file if it is there."""
    if path is not None and path.exists():
        return KnownCrystals.load(path)
    known = KnownCrystals((row["id"], structure_of(row)) for row in rows)
    if path is not None:
        known.save(path)
    return known


def sizes(most: int) -> list[int]:
    """Return 300, 1,000, 3,000, ... up to `most`."""
    return [n for n in (300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, MILLION) if n <= most]


def measure(batches: Iterator[Any], work: Callable[[Any], object], most: int) -> Steps:
    """Return CPU seconds of `work` and memory held (MB) after each of the sizes.

    Making the batches is not counted.
    """
    steps: Steps = []
    done, seconds = 0, 0.0
    for batch in batches:
        start = time.process_time()
        work(batch)
        seconds += time.process_time() - start
        done += len(batch)
        if done in sizes(most):
            memory = psutil.Process().memory_info().rss / 2**20
            steps.append({"n": done, "seconds": round(seconds, 3), "rss_mb": round(memory)})
    return steps


def grow_hull(path: Path, most: int) -> Steps:
    """Place candidates, batch by batch, on one hull of all entries."""
    entries = read_entries(path)
    hull = new_hull(entries)
    queries = make_queries(entries, most, 500)
    batches = (queries[i : i + BATCH] for i in range(0, most, BATCH))
    return measure(batches, hull.place, most)


def grow_novelty(known: KnownCrystals, rows: Sequence[Row], most: int) -> Steps:
    """Look candidates up, batch by batch, among all crystals of the data."""
    rng = np.random.default_rng(3)
    batches = (
        [noisy(rows[rng.integers(len(rows))], rng) for _ in range(BATCH)]
        for _ in range(most // BATCH)
    )
    return measure(batches, known.find_all, most)


def grow_groups(rows: Sequence[Row], most: int) -> Steps:
    """Group campaigns of a hundred crystals per formula."""
    steps: Steps = []
    for n in sizes(most):
        crystals = make_campaign(rows, n, n // 100, seed=4)
        steps += [{**step, "n": n} for step in measure(iter([crystals]), group, n)]
    return steps


def noisy(row: Row, rng: np.random.Generator) -> Structure:
    """Return a crystal of the data with noise, permuted and shifted."""
    coords, matrix = np.array(row["frac_coords"]), np.array(row["lattice"])
    matrix = matrix @ (np.eye(3) + rng.normal(0, 0.01, (3, 3)))
    coords = coords + rng.normal(0, 0.05, coords.shape) @ np.linalg.inv(matrix) + rng.random(3)
    order = rng.permutation(len(coords))
    return Structure(matrix, [row["species"][i] for i in order], coords[order])


def more_known(known: KnownCrystals, rows: Sequence[Row], times: int) -> Steps:
    """Look 200 candidates up among more and more known crystals, copied with noise."""
    process = psutil.Process()
    pairs = [pair for some in known._known.values() for pair in some]
    rng = np.random.default_rng(5)
    asked = [noisy(rows[rng.integers(len(rows))], rng) for _ in range(200)]
    steps: Steps = []
    for copies in range(1, times + 1):
        if copies in (1, 3, times):
            start = time.process_time()
            known.find_all(asked)
            seconds = (time.process_time() - start) / len(asked)
            memory = round(process.memory_info().rss / 2**20)
            steps.append({"known": len(known), "ms": round(1000 * seconds, 2), "rss_mb": memory})
        for identifier, cell in pairs:
            known._add(f"{identifier}-{copies}", _copy(cell, rng))
    return steps


def _copy(cell: Cell, rng: np.random.Generator) -> Cell:
    matrix = cell.matrix + rng.normal(0, 0.01, (3, 3))
    return replace(cell, matrix=matrix, coords=cell.coords + rng.normal(0, 0.01, cell.coords.shape))


def of_a_million(steps: Steps) -> dict[str, float]:
    """Return the exponent of time, from the last two sizes, and the cost of a million by it."""
    (n, seconds), (m, more) = [(step["n"], step["seconds"]) for step in steps[-2:]]
    exponent = float(np.log(more / seconds) / np.log(m / n))
    hours = more * (MILLION / m) ** max(exponent, 1.0) / 3600
    return {"exponent": round(exponent, 2), "cpu_hours": round(hours, 2)}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw seconds and memory over the number of candidates."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "pccd"
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    labels = {"hull": "place on the hull", "novelty": "look up among 92 k", "group": "group"}
    for name, label in labels.items():
        n = [step["n"] for step in result[name]]
        left.loglog(n, [step["seconds"] for step in result[name]], "o-", label=label)
        right.semilogx(n, [step["rss_mb"] / 1024 for step in result[name]], "o-", label=label)
    ends = np.array(left.get_xlim())
    left.loglog(ends, ends / 1e3, ":", color="grey", label="1 ms per candidate")
    left.set(xlabel="candidates", ylabel="CPU time (s)")
    right.set(xlabel="candidates", ylabel="memory of the process (GB)", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _table(result: dict[str, Any]) -> str:
    lines: dict[str, list[str]] = defaultdict(list)
    for name, found in result.items():
        for step in found if isinstance(found, list) else [found]:
            lines[name].append(" ".join(f"{key}={value}" for key, value in step.items()))
    return "\n".join(f"{name}: {line}" for name, some in lines.items() for line in some)


if __name__ == "__main__":
    run(main)
