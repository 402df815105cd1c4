"""What a campaign costs beside its own work, at any size: time, memory, documents, transactions.

    python benchmarks/scale.py --json --samples 20000 [--workers W]
    python benchmarks/scale.py --json --samples 100000 --jobs 3
    python benchmarks/scale.py --json --samples 200000 --only reading
    python benchmarks/scale.py --json --samples 1000000 --only submission
    python benchmarks/scale.py --json --only workflows --sizes 10 1000 5000 --jobs 30
    python benchmarks/scale.py --json --only workflows --sizes 640 --workers 64
    python benchmarks/scale.py --plot docs/images/scale.svg RESULT.json ...

A private mongod in a temporary folder, and crystals that nothing has to be computed for: decorated
lattices with displaced sites, a fifth of them copies, stored as generation and screening
leave them; a level that computes nothing (trivial_engine.py). All the rest is the program as it is:
deduplicate -> hand-over to the rung -> relax -> hull, by worker processes; then collect, status,
list, report and export, each a process of its own.

The other parts (`--only`): a campaign of the project's own model submitted; what reads candidates,
copies of a few hundred; empty jobs in workflows of several sizes.

`seconds` and `cpu_seconds` of a stage are summed over its jobs (wall time and processor time of the
worker; `mongod_cpu_seconds` is the server's in all). `peak_rss_mb` is that of each process.
`longest_transaction_s` is the time from the first command of a transaction to its commit, as the
worker saw it, `longest_transaction_cpu_s` the worker's processor time in it;
`largest_document_mb` of any collection, files in GridFS included. `operations` are
commands sent to MongoDB for one job that relaxes, by whose collections they concern;
`operations_in_all` are those of all jobs of a stage, which do not depend on the load.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from command import run
from jobflow import Flow
from scale_campaign import BATCH, campaign, gather, prefill, prefilled, store_campaign
from scale_worker import run_workers

from pccd_workflows import operations
from pccd_workflows.execution import launchpad, mongo, mongod
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.jobs.common import named
from pccd_workflows.settings import Settings, get_settings
from pccd_workflows.stages.sharing import BRANCHES

MB = 2**20
SEED_CAMPAIGN = 300
"""Samples of the campaign whose candidates are copied."""
Row = dict[str, Any]
PORT = 27318


@dataclass
class Measured:
    """Figures by stage."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    mongod_cpu_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    peak_rss_mb: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    other: Row = field(default_factory=dict)

    def process(self, stage: str, words: Sequence[str], server: psutil.Process) -> None:
        """Run a process to its end and note what it took."""
        served, began = sum(server.cpu_times()[:2]), time.perf_counter()
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(words)} ended with {status}.")
        self.seconds[stage] = time.perf_counter() - began
        self.cpu_seconds[stage] = used.ru_utime + used.ru_stime
        self.mongod_cpu_seconds[stage] = sum(server.cpu_times()[:2]) - served
        self.peak_rss_mb[stage] = used.ru_maxrss / 1024

    def read(self, name: str, folder: Path, server: psutil.Process) -> None:
        """Run the commands that read a campaign."""
        command = [sys.executable, "-m", "pccd_workflows"]
        report = str(folder / "report.html")
        csv = ["--out", str(folder / "all.csv"), "--format", "csv"]
        self.process("status", [*command, "campaign", "status", name, "--json"], server)
        self.process("list", [*command, "candidate", "list", "--campaign", name], server)
        self.process("report", [*command, "campaign", "report", name, "--out", report], server)
        self.process("export", [*command, "candidate", "export", "--campaign", name, *csv], server)

    def as_dict(self) -> Row:
        """Return everything, rounded."""
        stages = ("seconds", "cpu_seconds", "mongod_cpu_seconds", "peak_rss_mb")
        kept = {name: {k: round(v, 3) for k, v in getattr(self, name).items()} for name in stages}
        return kept | self.other


STARTS = re.compile(r"relax \d+-\d+ ")
"""Names of jobs that start those that relax a share of the crystals."""


