"""One document for each crystal that was ever generated, with a record of each of its stages."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from pccd_workflows.core.records import SCHEMA_VERSION, Record, StoredStructure
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Kind
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.deduplicate import Novelty
from pccd_workflows.stages.hull import Stability
from pccd_workflows.stages.screen import Screening
from pccd_workflows.stages.stage import Status

FIELDS = {
    "generate": "generation",
    "screen": "screening",
    "deduplicate": "novelty",
    "relax": "relaxations",
    "hull": "stabilities",
    "bands": "band_structures",
    "phonons": "phonons",
}
"""Fields of the first stages' records; those of all later stages are in `further`."""


class CandidateDoc(BaseModel):
    """Everything known about one generated crystal."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    candidate_id: str = Field(description="<campaign_id>-<index>")
    campaign_id: str = Field(description="<name>-<first 10 hex digits of the campaign's hash>")
    campaign: str = Field(description="Name of the campaign")
    index: int
    status: Status = "pending"
    stage: str = Field(
        "generate",
        description="Last stage with a record: generate, screen, deduplicate, "
        "relax:<level>, hull:<level>, bands:<level>, phonons:<level>",
    )
    reason_class: str | None = None
    reason: str | None = None
    # copies for queries, always those of the latest structure
    structure: StoredStructure | None = None
    formula_pretty: str | None = None
    chemsys: str | None = None
    elements: list[str] = Field(default_factory=list)
    nsites: int | None = None
    spacegroup: str | None = Field(
        None, description="Symbol of the latest structure, symprec 0.1 Å"
    )
    energy_above_hull: float | None = Field(
        None, description="eV/atom, at the highest rung reached"
    )
    novel: bool | None = Field(None, description="Known before it was relaxed stays known")
    kind_of_new: Kind | None = Field(None, description="Of crystals near the hull")
    known_id: str | None = Field(
        None, description="The known crystal that it is, or whose structure type it has"
    )
    phonon_stable: bool | None = Field(None, description="None if unknown or ambiguous")
    band_gap: float | None = Field(None, description="eV, at the highest level computed; 0: metal")
    values: dict[str, Any] = Field(
        default_factory=dict, description="Of the stages' columns, by key: lists sort by them"
    )
    # one record per stage
    generation: Generation
    screening: Screening | None = None
    novelty: Novelty | None = None
    relaxations: list[Relaxation] = Field(default_factory=list, description="In rung order")
    stabilities: list[Stability] = Field(default_factory=list, description="In rung order")
    band_structures: list[Bands] = Field(default_factory=list, description="In rung order")
    phonons: list[Phonons] = Field(default_factory=list)
    further: dict[str, Any] = Field(
        default_factory=dict, description="Records of all other stages, by stage name"
    )
    reached: list[str] = Field(
        default_factory=list, description="Keys of the funnel's steps that it reached"
    )
    jobs: dict[str, str] = Field(default_factory=dict, description="Job uuid by stage: the lineage")
    seconds: dict[str, float] = Field(default_factory=dict, description="Compute time by stage, s")
    updated_at: datetime | None = None

    @field_validator("further")
    @classmethod
    def _further_are_records(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {
            name: stage_of(name).record.model_validate(record) for name, record in value.items()
        }

    @field_serializer("further")
    def _further_as_documents(self, value: dict[str, Record]) -> dict[str, Any]:
        return {name: record.model_dump(mode="json") for name, record in value.items()}

    @property
    def records(self) -> dict[str, Record]:
        """Every stage's record by the stage's name, in the order of the stages."""
        found: dict[str, Record] = {"generate": self.generation}
        if self.screening is not None:
            found["screen"] = self.screening
        if self.novelty is not None:
            found["deduplicate"] = self.novelty
        by_level = {
            kind: {record.level: record for record in getattr(self, FIELDS[kind])}
            for kind in ("relax", "hull", "bands")
        }
        for level in dict.fromkeys(lv for records in by_level.values() for lv in records):
            for kind, records in by_level.items():
                if level in records:
                    found[f"{kind}:{level}"] = records[level]
        found |= {f"phonons:{record.level}": record for record in self.phonons}
        return found | self.further


def stage_fields(records: Mapping[str, Record]) -> dict[str, Any]:
    """Return the fields of a candidate's document that hold its records.

    records: by stage name, in the order of the stages.
    """
    found: dict[str, Any] = {}
    for name, record in records.items():
        kind, _, level = name.partition(":")
        field = FIELDS.get(kind, "further")
        if field == "further":
            found.setdefault(field, {})[name] = record
        elif level:
            found.setdefault(field, []).append(record)
        else:
            found[field] = record
    return found
