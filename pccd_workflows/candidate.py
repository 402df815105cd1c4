"""The ledger: one document per crystal ever generated, one record per stage it went through."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pymatgen.core import Structure

from pccd_workflows.engines.levels import EnergyConvention

SCHEMA_VERSION = 1
"""Version of every document in the database; a higher one is refused, a lower one migrated."""

Status = Literal[
    "pending",  # alive, waits for its next stage
    "rejected",  # a stage said no; `reason_class` and `reason` tell which and why
    "failed",  # a job died or a computation broke; can be rerun
    "passed",  # went through every stage of its campaign
]

StoredStructure = Annotated[
    Structure,
    PlainSerializer(lambda structure: structure.as_dict(), return_type=dict, when_used="json"),
]
"""A pymatgen structure that is dumped to JSON as its own dictionary."""


class Record(BaseModel):
    """What one stage found out about one crystal. Immutable, strict."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Generation(Record):
    """How a crystal was sampled: enough to sample it again, alone."""

    model: str = Field(description="Name of the generative model")
    weights_sha256: str
    seed: int = Field(description="Seed of the campaign; with `index` it fixes the sample")
    index: int = Field(ge=0, description="Number of the sample in its campaign")
    elements: list[str] = Field(description="Element symbols asked for")
    conditions: dict[str, Any] = Field(default_factory=dict)
    sampler: dict[str, Any] = Field(default_factory=dict)
    error_class: str | None = Field(None, description="Class of the DecodeError, if any")
    reason: str | None = None
    seconds: float = Field(
        0.0, ge=0, description="Wall time of this sample's share of its batch, s"
    )


class Screening(Record):
    """Whether a crystal is physically and chemically sensible before any energy is computed."""

    passed: bool
    reason_class: str | None = Field(
        None, description="e.g. too_close, density, elements, charge, symmetry"
    )
    reason: str | None = None
    min_distance: float | None = Field(None, description="Shortest periodic distance, Å")
    density: float | None = Field(None, description="g/cm^3")
    volume_per_atom: float | None = Field(None, description="Å^3")
    charge_balanced: bool | None = Field(
        None, description="None where oxidation states say nothing (metals, elements)"
    )
    oxidation_states: dict[str, float] | None = None


class SetNovelty(Record):
    """Verdict against one named set of known crystals."""

    known: bool | None = Field(None, description="None if the set could not be consulted")
    matched_id: str | None = None
    method: str = Field(description="How it was compared, with the settings")
    note: str | None = None
    framework_id: str | None = Field(
        None,
        description="Known crystal of the same structure type but another composition; looked for "
        "when a new crystal lies near the hull",
    )


class Novelty(Record):
    """Uniqueness in its campaign, novelty against each named set apart."""

    duplicate_of: str | None = Field(None, description="candidate_id of the crystal kept instead")
    sets: dict[str, SetNovelty] = Field(
        default_factory=dict, description="By set: references, training, history, or imported"
    )

    @property
    def novel(self) -> bool:
        """True if no set that was consulted knows the crystal."""
        return not any(verdict.known for verdict in self.sets.values())


class Relaxation(Record):
    """Geometry optimisation (cell and sites) at one level."""

    level: str
    key: str = Field(description="Content address: structure, level and settings")
    verdict: Literal[
        "converged",
        "unconverged",  # out of steps; energy and structure are those of the last step
        "diverged",  # collapsed, exploded or forces beyond reason
        "not_a_number",
        "unsupported_element",
        "budget",  # not computed: the rung's core-hours were spent
        "error",
    ]
    reason: str | None = None
    structure: StoredStructure | None = Field(None, description="Relaxed; None if nothing usable")
    energy: float | None = Field(None, description="Total energy of `structure`, eV")
    energy_per_atom: float | None = Field(None, description="eV/atom")
    convention: EnergyConvention | None = None
    max_force: float | None = Field(None, description="Largest remaining force, eV/Å")
    max_stress: float | None = Field(None, description="Largest remaining stress component, GPa")
    n_steps: int = 0
    volume_change: float | None = Field(None, description="V_final / V_initial - 1")
    rms_displacement: float | None = Field(
        None, description="RMS distance of the atoms to their start at fixed cell, Å"
    )
    energies: list[float] = Field(
        default_factory=list, description="Energy after each step, eV/atom (for the plot)"
    )
    software: dict[str, str] = Field(default_factory=dict, description="Package and model versions")
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    magnetic_ordering: str | None = Field(None, description="NM, FM, AFM or FiM after relaxation")

    @property
    def usable(self) -> bool:
        """True if the energy may be placed on a hull."""
        return self.verdict in ("converged", "unconverged") and self.structure is not None


