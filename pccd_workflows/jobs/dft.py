"""Relax one crystal with DFT: with VASP one job per run, each handing over to the next.

A job whose run is stored already goes on with the next one; a job that is lost leaves its
siblings alone. Where a run was stopped (walltime, a killed worker) the next attempt starts from
its CONTCAR; after an error it starts anew unless `restart` says otherwise.
"""

import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobflow import Job, Response
from pymatgen.core import Structure

from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.engines.levels import engine
from pccd_workflows.engines.records import Bands, Relaxation
from pccd_workflows.engines.vasp import (
    FIXED_DENSITY,
    Restart,
    VaspFailed,
    VaspRun,
    WalltimeReached,
    band_structure,
    diverged,
    lacks_density,
    last_geometry,
    plan_key,
    relaxation,
    run,
    run_key,
    runs_of,
    with_moments,
)
from pccd_workflows.execution.costs import allocated_cores
from pccd_workflows.jobs.budget import note_cost, note_killed, skipped
from pccd_workflows.jobs.common import CPU, OPTIONAL, assign, stage_database, task_job
from pccd_workflows.settings import get_settings

Output = StageOutput | Relaxation | dict[str, Any]


def dft_job(crystal: Crystal, level: str, ordering: str | None, plan: str = "relax") -> Job:
    """Return the (first) job of what `plan` computes of a crystal at a DFT level.

    Parameters
    ----------
    ordering
        Magnetic ordering to start from; None leaves it to the level.
    plan
        ``relax``: a candidate, its output is a StageOutput. ``reference``: the same of a competing
        phase, and ``tight``: brought to rest for phonons; both give a Relaxation. ``forces``: a
        dictionary with the forces in a displaced supercell. ``bands``: the electronic band
        structure (VASP) of the cell as it is, moments as spins of its species; a StageOutput.
    """
    function = gpaw_run if engine(level) == "gpaw" else dft_run
    return _named(function(crystal, level, ordering, plan=plan), crystal, level, plan)


def _named(job: Job, crystal: Crystal, level: str, plan: str, number: int = 0) -> Job:
    """Return the job with its name, its candidate and its kind of worker."""
    runs = runs_of(level, plan) if engine(level) == "vasp" else (plan,)
    what = runs[number] if number < len(runs) else "record"
    job.name = f"{what} {level} {crystal.candidate_id}"
    if plan != "reference":
        job.update_metadata({"candidates": [crystal.candidate_id]})
    if plan == "bands":
        job.update_metadata({OPTIONAL: True})
    return assign(job, CPU)


@task_job
def gpaw_run(crystal: Crystal, level: str, ordering: str | None, plan: str = "relax") -> Output:
    """Do with GPAW what `plan` says, unless it is stored; see `dft_job`."""
    from pccd_workflows.engines import gpaw
    from pccd_workflows.execution.mongo import get_result, put_result

    database, structure = stage_database(), crystal.structure
    effort = "relax" if plan == "reference" else plan
    key = gpaw.result_key(structure, level, effort, ordering)  # type: ignore[arg-type]
    if (stored := get_result(database, key)) is not None:
        return stored if plan == "forces" else _output(crystal, level, plan, stored)
    if (record := skipped(level, plan)) is not None:
        return _output(crystal, level, plan, record)
    began = time.perf_counter()
    if plan == "forces":
        forces = gpaw.forces(structure, level).tolist()
        found: dict[str, Any] = {"forces": forces, "seconds": time.perf_counter() - began}
        settings: dict[str, Any] = {}
    else:
        record = gpaw.relax(structure, level, ordering, plan=effort)  # type: ignore[arg-type]
        found, settings = record.model_dump(mode="json"), record.settings
    note_cost(
        level,
        plan,
        run=effort,
        seconds=time.perf_counter() - began,
        n_atoms=len(structure),
        n_electrons=settings.get("n_electrons"),
        n_kpoints=settings.get("n_kpoints"),
        n_spins=2 if settings.get("moments") else 1,
        n_steps=found.get("n_steps", 0) + 1,
    )
    put_result(database, key, "forces" if plan == "forces" else "relaxation", found)
    return found if plan == "forces" else _output(crystal, level, plan, found)


