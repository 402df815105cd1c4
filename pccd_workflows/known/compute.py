"""Energies of the library's crystals at a level: single points, then relaxations near the hull.

Every result is one line appended to a ledger, whole or not at all: a kill costs the crystal in
flight. The same call goes on where the last one ended.
"""

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.analysis.hull import Hull, HullQuery, correct_mp2020
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import make_folder
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.build import Progress, silent
from pccd_workflows.known.energies import LevelEnergies, write_energies
from pccd_workflows.known.library import KnownLibrary

if TYPE_CHECKING:
    from pymatgen.core import Structure

NEAR_IN_SOURCES = 0.1
"""eV/atom above the hull that the sources state: crystals below it are computed first."""
NEAR_AT_LEVEL = 0.04
"""eV/atom above the hull of single points at the level: crystals below it are relaxed."""
NEAR_HULL = 0.01
"""eV/atom above the hull of single points: crystals below it are relaxed before the others."""
SMALL = 20
"""Sites: near crystals of at most so many are relaxed before larger ones."""

Kind = Literal["single_point", "relaxed"]
KINDS: tuple[Kind, ...] = ("single_point", "relaxed")
SinglePoint = Callable[["Structure"], float]
"""Energy of a crystal as it is, eV/atom; raises if the potential cannot say."""
Relax = Callable[["Structure"], Relaxation]


@dataclass(frozen=True)
class Budget:
    """When to stop; what was computed is kept.

    Attributes
    ----------
    crystals
        Most crystals to compute in this run.
    seconds
        No crystal is started later than this.
    max_sites
        Larger crystals are left for another run.
    """

    crystals: int | None = None
    seconds: float | None = None
    max_sites: int | None = None


class Ledger:
    """The results so far: one JSON object per line, of id, geometry, kind and energy.

    Parameters
    ----------
    path
        Made with its first result. A last line that was cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results: dict[str, dict[str, tuple[str, float | None]]] = {
            "single_point": {},
            "relaxed": {},
        }
        for line in _whole_lines(path):
            self._take(line)

    def __len__(self) -> int:
        return sum(len(results) for results in self._results.values())

    def has(self, kind: Kind, identifier: str, geometry: str) -> bool:
        """Return whether a crystal was tried in this geometry, with success or not."""
        return self._results[kind].get(identifier, ("", None))[0] == geometry

    def ids(self, kind: Kind) -> Collection[str]:
        """Return the ids of the crystals that were tried."""
        return self._results[kind].keys()

    def get(self, kind: Kind, identifier: str, geometry: str) -> float | None:
        """Return an energy, eV/atom; None if there is none of this geometry."""
        found, energy = self._results[kind].get(identifier, ("", None))
        return energy if found == geometry else None

    @contextmanager
    def appending(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Give a function that adds a result; InputError if the ledger cannot be written.

        Raises
        ------
        InputError
            Another process writes the file.
        """
        try:
            make_folder(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                yield lambda result: self._append(file, result)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}.") from None

    def _append(self, file: TextIO, result: dict[str, Any]) -> None:
        file.write(json.dumps(result) + "\n")
        file.flush()
        self._take(result)

    def _take(self, result: dict[str, Any]) -> None:
        value = str(result["geometry"]), result["energy_per_atom"]
        self._results[result["kind"]][str(result["id"])] = value


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the results of a ledger; cut a last line off that a kill left unfinished."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        whole = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                os.truncate(path, whole)
                return
            whole += len(line)
            try:
                yield json.loads(line)
            except ValueError:
                raise InputError(f"{path}, line {number}: not a result; remove the line.") from None


def compute_energies(
    library: KnownLibrary,
    level: str,
    ledger: Ledger,
    *,
    engines: tuple[SinglePoint, Relax | None],
    budget: Budget = Budget(),
    progress: Progress = silent,
) -> int:
    """Compute what is missing at a level, the most useful crystals first; return how many.

    Single points: elements, then crystals by the energy above hull that their sources state (up to
    0.1 eV/atom), then those of which nothing is stated. Relaxations: those within 40 meV/atom of
    the hull of these single points, elements and binaries first.

    Parameters
    ----------
    library
        The crystals.
    level
        Name of a potential.
    ledger
        Results so far; new ones are added as they come.
    engines
        What computes a single point and what relaxes; None relaxes nothing.
    budget
        When to stop.
    progress
        Told after each crystal.
    """
    single_point, relax = engines
    end = math.inf if budget.seconds is None else time.monotonic() + budget.seconds
    left = math.inf if budget.crystals is None else budget.crystals
    stages: list[tuple[Kind, Callable[[], Sequence[int]], Callable[..., Any]]] = [
        ("single_point", lambda: single_point_order(library), single_point)
    ]
    if relax is not None:
        stages.append(("relaxed", lambda: relaxation_order(library, level, ledger), relax))
    computed = 0
    with ledger.appending() as append:
        for kind, order, engine in stages:
            known = _column(collect(library, level, ledger), kind)
            rows = [row for row in order() if _fits(library, row, budget)]
            for done, row in enumerate(rows, start=1):
                crystal, geometry = library.crystal(row), library.geometry(row).digest
                if np.isfinite(known[row]) or ledger.has(kind, crystal.id, geometry):
                    continue
                if computed >= left or time.monotonic() >= end:
                    return computed
                key = {"id": crystal.id, "geometry": geometry, "kind": kind}
                append({**key, **_result(kind, engine, crystal.structure)})
                computed += 1
                progress(f"{level}: {kind.replace('_', ' ')}", done, len(rows))
    return computed


