"""What VASP ended with: one record per run, and what the runs of a task amount to."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Structure

from pccd_workflows.analysis.kpaths import path_name
from pccd_workflows.analysis.magnetism import ordering_of
from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.core.records import StoredStructure
from pccd_workflows.core.units import KBAR_TO_GPA
from pccd_workflows.engines.engine import Task
from pccd_workflows.engines.geometry import lost_volume, rms_displacement
from pccd_workflows.engines.levels import Level
from pccd_workflows.engines.records import Bands, Forces, Relaxation, SinglePoint
from pccd_workflows.engines.vasp.bands import RunBands, band_gap, read_bands
from pccd_workflows.engines.vasp.inputs import ALGORITHM, task_key

WALLTIME_REACHED = "Walltime reached"


class VaspRun(BaseModel):
    """What one VASP run ended with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="One of the level's")
    structure: StoredStructure
    energy: float = Field(description="eV, of the cell; uncorrected")
    energies: list[float] = Field(description="After each ionic step, eV/atom")
    max_force: float | None = Field(None, description="eV/Å")
    max_stress: float | None = Field(None, description="GPa")
    converged: bool = Field(description="Electronic and ionic, and not stopped at walltime")
    stopped: bool = Field(False, description="Ended by STOPCAR at walltime")
    moments: list[float] = Field(default_factory=list, description="μB per site")
    corrections: list[str] = Field(default_factory=list, description="Errors custodian mended")
    forces: list[list[float]] | None = Field(None, description="eV/Å, of the run 'forces'")
    bands: RunBands | None = Field(None, description="Of the task bands")
    band_gap: float | None = Field(None, description="eV")
    n_kpoints: int | None = Field(None, description="Irreducible ones")
    n_electrons: float | None = None
    n_spins: int = 1
    n_scf: int = Field(0, description="Electronic steps of all ionic steps")
    cores: int | None = Field(None, description="As VASP says")
    incar: dict[str, Any] = Field(default_factory=dict, description="INCAR tags set by hand")
    continued: bool = Field(False, description="Started from an earlier attempt's CONTCAR")
    run_type: str | None = Field(None, description="GGA or GGA+U")
    hubbards: dict[str, float] = Field(default_factory=dict, description="eV")
    potcars: list[str] = Field(default_factory=list, description="TITEL of each")
    vasp_version: str | None = None
    folder: str = Field("", description="host:path of the run")
    seconds: float = 0.0


def read_run(
    document: Any,
    name: str,
    *,
    incar: dict[str, Any],
    continued: bool = False,
    seconds: float = 0.0,
) -> VaspRun:
    """Return what counts of an emmet TaskDoc (or of its dictionary)."""
    data = document if isinstance(document, dict) else document.model_dump()
    output, calculation = data["output"], data["calcs_reversed"][0]
    structure = _as_structure(output["structure"])
    steps = calculation["output"]["ionic_steps"] or []
    parameters = data["input"].get("parameters") or {}
    corrections = [
        str(error)
        for job in data.get("custodian") or []
        for correction in job["corrections"] or []
        for error in correction["errors"]
    ]
    stopped = WALLTIME_REACHED in corrections
    moments = structure.site_properties.get("magmom") or []
    specs = data["input"]["potcar_spec"] or []
    return VaspRun(
        name=name,
        structure=_plain(structure),
        energy=output["energy"],
        energies=[round(step["e_0_energy"] / len(structure), 6) for step in steps],
        max_force=_largest(output["forces"], rows=True),
        max_stress=_largest(output["stress"], scale=KBAR_TO_GPA),
        converged=str(getattr(data["state"], "value", data["state"])) == "successful"
        and not stopped,
        stopped=stopped,
        moments=[round(float(m), 3) for m in moments],
        corrections=corrections,
        incar=incar,
        continued=continued,
        run_type=str(getattr(data["run_type"], "value", data["run_type"])),
        hubbards=data["input"].get("hubbards") or {},
        potcars=[spec["titel"] for spec in specs],
        vasp_version=calculation.get("vasp_version"),
        folder=data["dir_name"] or "",
        seconds=seconds,
        forces=np.asarray(output["forces"]).tolist() if name == "forces" else None,
        bands=read_bands(document) if name.startswith("bands") else None,
        band_gap=output.get("bandgap"),
        n_kpoints=(calculation["input"] or {}).get("nkpoints"),
        n_electrons=parameters.get("NELECT"),
        n_spins=int(parameters.get("ISPIN") or 1),
        n_scf=sum(step.get("num_electronic_steps") or 0 for step in steps),
        cores=_cores(data.get("run_stats")),
    )


def _cores(statistics: Any) -> int | None:
    """Return how many cores VASP said it ran on."""
    numbers = [row.get("cores") for row in (statistics or {}).values()]
    return max((int(n) for n in numbers if n), default=None)