class Stability(Record):
    """Position on the convex hull of one reference set at one level."""

    level: str
    passed: bool
    reason_class: str | None = None
    reason: str | None = None
    energy_above_hull: float | None = Field(
        None, description="eV/atom against the references; negative = a new ground state"
    )
    formation_energy_per_atom: float | None = Field(None, description="eV/atom")
    decomposition: dict[str, float] = Field(
        default_factory=dict, description="Atomic fraction of each competing phase, by its entry id"
    )
    references: str = Field("", description="Id (content hash) of the reference set")
    convention: EnergyConvention | None = None
    threshold: float | None = Field(None, description="Kept if energy_above_hull <= this, eV/atom")
    novelty: Novelty | None = Field(
        None, description="Of the relaxed crystal, among those near the hull"
    )


class Phonons(Record):
    """Dynamical stability, with the evidence the verdict rests on."""

    level: str
    verdict: Literal["stable", "unstable", "ambiguous", "error"]
    reason: str | None = None
    min_frequency: float | None = Field(
        None, description="Lowest frequency away from Γ, THz (imaginary as negative)"
    )
    min_frequency_qpoint: list[float] | None = Field(None, description="Its reduced q-point")
    gamma_residual: float | None = Field(
        None, description="Most negative acoustic frequency at Γ, THz (0 in exact arithmetic)"
    )
    tolerance: float = Field(description="THz")
    supercell_matrix: list[list[int]] | None = None
    displacement: float | None = Field(None, description="Å")
    n_displacements: int | None = None
    bands: dict[str, Any] | None = Field(
        None,
        description="distances [n_segments][n_q], frequencies [n_segments][n_bands][n_q] in THz, "
        "labels [[left, right], ...] per segment: what a picture needs",
    )
    software: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0


class Bands(Record):
    """Electronic band structure of the crystal that a rung kept, in its standard primitive cell."""

    level: str
    is_metal: bool | None = Field(None, description="None if it was not computed")
    band_gap: float | None = Field(None, description="eV; 0 for a metal")
    direct: bool | None = Field(None, description="Both edges at one k-point; None for a metal")
    reason: str | None = Field(None, description="Why it was not computed")
    vbm: float | None = Field(None, description="Valence band maximum, eV; None for a metal")
    cbm: float | None = Field(None, description="Conduction band minimum, eV; None for a metal")
    vbm_kpoint: list[float] | None = Field(None, description="Its reduced k-point")
    cbm_kpoint: list[float] | None = Field(None, description="Its reduced k-point")
    efermi: float | None = Field(None, description="Fermi level on the mesh, eV")
    kpath: str | None = Field(None, description="Names of the path's points, e.g. Γ-X-W|K-Γ")
    structure: StoredStructure | None = Field(
        None, description="The standard primitive cell, spins as the run started; k-points are its"
    )
    bands: dict[str, Any] | None = Field(
        None,
        description="distances [n_segments][n_k] in 1/Å, energies [n_segments][n_spins][n_bands]"
        "[n_k] in eV (bands near the gap), labels [[left, right], ...] per segment",
    )
    software: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0


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
