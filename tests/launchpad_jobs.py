"""Jobs for the tests of the executor; a worker process imports them by name."""

import contextlib
import os
import time
from pathlib import Path

from jobflow import Flow, Response, job

from pccd_workflows.core.storage import StageRow
from pccd_workflows.execution.mongo import database
from pccd_workflows.jobs.common import job_storage, plain_job
from pccd_workflows.settings import get_settings


@job
def add(a, b):
    """Return the sum."""
    print("adding", a, b)  # noqa: T201
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
def length(text):
    """Return the length of a text."""
    return len(text)


@job
def grow_beyond_16_mb():
    """Grow the workflow by more than fits into one MongoDB document."""
    return Response(replace=Flow([length(str(n) * 3_000_000) for n in range(6)]))


@job
def broken_with(message):
    """Fail with a message."""
    raise ValueError(message.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass"))


@job
def print_much(size):
    """Print so many characters."""
    line = "x" * 999_999
    for _ in range(size // 1_000_000):
        print(line)  # noqa: T201


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
    wait(started, go)
    database(get_settings())  # as jobs do, whether or not it is there
    return value


@plain_job
def wait_and_write_row(started, go):
    """Wait until told to go on, then write what a stage says of a candidate."""
    wait(started, go)
    with job_storage() as storage:
        row = StageRow("c", "c-000000", 0, "generate", {"said": "late"})
        storage.put_rows([row])


def wait(started, go):
    with Path(started).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + 60
    while not Path(go).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(go)
        time.sleep(0.02)


@job
def sleep_for(seconds, log):
    """Take long, and note that it ran."""
    time.sleep(seconds)
    with Path(log).open("a") as stream:
        stream.write("ran\n")
    return 1


@job
def kill_own_worker():
    """Die as a segmentation fault or the kernel's memory killer would have it."""
    os.kill(os.getpid(), 9)


@job
def stop_own_worker(marker, signum):
    """Have the worker stopped while this job runs for the first time."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signum)
        time.sleep(30)
    return 1


@job
def call_exit():
    """Leave Python as a badly written package would."""
    raise SystemExit(3)


@job
def total_of_what_is_there(values):
    """Return the sum of those that are not lost."""
    return sum(value for value in values if value is not None)


@job
def note(log, number):
    """Append a number to a file."""
    with Path(log).open("a") as stream:
        stream.write(f"{number}\n")
    return number


@job
def fill_the_disk():
    """Write into the run folder until nothing fits."""
    with Path("big").open("wb") as stream:
        while True:
            stream.write(b"x" * 4096)


@job
def print_on_a_full_disk(disk):
    """Print much while no byte is free."""
    with contextlib.suppress(OSError), (Path(disk) / "ballast").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)
    for number in range(1000):
        print("line", number, "x" * 100)  # noqa: T201
    return number


@job
def leak_store_and_settings():
    """Fail with a message that quotes the database's address, password included."""
    settings = get_settings()
    raise RuntimeError(f"cannot use {settings.mongodb_uri.get_secret_value()} {settings!r}")


def die_in(owner, method, first_call=1, *, after=False):
    """Kill this process in the given call of a method, before or after its work."""
    original = getattr(owner, method)
    calls = [0]

    def dying(*args, **kwargs):
        calls[0] += 1
        if calls[0] == first_call and not after:
            os.kill(os.getpid(), 9)
        result = original(*args, **kwargs)
        if calls[0] == first_call and after:
            os.kill(os.getpid(), 9)
        return result

    setattr(owner, method, dying)
