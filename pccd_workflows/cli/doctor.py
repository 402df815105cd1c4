"""`pccd doctor`: what is here, what is missing, and what each missing thing would cost."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import typer

from pccd_workflows.core.errors import PccdError

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings

app = typer.Typer(add_completion=False, help="Check what is installed and what is missing.")

DEFAULT_MODEL = "pccd-default"
FREE_BYTES = 2_000_000_000
"""What an embedded database (journal, oplog) and the run folders of a small campaign take."""
MP_KEY_LENGTH = 32
NO_COMPRESSION = "no compression of messages (CVE-2025-14847 needs it)"
COMPRESSION_COST = (
    "an earlier version started it, and servers before 6.0.27 give away memory to whoever sends "
    "compressed messages (CVE-2025-14847): `pccd db stop`, then `pccd db start`"
)

INDENT = 8 * " "
"""Of what a check says after its first line."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    needed: the offline pipeline (no key, no server, no VASP) does not run without it.
    cost: what its absence means to the user, and the cure.
    """

    name: str
    ok: bool
    found: str
    cost: str = ""
    needed: bool = False


@app.callback(invoke_without_command=True)
def doctor(as_json: bool = typer.Option(False, "--json", help="Print JSON")) -> None:
    """Check this machine; exit 0 if campaigns can run here without network, key and VASP."""
    from pccd_workflows.settings import get_settings

    checks = examine(get_settings())
    ready = all(check.ok for check in checks if check.needed)
    if as_json:
        rows = [asdict(check) for check in checks]
        typer.echo(json.dumps({"ok": ready, "checks": rows}, indent=2))
    else:
        for check in checks:
            sign = "ok     " if check.ok else "MISSING" if check.needed else "missing"
            _echo(f"{sign} {check.name}: {check.found}")
            if not check.ok:
                _echo(f"{INDENT}{check.cost}")
        typer.echo(
            "Campaigns can run here."
            if ready
            else "Campaigns cannot run here until what is MISSING is there."
        )
    if not ready:
        raise typer.Exit(1)


def examine(settings: "Settings") -> list[Check]:
    """Return the outcome of every check."""
    checks: list[Callable[[Settings], Check]] = [
        *(check_python, check_threads, check_folder, check_database, check_fireworks),
        *(check_files, check_model, check_chgnet, check_sevenn, check_mp_api, check_mp_key),
        *(check_atomate2, check_vasp, check_potcars, check_gpaw, check_slurm),
    ]
    return [check(settings) for check in checks]


def check_python(settings: "Settings") -> Check:
    """Python, torch, and the device that models run on."""
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        import torch
    except ImportError as error:
        return Check(
            *("Python", False, f"{version}, torch cannot be imported ({error})"),
            cost="nothing can be generated or relaxed: pip install torch",
            needed=True,
        )
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda else "cpu") if settings.device == "auto" else settings.device
    found = f"{version}, torch {torch.__version__} on {device}"
    if device == "cuda" and not cuda:
        return Check(
            *("Python", False, found + ", which torch does not see"),
            cost="models cannot run on it: set PCCD_DEVICE=cpu or install a torch with CUDA",
            needed=True,
        )
    return Check("Python", True, found, needed=True)


def check_threads(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether torch will get in its own way on a machine that is shared."""
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        return Check("threads", True, f"OMP_NUM_THREADS={threads}")
    cost = (
        "workers set it to 1 themselves; in your own scripts torch beside another busy program "
        "can be up to 80 times slower: export OMP_NUM_THREADS=1"
    )
    return Check("threads", False, "OMP_NUM_THREADS is not set", cost)


def check_folder(settings: "Settings") -> Check:
    """Whether the data folder can be written and has room."""
    folder = settings.data_dir.expanduser().absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    cost = "the embedded database and run folders need another place: set PCCD_DATA_DIR"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Check("data folder", False, f"{folder} cannot be written", cost, needed=True)
    free = shutil.disk_usage(nearest).free
    found = f"{folder}, {free / 1e9:.1f} GB free"
    return Check("data folder", free > FREE_BYTES, found, f"2 GB at least; {cost}", needed=True)


def check_database(settings: "Settings") -> Check:
    """Whether a MongoDB is there or can be started."""
    from pccd_workflows.execution import mongo, mongod

    try:
        if settings.mongodb_uri is not None:
            found = f"{mongo.hosts(settings)} answers; {_server(settings)}"
        elif (now := mongod.status(settings)).running:
            off = "compression of messages is on" if now.compresses else NO_COMPRESSION
            found = f"embedded, {mongo.hosts(settings)} answers; {_server(settings)}, {off}"
            if now.compresses:
                return Check("database", False, found, COMPRESSION_COST)
        else:
            binary = mongod.find_mongod(settings)
            runs = f"MongoDB {mongod.version(settings)}, {NO_COMPRESSION}"
            found = f"embedded, started when needed ({binary}); {runs}"
        return Check("database", True, found, needed=True)
    except PccdError as error:
        cost = "nothing can be stored, so no campaign can run"
        return Check("database", False, str(error), cost, needed=True)


