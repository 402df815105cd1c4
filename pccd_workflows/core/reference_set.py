"""Competing phases: what a hull is built from and what "new" is measured against."""

import hashlib
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


class ReferenceSet(BaseModel):
    """Competing phases of one chemical system (with all its subsystems) at one level."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    source: str = Field(description="prototypes, materials_project or file")
    chemsys: str = Field(description="Sorted symbols joined by '-', e.g. Mg-Mn-O")
    level: str
    convention: EnergyConvention
    source_version: str = Field("", description="Database version, library version or file hash")
    settings: dict[str, Any] = Field(default_factory=dict)
    entries: list[ReferenceEntry]
    created_at: datetime | None = None

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