def stage_of_job(name: str) -> str:
    """Return the stage that a job belongs to, by its name."""
    first = name.split(" ")[0]
    if first == "relax" and STARTS.match(name):
        return "hand-over"
    return {"rung": "hand-over", "relaxed": "hand-over", "prefilled": "generate"}.get(first, first)


def operations_by_owner(lines: Sequence[Row]) -> dict[str, float]:
    """Return how many commands a job sends to MongoDB, by whose collections they concern."""
    total: Counter[str] = Counter()
    for line in lines:
        total.update(line["by"])
    return {owner: round(number / len(lines), 1) for owner, number in total.items()}


def note_jobs(told: Sequence[Row], found: Measured) -> None:
    """Note what the jobs of workers took, stage by stage."""
    fireworks = mongo.database(get_settings())["fireworks"]
    names = {row["fw_id"]: row["name"] for row in fireworks.find({}, {"fw_id": 1, "name": 1})}
    relaxing, commands = [], Counter[str]()
    for line in (line for one in told for line in one["jobs"] if line["ran"]):
        stage = stage_of_job(names[line["fw_id"]])
        found.seconds[stage] += line["seconds"]
        found.cpu_seconds[stage] += line["cpu"]
        commands[stage] += sum(line["by"].values())
        if len(told) == 1:
            found.mongod_cpu_seconds[stage] += line["mongod_cpu"]
        if stage == "relax":
            relaxing.append(line)
    found.peak_rss_mb["worker"] = max(one["peak_rss_mb"] for one in told)
    states = Counter(row["state"] for row in fireworks.find({}, {"state": 1}))
    found.other |= {
        "jobs": dict(states),
        "longest_transaction_s": round(max(one["longest"] for one in told), 3),
        "longest_transaction_cpu_s": round(max(one["longest_cpu"] for one in told), 3),
        "jobs_per_second": jobs_per_second(relaxing),
        "operations": operations_by_owner(relaxing),
        "operations_in_all": dict(commands),
        "repeated_transactions": sum(one["repeated"] for one in told),
    }


def jobs_per_second(lines: Sequence[Row]) -> float:
    """Return how many of some jobs ended each second."""
    first = min(line["began"] for line in lines)
    last = max(line["began"] + line["seconds"] for line in lines)
    return round(len(lines) / (last - first), 2)


def largest_documents(settings: Settings) -> dict[str, float]:
    """Return the size of the largest document of each collection, MB; of GridFS, of a file."""
    database = mongo.database(settings)
    sizes = {}
    for name in database.list_collection_names():
        size = "$length" if name.endswith(".files") else {"$bsonSize": "$$ROOT"}
        largest = {"$group": {"_id": None, "size": {"$max": size}}}
        rows = list(database[name].aggregate([largest], allowDiskUse=True))
        sizes[name] = round(rows[0]["size"] / MB, 4) if rows else 0.0
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def measure(arguments: argparse.Namespace, folder: Path, settings: Settings) -> Row:
    """Run a campaign of prefilled samples and everything that reads it."""
    whole = campaign(arguments.samples, folder, arguments.batch)
    found = Measured()
    database = mongo.database(settings)
    server = psutil.Process(mongod.status(settings).pid)
    began = time.perf_counter()
    prefill(whole, MongoStorage(database), arguments.samples)
    found.seconds["prefill"] = time.perf_counter() - began
    store_campaign(whole, settings)
    note_jobs(run_workers(whole.campaign_id, arguments.workers, arguments.jobs), found)
    if arguments.jobs is not None:
        sizes = largest_documents(settings)
        return {
            "samples": arguments.samples,
            **found.as_dict(),
            "largest_document_mb": next(iter(sizes.values())),
            "largest_documents_mb": dict(list(sizes.items())[:5]),
            "load": os.getloadavg(),
        }
    found.process("collect", [sys.executable, __file__, "--collect", whole.campaign_id], server)
    found.read(whole.campaign_id, folder, server)
    sizes = largest_documents(settings)
    outcome = Counter(
        (row["status"], row.get("reason_class"))
        for row in database["candidates"].find({}, {"status": 1, "reason_class": 1})
    )
    return {
        "samples": arguments.samples,
        "workers": arguments.workers,
        **found.as_dict(),
        "largest_document_mb": next(iter(sizes.values())),
        "largest_documents_mb": dict(list(sizes.items())[:5]),
        "ledger": {" ".join(filter(None, key)): number for key, number in outcome.items()},
        "ledger_sha256": ledger_digest(database),
        "load": os.getloadavg(),
    }


