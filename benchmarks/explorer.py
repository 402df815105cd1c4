"""How long the explorer takes for each page over many crystals, in CPU and wall time.

    python benchmarks/explorer.py [NUMBER]

Stores made-up crystals (100,000 if left out; about 4 kB each) in a database of its own, which goes
away afterwards.
"""

import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import explorer_demo as demo
import ledger_factory as factory
import numpy as np
import psutil
from command import run

from pccd_workflows import collect
from pccd_workflows.core.errors import InputError
from pccd_workflows.execution import mongo, mongod
from pccd_workflows.explorer.pages import answer
from pccd_workflows.settings import Settings

BATCH = 2000
CAMPAIGN = demo.CAMPAIGN.campaign_id


def crystals(number: int) -> Iterator[dict[str, Any]]:
    """Yield documents that differ in what lists sort and filter by; one in ten has no energy."""
    formulas = list(factory.PROTOTYPES)
    templates = []
    for formula in formulas:
        doc = factory.judged(0, formula)
        row = doc.model_dump(mode="json") | {"reached": collect.reached(demo.CAMPAIGN, doc.records)}
        row["relaxations"][0]["energies"] = row["relaxations"][0]["energies"][:10]
        templates.append(row)
    rng = np.random.default_rng(0)
    for index in range(1000, 1000 + number):
        row = {**templates[index % len(templates)]}
        name = demo.CAMPAIGN.candidate_id(index)
        above = None if index % 10 == 0 else float(rng.gamma(1.6, 0.16))
        yield row | {
            "_id": name,
            "candidate_id": name,
            "index": index,
            "energy_above_hull": above,
            "novel": bool(rng.random() < 0.7),
            "values": {**row["values"], "formation_energy_ev_per_atom": float(rng.normal(-2, 0.5))},
        }


def pages(number: int) -> list[tuple[str, str]]:
    """Return addresses: the usual ones, and the worst of each kind."""
    deep = number // 50
    return [
        ("/", ""),
        ("/", f"page={deep}"),
        ("/", "sort=-values.formation_energy_ev_per_atom"),
        ("/", f"sort=values.formation_energy_ev_per_atom&page={deep // 2}"),
        ("/", "elements=Mn,O&novel=new&to.energy_above_hull=0.05&sort=nsites"),
        ("/", "from.formation_energy_ev_per_atom=-1.1&to.formation_energy_ev_per_atom=-1.0"),
        ("/", f"campaign={CAMPAIGN}&formula=MgO"),
        ("/scatter", ""),
        ("/scatter", "x=formation_energy_ev_per_atom&y=energy_above_hull&colour=novel"),
        ("/campaigns", ""),
        (f"/campaign/{CAMPAIGN}", ""),
        (f"/diagrams/{CAMPAIGN}", ""),
        (f"/candidate/{demo.CAMPAIGN.candidate_id(1003)}", ""),
    ]


def measure(database: Any, number: int, server: psutil.Process) -> int:
    """Print the times of each page, the second time it is asked for; return an exit code.

    CPU time, of this process and the database's together, is what an idle machine needs; wall time
    is told beside it.
    """

    def cpu_time() -> float:
        used = server.cpu_times()
        return float(time.process_time() + used.user + used.system)

    slow = 0
    print(f"{'wall s':>8} {'CPU s':>8}  page")
    for path, query in pages(number):
        for _ in range(2):
            began, cpu = time.perf_counter(), cpu_time()
            reply = answer(database, path, query)
            wall, spent = time.perf_counter() - began, cpu_time() - cpu
        if reply.status != 200:
            raise InputError(f"{path}?{query} is answered by {reply.status}.")
        slow += spent > 1
        print(f"{wall:8.2f} {spent:8.2f}  {path}{'?' + query if query else ''}")
    print(f"{slow} of {len(pages(number))} pages took more than a second of CPU time.")
    return int(slow > 0)


def main() -> int:
    """Fill a database, ask for pages."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            mongodb_uri=None, data_dir=Path(folder), mongod_port=port, database="demo"
        )
        mongod.start(settings)
        try:
            database = mongo.database(settings)
            demo.fill(database)
            batch: list[dict[str, Any]] = []
            for row in crystals(number):
                batch.append(row)
                if len(batch) == BATCH:
                    database["candidates"].insert_many(batch)
                    batch = []
            if batch:
                database["candidates"].insert_many(batch)
            return measure(database, number, psutil.Process(mongod.status(settings).pid))
        finally:
            mongod.stop(settings)


if __name__ == "__main__":
    run(main)
