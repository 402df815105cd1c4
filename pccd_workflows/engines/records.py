"""What engines find out about one crystal."""

from typing import Any, Literal

from pydantic import Field

from pccd_workflows.core.records import EnergyConvention, Record, StoredStructure


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


class SinglePoint(Record):
    """Energy of a crystal as it is, at one level."""

    energy_per_atom: float | None = Field(None, description="eV/atom; None if there is none")
    reason: str | None = Field(None, description="Why there is none")
    seconds: float = 0.0


class Forces(Record):
    """Forces on the atoms of a crystal as it is, at one level."""

    forces: list[list[float]] = Field(description="One [x, y, z] per site, eV/Å")
    stress: list[float] | None = Field(
        None, description="Six numbers in Voigt order, eV/Å^3; None where it costs extra"
    )
    seconds: float = 0.0


class Phonons(Record):
    """Dynamical stability, with the evidence the verdict rests on."""

    level: str
    verdict: Literal["stable", "unstable", "ambiguous", "error"]
    reason: str | None = None
    min_frequency: float | None = Field(
        None,
        description="Lowest frequency but for the acoustic ones at Γ, of path, mesh and the "
        "points that the supercell resolves, THz (imaginary as negative)",
    )
    min_frequency_qpoint: list[float] | None = Field(None, description="Its reduced q-point")
    gamma_residual: float | None = Field(
        None, description="Most negative acoustic frequency at Γ, THz (0 in exact arithmetic)"
    )
    tolerance: float = Field(description="THz")
    supercell_matrix: list[list[int]] | None = None
    supercell_atoms: int | None = None
    mesh: list[int] | None = Field(None, description="q-points along each axis, Γ among them")
    displacement: float | None = Field(None, description="Å")
    n_displacements: int | None = None
    bands: dict[str, Any] | None = Field(
        None,
        description="distances [n_segments][n_q], frequencies [n_segments][n_bands][n_q] in THz, "
        "labels [[left, right], ...] per segment: what a picture needs",
    )
    dos: dict[str, list[float]] | None = Field(
        None,
        description="Density of states of the primitive cell: frequencies in THz (imaginary as "
        "negative), density in states/THz; its integral is 3 times the number of atoms",
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