def measure_workflows(arguments: argparse.Namespace, _folder: Path, settings: Settings) -> Row:
    """Return what an empty job costs in workflows of some numbers of jobs."""
    found = {}
    for size in arguments.sizes:
        jobs = [named(prefilled(), f"relax trivial {number}") for number in range(size)]
        groups = [jobs[first : first + BRANCHES] for first in range(0, size, BRANCHES)]
        sums = [gather([job.output for job in group]) for group in groups]
        flow = Flow([*jobs, *sums, gather([one.output for one in sums])])
        name = f"workflow-{size}"
        flow.update_metadata({"campaign_id": name})
        launchpad.submit(flow, settings)
        told = run_workers(name, arguments.workers, arguments.jobs)
        # the first ones connect
        lines = [line for one in told for line in one["jobs"][2:] if line["ran"]]
        keys = ("seconds", "cpu", "mongod_cpu")
        found[size] = {key: round(np.mean([line[key] for line in lines]), 4) for key in keys}
        found[size]["operations"] = operations_by_owner(lines)
        found[size]["jobs_per_second"] = jobs_per_second(lines)
        found[size]["longest_transaction_s"] = round(max(one["longest"] for one in told), 3)
        found[size]["lost_races"] = sum(not line["ran"] for one in told for line in one["jobs"])
        found[size]["repeated"] = sum(one["repeated"] for one in told)
        found[size]["repeated_cpu"] = round(sum(one["repeated_cpu"] for one in told), 3)
        found[size]["jobs"] = len(lines)
        found[size]["load"] = os.getloadavg()
        mongo.database(settings)["fireworks"].delete_many({"spec.campaign_id": name})
    return {"workers": arguments.workers, "workflows": found, "load": os.getloadavg()}


def measure_reading(arguments: argparse.Namespace, folder: Path, settings: Settings) -> Row:
    """Return what the report of many candidates takes; they are copies of a few hundred."""
    few = campaign(SEED_CAMPAIGN, folder)
    database, found = mongo.database(settings), Measured()
    prefill(few, MongoStorage(database), SEED_CAMPAIGN)
    store_campaign(few, settings)
    run_workers(few.campaign_id, 1, None)
    collect(few.campaign_id)
    rows = list(database["candidates"].find())
    database["candidates"].delete_many({})
    for first in range(0, arguments.samples, BATCH):
        numbers = range(first, min(first + BATCH, arguments.samples))
        copies = [{**rows[number % len(rows)], "index": number} for number in numbers]
        names = [few.candidate_id(row["index"]) for row in copies]
        made = [row | {"_id": n, "candidate_id": n} for row, n in zip(copies, names, strict=True)]
        database["candidates"].insert_many(made)
    found, server = Measured(), psutil.Process(mongod.status(settings).pid)
    found.read(few.campaign_id, folder, server)
    return {"samples": arguments.samples, **found.as_dict(), "load": os.getloadavg()}


def measure_submission(arguments: argparse.Namespace, folder: Path, settings: Settings) -> Row:
    """Return what it takes to submit a campaign of the project's own model."""
    file = folder / "large.yaml"
    asked = {"elements": ["Mg", "Mn", "O"], "samples": arguments.samples}
    file.write_text(
        json.dumps({"name": "large", "generate": asked, "rungs": [{"level": "chgnet"}]})
    )
    found, server = Measured(), psutil.Process(mongod.status(settings).pid)
    words = [sys.executable, "-m", "pccd_workflows", "campaign", "submit", str(file)]
    found.process("submit", words, server)
    sizes = largest_documents(settings)
    found.other["largest_document_mb"] = next(iter(sizes.values()))
    return {"samples": arguments.samples, **found.as_dict(), "load": os.getloadavg()}


