"""Small libraries of known crystals for tests, from records as data files have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from pccd_workflows.known.build import build_library
from pccd_workflows.known.library import KnownLibrary

Record = dict[str, Any]


def rocksalt(a: str, b: str, length: float = 5.0) -> Structure:
    """Return the primitive cell of AB in the rock-salt type."""
    vectors = length / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Structure(vectors, [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])


def caesium_chloride(a: str, b: str, length: float = 3.3) -> Structure:
    """Return AB in the CsCl type."""
    return Structure(Lattice.cubic(length), [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])


def fluorite(a: str, b: str, length: float = 5.4) -> Structure:
    """Return the primitive cell of AB2 in the fluorite type."""
    vectors = length / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Structure(vectors, [a, b, b], [[0, 0, 0], [0.25] * 3, [0.75] * 3])


def bcc(element: str, length: float = 3.2) -> Structure:
    """Return the conventional cell of a bcc element."""
    return Structure(Lattice.cubic(length), [element] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])


def record(identifier: str, structure: Structure, **fields: Any) -> Record:
    """Return a crystal as a line of a data file has it."""
    return {
        "id": identifier,
        "database": "mp",
        "source": "tests",
        "functional": "PBE",
        "license": "CC-BY-4.0",
        "lattice": structure.lattice.matrix.tolist(),
        "species": [site.specie.symbol for site in structure],
        "frac_coords": structure.frac_coords.tolist(),
        **fields,
    }


RECORDS: tuple[Record, ...] = (
    record("mp-1", bcc("Mg"), energy_above_hull=0.0, theoretical=False),
    record("mp-2", bcc("O", 3.0), energy_above_hull=0.4),
    record("mp-3", bcc("Na", 4.2), energy_above_hull=0.0),
    record("mp-4", bcc("Cl", 4.0), energy_above_hull=0.0),
    record("mp-10", rocksalt("Mg", "O", 4.2), energy_above_hull=0.0, spacegroup=225),
    record("mp-11", caesium_chloride("Mg", "O", 2.7), energy_above_hull=0.3),
    record("wbm-1", fluorite("Mg", "O"), database="wbm"),
    record("mp-20", rocksalt("Na", "Cl", 5.6), energy_above_hull_legacy_derived=0.02),
)


def write_lines(path: Path, records: list[Record] | tuple[Record, ...]) -> Path:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


def everything_trains(chemsys: str) -> str:
    """Return the split of every chemical system."""
    return "train"


def make_library(
    folder: Path, records: list[Record] | tuple[Record, ...] = RECORDS
) -> KnownLibrary:
    """Build a library of records in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    source = write_lines(folder / "source.jsonl", records)
    build_library([source], folder, everything_trains)
    return KnownLibrary(folder)