@task_job
def dft_run(  # noqa: PLR0911
    crystal: Crystal,
    level: str,
    ordering: str | None,
    plan: str = "relax",
    continuations: int = 0,
    restart: dict[str, Any] | None = None,
) -> Response[Any] | Output:
    """Do the next VASP run of a crystal that is not stored yet.

    Parameters
    ----------
    ordering, plan
        See `dft_job`.
    continuations
        How often this run went on after reaching the walltime.
    restart
        Set by `pccd job rerun`: ``incar`` (tags) and ``from_contcar`` (bool).

    Raises
    ------
    VaspFailed
        The run left no result, or the density it starts from is gone.
    """
    from pccd_workflows.execution.mongo import drop_results, get_result, put_result

    database, effort = stage_database(), "relax" if plan == "reference" else plan
    key = plan_key(crystal.structure, level, effort, ordering)  # type: ignore[arg-type]
    if (stored := get_result(database, key)) is not None:
        return _output(crystal, level, plan, stored)
    names = runs_of(level, effort)
    runs = _stored_runs(key, len(names))
    if plan == "bands" and len(runs) < len(names) and lacks_density(level, runs):
        drop_results(database, [run_key(key, number) for number in range(len(runs))])
        raise VaspFailed(
            f"VaspFailed: DensityGone: {runs[0].folder} holds no CHGCAR that can be read here; "
            "a rerun computes it again."
        )
    if plan == "forces" and runs:
        return _forces(runs[-1])
    if len(runs) == len(names) or (runs and diverged(crystal.structure, runs[-1])):
        record: Relaxation | Bands
        if plan == "bands":
            record = band_structure(crystal.structure, level, runs)
        else:
            record = relaxation(crystal.structure, level, runs, ordering, effort)  # type: ignore[arg-type]
        kind = "bands" if plan == "bands" else "relaxation"
        put_result(database, key, kind, record.model_dump(mode="json"))
        return _output(crystal, level, plan, record)
    if (missed := skipped(level, plan)) is not None:
        return _output(crystal, level, plan, missed)
    begin = runs[-1].structure if runs and plan != "bands" else crystal.structure
    start = with_moments(begin, ordering)  # type: ignore[arg-type]
    try:
        document = _run(key, start, (level, plan, names[len(runs)]), runs, restart or {})
    except WalltimeReached:
        if continuations >= get_settings().vasp_continuations:
            raise
        again = dft_run(
            crystal, level, ordering, plan, continuations=continuations + 1, restart=restart
        )
        return Response(replace=_named(again, crystal, level, plan, len(runs)))
    if plan == "forces":
        return _forces(_stored_runs(key, 1)[0])
    following = dft_run(crystal, level, ordering, plan)
    return Response(output=document, replace=_named(following, crystal, level, plan, len(runs) + 1))


def _run(
    key: str,
    start: Structure,
    what: tuple[str, str, str],
    runs: list[VaspRun],
    restart: dict[str, Any],
) -> Any:
    """Do one run and store it; return its TaskDoc. Leaves a checkpoint, whatever happens.

    what: level, plan and name of the run.
    """
    from pccd_workflows.execution.mongo import put_result, survive_outage

    level, plan, name = what
    identifier = run_key(key, len(runs))
    began = time.perf_counter()
    checkpoints = stage_database()["checkpoints"]
    earlier = survive_outage(lambda: checkpoints.find_one({"_id": identifier}))
    if earlier is not None and earlier.get("cores"):
        note_killed(level, plan, name, earlier)
    geometry = None
    if earlier is not None and (restart.get("from_contcar") or earlier["resume"]):
        folders = (earlier["folder"], earlier.get("before"))
        geometry = next(filter(None, (last_geometry(f, start) for f in folders if f)), None)
    mark = {
        "folder": f"{socket.gethostname()}:{Path.cwd()}",
        # where to look if this attempt dies before its first CONTCAR
        "before": earlier["folder"] if earlier is not None and geometry is not None else None,
        "resume": True,
        "pid": os.getpid(),
        "started_at": datetime.now(UTC),
        "cores": allocated_cores(),  # until what it cost is noted
    }
    survive_outage(lambda: checkpoints.replace_one({"_id": identifier}, mark, upsert=True))
    try:
        result, document = run(
            start,
            level,
            name,
            settings=get_settings(),
            restart=Restart(geometry, dict(restart.get("incar") or {})),
            previous=_before(level, plan, runs),
        )
    except VaspFailed as error:
        resume = isinstance(error, WalltimeReached)
        seconds = time.perf_counter() - began
        note_cost(level, plan, run=name, seconds=seconds, outcome="failed")
        known = {"$set": {"resume": resume, "cores": None}}
        survive_outage(lambda: checkpoints.update_one({"_id": identifier}, known))
        raise
    note_cost(
        level,
        plan,
        run=name,
        seconds=result.seconds,
        cores=result.cores,
        n_atoms=len(start),
        n_electrons=result.n_electrons,
        n_kpoints=result.n_kpoints,
        n_spins=result.n_spins,
        n_steps=len(result.energies),
    )
    put_result(stage_database(), identifier, "vasp_run", result.model_dump(mode="json"))
    survive_outage(lambda: checkpoints.delete_one({"_id": identifier}))
    return document


def _before(level: str, plan: str, runs: list[VaspRun]) -> str | None:
    """Return the folder of the run from whose density the next one starts."""
    if not runs or (plan == "bands" and level not in FIXED_DENSITY):
        return None
    return runs[0].folder if plan == "bands" else runs[-1].folder


def _forces(run: VaspRun) -> dict[str, Any]:
    return {"forces": run.forces, "seconds": run.seconds}


def _stored_runs(key: str, number: int) -> list[VaspRun]:
    """Return those of the first `number` runs that are stored, up to the first that is not."""
    from pccd_workflows.execution.mongo import get_result

    runs: list[VaspRun] = []
    for index in range(number):
        stored = get_result(stage_database(), run_key(key, index))
        if stored is None:
            break
        runs.append(VaspRun.model_validate(stored))
    return runs


def _output(
    crystal: Crystal, level: str, plan: str, record: Relaxation | Bands | dict[str, Any]
) -> StageOutput | Relaxation:
    if plan == "bands":
        bands = record if isinstance(record, Bands) else Bands.model_validate(record)
        return StageOutput(stage=f"bands:{level}", records={crystal.candidate_id: bands})
    found = record if isinstance(record, Relaxation) else Relaxation.model_validate(record)
    if plan != "relax":
        return found
    return StageOutput(stage=f"relax:{level}", records={crystal.candidate_id: found})
