"""What a job costs beside its own work: submission, launch, failures, bytes.

python benchmarks/orchestration.py [--jobs 1000] [--json]

A private mongod in a temporary folder; every job adds two numbers. Times are wall time; beside each
stands the processor time of this process, which a busy machine does not stretch.
"""

import argparse
import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator

from jobflow import Flow, job

from pccd_workflows.campaign import Campaign
from pccd_workflows.external import launchpad, mongo, mongod, reruns
from pccd_workflows.makers import DiscoveryMaker
from pccd_workflows.settings import Settings, get_settings

PORT = 27317
FLOW = 100
"""Jobs of one workflow: about as many as a rung has candidates."""
CAMPAIGN = "orchestration-0123456789"


@job
def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


@contextlib.contextmanager
def timed(results: dict[str, float], name: str, divide: int = 1) -> Iterator[None]:
    """Note wall and processor time of the block, for one of `divide` units."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    results[name] = round((time.perf_counter() - wall) / divide, 4)
    results[f"{name}_cpu"] = round((time.process_time() - cpu) / divide, 4)


def run_jobs(settings: Settings, number: int, results: dict[str, float]) -> None:
    """Submit and run trivial jobs in one worker."""
    with timed(results, "submit_seconds_per_job", number):
        for first in range(0, number, FLOW):
            flow = Flow([add(n, 1) for n in range(first, min(first + FLOW, number))])
            flow.update_metadata({"campaign_id": CAMPAIGN})
            launchpad.submit(flow, settings)
    with timed(results, "seconds_per_job", number):
        launchpad.run_worker(settings)
    database = mongo.database(settings)
    names = ("fireworks", "launches", "workflows", "job_outputs")
    sizes = [database.command("collStats", name)["size"] for name in names]
    results["bytes_per_candidate"] = round(sum(sizes) / number)
    results["documents_per_candidate"] = round(
        sum(database[name].estimated_document_count() for name in names) / number, 2
    )


def submit_large(settings: Settings, results: dict[str, float]) -> None:
    """Submit a campaign of 10,000 samples."""
    campaign = Campaign.model_validate(
        {
            "name": "large",
            "generate": {"elements": ["Mg", "Mn", "O"], "samples": 10_000, "shard": 128},
            "rungs": [{"level": "chgnet"}],
        }
    )
    with timed(results, "submit_seconds_10k"):
        launchpad.submit(DiscoveryMaker().make(campaign, "0" * 64), settings)


def query_failures(settings: Settings, results: dict[str, float]) -> None:
    """Ask for the failures among 10,000 jobs, all of them failed."""
    opened = launchpad.launchpad(settings)
    reruns.ensure_indexes(opened)
    numbers = range(1_000_001, 1_010_001)
    opened.db["fireworks"].insert_many(
        {
            "fw_id": n,
            "name": f"relax 1 vasp/mp-gga {n}",
            "state": "FIZZLED",
            "launches": [n],
            "archived_launches": [],
            "spec": {"campaign_id": "failed-0123456789", "candidates": [f"c-{n}"]},
        }
        for n in numbers
    )
    opened.db["launches"].insert_many(
        {
            "launch_id": n,
            "fw_id": n,
            "state": "FIZZLED",
            "launch_dir": f"runs/{n}",
            "fworker": {"name": "node:1:1"},
            "action": {"stored_data": {"_exception": {"_stacktrace": "x" * 4000}}},
            "failure": {"error_class": "scf", "evidence": "edddav"},
        }
        for n in numbers
    )
    with timed(results, "failures_query_seconds"):
        found = reruns.job_failures(settings, campaign_id="failed-0123456789")
    if len(found) != len(numbers):
        raise SystemExit(f"{len(found)} failures were found, not {len(numbers)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PCCD_DATA_DIR"] = folder
        os.environ["PCCD_MONGOD_PORT"] = str(PORT)
        get_settings.cache_clear()
        settings = get_settings()
        mongod.start(settings)
        try:
            mongo.ensure_indexes(mongo.database(settings))
            run_jobs(settings, arguments.jobs, results)
            submit_large(settings, results)
            query_failures(settings, results)
        finally:
            mongod.stop(settings)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for name, value in results.items():
        print(f"{name:28s} {value:12g}")


if __name__ == "__main__":
    main()
