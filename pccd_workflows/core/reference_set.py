"""Competing phases: what a hull is built from and what "new" is measured against."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Composition

from pccd_workflows.core.records import SCHEMA_VERSION, EnergyConvention, Record, StoredStructure


class ReferenceEntry(Record):
    """One known phase with its energy in the convention of its set."""

    entry_id: str = Field(description="Unique in its set, e.g. mp-1265 or a prototype's label")
    formula: str = Field(description="Formula of the cell that `energy` belongs to")
    energy: float = Field(description="Total energy of that cell, eV")
    structure: StoredStructure | None = None
    data: dict[str, Any] = Field(default_factory=dict, description="Provenance of this entry")

    @property
    def composition(self) -> Composition:
        """Composition of the cell."""
        return Composition(self.formula)

    @property
    def energy_per_atom(self) -> float:
        """eV/atom."""
        return float(self.energy / self.composition.num_atoms)


MOVES = 1e-3
"""eV/atom; phases that could lower the hull by less change no verdict."""


class MissingPhase(Record):
    """A phase whose energy is known and whose structure is not at hand."""

    id: str
    chemsys: str
    formula: str = Field(description="In lowest terms")
    energy_above_hull: float = Field(description="In the hull of the table that knows it, eV/atom")
    shift: float = Field(
        description="By how much it could lower the hull that the phases at hand have in the "
        "table, at its own composition, eV/atom; 0 if it lies above that hull, and where predicted "
        "phases complete it"
    )
    n_same_composition: int = Field(
        description="Crystals at hand of its composition: it may be one of them under another id"
    )
    predicted_from: str = Field(
        "", description="The known crystal whose structure, with its elements, competes for it"
    )

    @property
    def could_move_hull(self) -> bool:
        """Whether a crystal may look stable only because this phase is missing."""
        return self.shift > MOVES


class ReferenceSet(BaseModel):
    """Competing phases of one chemical system (with all its subsystems) at one level."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    source: str = Field(description="As in a campaign file; sets that joined follow, after a '+'")
    chemsys: str = Field(description="Sorted symbols joined by '-', e.g. Mg-Mn-O")
    level: str
    convention: EnergyConvention
    source_version: str = Field("", description="Database version, library version or file hash")
    settings: dict[str, Any] = Field(default_factory=dict)
    entries: list[ReferenceEntry]
    missing: list[MissingPhase] | None = Field(
        None,
        description="Phases known to exist that have no structure here, those that could move the "
        "hull most first; None where the set was not compared with what is known",
    )
    created_at: datetime | None = None

    def missing_in(self, symbols: Iterable[str]) -> list[MissingPhase] | None:
        """Return the missing phases that consist of some elements; None if nobody compared."""
        if self.missing is None:
            return None
        elements = set(symbols)
        return [phase for phase in self.missing if elements.issuperset(phase.chemsys.split("-"))]

    @property
    def reference_id(self) -> str:
        """<source>-<chemsys>-<level>-<first 10 hex digits of the content's sha256>."""
        phases = tuple((e.entry_id, e.formula, e.energy) for e in self.entries)
        digest = _digest(self.source, self.chemsys, self.level, self.convention, phases)
        return f"{self.source}-{self.chemsys}-{self.level.replace('/', '.')}-{digest[:10]}"


@lru_cache(maxsize=64)
def _digest(
    source: str,
    chemsys: str,
    level: str,
    convention: str,
    phases: tuple[tuple[str, str, float], ...],
) -> str:
    """Return the sha256 of a set's content; of each phase its id, formula and energy (eV)."""
    compositions = [(i, Composition(formula), energy) for i, formula, energy in phases]
    rows = sorted(
        (i, composition.reduced_formula, round(energy / composition.num_atoms, 8))
        for i, composition, energy in compositions
    )
    content = [source, chemsys, level, convention, rows]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()