def _as_structure(value: Any) -> Structure:
    return value if isinstance(value, Structure) else plain_structure(value)


def _plain(structure: Structure) -> Structure:
    """Return a structure without site properties, whose kinds vary from run to run."""
    species = [site.specie.symbol for site in structure]
    return Structure(structure.lattice, species, structure.frac_coords)


def _largest(values: Any, *, rows: bool = False, scale: float = 1.0) -> float | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=float)
    sizes = np.linalg.norm(array, axis=1) if rows else np.abs(array)
    return float(sizes.max()) * scale


def diverged(start: Structure, result: VaspRun) -> str | None:
    """Say how a run left the realm of crystals; None if it did not."""
    lost = lost_volume(result.structure.volume / start.volume)
    return f"{lost} in {result.name}." if lost else None


def relaxation(start: Structure, level: Level, task: Task, runs: Sequence[VaspRun]) -> Relaxation:
    """Return the record that a crystal's runs, in order, amount to.

    One that was stopped at walltime, or ran out of steps, is unconverged; a collapsed or exploded
    cell is diverged and has no structure.
    """
    last, names = runs[-1], level.runs[task.kind]
    reason = diverged(start, last)
    record: dict[str, Any] = {
        "level": level.name,
        "key": task_key(start, level, task),
        "convention": level.convention,
        "n_steps": sum(max(len(r.energies) - 1, 0) for r in runs),
        "energies": [energy for r in runs for energy in r.energies],
        "software": _software(last),
        "settings": {
            **_settings(runs),
            "magnetic_ordering": task.ordering,
            "moments": last.moments,
            "band_gap": last.band_gap,
        },
        "seconds": sum(r.seconds for r in runs),
    }
    if reason is not None:
        return Relaxation(**record, verdict="diverged", reason=reason)
    unfinished = [r.name for r in runs if not r.converged]
    if len(runs) < len(names):
        unfinished.append(f"{names[len(runs)]} (not run)")
    forces = [r.max_force for r in runs if r.max_force is not None]
    return Relaxation(
        **record,
        verdict="unconverged" if unfinished else "converged",
        reason=f"Not converged: {', '.join(unfinished)}." if unfinished else None,
        structure=last.structure,
        energy=last.energy,
        energy_per_atom=last.energy / len(start),
        max_force=forces[-1] if forces else None,
        max_stress=last.max_stress,
        volume_change=last.structure.volume / start.volume - 1,
        rms_displacement=rms_displacement(start, last.structure),
        magnetic_ordering=ordering_of(last.moments) if last.moments else None,
    )


def single_point(
    start: Structure,
    level: Level,  # noqa: ARG001
    task: Task,  # noqa: ARG001
    runs: Sequence[VaspRun],
) -> SinglePoint:
    """Return the energy of a crystal as it is."""
    (run,) = runs
    energy = run.energy / len(start) if run.converged else None
    reason = None if run.converged else f"{run.name} did not reach self-consistency."
    return SinglePoint(energy_per_atom=energy, reason=reason, seconds=run.seconds)


def forces(
    start: Structure,  # noqa: ARG001
    level: Level,  # noqa: ARG001
    task: Task,  # noqa: ARG001
    runs: Sequence[VaspRun],
) -> Forces:
    """Return the forces on a crystal's atoms as it is."""
    (run,) = runs
    return Forces(forces=run.forces or [], seconds=run.seconds)


def band_structure(
    start: Structure,
    level: Level,
    task: Task,  # noqa: ARG001
    runs: Sequence[VaspRun],
) -> Bands:
    """Return the record that the runs of a crystal's bands amount to.

    start: the cell they were computed in.
    """
    found = [run.bands for run in runs if run.bands is not None]
    picture = found[-1].picture or {}
    return Bands(
        level=level.name,
        **band_gap(found),
        kpath=path_name(picture.get("labels", [])),
        structure=start,
        bands=picture,
        software=_software(runs[-1]),
        settings={**_settings(runs), "moments": runs[0].moments},
        seconds=sum(run.seconds for run in runs),
    )


def _software(run: VaspRun) -> dict[str, str]:
    packages = {name: version(name) for name in ("atomate2", "pymatgen", "custodian")}
    return {"vasp": run.vasp_version or "unknown", **packages}


def _settings(runs: Sequence[VaspRun]) -> dict[str, Any]:
    """Return what a record says of how its runs went, and with which settings."""
    kept = {"name", "corrections", "incar", "continued", "folder"}
    return {
        "runs": [run.model_dump(include=kept) for run in runs],
        "run_type": runs[-1].run_type,
        "hubbards": runs[-1].hubbards,
        "potcars": runs[-1].potcars,
        "algorithm": ALGORITHM,
    }
