"""Phonon verdicts of the potentials on crystals whose dynamic stability at 0 K is in textbooks.

    python benchmarks/phonons.py [--levels chgnet 7net-l3i5] [--only Al] [--folder F] [--json]

Stable ones are the ground states that are measured at low temperature; for each unstable one a
calculation of its phonons is named. An ambiguous verdict is not right. `--folder` keeps results:
the same call goes on where the last one ended.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from command import run
from pymatgen.core import Lattice, Structure

from pccd_workflows.analysis.dynamics import reduced_point
from pccd_workflows.core.intervals import wilson_share
from pccd_workflows.core.storage import Results
from pccd_workflows.engines.engine import Work
from pccd_workflows.engines.phonons import compute_phonons
from pccd_workflows.execution.memory import FolderStorage
from pccd_workflows.stages.phonons import PhononsSection

LEVELS = ("chgnet", "7net-l3i5")
METALS = "10.1103/RevModPhys.84.945"  # lattice instabilities in metallic elements, a review
TITANIUM = "10.1103/PhysRevLett.100.095901"  # bcc Ti and Zr
TUNGSTEN = "10.1103/PhysRevLett.79.2073"  # fcc W
ZIRCONIA = "10.1103/PhysRevLett.78.4063"
NITINOL = "10.1103/PhysRevB.65.014108"
PEROVSKITES = "10.1103/PhysRevLett.74.2587"  # instabilities of eight cubic perovskites


@dataclass(frozen=True)
class Case:
    """A crystal, whether it is stable, and who computed that it is not."""

    structure: Structure
    stable: bool
    source: str = ""


def cubic(
    group: str, a: float, species: Sequence[str], sites: Sequence[Sequence[float]]
) -> Structure:
    """Return the primitive cell of a cubic crystal."""
    whole = Structure.from_spacegroup(group, Lattice.cubic(a), species, sites)
    return whole.get_primitive_structure()


def cases() -> dict[str, Case]:
    """Return the crystals by name."""
    origin, quarter, half, face = [0.0] * 3, [0.25] * 3, [0.5] * 3, [0.5, 0.5, 0.0]
    magnesium = Structure.from_spacegroup(
        "P6_3/mmc", Lattice.hexagonal(3.21, 5.21), ["Mg"], [[1 / 3, 2 / 3, 0.25]]
    )
    stable = {
        "Al": ("Fm-3m", 4.05, ["Al"], [origin]),
        "Cu": ("Fm-3m", 3.61, ["Cu"], [origin]),
        "Fe, bcc": ("Im-3m", 2.87, ["Fe"], [origin]),
        "W": ("Im-3m", 3.17, ["W"], [origin]),
        "Si": ("Fd-3m", 5.43, ["Si"], [origin]),
        "C, diamond": ("Fd-3m", 3.57, ["C"], [origin]),
        "GaAs": ("F-43m", 5.65, ["Ga", "As"], [origin, quarter]),
        "MgO": ("Fm-3m", 4.21, ["Mg", "O"], [origin, half]),
        "NaCl": ("Fm-3m", 5.64, ["Na", "Cl"], [origin, half]),
        "CsCl": ("Pm-3m", 4.12, ["Cs", "Cl"], [origin, half]),
        "CaF2": ("Fm-3m", 5.46, ["Ca", "F"], [origin, quarter]),
        "NiAl": ("Pm-3m", 2.89, ["Ni", "Al"], [origin, half]),
        "TiN": ("Fm-3m", 4.24, ["Ti", "N"], [origin, half]),
    }
    unstable = {
        "Al, bcc": ("Im-3m", 3.24, ["Al"], [origin], METALS),
        "Cu, bcc": ("Im-3m", 2.87, ["Cu"], [origin], METALS),
        "W, fcc": ("Fm-3m", 4.03, ["W"], [origin], TUNGSTEN),
        "Ti, bcc": ("Im-3m", 3.26, ["Ti"], [origin], TITANIUM),
        "Zr, bcc": ("Im-3m", 3.57, ["Zr"], [origin], TITANIUM),
        "NiTi": ("Pm-3m", 3.01, ["Ni", "Ti"], [origin, half], NITINOL),
        "ZrO2, cubic": ("Fm-3m", 5.09, ["Zr", "O"], [origin, quarter], ZIRCONIA),
        **{
            f"{a}{b}O3, cubic": ("Pm-3m", length, [a, b, "O"], [origin, half, face], PEROVSKITES)
            for a, b, length in (
                ("Sr", "Ti", 3.91),
                ("Ba", "Ti", 4.01),
                ("K", "Nb", 4.01),
                ("Ca", "Ti", 3.84),
                ("Pb", "Ti", 3.97),
            )
        },
    }
    return {
        **{name: Case(cubic(*what), stable=True) for name, what in stable.items()},
        "Mg": Case(magnesium, stable=True),
        **{name: Case(cubic(*w), stable=False, source=src) for name, (*w, src) in unstable.items()},
    }


@dataclass
class Row:
    """One crystal at one level; frequencies in THz."""

    name: str
    stable: bool
    source: str
    level: str
    verdict: str
    right: bool
    min_frequency: float | None
    qpoint: str
    reason: str
    seconds: float


def measure(name: str, level: str, results: Results) -> Row:
    """Return the verdict of a level on a crystal."""
    case = cases()[name]
    found = compute_phonons(case.structure, PhononsSection(level=level), Work(results))
    at = found.min_frequency_qpoint
    return Row(
        name=name,
        stable=case.stable,
        source=case.source,
        level=level,
        verdict=found.verdict,
        right=found.verdict == ("stable" if case.stable else "unstable"),
        min_frequency=None if found.min_frequency is None else round(found.min_frequency, 2),
        qpoint="" if at is None else reduced_point(at),
        reason=found.reason or "",
        seconds=found.seconds,
    )


def shares(rows: Sequence[Row], levels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how many verdicts of each level are right, with a 95 % interval of the share."""
    found = {}
    for level in levels:
        of_level = [row for row in rows if row.level == level]
        right = sum(row.right for row in of_level)
        found[level] = {
            **asdict(wilson_share(right, len(of_level))),
            "ambiguous": sum(row.verdict == "ambiguous" for row in of_level),
        }
    return found


