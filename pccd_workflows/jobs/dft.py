"""Relax one crystal with VASP: one job per run, each handing over to the next.

A job whose run is stored already goes on with the next one; a job that is lost leaves its
siblings alone. Where a run was stopped (walltime, a killed worker) the next attempt starts from
its CONTCAR; after an error it starts anew unless `restart` says otherwise.
"""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobflow import Job, Response
from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign, Rung
from pccd_workflows.candidate import Crystal, Relaxation, StageOutput
from pccd_workflows.external.vasp import (
    RUNS,
    Restart,
    VaspFailed,
    VaspRun,
    WalltimeReached,
    diverged,
    last_geometry,
    relaxation,
    relaxation_key,
    run,
    run_key,
    with_moments,
)
from pccd_workflows.jobs.common import CPU, assign, stage_database, task_job
from pccd_workflows.settings import get_settings


def dft_job(campaign: Campaign, rung: Rung, crystal: Crystal) -> Job:
    """Return the first job of a crystal's relaxation at a VASP level."""
    ordering = campaign.generate.conditions.magnetic_ordering
    return _named(dft_run(crystal, rung.level, ordering), rung.level, 0, crystal.candidate_id)


def _named(job: Job, level: str, number: int, candidate_id: str) -> Job:
    """Return the job with its name, its candidate and its kind of worker."""
    what = RUNS[level][number] if number < len(RUNS[level]) else "record"
    job.name = f"{what} {level} {candidate_id}"
    job.update_metadata({"candidates": [candidate_id]})
    return assign(job, CPU)


@task_job
def dft_run(
    crystal: Crystal,
    level: str,
    ordering: str | None,
    continuations: int = 0,
    restart: dict[str, Any] | None = None,
) -> Response[Any] | StageOutput:
    """Do the next VASP run of a crystal that is not stored yet.

    Parameters
    ----------
    ordering
        Magnetic ordering to start from; None leaves it to the input set.
    continuations
        How often this run went on after reaching the walltime.
    restart
        Set by `pccd job rerun`: ``incar`` (tags) and ``from_contcar`` (bool).

    Raises
    ------
    VaspFailed
        The run left no result.
    """
    from pccd_workflows.external.mongo import get_result, put_result

    database = stage_database()
    key = relaxation_key(crystal.structure, level, ordering)  # type: ignore[arg-type]
    if (stored := get_result(database, key)) is not None:
        return _output(crystal, level, Relaxation.model_validate(stored))
    runs = _stored_runs(key, level)
    if len(runs) == len(RUNS[level]) or (runs and diverged(crystal.structure, runs[-1])):
        record = relaxation(crystal.structure, level, runs, ordering)  # type: ignore[arg-type]
        put_result(database, key, "relaxation", record.model_dump(mode="json"))
        return _output(crystal, level, record)
    begin = runs[-1].structure if runs else crystal.structure
    start = with_moments(begin, ordering)  # type: ignore[arg-type]
    try:
        document = _run(key, start, level, runs, restart or {})
    except WalltimeReached:
        if continuations >= get_settings().vasp_continuations:
            raise
        again = dft_run(crystal, level, ordering, continuations=continuations + 1, restart=restart)
        return Response(replace=_named(again, level, len(runs), crystal.candidate_id))
    following = _named(
        dft_run(crystal, level, ordering), level, len(runs) + 1, crystal.candidate_id
    )
    return Response(output=document, replace=following)


def _run(
    key: str, start: Structure, level: str, runs: list[VaspRun], restart: dict[str, Any]
) -> Any:
    """Do one run and store it; return its TaskDoc. Leaves a checkpoint, whatever happens."""
    from pccd_workflows.external.mongo import put_result, survive_outage

    number = len(runs)
    identifier = run_key(key, number)
    checkpoints = stage_database()["checkpoints"]
    earlier = survive_outage(lambda: checkpoints.find_one({"_id": identifier}))
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
    }
    survive_outage(lambda: checkpoints.replace_one({"_id": identifier}, mark, upsert=True))
    try:
        result, document = run(
            start,
            level,
            number,
            settings=get_settings(),
            restart=Restart(geometry, dict(restart.get("incar") or {})),
            previous=runs[-1].folder if runs else None,
        )
    except VaspFailed as error:
        resume = isinstance(error, WalltimeReached)
        survive_outage(
            lambda: checkpoints.update_one({"_id": identifier}, {"$set": {"resume": resume}})
        )
        raise
    put_result(stage_database(), identifier, "vasp_run", result.model_dump(mode="json"))
    survive_outage(lambda: checkpoints.delete_one({"_id": identifier}))
    return document


def _stored_runs(key: str, level: str) -> list[VaspRun]:
    from pccd_workflows.external.mongo import get_result

    runs: list[VaspRun] = []
    for number in range(len(RUNS[level])):
        stored = get_result(stage_database(), run_key(key, number))
        if stored is None:
            break
        runs.append(VaspRun.model_validate(stored))
    return runs


def _output(crystal: Crystal, level: str, record: Relaxation) -> StageOutput:
    return StageOutput(stage=f"relax:{level}", records={crystal.candidate_id: record})
