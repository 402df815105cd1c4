"""How many cores a job has."""

import os

CORES = (
    # what the queue gave: number of tasks, times cores of each
    (("SLURM_NTASKS",), ("SLURM_CPUS_PER_TASK",)),
    (("PBS_NP", "NCPUS"), ()),
    (("NSLOTS",), ()),
)


def allocated_cores() -> int:
    """Return how many cores the queue gave this job; 1 where there is no queue."""
    for tasks, each in CORES:
        number = _first(tasks)
        if number is not None:
            return number * (_first(each) or 1)
    return 1


def _first(names: tuple[str, ...]) -> int | None:
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit() and int(value) > 0), None)
