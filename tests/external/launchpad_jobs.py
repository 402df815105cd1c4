"""Jobs for the tests of the executor; a worker process imports them by name."""

import os
import time
from pathlib import Path

from jobflow import Flow, Response, job


@job
def add(a, b):
    """Return the sum."""
    print("adding", a, b)
    return a + b


@job(data=["payload"])
def heavy(size):
    """Return something for the additional store."""
    return {"payload": ["x" * 1000] * size, "size": size}


@job
def fan_out(numbers):
    """Grow the workflow while it runs."""
    jobs = [add(n, 1) for n in numbers]
    return Response(replace=Flow([*jobs, total([j.output for j in jobs])]))


@job
def total(values):
    """Return the sum of a list."""
    return sum(values)


@job
def broken(marker=None):
    """Fail, unless a file says that the fault is mended."""
    if marker is not None and Path(marker).exists():
        return "mended"
    raise ValueError("no such crystal")


@job
def wait_for(started, go, value):
    """Say that the job began (one more line in a file), then wait until told to go on."""
    with Path(started).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + 60
    while not Path(go).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(go)
        time.sleep(0.02)
    return value


@job
def kill_own_worker():
    """Die as a segmentation fault or the kernel's memory killer would have it."""
    os.kill(os.getpid(), 9)
