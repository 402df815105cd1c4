"""Jobs for everything that engines compute: by reference, run by run, each result stored once.

A job whose result is stored already computes nothing; one that is lost leaves its siblings alone.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jobflow import CURRENT_JOB, Flow, Job, Response
from pymatgen.core import Structure

from pccd_workflows.analysis.magnetism import why_not
from pccd_workflows.campaign import index_of
from pccd_workflows.core.errors import OutOfMemory, PccdError
from pccd_workflows.core.records import Record
from pccd_workflows.core.storage import (
    Costs,
    CrystalRef,
    StageRow,
    Storage,
    load_crystals,
    structure_key,
)
from pccd_workflows.engines.engine import (
    Engine,
    Restart,
    Task,
    WalltimeReached,
    Work,
    engine_of,
    level_for,
)
from pccd_workflows.engines.levels import Level
from pccd_workflows.engines.records import Bands, Relaxation
from pccd_workflows.engines.supercells import displaced_cell
from pccd_workflows.jobs.common import assign, job_storage, task_job
from pccd_workflows.jobs.metadata import CANDIDATES, OPTIONAL, WRITES
from pccd_workflows.settings import get_settings

HOLD_SECONDS = 5.0
"""Rows of a job are written together if its crystals take less: nothing that was computed is lost
with them, for each result is stored at once."""
RESTARTABLE = "restartable"
"""Name in the metadata of jobs that `pccd job rerun` may give INCAR tags or a geometry."""


def compute_jobs(
    refs: Sequence[CrystalRef],
    level: str,
    task: Task,
    *,
    campaign_id: str | None = None,
    batch: int = 1,
) -> list[Job]:
    """Return the (first) jobs that compute a task of each crystal.

    Tasks of candidates write the rows of stage ``relax:<level>`` or ``bands:<level>`` (key: of the
    relaxed structure, stored too; goes_on: usable) and output the number of crystals. All others
    output the key of their result (str), a job each: read it with
    ``storage.get_result(key)`` and ``Relaxation.model_validate`` or ``Forces.model_validate``.

    Parameters
    ----------
    refs
        Crystals by reference; the structures are stored.
    batch
        Candidates per job, where the engine takes more than one.

    Raises
    ------
    InputError
        The level is unknown or does not compute such tasks.
    """
    of = level_for(level, task)
    engine = engine_of(of)
    size = batch if engine.batched and task.purpose == "candidate" else 1
    batches = [list(refs[first : first + size]) for first in range(0, len(refs), size)]
    (run, *_) = engine.runs(of, task)
    return [
        _named(
            compute(members, level, task, campaign_id),
            members,
            of,
            task,
            f"{run} {level} {f'{number}/{len(batches)}' if size > 1 else members[0].id}",
        )
        for number, members in enumerate(batches, start=1)
    ]


def _named(job: Job, refs: Sequence[CrystalRef], of: Level, task: Task, name: str) -> Job:
    """Return the job with its name, its candidates and its kind of worker."""
    job.name = name
    engine = engine_of(of)
    told: dict[str, Any] = {}
    if task.purpose != "reference":
        told[CANDIDATES] = [ref.id for ref in refs]
    if task.purpose == "candidate":
        told[WRITES] = f"{task.kind}:{of.name}"
    if task.optional:
        told[OPTIONAL] = True
    if engine.restartable:
        told[RESTARTABLE] = True
    # not handed on to jobs that replace this one: half of a batch has half of the candidates
    job.update_metadata(told, dynamic=False)
    return assign(job, engine.category)


@task_job
def compute(
    refs: list[CrystalRef],
    level: str,
    task: Task,
    campaign_id: str | None = None,
    continuations: int = 0,
    restart: dict[str, Any] | None = None,
) -> Response[Any] | str | int:
    """Compute a task of crystals, one after the other; of several runs the next one.

    Parameters
    ----------
    continuations
        How often this run went on after reaching the walltime.
    restart
        Set by `pccd job rerun`: ``incar`` (tags) and ``from_contcar`` (bool).

    Raises
    ------
    MachineFault
        The machine failed. Where memory did not suffice for one of several crystals, the rest is
        shared between two jobs first, so that it fails alone.
    PccdError
        A run left no result.
    """
    changed = restart or {}
    start = Restart(bool(changed.get("from_contcar")), dict(changed.get("incar") or {}))
    of, keys = level_for(level, task), []
    with job_storage() as storage, _telling(storage) as told:
        limited = campaign_id is not None and storage.budget(campaign_id, level) is not None
        batch = _Batch(of, task, Work(storage, campaign_id, start), told, limited=limited)
        for number, step in enumerate(batch.steps(refs)):
            try:
                found = step.take()
            except WalltimeReached:
                if continuations >= get_settings().vasp_continuations:
                    raise
                again = {"continuations": continuations + 1, "restart": restart}
                return Response(replace=step.following(**again))
            except OutOfMemory:
                if len(refs) - number == 1:
                    raise
                return _halved(refs[number:], of, task, campaign_id)
            if isinstance(found, Response):
                return found
            keys.append(found)
    return len(refs) if task.purpose == "candidate" else keys[0]


@dataclass
class _Told:
    """What a job says of its candidates, written together: a crystal may take milliseconds.

    storage: where to.
    since: when it was written last, by this process's clock, s.
    """

    storage: Storage
    since: float = field(default_factory=time.monotonic)
    rows: list[StageRow] = field(default_factory=list)
    structures: dict[str, Structure] = field(default_factory=dict)

    def add(self, row: StageRow, structure: Structure | None) -> None:
        """Tell of one more; what is older than HOLD_SECONDS is written."""
        self.rows.append(row)
        if structure is not None and row.key is not None:
            self.structures[row.key] = structure
        if time.monotonic() - self.since > HOLD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was told."""
        rows, structures, self.rows, self.structures = self.rows, self.structures, [], {}
        if structures:
            self.storage.put_structures(structures)
        if rows:
            self.storage.put_rows(rows)
        self.since = time.monotonic()