def ledger_digest(database: Any) -> str:
    """Return a hash over every candidate's outcome, so that two runs can be compared."""
    fields = dict.fromkeys(
        ("index", "status", "reason", "stage", "energy_above_hull", "novelty.duplicate_of"), 1
    )
    digest = hashlib.sha256()
    for row in database["candidates"].find({}, fields).sort("index", 1):
        # the campaign's id, which names of candidates begin with, differs from folder to folder
        text = json.dumps(row, sort_keys=True).replace(row["_id"].rpartition("-")[0], "")
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def collect(campaign_id: str) -> None:
    """Fold everything that is new into candidates."""
    settings = get_settings()
    document = operations.campaign_document(campaign_id, settings)
    operations.collect(document, operations.progress(document["_id"], settings), settings)


STAGES = ("deduplicate", "hand-over", "relax", "hull", "collect", "report", "export")
"""What the picture shows, in this order."""


def plot(files: Sequence[Path], out: Path) -> None:
    """Draw processor time per crystal and the memory of a process over the number of samples."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results = sorted((json.loads(file.read_text()) for file in files), key=lambda r: r["samples"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for stage in STAGES:
        # runs that ended early relaxed a few crystals only
        whole = stage != "relax"
        found = [r for r in results if stage in r["cpu_seconds"] and (whole or "ledger" in r)]
        times = [
            1000 * (r["cpu_seconds"][stage] + r["mongod_cpu_seconds"].get(stage, 0)) / r["samples"]
            for r in found
        ]
        left.loglog([r["samples"] for r in found], times, "o-", label=stage)
    for process in ("worker", "report", "export"):
        found = [r for r in results if process in r["peak_rss_mb"]]
        if process == "worker":
            found = [r for r in found if "deduplicate" in r["cpu_seconds"]]
        memory = [r["peak_rss_mb"][process] for r in found]
        right.semilogx([r["samples"] for r in found], memory, "o-", label=process)
    left.set(xlabel="samples", ylabel="processor time per sample, ms")
    right.set(xlabel="samples", ylabel="peak resident memory, MB", ylim=(0, None))
    for axes in (left, right):
        axes.legend(fontsize="small")
        axes.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    figure.savefig(out)


PARTS = ("campaign", "submission", "reading", "workflows")


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--jobs", type=int, help="end after so many jobs that relax, and read nothing"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 1000], help="of workflows")
    parser.add_argument("--batch", type=int, default=8, help="crystals to a job that relaxes")
    parser.add_argument("--only", choices=PARTS, default="campaign", help="what is measured")
    parser.add_argument("--plot", type=Path, help="draw what files of --json say into this file")
    parser.add_argument("files", type=Path, nargs="*", help="for --plot")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--folder", type=Path, help="where the data lie; a temporary folder")
    parser.add_argument("--collect", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse()
    logging.disable(logging.INFO)
    if arguments.plot:
        plot(arguments.files, arguments.plot)
        return
    if arguments.collect:
        collect(arguments.collect)
        return
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["PCCD_DATA_DIR"] = folder
        os.environ["PCCD_MONGOD_PORT"] = str(arguments.port)
        get_settings.cache_clear()
        settings = get_settings()
        mongod.start(settings)
        try:
            mongo.ensure_indexes(mongo.database(settings))
            measuring = {
                "campaign": measure,
                "submission": measure_submission,
                "reading": measure_reading,
                "workflows": measure_workflows,
            }[arguments.only]
            found = measuring(arguments, Path(folder), settings)
        finally:
            mongod.stop(settings)
    print(json.dumps(found, indent=None if arguments.json else 1))


if __name__ == "__main__":
    run(main)
