"""The ledger: one document per crystal ever generated, one record per stage it went through."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pccd_workflows.analysis.screening import Screening
from pccd_workflows.core.records import SCHEMA_VERSION, Record, StoredStructure
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Novelty
from pccd_workflows.stages.hull import Stability

Status = Literal[
    "pending",  # alive, waits for its next stage
    "rejected",  # a stage said no; `reason_class` and `reason` tell which and why
    "failed",  # a job died or a computation broke; can be rerun
    "passed",  # went through every stage of its campaign
]


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
    novel: bool | None = None
    phonon_stable: bool | None = Field(None, description="None if unknown or ambiguous")
    band_gap: float | None = Field(None, description="eV, at the highest level computed; 0: metal")
    # one record per stage
    generation: Generation
    screening: Screening | None = None
    novelty: Novelty | None = None
    relaxations: list[Relaxation] = Field(default_factory=list, description="In rung order")
    stabilities: list[Stability] = Field(default_factory=list, description="In rung order")
    band_structures: list[Bands] = Field(default_factory=list, description="In rung order")
    phonons: list[Phonons] = Field(default_factory=list)
    jobs: dict[str, str] = Field(default_factory=dict, description="Job uuid by stage: the lineage")
    seconds: dict[str, float] = Field(default_factory=dict, description="Compute time by stage, s")
    updated_at: datetime | None = None


class Crystal(Record):
    """A crystal on its way from one stage to the next."""

    candidate_id: str
    structure: StoredStructure


class StageOutput(BaseModel):
    """What a stage job stores: a record for every crystal it was given, and who goes on."""

    model_config = ConfigDict(extra="forbid")

    stage: str = Field(description="As CandidateDoc.stage")
    records: dict[
        str, Generation | Screening | Novelty | Relaxation | Stability | Bands | Phonons
    ] = Field(default_factory=dict, description="By candidate_id")
    survivors: list[Crystal] = Field(default_factory=list)
