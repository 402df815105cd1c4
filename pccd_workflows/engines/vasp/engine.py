"""VASP as an engine: each run is done by one job, so that a walltime limits one run and not three.

A run that is stored already is not done again. Where one was stopped (walltime, a killed worker)
the next attempt starts from its CONTCAR; after an error it starts anew unless told otherwise.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from pccd_workflows.core.cores import allocated_cores
from pccd_workflows.core.records import Record
from pccd_workflows.core.storage import Document, Results
from pccd_workflows.engines.engine import (
    Category,
    Task,
    WalltimeReached,
    Work,
)
from pccd_workflows.engines.levels import Level, TaskKind
from pccd_workflows.engines.shared import put_record, read_result, stored_record
from pccd_workflows.engines.vasp import results as found
from pccd_workflows.engines.vasp.inputs import check_ready, run_key, task_key, with_moments
from pccd_workflows.engines.vasp.results import VaspRun, diverged
from pccd_workflows.engines.vasp.run import Attempt, VaspFailed, last_geometry, run
from pccd_workflows.settings import get_settings

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings


@dataclass(frozen=True)
class Chain:
    """How the runs of a kind of task hang together.

    Attributes
    ----------
    record
        What they amount to.
    goes_on
        Whether each starts from where the one before ended, rather than from the crystal as it is.
    documented
        Whether the job store keeps atomate2's document of each run.
    """

    record: Callable[[Structure, Level, Task, Sequence[VaspRun]], Record]
    goes_on: bool = False
    documented: bool = True


CHAINS: dict[TaskKind, Chain] = {
    "relax": Chain(found.relaxation, goes_on=True),
    "tight": Chain(found.relaxation, goes_on=True),
    "static": Chain(found.single_point),
    "forces": Chain(found.forces, documented=False),  # many, and all alike
    "bands": Chain(found.band_structure),
}


class Vasp:
    """VASP through atomate2 and custodian."""

    category: Category = "cpu"
    batched = False
    restartable = True

    def check(self, level: Level, elements: Sequence[str], settings: "Settings") -> None:
        """See that VASP and a POTCAR for each element are there."""
        check_ready(level, elements, settings)

    def key(self, level: Level, structure: Structure, task: Task) -> str:
        """Return the content address of a task's result."""
        return task_key(structure, level, task)

    def runs(self, level: Level, task: Task) -> tuple[str, ...]:
        """Return the names of the task's runs, in order."""
        return level.runs[task.kind]

    def next_run(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> str | None:
        """Return the name of the first run that is not stored; None if no more is needed."""
        done = self._stored_runs(level, structure, task, results)
        return (
            None if _complete(level, structure, task, done) else self.runs(level, task)[len(done)]
        )

    def finished(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> Record | None:
        """Return the result, assembled from the stored runs where they are complete."""
        key = self.key(level, structure, task)
        if (record := stored_record(results, key, task)) is not None:
            return record
        done = self._stored_runs(level, structure, task, results)
        if not _complete(level, structure, task, done):
            return None
        record = CHAINS[task.kind].record(structure, level, task, done)
        put_record(results, key, task, record)
        return record

    def run_next(self, level: Level, structure: Structure, task: Task, work: Work) -> Any:
        """Do the first run that is not stored yet; return atomate2's TaskDoc, if it is kept."""
        chain, key = CHAINS[task.kind], self.key(level, structure, task)
        done = self._stored_runs(level, structure, task, work.storage)
        if not chain.goes_on and lacks_density(level, done):
            work.storage.drop_results([run_key(key, number) for number in range(len(done))])
            raise VaspFailed(
                f"VaspFailed: DensityGone: {done[0].folder} holds no CHGCAR that can be read here; "
                "a rerun computes it again."
            )
        begin = done[-1].structure if done and chain.goes_on else structure
        start = with_moments(begin, task.ordering)
        document = _run(_Run(level, task, key, done), start, work)
        return document if chain.documented else None

    def _stored_runs(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> list[VaspRun]:
        """Return those of the task's runs that are stored, up to the first that is not."""
        key = self.key(level, structure, task)
        runs: list[VaspRun] = []
        for number in range(len(self.runs(level, task))):
            done = read_result(results, run_key(key, number), VaspRun)
            if done is None:
                break
            runs.append(done)
        return runs


ENGINE = Vasp()


def _complete(level: Level, structure: Structure, task: Task, done: Sequence[VaspRun]) -> bool:
    """Return whether no run is left that could change the result."""
    return len(done) == len(level.runs[task.kind]) or bool(done and diverged(structure, done[-1]))


def lacks_density(level: Level, done: Sequence[VaspRun]) -> bool:
    """Return whether the CHGCAR in which a level's bands go on cannot be read on this machine.

    done: the runs for bands that are done.
    """
    from monty.os.path import zpath

    if not (level.fixed_density and done):
        return False
    return not Path(zpath(str(Path(done[0].folder.rpartition(":")[2]) / "CHGCAR"))).is_file()


@dataclass(frozen=True)
class _Run:
    """The next run of a task: which one it is is said by those that are done."""

    level: Level
    task: Task
    key: str
    done: list[VaspRun]

    @property
    def name(self) -> str:
        """Name of the run, as the level's table has it."""
        return self.level.runs[self.task.kind][len(self.done)]

    @property
    def identifier(self) -> str:
        """Key under which the run's document is stored."""
        return run_key(self.key, len(self.done))

    @property
    def previous(self) -> str | None:
        """Folder of the run from whose density this one starts."""
        if not self.done:
            return None
        if CHAINS[self.task.kind].goes_on:
            return self.done[-1].folder
        return self.done[0].folder if self.level.fixed_density else None


def _run(of: _Run, start: Structure, work: Work) -> Any:
    """Do one run and store it; return its TaskDoc. Leaves a checkpoint, whatever happens."""
    began, storage = time.perf_counter(), work.storage
    earlier = storage.get_checkpoint(of.identifier)
    if earlier is not None and earlier.get("cores"):
        _note_killed(of, earlier, work)
    geometry = None
    if earlier is not None and (work.restart.from_last or earlier["resume"]):
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
    storage.put_checkpoint(of.identifier, mark)
    attempt = Attempt(geometry, dict(work.restart.incar), of.previous)
    try:
        result, document = run(start, of.level, of.name, settings=get_settings(), attempt=attempt)
    except (VaspFailed, WalltimeReached) as error:
        seconds = time.perf_counter() - began
        work.note_cost(of.level, of.task, run=of.name, seconds=seconds, outcome="failed")
        resume = isinstance(error, WalltimeReached)
        storage.put_checkpoint(of.identifier, {**mark, "resume": resume, "cores": None})
        raise
    work.note_cost(
        of.level,
        of.task,
        run=of.name,
        seconds=result.seconds,
        cores=result.cores,
        n_atoms=len(start),
        n_electrons=result.n_electrons,
        n_kpoints=result.n_kpoints,
        n_spins=result.n_spins,
        n_steps=len(result.energies),
    )
    storage.put_result(of.identifier, "vasp_run", result.model_dump(mode="json"))
    storage.drop_checkpoint(of.identifier)
    return document


def _note_killed(of: _Run, attempt: Document, work: Work) -> None:
    """Add an attempt that was ended from outside: from its start to the last sign of its folder.

    attempt: its checkpoint. One whose folder cannot be seen from here counts as nothing.
    """
    folder = Path(attempt["folder"].rpartition(":")[2])
    began = attempt["started_at"].replace(tzinfo=UTC).timestamp()
    signs = [path.stat().st_mtime for path in folder.glob("*") if path.is_file()]
    work.note_cost(
        of.level,
        of.task,
        run=of.name,
        seconds=max([began, *signs]) - began,
        cores=attempt["cores"],
        outcome="killed",
    )
