"""Phases that are known to exist but have no structure in the library, and what they could change.

A table of formation energies of one self-consistent hull knows more phases than there are
structures at hand. Where it knows one near its hull that the library lacks, a crystal that looks
stable may not be.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from pccd_workflows.core.bounded_files import file_lines
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import MissingPhase
from pccd_workflows.known.columns import ColumnsFile, pack_text, write_columns
from pccd_workflows.known.library_files import ENERGY_STEP, pack_energies, unpack_energies

if TYPE_CHECKING:
    from pccd_workflows.analysis.hull import Hull
    from pccd_workflows.known.library import KnownLibrary

NEAR = 0.05
"""eV/atom above the table's hull: phases below it are listed."""
SAME = 1e-3
"""eV/atom; a known phase of the composition that lies at most so much higher stands for it."""
FILE, KIND = "missing.columns", "known phases without a structure"
_SYMBOL = re.compile("[A-Z][a-z]?")


@dataclass(frozen=True)
class _Row:
    id: str
    symbols: frozenset[str]
    formula: str
    formation_energy: float


def write_missing(library: "KnownLibrary", table: Path) -> int:
    """List beside a library what a table of formation energies knows and it does not.

    Parameters
    ----------
    library
        The crystals at hand.
    table
        One JSON object per line, gzipped or not: id, formula, formation_energy_per_atom (eV/atom).

    Returns
    -------
    int
        The number of missing phases.

    Raises
    ------
    InputError
        The table cannot be read, or a line lacks a field.
    """
    phases = find_missing(library, read_table(table))
    columns = {
        "ids": pack_text(phase.id for phase in phases),
        "formulas": pack_text(phase.formula for phase in phases),
        "energy_above_hull": pack_energies([phase.energy_above_hull for phase in phases]),
        "shift": pack_energies([phase.shift for phase in phases]),
        "same": np.array([phase.n_same_composition for phase in phases], dtype=np.uint16),
    }
    header = {"library": library.version, "size": len(phases), "table": table.name}
    write_columns(library.folder / FILE, KIND, header, columns)
    return len(phases)


def read_missing(folder: Path, version: str) -> dict[frozenset[str], list[MissingPhase]]:
    """Return the missing phases of a library by their elements; {} if they were never listed.

    Raises
    ------
    InputError
        The list is damaged or belongs to another version of the library.
    """
    if not (folder / FILE).is_file():
        return {}
    file = ColumnsFile(folder / FILE, KIND)
    if file.header.get("library") != version:
        raise InputError(f"{file.path} belongs to another version of the library: list them again.")
    found: dict[frozenset[str], list[MissingPhase]] = defaultdict(list)
    if not file.header["size"]:
        return found
    above, shift = (unpack_energies(file.read(name)) for name in ("energy_above_hull", "shift"))
    columns = (above.tolist(), shift.tolist(), file.read("same").tolist())
    rows = zip(file.text("ids"), file.text("formulas"), *columns, strict=True)
    for identifier, formula, *numbers in rows:
        symbols = sorted(set(_SYMBOL.findall(formula)))
        phase = _phase(identifier, "-".join(symbols), formula, *numbers)
        found[frozenset(symbols)].append(phase)
    return found


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of formation energies; InputError if it cannot be read.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        return [orjson.loads(line) for line in file_lines(path) if line.strip()]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def find_missing(library: "KnownLibrary", table: Iterable[Mapping[str, Any]]) -> list[MissingPhase]:
    """Return the phases near the hull of a table that a library has no structure of.

    Left out are those of whose composition the library has a crystal that its source states to
    lie as low.
    """
    from pccd_workflows.core.systems import parse_formula

    rows = [_row(row) for row in table]
    at_hand = [row for row in rows if library.row_of(row.id) is not None]
    elements = frozenset().union(*(row.symbols for row in rows))
    lacking = [row for row in rows if library.row_of(row.id) is None and len(row.symbols) > 1]
    whole = _heights(_hull(rows, elements), lacking)
    near = [(row, above) for row, above in zip(lacking, whole, strict=True) if above <= NEAR]
    partial = _heights(_hull(at_hand, elements), [row for row, _ in near])
    found = []
    for (row, above), lowers in zip(near, partial, strict=True):
        same = library.rows_of(parse_formula(row.formula))
        if not (library.energy_above_hull[same] <= above + SAME).any():
            shift = max(0.0, -lowers)
            system = "-".join(sorted(row.symbols))
            height = max(0.0, round(above / ENERGY_STEP) * ENERGY_STEP)
            found.append(_phase(row.id, system, row.formula, height, shift, len(same)))
    return sorted(found, key=lambda phase: (phase.chemsys, phase.formula, phase.id))


def _phase(*values: Any) -> MissingPhase:
    """Return the phase with these fields, in the order of `MissingPhase`; not predicted."""
    names = [name for name in MissingPhase.model_fields if name != "predicted_from"]
    return MissingPhase(**dict(zip(names, values, strict=True)))


def _row(row: Mapping[str, Any]) -> _Row:
    try:
        formula = str(row["formula"])
        energy = float(row["formation_energy_per_atom"])
        return _Row(str(row["id"]), frozenset(_SYMBOL.findall(formula)), formula, energy)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"A phase of the table needs id, formula and formation_energy_per_atom: {row!r:.80}."
        ) from None


def _hull(rows: Sequence[_Row], elements: Iterable[str]) -> "Hull":
    """Return the hull of phases; elements are at 0, whichever of their phases are at hand."""
    from pccd_workflows.analysis.hull import Hull
    from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet

    entries = [ReferenceEntry(entry_id=f"element {s}", formula=s, energy=0.0) for s in elements]
    for row in rows:
        entry = ReferenceEntry(entry_id=row.id, formula=row.formula, energy=0.0)
        energy = row.formation_energy * entry.composition.num_atoms
        entries.append(entry.model_copy(update={"energy": energy}))
    chemsys = "-".join(sorted(elements))
    return Hull(
        ReferenceSet(
            source="table", chemsys=chemsys, level="table", convention="mp2020", entries=entries
        )
    )


def _heights(hull: "Hull", rows: Sequence[_Row]) -> list[float]:
    """Return how far phases lie above a hull, eV/atom."""
    from pymatgen.core import Composition

    from pccd_workflows.analysis.hull import HullQuery

    queries = []
    for row in rows:
        composition = Composition(row.formula)
        energy = row.formation_energy * composition.num_atoms
        queries.append(HullQuery(row.id, composition, energy, "mp2020", "table"))
    return [result.energy_above_hull for result in hull.place(queries)]
