"""The level gpaw/pbe against published PBE values: lattice constants and formation energies.

    python benchmarks/gpaw_pbe.py [--only Si MgO] [--json]

Lattice constants: all-electron PBE of Haas, Tran and Blaha, 10.1103/PhysRevB.79.085104, and for
NaCl the Materials Project's (mp-22862). Formation energies: the Materials Project's, of crystals
whose elements are no molecules.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from command import run
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines import gpaw

LEVEL = "gpaw/pbe"


@dataclass
class Row:
    """a: cubic lattice constant, Å. formation: eV/atom. Published PBE values beside ours."""

    formula: str
    a: float
    a_published: float | None
    energy_per_atom: float
    seconds: float
    formation: float | None = None
    formation_published: float | None = None


def cubic(group: str, a: float, species: list[str], sites: list[list[float]]) -> Structure:
    """Return the primitive cell of a cubic crystal."""
    whole = Structure.from_spacegroup(group, Lattice.cubic(a), species, sites)
    return whole.get_primitive_structure()


def crystals() -> dict[str, tuple[Structure, float, int]]:
    """Return starting cells 1 % too large, published lattice constants (Å), cells per cube."""
    origin, quarter, half = [0.0] * 3, [0.25] * 3, [0.5] * 3
    table = {
        "Si": ("Fd-3m", 5.43, ["Si"], [origin], 5.475, 4),
        "Al": ("Fm-3m", 4.05, ["Al"], [origin], 4.041, 4),
        "Li": ("Im-3m", 3.45, ["Li"], [origin], 3.435, 2),
        "MgO": ("Fm-3m", 4.21, ["Mg", "O"], [origin, half], 4.261, 4),
        "C": ("Fd-3m", 3.567, ["C"], [origin], 3.575, 4),
        "SiC": ("F-43m", 4.36, ["Si", "C"], [origin, quarter], 4.384, 4),
        "LiAl": ("Fd-3m", 6.37, ["Li", "Al"], [origin, half], None, 4),
        "NaCl": ("Fm-3m", 5.64, ["Na", "Cl"], [origin, half], 5.692, 4),
    }
    return {
        formula: (cubic(group, 1.01 * a, species, sites), published, cells)
        for formula, (group, a, species, sites, published, cells) in table.items()
    }


# eV/atom: MP's uncorrected PBE (release of 2018) of mp-8062 less half of diamond's, mp-66 (its
# reference is graphite), and of mp-1067
FORMATION = {
    "SiC": (-0.2049 - 0.1339 / 2, ("Si", "C")),
    "LiAl": (-0.1796, ("Li", "Al")),
}


def measure(formula: str) -> Row:
    """Relax one crystal at the level, in a scratch folder for GPAW's log."""
    structure, published, cells = crystals()[formula]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = gpaw.relax(structure, LEVEL, None)
        os.chdir(Path(__file__).parent)
    if found.structure is None or found.energy_per_atom is None:
        raise SystemExit(f"{formula}: {found.verdict}. {found.reason}")
    a = (cells * found.structure.volume) ** (1 / 3)
    return Row(formula, a, published, found.energy_per_atom, found.seconds)


def with_formation(rows: list[Row]) -> list[Row]:
    """Add formation energies where the elements were computed, too."""
    known = {row.formula: row for row in rows}
    for formula, (published, elements) in FORMATION.items():
        if formula in known and all(element in known for element in elements):
            fractions = crystals()[formula][0].composition.fractional_composition
            of_elements = sum(fractions[e] * known[e].energy_per_atom for e in elements)
            known[formula].formation = known[formula].energy_per_atom - of_elements
            known[formula].formation_published = published
    return rows


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(crystals()), default=None)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for formula in arguments.only or crystals():
        rows.append(measure(formula))
        print(rows[-1], file=sys.stderr, flush=True)
    with_formation(rows)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{'':8}{'a (Å)':>9}{'published':>11}{'error':>8}{'E_f':>9}{'published':>11}{'s':>7}")
    for row in rows:
        lattice, error = _numbers(row.a, row.a_published)
        formation, _ = _numbers(row.formation, row.formation_published)
        print(f"{row.formula:8}{lattice}{error}{formation}{row.seconds:7.0f}")


def _numbers(ours: float | None, theirs: float | None) -> tuple[str, str]:
    """Return two columns and the relative difference, %."""
    cells = [f"{x:.3f}" if x is not None else "-" for x in (ours, theirs)]
    error = f"{100 * (ours / theirs - 1):.2f}%" if ours and theirs else "-"
    return f"{cells[0]:>9}{cells[1]:>11}", f"{error:>8}"


if __name__ == "__main__":
    run(main)