@contextmanager
def _telling(storage: Storage) -> Iterator[_Told]:
    """Yield what collects the rows of a job; however it ends, they are written."""
    told = _Told(storage)
    try:
        yield told
    finally:
        told.write()


@dataclass(frozen=True)
class _Batch:
    """The task of all crystals of a job.

    told: what is said of them. limited: whether there is a budget, as the job began.
    """

    level: Level
    task: Task
    work: Work
    told: _Told
    limited: bool

    @property
    def engine(self) -> Engine:
        """The engine of the level."""
        return engine_of(self.level)

    def steps(self, refs: Sequence[CrystalRef]) -> "Iterator[_Step]":
        """Yield the step of each crystal; of several, the results are looked up together."""
        storage, moved = self.work.storage, self.task.displacement
        structures = load_crystals(storage, refs)
        if moved is not None:
            structures = [displaced_cell(structure, moved) for structure in structures]
        if len(refs) > 1:
            storage.expect_results([self.engine.key(self.level, s, self.task) for s in structures])
        for ref, structure in zip(refs, structures, strict=True):
            yield _Step(self, ref, structure)


@dataclass(frozen=True)
class _Step:
    """A task of one crystal, as far as it is."""

    batch: _Batch
    ref: CrystalRef
    structure: Structure

    @property
    def engine(self) -> Engine:
        """The engine of the level."""
        return self.batch.engine

    @property
    def level(self) -> Level:
        """The level of theory."""
        return self.batch.level

    @property
    def task(self) -> Task:
        """What is computed."""
        return self.batch.task

    @property
    def work(self) -> Work:
        """Where the engine reads and writes."""
        return self.batch.work

    def take(self) -> Response[Any] | str:
        """Do the next run; return the result's key, or the run's document and what follows it."""
        engine, storage = self.engine, self.work.storage
        record = engine.finished(self.level, self.structure, self.task, storage)
        if record is None:
            record = self.refused() or self.over_budget()
        if record is None:
            document = engine.run_next(self.level, self.structure, self.task, self.work)
            if document is not None:
                return Response(output=document, replace=self.following())
            record = engine.finished(self.level, self.structure, self.task, storage)
        if record is None:
            raise PccdError(f"{self.ref.id}: what was computed cannot be read back.")
        if self.task.purpose == "candidate":
            self.tell(record)
        return engine.key(self.level, self.structure, self.task)

    def following(self, **arguments: Any) -> Job:
        """Return the job of the next run."""
        job = compute([self.ref], self.level.name, self.task, self.work.campaign_id, **arguments)
        storage = self.work.storage
        run = self.engine.next_run(self.level, self.structure, self.task, storage) or "record"
        name = f"{run} {self.level.name} {self.ref.id}"
        return _named(job, [self.ref], self.level, self.task, name)

    def tell(self, record: Record) -> None:
        """Say what a stage says of a candidate, and the structure it leaves it with."""
        structure = record.structure if isinstance(record, Relaxation) and record.usable else None
        key = None if structure is None else structure_key(structure)
        row = StageRow(
            campaign_id=self.work.campaign_id or "",
            candidate_id=self.ref.id,
            index=index_of(self.ref.id),
            stage=f"{self.task.kind}:{self.level.name}",
            record=record.model_dump(mode="json"),
            key=key,
            goes_on=structure is not None,
            formula=None if structure is None else structure.composition.reduced_formula,
        )
        self.batch.told.add(row, structure)

    def refused(self) -> Record | None:
        """Return the verdict of a candidate that cannot start in the order asked for; else None."""
        if self.task.kind not in ("relax", "tight") or self.engine.batched:
            return None  # potentials know no moments
        reason = why_not(self.structure, self.task.ordering)
        if reason is None or self.task.purpose != "candidate":
            return None
        return Relaxation(level=self.level.name, key="", verdict="error", reason=reason)

    def over_budget(self) -> Record | None:
        """Return the verdict of a candidate for which the rung's budget is spent; else None."""
        if self.task.purpose != "candidate" or not self.batch.limited:
            return None
        storage, level = self.work.storage, self.level.name
        reason = overspent(storage, self.work.campaign_id, level)
        if reason is None:
            return None
        if (job := CURRENT_JOB.job) is not None:
            storage.note_skipped(self.work.campaign_id, level, job.uuid)
        if self.task.optional:
            return Bands(level=level, reason=reason)
        return Relaxation(level=level, key="", verdict="budget", reason=reason)


def _halved(
    refs: Sequence[CrystalRef], of: Level, task: Task, campaign_id: str | None
) -> Response[Any]:
    """Return two jobs for what is left of a batch that did not fit into memory."""
    middle = len(refs) // 2
    (run, *_) = engine_of(of).runs(of, task)
    jobs = []
    for half in (list(refs[:middle]), list(refs[middle:])):
        job = compute(half, of.name, task, campaign_id)
        name = f"{run} {of.name} {half[0].id} and {len(half) - 1} more"
        jobs.append(_named(job, half, of, task, name))
    return Response(replace=Flow([*jobs], output=[job.output for job in jobs]))


def overspent(costs: Costs, campaign_id: str | None, level: str) -> str | None:
    """Say that a rung's budget is spent; None if it is not, or there is none."""
    limit = None if campaign_id is None else costs.budget(campaign_id, level)
    if limit is None or campaign_id is None:
        return None
    used = costs.spent(campaign_id, level)
    if used < limit:
        return None
    return f"The rung's budget of {limit:g} core-hours is spent ({used:.3g} were used)."
