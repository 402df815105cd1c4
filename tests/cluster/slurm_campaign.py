"""The campaign of the cluster's tests: how it is submitted, launched and compared."""

import json
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from pymatgen.core import Lattice, Structure
from slurm_server import Slurm

from pccd_workflows import operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.cli import main
from pccd_workflows.core.records import SCHEMA_VERSION
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.resources import resource
from pccd_workflows.core.storage import StageRow, store_crystals
from pccd_workflows.execution import launchpad, mongo
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.generators.request import Generation
from pccd_workflows.pipeline import DiscoveryMaker
from pccd_workflows.settings import Settings

DB_CONFIG = resource("db_config")
WEIGHTS = "0" * 64
VOLATILE = {"_id", "updated_at", "seconds", "core_hours", "jobs", "runs", "key", "energies"}
TOLERANCE = 2e-3
"""eV, Å ...: a run that goes on from another geometry ends within VASP's own convergence."""


def campaign(references: Path) -> Campaign:
    """Return a campaign of five crystals with a potential and a VASP rung."""
    return Campaign.model_validate(
        {
            "name": "cluster",
            "generate": {"elements": ["Mg", "Mn", "O"], "samples": 5, "shard": 5},
            "screen": {"all_elements": False, "charge_neutral": "ignore"},
            "novelty": {"against": ["references"]},
            "references": {"source": "file", "path": str(references)},
            "rungs": [
                {"level": "chgnet", "keep": {"energy_above_hull": 10.0}, "steps": 2, "batch": 5},
                {"level": "vasp/mp-gga", "keep": {"energy_above_hull": 10.0}},
            ],
        }
    )


def crystals() -> list[Structure]:
    """Return small oxides made from prototypes."""
    sites = {
        "Fm-3m": [[0, 0, 0], [0.5] * 3],
        "F-43m": [[0, 0, 0], [0.25] * 3],
        "Pm-3m": [[0, 0, 0], [0.5] * 3],
    }
    wanted = [
        ("Fm-3m", "Mg", 4.3),
        ("Fm-3m", "Mn", 4.5),
        ("F-43m", "Mg", 4.7),
        ("F-43m", "Mn", 4.9),
        ("Pm-3m", "Mg", 2.7),
    ]
    return [
        Structure.from_spacegroup(
            group, Lattice.cubic(a), [metal, "O"], sites[group]
        ).get_primitive_structure()
        for group, metal, a in wanted
    ]


def reference_set(level: str) -> ReferenceSet:
    """Return elements and one oxide with made-up energies in eV."""
    energies = {"Mg": -1.6, "Mn": -9.1, "O2": -9.9, "MgO": -12.5}
    return ReferenceSet(
        source="file",
        chemsys="Mg-Mn-O",
        level=level,
        convention="mp2020",
        entries=[
            ReferenceEntry(entry_id=f"ref-{name}", formula=name, energy=energy)
            for name, energy in energies.items()
        ],
    )


def prepare(settings: Settings, whole: Campaign) -> None:
    """Submit the campaign with its crystals already sampled and its references stored."""
    database = mongo.database(settings)
    mongo.ensure_indexes(database)
    storage, found = MongoStorage(database), crystals()
    refs = store_crystals(storage, [(whole.candidate_id(i), s) for i, s in enumerate(found)])
    rows = []
    for index, (ref, structure) in enumerate(zip(refs, found, strict=True)):
        generation = Generation(
            model="prototypes",
            weights_sha256=WEIGHTS,
            seed=0,
            index=index,
            elements=whole.elements,
        )
        rows.append(
            StageRow(
                campaign_id=whole.campaign_id,
                candidate_id=ref.id,
                index=index,
                stage="generate",
                record=generation.model_dump(mode="json"),
                key=ref.key,
                goes_on=True,
                rank=index,
                formula=structure.composition.reduced_formula,
            )
        )
    storage.put_rows(rows)
    for rung in whole.rungs:
        references = reference_set(rung.level)
        storage.put_references(references)
        storage.settle_references(whole.campaign_id, references)
    launchpad.submit(DiscoveryMaker().make(whole), settings)
    database["campaigns"].insert_one(
        {
            "_id": whole.campaign_id,
            "name": whole.name,
            "schema_version": SCHEMA_VERSION,
            "campaign": whole.resolved(),
            "submitted_at": datetime.now(UTC),
            "state": "submitted",
        }
    )


