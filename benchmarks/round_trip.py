"""Count the crystals that encode -> noise -> decode does not restore, judged by StructureMatcher.

    python benchmarks/round_trip.py --data ../shared/data/structures.jsonl.gz

Every crystal within the seed paper's limits (at most 3 elements, 16 sites, lengths below 15 Å) of
the chosen splits goes through the point cloud and back, for each spread and noise level. A miss is
a DecodeError or a crystal that pymatgen's StructureMatcher (default settings) does not match to the
original. By default the matcher first reduces both crystals to primitive cells, with a tolerance
of 0.25 Å: where a translation holds to just that tolerance, noise of 0.02 (0.1 Å a site) makes the
reductions differ and the match fails although every site is in place. Such misses are counted, and
named "reduction" if the matcher accepts the crystal with ``primitive_cell=False``; exit code 1 if
there is any other.
"""

import argparse
import gzip
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from pccd_workflows.generators.pccd.pointcloud.decode import DecodeError, Method, decode
from pccd_workflows.generators.pccd.pointcloud.encode import (
    LENGTH_SCALE,
    N_COLUMNS,
    STRICT_MAX_SITES,
    PointCloud,
    Spread,
    encode,
)


def crystals(path: Path, splits: set[str]) -> Iterator[tuple[str, Structure]]:
    """Yield id and structure of the rows within the seed's limits."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if (
                row["split"] not in splits
                or row["n_elements"] > N_COLUMNS
                or row["n_sites"] > STRICT_MAX_SITES
            ):
                continue
            structure = Structure(row["lattice"], row["species"], row["frac_coords"])
            if max(structure.lattice.abc) < LENGTH_SCALE:
                yield row["id"], structure


def restored(
    structure: Structure, *, spread: Spread, noise: float, method: Method, seed: int
) -> Structure:
    """Return decode(encode(structure) + Gaussian noise of this width on every value)."""
    cloud = encode(structure, spread=spread, strict=True)
    rng = np.random.default_rng(seed)
    values = cloud.values + noise * rng.standard_normal(cloud.values.shape)
    return decode(PointCloud(values, cloud.elements), method=method)


def verdict(original: Structure, **how: Any) -> str:
    """Return "restored" or the way in which the round trip fails."""
    try:
        decoded = restored(original, **how)
    except DecodeError as error:
        return error.error_class
    if StructureMatcher().fit(original, decoded):
        return "restored"
    if StructureMatcher(primitive_cell=False).fit(original, decoded):
        return "reduction"
    if len(decoded) != len(original):
        return "number of sites"
    return "composition" if decoded.composition != original.composition else "geometry"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="JSON lines, gzipped")
    parser.add_argument("--split", nargs="+", default=["val", "test"])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.02])
    parser.add_argument("--spread", nargs="+", default=["seed", "even"], choices=["seed", "even"])
    parser.add_argument("--method", default="auto", choices=["auto", "dbscan"])
    parser.add_argument("--n", type=int, help="only the first so many crystals")
    parser.add_argument("--seed", type=int, default=0, help="crystal k's noise has seed + k")
    parser.add_argument("--json", action="store_true", help="print counts as JSON")
    return parser.parse_args()


def main() -> int:
    """Run the round trips and print the counts."""
    arguments = parse_arguments()
    settings = list(itertools.product(arguments.spread, arguments.noise))
    counts: dict[tuple[str, float], Counter[str]] = {setting: Counter() for setting in settings}
    missed: list[dict[str, Any]] = []
    start = time.monotonic()
    rows = itertools.islice(crystals(arguments.data, set(arguments.split)), arguments.n)
    for number, (crystal_id, structure) in enumerate(rows):
        for spread, noise in settings:
            found = verdict(
                structure,
                spread=spread,
                noise=noise,
                method=arguments.method,
                seed=arguments.seed + number,
            )
            counts[spread, noise][found] += 1
            if found != "restored":
                missed.append({"id": crystal_id, "spread": spread, "noise": noise, "why": found})
        if number % 1000 == 999:
            spent = time.monotonic() - start
            print(f"{number + 1} crystals, {len(missed)} misses, {spent:.0f} s", file=sys.stderr)

    table = [
        {
            "spread": spread,
            "noise": noise,
            "crystals": count.total(),
            "misses": count.total() - count["restored"],
            "why": {why: n for why, n in sorted(count.items()) if why != "restored"},
        }
        for (spread, noise), count in counts.items()
    ]
    if arguments.json:
        print(json.dumps({"splits": arguments.split, "table": table, "missed": missed}, indent=1))
    else:
        print(f"splits {' '.join(arguments.split)}, method {arguments.method}")
        print("spread  noise  crystals  misses")
        for row in table:
            print("{spread:6}  {noise:<5}  {crystals:8}  {misses:6}  {why}".format(**row))
    return int(any(miss["why"] != "reduction" for miss in missed))


if __name__ == "__main__":
    run(main)