def _fits(library: KnownLibrary, row: int, budget: Budget) -> bool:
    return budget.max_sites is None or int(library.n_sites[row]) <= budget.max_sites


def _result(kind: Kind, engine: Callable[..., Any], structure: "Structure") -> dict[str, Any]:
    """Return the energy (eV/atom) of a crystal, or why there is none."""
    energy: float | None = None
    reason: str | None = None
    try:
        if kind == "single_point":
            energy = float(engine(structure))
        else:
            relaxation = engine(structure)
            energy = relaxation.energy_per_atom if relaxation.usable else None
            reason = relaxation.reason
    except MemoryError:
        raise
    except Exception as error:  # an element the potential does not know, a cell it cannot take
        reason = f"{type(error).__name__}: {error}"
    if energy is not None and math.isfinite(energy):
        return {"energy_per_atom": energy}
    return {"energy_per_atom": None, "reason": reason or "not a number"}


def single_point_order(library: KnownLibrary) -> list[int]:
    """Return the crystals to compute, the most useful first; see `compute_energies`."""
    above = library.energy_above_hull
    group = np.where(np.isnan(above), 2, 1)
    group[library.n_elements == 1] = 0
    order = np.lexsort((library.n_sites, np.nan_to_num(np.maximum(above, 0.0)), group))
    wanted = (group != 1) | (above <= NEAR_IN_SOURCES)
    return [int(row) for row in order if wanted[row]]


def relaxation_order(library: KnownLibrary, level: str, ledger: Ledger) -> list[int]:
    """Return the crystals near the hull of a level's single points, the most useful first.

    Small ones before large ones; elements and binaries first, since they compete in the most
    chemical systems; among those, by height above the hull.
    """
    above = energies_above_hull(library, collect(library, level, ledger))
    near = np.flatnonzero(above <= NEAR_AT_LEVEL)
    large = library.n_sites[near] > SMALL
    keys = above[near], above[near] > NEAR_HULL, library.n_elements[near], large
    return [int(row) for row in near[np.lexsort(keys)]]


def energies_above_hull(library: KnownLibrary, energies: LevelEnergies) -> NDArray[np.float64]:
    """Return how far each crystal lies above the hull of all of them, eV/atom; NaN if unknown.

    Uncorrected energies get the MP2020 corrections first.
    """
    best = energies.best
    convention = get_level(energies.level).convention
    entries, rows = [], []
    for row in np.flatnonzero(np.isfinite(best)).tolist():
        crystal = library.crystal(row)
        total = best[row] * crystal.n_sites
        if convention == "uncorrected":
            try:
                total = correct_mp2020(crystal.structure, total, convention=convention)
            except InputError:
                continue
        entries.append(ReferenceEntry(entry_id=crystal.id, formula=crystal.formula, energy=total))
        rows.append(row)
    return _placed(entries, rows, len(library), energies.level)


def _placed(
    entries: Sequence[ReferenceEntry], rows: Sequence[int], size: int, level: str
) -> NDArray[np.float64]:
    symbols = [frozenset(e.symbol for e in entry.composition) for entry in entries]
    elements = frozenset().union(*(s for s in symbols if len(s) == 1))
    references = ReferenceSet(
        source="known",
        chemsys="-".join(sorted(elements)),
        level=level,
        convention="mp2020",
        entries=list(entries),
    )
    place = [i for i, s in enumerate(symbols) if s <= elements]
    queries = [
        HullQuery(entries[i].entry_id, entries[i].composition, entries[i].energy, "mp2020", level)
        for i in place
    ]
    above = np.full(size, np.nan)
    for i, result in zip(place, Hull(references).place(queries), strict=True):
        above[rows[i]] = result.energy_above_hull
    return above


def collect(
    library: KnownLibrary, level: str, ledger: Ledger, software: dict[str, str] | None = None
) -> LevelEnergies:
    """Return what the library has stored at a level and the results of a ledger, together.

    Results for another geometry than the library's are left out.
    """
    stored = library.energies(level) if level in library.levels else no_energies(library, level)
    columns = {kind: _column(stored, kind).copy() for kind in KINDS}
    for kind in KINDS:
        for identifier in ledger.ids(kind):
            row = library.row_of(identifier)
            if row is not None:
                energy = ledger.get(kind, identifier, library.geometry(row).digest)
                if energy is not None:
                    columns[kind][row] = energy
    software = software or stored.software
    return LevelEnergies(level, columns["single_point"], columns["relaxed"], software)


def no_energies(library: KnownLibrary, level: str) -> LevelEnergies:
    """Return the energies of a level at which nothing was computed."""
    nothing = np.full(len(library), np.nan)
    return LevelEnergies(level, nothing, nothing, {})


def _column(energies: LevelEnergies, kind: Kind) -> NDArray[np.float64]:
    return energies.single_point if kind == "single_point" else energies.relaxed


def save_energies(
    library: KnownLibrary, level: str, ledger: Ledger, software: dict[str, str]
) -> LevelEnergies:
    """Write the results of a ledger beside the library and return them."""
    energies = collect(library, level, ledger, software)
    write_energies(library.folder, library.version, energies)
    return energies