def ledger(settings: Settings, whole: Campaign) -> dict:
    document = operations.campaign_document(whole.campaign_id, settings)
    progress = operations.progress(whole.campaign_id, settings)
    operations.collect(document, progress, settings)
    rows = mongo.database(settings)["candidates"].find({"campaign_id": whole.campaign_id})
    return {row["_id"]: stable(row) for row in rows}


def stable(value):
    """Return a document without times, folders and histories."""
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in VOLATILE}
    return [stable(v) for v in value] if isinstance(value, list) else value


def assert_equal(one, other, path: str = "") -> None:
    """Compare two ledgers: words exactly, numbers within TOLERANCE."""
    if isinstance(one, dict):
        assert set(one) == set(other), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}/{index}")
    elif isinstance(one, float) and not path.endswith(("max_force", "max_stress")):
        assert one == pytest.approx(other, abs=TOLERANCE, rel=TOLERANCE), path
    elif not path.endswith(("n_steps", "max_force", "max_stress")):
        assert one == other, path


def environment_file(folder: Path, environment: dict[str, str]) -> Path:
    """Write what a template's pre_rocket sources; it holds the database's password."""
    path = folder / "pccd.env"
    path.touch(mode=0o600)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def template(name: str, folder: Path, env_file: Path, **changes: str) -> Path:
    """Return a shipped template, changed where a user changes it."""
    text = (DB_CONFIG / name).read_text()
    text = text.replace('"$HOME/.pccd.env"', str(env_file))
    text = text.replace("pccd worker", f"{sys.executable} -m pccd_workflows worker")
    data = yaml.safe_load(text)
    data |= {"queue": "debug", "ntasks": 1, "cpus_per_task": 1, "walltime": "00:20:00"}
    data |= {"mem": None, "gres": None, "logdir": str(folder)} | changes
    path = folder / name
    path.write_text(yaml.safe_dump(data))
    return path


def launch(folder: Path, template_file: Path, server: Slurm) -> None:
    """Submit one worker with FireWorks' own qlaunch."""
    kind = template_file.stem.rpartition("_")[2]
    fworker = DB_CONFIG / f"my_fworker_{kind}.yaml"
    files = ["-l", folder / "my_launchpad.yaml", "-w", fworker, "-q", template_file]
    command = [Path(sys.executable).with_name("qlaunch"), *files, "singleshot"]
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "submission was successful" in ended.stdout + ended.stderr, ended.stderr[-2000:]


def wait_for_vasp(settings: Settings, seconds: float = 400) -> None:
    """Wait until a VASP run is ready: qlaunch submits nothing where there is nothing to run."""
    fireworks = mongo.database(settings)["fireworks"]
    deadline = time.monotonic() + seconds
    while fireworks.find_one({"state": "READY", "spec._category": "cpu"}) is None:
        states = launchpad.campaign_states(settings, None)
        assert not states.get("FIZZLED"), launchpad.failures(settings, None)
        assert time.monotonic() < deadline, states
        time.sleep(1)


def pccd(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return out


def pccd_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    found: dict = json.loads(pccd(capsys, *arguments, "--json"))
    return found


class Log:
    """What happened when, on the terminal whatever pytest captures."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.began = time.monotonic()

    def note(self, text: str) -> None:
        """Print a text with the seconds since the beginning."""
        with self.capsys.disabled():
            sys.stdout.write(f"\n{time.monotonic() - self.began:4.0f} s  {text.rstrip()}\n")
            sys.stdout.flush()


def comparison(failed: dict, rerun: dict, undisturbed: dict) -> str:
    """Return a table of three ledgers: after the failures, after the reruns, and undisturbed."""
    lines = [
        "candidate                  formula  after failures  after reruns          undisturbed"
    ]
    for key, row in sorted(undisturbed.items()):
        ends = [
            f"{found[key]['status']} {found[key]['energy_above_hull']:.4f} eV/atom"
            for found in (rerun, undisturbed)
        ]
        first = failed[key]["status"]
        lines.append(f"{key:26s} {row['formula_pretty']:8s} {first:15s} {'  '.join(ends)}")
    return "\n".join(lines)
