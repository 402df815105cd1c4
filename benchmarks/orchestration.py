"""What a job costs beside its own work: submission, launch, failures, bytes.

python benchmarks/orchestration.py [--jobs 1000] [--json]

A private mongod in a temporary folder. Every job makes one trivial candidate (a two-atom crystal,
no computing), is stored, and collected into the ledger. Times are wall time; beside each stand the
processor times of this process (`_cpu`) and of mongod (`_mongod_cpu`), which a busy machine
stretches much less.
"""

import argparse
import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from command import run
from jobflow import Flow
from pymatgen.core import Structure

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import Crystal, StageOutput
from pccd_workflows.collect import Collector
from pccd_workflows.execution import launchpad, mongo, mongod, reruns
from pccd_workflows.generators.request import Generation
from pccd_workflows.jobs.common import stage_job
from pccd_workflows.pipeline import DiscoveryMaker
from pccd_workflows.settings import Settings, get_settings

PORT = 27317
FLOW = 100
"""Jobs of one workflow: about as many as a rung has candidates."""
STORED = (
    *("fireworks", "launches", "workflows"),
    *("job_outputs", "job_data.files", "job_data.chunks", "candidates"),
)
"""Collections that grow with every candidate."""
FAILED = "failed-0123456789"
JOB = {"job": {"function_args": "x" * 6000}}
"""As large as a VASP run of 20 atoms."""


def campaign(name: str, samples: int) -> Campaign:
    """Return a campaign of so many samples."""
    return Campaign.model_validate(
        {
            "name": name,
            "generate": {"elements": ["Mg", "Mn", "O"], "samples": samples, "shard": 128},
            "rungs": [{"level": "chgnet"}],
        }
    )


@stage_job
def make_candidate(candidate_id: str, index: int) -> StageOutput:
    """Return a candidate as the generation stage does."""
    structure = Structure([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]], ["Mg", "O"], SITES)
    record = Generation(
        model="none", weights_sha256="0" * 64, seed=0, index=index, elements=["Mg", "O"]
    )
    crystal = Crystal(candidate_id=candidate_id, structure=structure)
    return StageOutput(stage="generate", records={candidate_id: record}, survivors=[crystal])


SITES = [[0, 0, 0], [0.5, 0.5, 0.5]]


@dataclass
class Stopwatch:
    """Notes what blocks take.

    server: mongod.
    """

    server: psutil.Process
    results: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str, divide: int = 1) -> Iterator[None]:
        """Note the times of the block, in s, for one of `divide` units."""
        before = self._now()
        yield
        kinds = ("", "_cpu", "_mongod_cpu")
        for kind, start, end in zip(kinds, before, self._now(), strict=True):
            self.results[f"{name}{kind}"] = round((end - start) / divide, 4)

    def _now(self) -> tuple[float, float, float]:
        used = self.server.cpu_times()
        return time.perf_counter(), time.process_time(), used.user + used.system


def run_jobs(settings: Settings, number: int, watch: Stopwatch) -> None:
    """Submit, run and collect trivial candidates, with one worker."""
    whole = campaign("trivial", number)
    database = mongo.database(settings)
    with watch.timed("submit_seconds_per_job", number):
        for first in range(0, number, FLOW):
            members = range(first, min(first + FLOW, number))
            flow = Flow([make_candidate(whole.candidate_id(n), n) for n in members])
            flow.update_metadata({"campaign_id": whole.campaign_id})
            launchpad.submit(flow, settings)
    with watch.timed("run_seconds_per_job", number):
        launchpad.run_worker(settings)
    with watch.timed("collect_seconds_per_job", number):
        found = Collector(database, mongo.job_store(settings), whole).update()
    if found != number:
        raise SystemExit(f"{found} candidates were collected, not {number}")
    results = watch.results
    for kind in ("", "_cpu", "_mongod_cpu"):
        parts = [results[f"{part}_seconds_per_job{kind}"] for part in ("submit", "run", "collect")]
        results[f"seconds_per_job{kind}"] = round(sum(parts), 4)
    sizes = [database.command("collStats", name)["size"] for name in STORED]
    results["bytes_per_candidate"] = round(sum(sizes) / number)
    documents = [database[name].estimated_document_count() for name in STORED]
    results["documents_per_candidate"] = round(sum(documents) / number, 2)


def submit_large(settings: Settings, watch: Stopwatch) -> None:
    """Submit a campaign of 10,000 samples."""
    with watch.timed("submit_seconds_10k"):
        launchpad.submit(DiscoveryMaker().make(campaign("large", 10_000), "0" * 64), settings)


def query_failures(settings: Settings, watch: Stopwatch) -> None:
    """Ask for the failures among 10,000 jobs, all of which failed twice."""
    opened = launchpad.launchpad(settings)
    reruns.ensure_indexes(opened)
    numbers = range(1_000_001, 1_010_001)
    opened.db["fireworks"].insert_many(
        {
            "fw_id": n,
            "name": f"relax 1 vasp/mp-gga {n}",
            "state": "FIZZLED",
            "launches": [n],
            "archived_launches": [n + len(numbers)],
            "spec": {"campaign_id": FAILED, "candidates": [f"c-{n}"], "_tasks": [JOB]},
        }
        for n in numbers
    )
    opened.db["launches"].insert_many(
        {
            "launch_id": n,
            "fw_id": numbers.start + (n - numbers.start) % len(numbers),
            "state": "FIZZLED",
            "launch_dir": f"runs/{n}",
            "fworker": {"name": "node:1:1"},
            "action": {"stored_data": {"_exception": {"_stacktrace": "x" * 4000}}},
            "failure": {"error_class": "scf", "evidence": "edddav"},
        }
        for n in range(numbers.start, numbers.stop + len(numbers))
    )
    with watch.timed("failures_query_seconds"):
        found = reruns.job_failures(settings, campaign_id=FAILED)
    if [failure.attempts for failure in found] != [2] * len(numbers):
        raise SystemExit(f"{len(found)} failures were found, not {len(numbers)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PCCD_DATA_DIR"] = folder
        os.environ["PCCD_MONGOD_PORT"] = str(PORT)
        get_settings.cache_clear()
        settings = get_settings()
        mongod.start(settings)
        watch = Stopwatch(psutil.Process(mongod.status(settings).pid))
        try:
            mongo.ensure_indexes(mongo.database(settings))
            run_jobs(settings, arguments.jobs, watch)
            submit_large(settings, watch)
            query_failures(settings, watch)
        finally:
            mongod.stop(settings)
    if arguments.json:
        print(json.dumps(watch.results, indent=2))
        return
    for name, value in watch.results.items():
        print(f"{name:38s} {value:12g}")


if __name__ == "__main__":
    run(main)