def check_fireworks(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether campaigns can be handed to workers."""
    cost = "no campaign can run: pip install 'pccd-workflows[workflow]'"
    return _package("FireWorks", cost, needed=True)


def check_atomate2(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether VASP can be driven."""
    return _package("atomate2", "no vasp/ level: pip install 'pccd-workflows[vasp]'")


def check_mp_api(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether the Materials Project can be asked."""
    return _package(
        "mp-api", "nothing comes from the Materials Project: pip install 'pccd-workflows[mp]'"
    )


def _package(name: str, cost: str, *, needed: bool = False) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check(name, True, version(name), needed=needed)
    except PackageNotFoundError:
        return Check(name, False, "not installed", cost, needed=needed)


def _server(settings: "Settings") -> str:
    """Return which server answers."""
    from pccd_workflows.execution import mongo

    return f"MongoDB {mongo.database(settings).client.server_info()['version']}"


def check_files(settings: "Settings") -> Check:  # noqa: ARG001
    """Where the shipped campaign files, models and cluster templates are."""
    from pccd_workflows.core.resources import resource

    try:
        folders = [resource("db_config"), resource("flows"), resource("model")]
    except PccdError as error:
        return Check("shipped files", False, str(error), "install again", needed=True)
    found = f"{', '.join(folder.name for folder in folders)} in {folders[0].parent}"
    return Check("shipped files", True, found, needed=True)


def check_model(settings: "Settings") -> Check:
    """Whether the default generative model is there, whole and unchanged."""
    try:
        from pccd_workflows.generators.pccd.checkpoint import (
            check_weights,
            find_model,
            read_model_info,
        )

        folder = find_model(DEFAULT_MODEL, settings)
        info = read_model_info(folder)
        check_weights(folder, info)
    except (PccdError, ImportError) as error:
        cost = "no crystals can be generated: install again, or set PCCD_MODEL_DIR"
        return Check("model", False, str(error), cost, needed=True)
    found = f"{info.name}, weights match their sha256 {info.weights_sha256[:10]}"
    return Check("model", True, found, needed=True)


def check_chgnet(settings: "Settings") -> Check:  # noqa: ARG001
    """The base potential."""
    return _potential("chgnet", "chgnet.model")


def check_sevenn(settings: "Settings") -> Check:  # noqa: ARG001
    """The more accurate potential."""
    return _potential("sevenn", "sevenn.calculator")


def _potential(package: str, module: str) -> Check:
    import contextlib
    import importlib
    import importlib.metadata

    name = f"potential {package}"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a package that greets would spoil --json
            importlib.import_module(module)
        return Check(name, True, importlib.metadata.version(package), needed=True)
    except Exception as error:
        cost = f"levels that use it are refused: pip install {package!r}"
        return Check(name, False, f"{type(error).__name__}: {error}", cost, needed=True)


def check_mp_key(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether mp-api would find a key; the key itself is never shown."""
    key, source = _mp_key()
    cost = (
        "what is known is the library that comes with the project; later releases of the Materials "
        "Project cannot be fetched: get a key at materialsproject.org, export MP_API_KEY"
    )
    if not key:
        return Check("Materials Project key", False, "none", cost)
    if len(key) != MP_KEY_LENGTH:
        found = f"the key in {source} has {len(key)} characters instead of {MP_KEY_LENGTH}"
        return Check("Materials Project key", False, found, cost)
    return Check("Materials Project key", True, f"in {source}")


def _mp_key() -> tuple[str, str]:
    for variable in ("MP_API_KEY", "PMG_MAPI_KEY"):
        if key := os.environ.get(variable):
            return key, variable
    return str(_pymatgen_setting("PMG_MAPI_KEY") or ""), "pymatgen's settings"


def _pymatgen_setting(name: str) -> str | None:
    from pymatgen.core import SETTINGS

    value = SETTINGS.get(name)
    return str(value) if value else None


def check_vasp(settings: "Settings") -> Check:
    """Whether the VASP command names a program that is here."""
    from pccd_workflows.core.errors import MissingDependencyError
    from pccd_workflows.engines.vasp import check_command

    cost = (
        "no rung or phonons at a vasp/ level on this machine: ML potentials, or gpaw/pbe, judge. "
        "Set PCCD_VASP_COMMAND on the machines that have VASP"
    )
    try:
        check_command(settings.vasp_command)
    except MissingDependencyError as error:
        return Check("VASP", False, str(error), cost)
    return Check("VASP", True, settings.vasp_command)


def check_gpaw(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether GPAW, DFT without a licence, is installed."""
    return _package("GPAW", "no rung or phonons at gpaw/pbe; `make gpaw` builds it")


def check_potcars(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether pymatgen would find the PBE potentials that Materials Project settings use."""
    place = os.environ.get("PMG_VASP_PSP_DIR") or _pymatgen_setting("PMG_VASP_PSP_DIR")
    cost = (
        "VASP inputs cannot be written on this machine: see `pmg config -p`, then set "
        "PMG_VASP_PSP_DIR"
    )
    if not place:
        return Check("POTCARs", False, "PMG_VASP_PSP_DIR is not set", cost)
    functional = Path(place).expanduser() / "POT_GGA_PAW_PBE"
    number = sum(1 for _ in functional.glob("*")) if functional.is_dir() else 0
    found = f"{number} potentials in {functional}"
    return Check("POTCARs", number > 0, found, cost)


def check_slurm(settings: "Settings") -> Check:  # noqa: ARG001
    """Whether jobs can be handed to Slurm from here."""
    cost = "workers run only as processes of this machine, not as jobs of a cluster"
    found = shutil.which("sbatch")
    return Check("Slurm", found is not None, found or "there is no sbatch", cost)


def _echo(text: str) -> None:
    """Print a line that goes on under its beginning where the terminal is narrower."""
    width = shutil.get_terminal_size().columns
    lines = wrap(text, width, subsequent_indent=INDENT, break_long_words=False)
    typer.echo("\n".join(lines))
