"""Worker processes seen from inside: what each job takes, and what is asked of the database."""

import json
import multiprocessing
import os
import resource
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from pymongo import monitoring

from pccd_workflows.execution import mongod, worker
from pccd_workflows.settings import get_settings

OWNERS = {
    **dict.fromkeys(("fireworks", "launches", "workflows", "fw_id_assigner"), "FireWorks"),
    **dict.fromkeys(("job_outputs", "job_data.files", "job_data.chunks"), "jobflow"),
}
"""Whose collections these are; commits and aborts are FireWorks', all others the package's."""


class Watch(monitoring.CommandListener):
    """Counts commands and times transactions, by the clock and by this thread's processor time.

    A transaction that others made impossible is repeated: `repeated` counts those.
    """

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.longest = self.longest_cpu = self.repeated_cpu = 0.0
        self.repeated = 0
        self._began: dict[Any, tuple[float, float]] = {}

    def started(self, event: Any) -> None:
        """Note a command; a transaction begins with its first."""
        on = event.command.get(event.command_name)
        self.commands[OWNERS.get(on, "pccd") if isinstance(on, str) else "FireWorks"] += 1
        if event.command.get("startTransaction"):
            self._began[event.command["lsid"]["id"]] = time.perf_counter(), time.thread_time()

    def succeeded(self, event: Any) -> None:
        """Note the end of a transaction."""
        self._end(event, repeated=event.command_name == "abortTransaction")

    def failed(self, event: Any) -> None:
        """Note the end of a transaction that failed."""
        self._end(event, repeated=True)

    def _end(self, event: Any, *, repeated: bool) -> None:
        if event.command_name not in ("commitTransaction", "abortTransaction") or not self._began:
            return
        began, used = self._began.popitem()[1]
        self.longest = max(self.longest, time.perf_counter() - began)
        cpu = time.thread_time() - used
        self.longest_cpu = max(self.longest_cpu, cpu)
        if repeated:
            self.repeated += 1
            self.repeated_cpu += cpu


def run_workers(campaign_id: str, number: int, limit: int | None) -> list[dict[str, Any]]:
    """Run workers to their end; return what each says.

    They are forked, and begin when all of them are up: neither imports nor connecting is counted.

    limit: of jobs, after the first that relaxes; see `work`.
    """
    logs = [get_settings().data_dir / f"worker-{n}.json" for n in range(number)]
    context = multiprocessing.get_context("fork")
    start = context.Barrier(number)
    processes = [
        context.Process(target=work, args=(log, campaign_id, limit, start)) for log in logs
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("A worker failed.")
    return [json.loads(log.read_text()) for log in logs]


def work(log: Path, campaign_id: str, limit: int | None, start: Any) -> None:
    """Run jobs until none is left; write a line for each, and one for the process.

    limit: of jobs, after the first that relaxes. start: barrier that all workers wait at.
    """
    watch = Watch()
    monitoring.register(watch)
    settings = get_settings()
    server = psutil.Process(mongod.status(settings).pid)
    launch, lines = worker.launch_rocket, []
    relaxed = {"state": {"$in": ["COMPLETED", "FIZZLED"]}, "name": {"$regex": "^relax trivial"}}

    def launch_watched(opened: Any, fworker: Any, fw_id: int, **options: Any) -> Any:
        began, used, sent = time.time(), _cpu(), watch.commands.copy()
        served = sum(server.cpu_times()[:2])
        ran = launch(opened, fworker, fw_id, **options)
        lines.append(
            {
                "fw_id": fw_id,
                "began": began,
                "seconds": time.time() - began,
                "cpu": _cpu() - used,
                "mongod_cpu": sum(server.cpu_times()[:2]) - served,
                "by": dict(watch.commands - sent),
                "ran": bool(ran),
            }
        )
        if limit is not None and opened.fireworks.count_documents(relaxed) >= limit:
            os.kill(os.getpid(), signal.SIGTERM)
        return ran

    worker.launch_rocket = launch_watched
    start.wait()
    began, used = time.time(), _cpu()
    worker.run_worker(settings, campaign_id=campaign_id)
    whole = {
        "began": began,
        "seconds": time.time() - began,
        "cpu": _cpu() - used,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "longest": watch.longest,
        "longest_cpu": watch.longest_cpu,
        "repeated": watch.repeated,
        "repeated_cpu": watch.repeated_cpu,
    }
    log.write_text(json.dumps({"jobs": lines, **whole}))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
