"""The known crystals of a data file: what novelty is measured against beside the library."""

import sys
from collections import Counter
from collections.abc import Mapping
from functools import cached_property, lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.dataset import RejectedError, reduced_cell
from pccd_workflows.generators.pccd.records import read_records


class KnownCrystalsFile:
    """The crystals of a data file, read once: about 1 kB each.

    Parameters
    ----------
    path
        JSON lines or a folder of CIFs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Id and geometry of each crystal.

        Raises
        ------
        InputError
            If the file holds no crystal.
        """
        found = [
            {
                "id": str(row.get("id", number)),
                "species": tuple(sys.intern(s) for s in row["species"]),
                "lattice": np.asarray(row["lattice"], dtype=float),
                "frac_coords": np.asarray(row["frac_coords"], dtype=float),
            }
            for number, row in enumerate(map(_with_cell, read_records(self.path)))
            if {"species", "lattice", "frac_coords"} <= row.keys()
        ]
        if not found:
            raise InputError(
                f"{self.path} holds no crystal: a line needs lattice, species and frac_coords, or "
                "structure."
            )
        return found

    def with_formulas(self, formulas: set[str]) -> list[tuple[str, Structure]]:
        """Return id and crystal of those with one of these formulas."""
        wanted = {_ratio(Composition(formula).get_el_amt_dict()) for formula in formulas}
        return [
            (row["id"], Structure(row["lattice"], row["species"], row["frac_coords"]))
            for row in self.rows
            if _ratio(Counter(row["species"])) in wanted
        ]


@lru_cache(maxsize=2)
def known_file(path: Path) -> KnownCrystalsFile:
    """Return the crystals of a data file; those of the last files stay in memory."""
    return KnownCrystalsFile(path)


def _with_cell(row: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the cell of its `structure`, if it has an ordered one."""
    if row.get("structure") is None:
        return row
    try:
        return {**row, **reduced_cell(row["structure"])}
    except RejectedError:
        return row


def _ratio(amounts: Mapping[str, float]) -> frozenset[tuple[str, int]]:
    """Return element symbols with their numbers in lowest terms: equal for equal formulas."""
    counts = {str(name): round(n) for name, n in amounts.items()}
    common = gcd(*counts.values())
    return frozenset((name, n // common) for name, n in counts.items())
