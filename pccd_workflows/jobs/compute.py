"""Jobs for everything that engines compute: by reference, run by run, each result stored once."""

from collections.abc import Sequence
from typing import Any

from jobflow import Job, Response

from pccd_workflows.core.storage import CrystalRef
from pccd_workflows.engines.engine import Task
from pccd_workflows.jobs.common import task_job


def compute_jobs(
    refs: Sequence[CrystalRef], level: str, task: Task, *, campaign_id: str, batch: int = 1
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
    """
    raise NotImplementedError


@task_job
def compute(
    refs: list[CrystalRef],
    level: str,
    task: Task,
    campaign_id: str,
    continuations: int = 0,
    restart: dict[str, Any] | None = None,
) -> Response[Any] | str | int:
    """Compute a task of crystals; with several runs the next one, each a job of its own.

    Parameters
    ----------
    continuations
        How often this run went on after reaching the walltime.
    restart
        Set by `pccd job rerun`: ``incar`` (tags) and ``from_contcar`` (bool).
    """
    raise NotImplementedError
