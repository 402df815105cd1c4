"""What engines share: how results are stored, and tasks of a single run."""

from typing import TypeVar

from pydantic import BaseModel
from pymatgen.core import Structure

from pccd_workflows.core.records import Record
from pccd_workflows.core.storage import Results
from pccd_workflows.engines.engine import Task
from pccd_workflows.engines.levels import Level, TaskKind
from pccd_workflows.engines.records import Bands, Forces, Relaxation, SinglePoint

M = TypeVar("M", bound=BaseModel)

RESULTS: dict[TaskKind, tuple[str, type[Record]]] = {
    "relax": ("relaxation", Relaxation),
    "tight": ("relaxation", Relaxation),
    "static": ("single_point", SinglePoint),
    "forces": ("forces", Forces),
    "bands": ("bands", Bands),
}
"""How the result of each kind of task is stored: kind of result, record."""


def stored_record(results: Results, key: str, task: Task) -> Record | None:
    """Return the result of a task that is stored under its key; None if there is none."""
    _, kind = RESULTS[task.kind]
    return read_result(results, key, kind)


def read_result(results: Results, key: str, kind: type[M]) -> M | None:
    """Return what is stored under a key; None if there is nothing.

    What cannot be read, damaged or of an older version, is forgotten.
    """
    stored = results.get_result(key)
    if stored is None:
        return None
    try:
        return kind.model_validate(stored)
    except (ValueError, KeyError, TypeError, AttributeError):  # pydantic's, pymatgen's
        results.drop_results([key])
        return None


def put_record(results: Results, key: str, task: Task, record: Record) -> None:
    """Store the result of a task under its key."""
    kind, _ = RESULTS[task.kind]
    results.put_result(key, kind, record.model_dump(mode="json"))


class OneRun:
    """What engines share whose tasks are one run each: its result is that of the task."""

    restartable = False

    def key(self, level: Level, structure: Structure, task: Task) -> str:
        """Return the content address of a task's result."""
        raise NotImplementedError

    def runs(self, level: Level, task: Task) -> tuple[str, ...]:
        """Return the name of the task's run."""
        return level.runs[task.kind]

    def next_run(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> str | None:
        """Return the name of the run if its result is not stored yet."""
        done = self.finished(level, structure, task, results) is not None
        return None if done else level.runs[task.kind][0]

    def finished(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> Record | None:
        """Return the stored result; None if there is none that can be read."""
        return stored_record(results, self.key(level, structure, task), task)
