"""From an unseen chemical system to its hull: CPU seconds, and what fewer relaxations would cost.

    OMP_NUM_THREADS=1 python benchmarks/known_hull.py --json [--level chgnet] [--minutes 30]

Random ternary systems, each as if it were the first: the time is what the known phases of the
system took (stored energies read, single points, hulls) and what each relaxation took that the
hull asked for when it was done, so that nothing is relaxed twice and a run goes on where the last
one ended (--results). For the first --compare systems everything within 25 meV/atom is relaxed as
well, and hulls with a shorter reach are compared with that one: relaxations, their seconds, and by
how much the hulls lie too high at the compositions of the phases.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from pymatgen.core import Structure

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_references
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines import engine
from pccd_workflows.engines.engine import Task, Work
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution.memory import FolderStorage, MemoryStorage
from pccd_workflows.known.competing import Engines, known_reference_set
from pccd_workflows.known.library import KnownLibrary, library
from pccd_workflows.known.relaxed_hull import REACH, Phase, relax_near_hull

REACHES = (0.0, 0.0025, 0.005, 0.01)
"""eV/atom above the hull of phases at rest."""
FAR = 0.025
"""eV/atom; what lies higher comes to no hull: compare the largest gain that is reported."""
TARGET_SECONDS = 20.0


def main() -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", default="chgnet", help="a potential")
    parser.add_argument("--systems", type=int, default=50, help="random ternary systems")
    parser.add_argument("--compare", type=int, default=0, help="systems with other reaches, too")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so long")
    parser.add_argument("--results", type=Path, default=Path("scratch/known-hull"))
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    os.nice(19)
    end = time.monotonic() + 60 * args.minutes
    relaxer = Relaxer(args.results, args.level)
    chosen = random_systems(library(), args.systems)
    rows = []
    for number, chemsys in enumerate(chosen):
        if time.monotonic() > end:
            break
        rows.append(measure(chemsys, args.level, relaxer, compare=number < args.compare))
    result = {**summary(rows, args.level), "asked": len(chosen), "systems": rows}
    print(json.dumps(result, indent=1) if args.json else text(result))
    return 0


class Relaxer:
    """Relaxes crystals once and remembers what each took.

    Parameters
    ----------
    folder
        Results, and the CPU seconds of each, a line of JSON.
    level
        A potential.
    """

    def __init__(self, folder: Path, level: str) -> None:
        self.work = Work(FolderStorage(folder))
        self.level = level
        self.path = folder / f"seconds-{level}.jsonl"
        self.taken: dict[str, float] = {}
        if self.path.is_file():
            rows = map(json.loads, self.path.read_text().splitlines())
            self.taken = {row["key"]: row["seconds"] for row in rows}
        self.asked: list[str] = []
        self.now = 0.0

    def relax(self, structure: Structure) -> Relaxation:
        """Return a crystal at rest; `asked` and `now` (CPU seconds spent here) grow."""
        task = Task("relax", "reference", fmax=0.05, steps=300)
        key = engine.engine_of(self.level).key(get_level(self.level), structure, task)
        start = time.process_time()
        found = engine.relax(structure, self.level, self.work, task)
        seconds = time.process_time() - start
        if key not in self.taken:
            self.taken[key] = seconds
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "seconds": seconds}) + "\n")
        self.asked.append(key)
        self.now += seconds
        return found

    def static(self, structure: Structure) -> float | None:
        """Return the energy of a crystal as it is, eV/atom; computed anew, as for a first hull."""
        return engine.static(structure, self.level, Work(MemoryStorage())).energy_per_atom


def measure(chemsys: str, level: str, relaxer: Relaxer, *, compare: bool) -> dict[str, Any]:
    """Return what the hull of a system took, and how others compare with it."""
    start, relaxer.asked, relaxer.now = time.process_time(), [], 0.0
    found = known_reference_set(chemsys, level, engines=Engines(relaxer.static, relaxer.relax))
    Hull(correct_references(found))
    own = time.process_time() - start - relaxer.now
    seconds = own + sum(relaxer.taken[key] for key in relaxer.asked)
    row: dict[str, Any] = {
        "chemsys": chemsys,
        "phases": len(found.entries),
        "relaxed_here": len(relaxer.asked),
        "cpu_seconds": round(seconds, 2),
        "missing": len(found.missing or ()),
    }
    if compare:
        row["reaches"] = reaches(chemsys, level, relaxer)
    return row


def reaches(chemsys: str, level: str, relaxer: Relaxer) -> list[dict[str, float]]:
    """Return relaxations, their CPU seconds and the errors of hulls with shorter reaches."""
    engines = Engines(relaxer.static)
    phases = [
        Phase(
            entry.entry_id,
            "",
            structure,
            entry.energy_per_atom,
            relaxed=entry.data["geometry"] == "relaxed",
        )
        for entry in known_reference_set(chemsys, level, engines=engines).entries
        if (structure := entry.structure) is not None
    ]
    full = relax_near_hull(phases, level, relaxer.relax, reach=FAR)
    lowest = hull_energies(full, full, level)
    rows = []
    for reach in REACHES:
        relaxer.asked = []
        partial = relax_near_hull(phases, level, relaxer.relax, reach=reach)
        errors = 1000 * (hull_energies(partial, full, level) - lowest)
        rows.append(
            {
                "reach_mev": 1000 * reach,
                "relaxations": len(relaxer.asked),
                "cpu_seconds": round(sum(relaxer.taken[key] for key in relaxer.asked), 2),
                "mean_error_mev": round(float(errors.mean()), 3),
                "largest_error_mev": round(float(errors.max()), 2),
            }
        )
    return rows


def hull_energies(phases: Sequence[Phase], at: Sequence[Phase], level: str) -> np.ndarray:
    """Return the hull of phases at the compositions of others, eV/atom from the same zero."""
    references = correct_references(
        ReferenceSet(
            source="known",
            chemsys="",
            level=level,
            convention=get_level(level).convention,
            entries=[
                ReferenceEntry(
                    entry_id=phase.id,
                    formula=phase.structure.composition.formula.replace(" ", ""),
                    energy=phase.energy * len(phase.structure),
                    structure=phase.structure,
                )
                for phase in phases
            ],
        )
    )
    queries = [
        HullQuery(phase.id, phase.structure.composition, 0.0, references.convention, level)
        for phase in at
    ]
    return np.array([-found.energy_above_hull for found in Hull(references).place(queries)])


def random_systems(known: KnownLibrary, number: int) -> list[str]:
    """Return ternary systems, among those of which the library has a crystal."""
    ternary = sorted(s for s in known.systems if s.count("-") == 2)
    return [str(s) for s in np.random.default_rng(1).permutation(ternary)[:number]]


def summary(rows: Sequence[dict[str, Any]], level: str) -> dict[str, Any]:
    """Return what all systems took together."""
    if not rows:
        return {"level": level, "measured": 0}
    seconds = [row["cpu_seconds"] for row in rows]
    compared = [row["reaches"] for row in rows if "reaches" in row]
    return {
        "level": level,
        "library": library().version,
        "relaxed_energies_in_library": library().energies(level).n_relaxed,
        "reach_mev": 1000 * REACH,
        "measured": len(rows),
        "median_cpu_seconds": round(statistics.median(seconds), 2),
        "largest_cpu_seconds": max(seconds),
        "share_within_target": round(sum(s <= TARGET_SECONDS for s in seconds) / len(seconds), 3),
        "target_seconds": TARGET_SECONDS,
        "nothing_missing": round(sum(row["missing"] == 0 for row in rows) / len(rows), 3),
        "reaches": [over_systems(each) for each in zip(*compared, strict=True)],
    }


def over_systems(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return one reach over all compared systems."""
    return {
        "reach_mev": rows[0]["reach_mev"],
        "relaxations": sum(row["relaxations"] for row in rows),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
        "mean_error_mev": round(statistics.mean(row["mean_error_mev"] for row in rows), 3),
        "largest_error_mev": max(row["largest_error_mev"] for row in rows),
    }


def text(result: dict[str, Any]) -> str:
    """Return a result as lines."""
    return "\n".join(f"{key:28} {value}" for key, value in result.items() if key != "systems")


if __name__ == "__main__":
    run(main)
