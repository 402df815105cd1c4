"""How close do predicted structures come to missing phases?

    OMP_NUM_THREADS=1 python benchmarks/predicted_phases.py --json [--number 40] [--ledger FILE]

Known stable compounds of the val and test chemical systems (at most 20 sites, two or three
elements) are taken for missing: no crystal of their composition lends its structure, as where the
library lacks a phase. The predicted structures are relaxed, and so is the compound. The control is
a hull without predictions, which has nothing there. Each compound is a line of the ledger; the same
call goes on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from command import run

from pccd_workflows.core.intervals import share
from pccd_workflows.engines.potential import relax
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.predicted import TYPES, predict_structures

CLOSE = 0.005
"""eV/atom."""
STABLE = 1e-3
"""eV/atom above the hull that the sources state."""


def main() -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", default="chgnet", help="a potential")
    parser.add_argument("--number", type=int, default=40, help="known compounds")
    parser.add_argument("--most", type=int, default=TYPES, help="structure types to relax of each")
    parser.add_argument("--ledger", type=Path, default=Path("scratch/predicted-phases.jsonl"))
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    known = library()
    args.ledger.parent.mkdir(parents=True, exist_ok=True)
    lines = args.ledger.read_text().splitlines() if args.ledger.is_file() else []
    found = {row["id"]: row for row in map(json.loads, lines)}
    chosen = [known.id_of(row) for row in compounds(known)[: args.number]]
    with args.ledger.open("a") as ledger:
        for identifier in chosen:
            if identifier not in found:
                found[identifier] = compare(known, identifier, args.level, args.most)
                ledger.write(json.dumps(found[identifier]) + "\n")
                ledger.flush()
    result = summary([found[identifier] for identifier in chosen])
    print(json.dumps(result, indent=1) if args.json else "\n".join(map(str, result.items())))
    return 0


def compounds(known: KnownLibrary) -> list[int]:
    """Return known stable compounds in a random order that is always the same."""
    small = (known.n_sites <= 20) & (known.n_elements > 1) & (known.n_elements <= 3)
    rows = np.flatnonzero((known.energy_above_hull <= STABLE) & small).tolist()
    hidden = [row for row in rows if known.crystal(row).split in ("val", "test")]
    return [int(row) for row in np.random.default_rng(5).permutation(hidden)]


def compare(known: KnownLibrary, identifier: str, level: str, most: int) -> dict[str, Any]:
    """Return how far above a compound its predictions end, eV/atom, the most alike first."""
    crystal = known.get(identifier)
    itself = relax(crystal.structure, level).energy_per_atom
    start = time.process_time()
    energies = [
        relax(structure, level).energy_per_atom
        for _, structure in predict_structures(crystal.formula, known, most, without_own=True)
    ]
    above = [None if e is None or itself is None else e - itself for e in energies]
    seconds = time.process_time() - start
    return {
        "id": identifier,
        "formula": crystal.formula,
        "above": above,
        "cpu_seconds": round(seconds, 2),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how close the lowest prediction comes, and how close the first of them."""
    usable = [[a for a in row["above"] if a is not None] for row in rows]
    lowest = [min(above) for above in usable if above]
    first = [row["above"][0] for row in rows if row["above"] and row["above"][0] is not None]
    return {
        "compounds": len(rows),
        "predicted": share(len(lowest), len(rows)),
        "within_5_mev_or_lower": share(sum(a <= CLOSE for a in lowest), len(rows)),
        "first_alone_within_5_mev_or_lower": share(sum(a <= CLOSE for a in first), len(rows)),
        "median_mev": round(1000 * float(np.median(lowest)), 1),
        "mean_mev": round(1000 * float(np.mean(lowest)), 1),
        "cpu_seconds_median": float(np.median([row["cpu_seconds"] for row in rows])),
        "farthest": [
            f"{row['formula']}: {1000 * min(above):.0f} meV/atom"
            for row, above in zip(rows, usable, strict=True)
            if above and min(above) > CLOSE
        ],
    }


if __name__ == "__main__":
    run(main)
