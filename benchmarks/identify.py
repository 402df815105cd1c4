"""Is it known, and what kind of new: the whole library against pymatgen's StructureMatcher.

    OMP_NUM_THREADS=1 python benchmarks/identify.py --json [--candidates 1000] [--sample 100]

Candidates are crystals of the library in other cells, noisy and strained (see `matching.variant`),
every second one with its elements exchanged. They are looked up twice: the first time the library's
crystals of their compositions are read and reduced, the second time that is done. StructureMatcher
compares a sample of them with the library's crystals of the same formula, read beforehand, in both
directions, until one matches. Kinds are asked of the sample's new crystals; StructureMatcher's
`fit_anonymous` against the same known crystals would take days.

Times are CPU seconds of one thread. `disagreements` names each candidate of which the two say
different things.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from command import run
from matching import variant
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from pccd_workflows.known.identify import Identifier
from pccd_workflows.known.library import KnownLibrary, library


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=1000, help="crystals to look up")
    parser.add_argument("--sample", type=int, default=100, help="of them, for StructureMatcher")
    parser.add_argument("--max-sites", type=int, default=20, help="of the candidates")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    known = library()
    crystals = make_candidates(known, args.candidates, args.max_sites)
    result = compare(known, crystals, args.sample)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(f"{key:36} {value}" for key, value in result.items()))


def make_candidates(known: KnownLibrary, number: int, max_sites: int) -> list[Structure]:
    """Return variants of known crystals; of every second one the elements are exchanged."""
    rng = np.random.default_rng(4)
    rows = rng.choice(np.flatnonzero(known.n_sites <= max_sites), number, replace=False)
    crystals = []
    for index, row in enumerate(rows.tolist()):
        crystal = known.structure(row)
        symbols = [element.symbol for element in crystal.elements]
        if index % 2 and len(symbols) > 1:
            crystal.replace_species(dict(pairwise([*symbols, symbols[0]])))
        crystals.append(variant(crystal, rng))
    return crystals


def compare(known: KnownLibrary, crystals: Sequence[Structure], sample: int) -> dict[str, Any]:
    """Return the times of both sides, and where they disagree."""
    identifier = Identifier(known)
    start = time.process_time()
    found = identifier.find_known(crystals)
    first = time.process_time() - start
    start = time.process_time()
    again = identifier.find_known(crystals)
    second = time.process_time() - start
    if again != found:
        raise SystemExit("A second look-up found other crystals than the first.")
    few = crystals[:sample]
    references = [references_of(known, crystal) for crystal in few]
    matcher = StructureMatcher()
    start = time.process_time()
    expected = [_find(matcher, *pair) for pair in zip(few, references, strict=True)]
    theirs = (time.process_time() - start) / len(few)
    different = [
        i for i, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other
    ]
    new = [crystal for crystal, match in zip(few, found, strict=False) if match is None]
    start = time.process_time()
    kinds = identifier.kinds_of_new(new)
    of_kinds = (time.process_time() - start) / max(1, len(new))
    return {
        "library": known.version,
        "known_crystals": len(known),
        "candidates": len(crystals),
        "candidates_known": sum(match is not None for match in found),
        "look_up_ms": round(1000 * second / len(crystals), 3),
        "look_up_ms_first_time": round(1000 * first / len(crystals), 3),
        "structure_matcher_sample": len(few),
        "structure_matcher_ms": round(1000 * theirs, 1),
        "speedup": round(theirs / (second / len(crystals)), 1),
        "speedup_first_time": round(theirs / (first / len(crystals)), 1),
        "kinds_asked": len(new),
        "kinds_seconds_each": round(of_kinds, 2),
        "kinds": dict(Counter(kind.kind for kind in kinds)),
        "disagreements": [f"candidate {i}: {found[i]}, not {expected[i]}" for i in different],
    }


def references_of(known: KnownLibrary, crystal: Structure) -> list[tuple[str, Structure]]:
    """Return the library's crystals of the same formula, by id."""
    same = known.with_composition(crystal.composition.reduced_formula)
    return [(one.id, one.structure) for one in sorted(same, key=lambda one: one.id)]


def _find(
    matcher: StructureMatcher, crystal: Structure, references: Sequence[tuple[str, Structure]]
) -> str | None:
    """Return the smallest id of the references that match in either direction."""
    for identifier, other in references:
        if matcher.fit(crystal, other) or matcher.fit(other, crystal):
            return identifier
    return None


if __name__ == "__main__":
    run(main)