def table(rows: Sequence[Row], levels: Sequence[str]) -> str:
    """Return the verdicts of all levels side by side, as Markdown."""
    of: Mapping[tuple[str, str], Row] = {(row.name, row.level): row for row in rows}
    names = list(dict.fromkeys(row.name for row in rows))
    lines = [f"| | textbook | {' | '.join(levels)} | differ |", "|" + "---|" * (len(levels) + 3)]
    for name in names:
        found = [of[name, level] for level in levels]
        cells = [
            f"{'' if row.right else '**'}{row.verdict}{'' if row.right else '**'} "
            f"{row.min_frequency} at {row.qpoint}"
            for row in found
        ]
        truth = "stable" if found[0].stable else f"[unstable](https://doi.org/{found[0].source})"
        differ = "yes" if len({row.verdict for row in found}) > 1 else ""
        lines.append(f"| {name} | {truth} | {' | '.join(cells)} | {differ} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", nargs="+", default=list(LEVELS))
    parser.add_argument("--only", nargs="+", choices=sorted(cases()), default=None)
    parser.add_argument("--folder", type=Path, default=None, help="Keeps results")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        results = FolderStorage(asked.folder or Path(scratch))
        for level in asked.levels:
            for name in asked.only or cases():
                rows.append(measure(name, level, results))
                print(rows[-1], file=sys.stderr, flush=True)
    found = shares(rows, asked.levels)
    if asked.json:
        print(json.dumps({"shares": found, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(table(rows, asked.levels))
    for level, share in found.items():
        print(
            f"{level}: {share['count']} of {share['total']} right "
            f"({share['low']:.0%}-{share['high']:.0%}), {share['ambiguous']} ambiguous"
        )


if __name__ == "__main__":
    run(main)
