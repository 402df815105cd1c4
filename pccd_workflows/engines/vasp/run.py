"""One run of VASP through atomate2 and custodian: the only module that knows the latter."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pymatgen.core import Structure

from pccd_workflows.core.bound_process import bound_command
from pccd_workflows.core.errors import PccdError
from pccd_workflows.engines.engine import WalltimeReached
from pccd_workflows.engines.geometry import lost_volume
from pccd_workflows.engines.levels import Level
from pccd_workflows.engines.vasp.inputs import (
    check_command,
    deviations,
    incar_of,
    maker_of,
    mode_of,
)
from pccd_workflows.engines.vasp.results import VaspRun, read_run
from pccd_workflows.settings import Settings

EVIDENCE_LINES = 12
"""Last lines of a file that are kept of a failed run."""
GRACE_SECONDS = 5.0
"""How long VASP may take to end after SIGTERM."""
FILES_AS_EVIDENCE = ("custodian.json", "vasp.out", "std_err.txt", "OUTCAR")


class VaspFailed(PccdError):  # noqa: N818
    """A run that left no result. The message holds the evidence; its last line sums up."""


@dataclass(frozen=True)
class Attempt:
    """How a run differs from a plain first one.

    Attributes
    ----------
    geometry
        To start from instead: of an earlier attempt.
    incar
        INCAR tags set by hand, e.g. {"ALGO": "All"}.
    previous
        host:path of the run before this one, whose WAVECAR and CHGCAR are used if they are on this
        machine; bands need its CHGCAR.
    """

    geometry: Structure | None = None
    incar: dict[str, Any] = field(default_factory=dict)
    previous: str | None = None


def run(
    structure: Structure, level: Level, name: str, *, settings: Settings, attempt: Attempt
) -> tuple[VaspRun, Any]:
    """Run VASP in the current folder; return the result and atomate2's TaskDoc.

    Parameters
    ----------
    structure
        The start, with ``magmom`` as site property where moments are wanted.
    name
        Which of the runs of `level`.

    Raises
    ------
    VaspFailed
        The run left no result, or would leave one of another level.
    WalltimeReached
        It was stopped in time and can go on.
    MissingDependencyError
        VASP is not on this node.
    """
    check_command(settings.vasp_command)
    maker = maker_of(level, name)
    maker.run_vasp_kwargs = _run_options(settings)
    maker.stop_children_kwargs = {"handle_unsuccessful": False}
    tags = maker.input_set_generator.user_incar_settings or {}
    expected = incar_of(maker, structure)
    maker.input_set_generator.user_incar_settings = {**tags, **attempt.incar}
    began = time.perf_counter()
    _refuse_other_level(incar_of(maker, structure), expected, level)
    document = _done(maker, structure if attempt.geometry is None else attempt.geometry, attempt)
    incar = _input(document, "incar")
    if mode_of(maker):  # bands of a crystal that ended without moments need one spin only
        expected["ISPIN"] = incar.get("ISPIN")
    _refuse_other_level(incar, expected, level)
    result = read_run(
        document,
        name,
        incar=attempt.incar,
        continued=attempt.geometry is not None,
        seconds=round(time.perf_counter() - began, 3),
    )
    _refuse_unfinished(result)
    return result, document


def _done(maker: Any, start: Structure, attempt: Attempt) -> Any:
    """Return the TaskDoc of a run; whatever ends it is explained."""
    try:
        with _no_orphans():
            make = type(maker).make.original
            response = make(maker, start, prev_dir=_here(attempt.previous), **mode_of(maker))
    except PccdError:
        raise
    except Exception as error:
        raise VaspFailed(_explain(error, Path.cwd())) from error
    return response.output


def _refuse_unfinished(result: VaspRun) -> None:
    """Refuse a run that was stopped, and bands without self-consistency."""
    if result.stopped:
        steps = len(result.energies)
        raise WalltimeReached(
            f"WalltimeReached: VASP was stopped at the walltime after {steps} ionic steps; "
            "it can go on from its CONTCAR."
        )
    if result.bands is not None and not result.converged:
        raise VaspFailed(
            f"VaspFailed: NonConverging: {result.name} did not reach self-consistency."
        )


def _refuse_other_level(incar: dict[str, Any], expected: dict[str, Any], level: Level) -> None:
    if found := deviations(incar, expected):
        raise VaspFailed(
            f"VaspFailed: OtherLevel: {'; '.join(found)}: such an energy shares no hull with "
            f"{level.name}; run the job again without these tags."
        )


def _input(document: Any, name: str) -> Any:
    data = document if isinstance(document, dict) else document.model_dump()
    return data["input"].get(name) or {}


def _run_options(settings: Settings) -> dict[str, Any]:
    from atomate2.vasp.run import DEFAULT_HANDLERS
    from custodian.vasp.handlers import FrozenJobErrorHandler, WalltimeHandler

    handlers = [h for h in DEFAULT_HANDLERS if not isinstance(h, FrozenJobErrorHandler)]
    handlers.append(FrozenJobErrorHandler(timeout=settings.vasp_frozen_seconds))
    if settings.vasp_walltime is not None:
        os.environ.pop("CUSTODIAN_WALLTIME_START", None)
        left = settings.vasp_walltime - (time.time() - psutil.Process().create_time())
        buffer = min(settings.vasp_walltime_buffer, settings.vasp_walltime / 2)
        handlers.append(WalltimeHandler(wall_time=max(left, 1.0), buffer_time=buffer))
    return {
        "vasp_cmd": bound_command(settings.vasp_command),
        "vasp_gamma_cmd": bound_command(settings.vasp_gamma_command),
        "handlers": handlers,
        "custodian_kwargs": {
            "polling_time_step": settings.custodian_polling,
            "monitor_freq": max(1, round(settings.custodian_check / settings.custodian_polling)),
        },
    }


def _here(folder: str | None) -> str | None:
    """Return the path of a run's folder if it can be read on this machine."""
    path = None if folder is None else folder.rpartition(":")[2]
    return path if path is not None and Path(path).is_dir() else None


@contextmanager
def _no_orphans() -> Iterator[None]:
    """End VASP when this process is told to stop: custodian runs it in a session of its own."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    try:
        yield
    except BaseException:
        started = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
        for child in started:
            _quietly(child.terminate)
        _, alive = psutil.wait_procs(started, timeout=GRACE_SECONDS)
        for child in alive:
            _quietly(child.kill)
        raise


def _quietly(action: Any) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return


def _explain(error: Exception, folder: Path) -> str:
    """Return the last lines of what a failed run wrote, and one line that sums up."""
    parts = []
    for name in FILES_AS_EVIDENCE:
        path = folder / name
        if not path.is_file():
            continue
        if name == "custodian.json":
            lines = [f"custodian saw: {', '.join(seen)}"] if (seen := _corrections(path)) else []
        else:
            lines = path.read_text(errors="replace").splitlines()[-EVIDENCE_LINES:]
        parts += [f"[{name}] {line.strip()}" for line in lines if line.strip()]
    text = (str(error).strip().splitlines() or ["no message"])[0][:300]
    return "\n".join([*parts, f"VaspFailed: {type(error).__name__}: {text}"])


def _corrections(path: Path) -> list[str]:
    """Return the errors in a custodian.json."""
    try:
        jobs = json.loads(path.read_text())
    except ValueError:
        return []
    return [name for job in jobs for made in job["corrections"] for name in _names(made)]


def _names(correction: dict[str, Any]) -> list[str]:
    """Return a correction's errors; custodian has one name for two kinds of no convergence."""
    ionic = {"dict": "INCAR", "action": {"_set": {"IBRION": 1}}} in (correction["actions"] or [])
    return [
        "Unconverged_ionic" if ionic and name == "Unconverged" else str(name)
        for name in correction["errors"]
    ]


def last_geometry(folder: str, like: Structure) -> Structure | None:
    """Return the CONTCAR of an earlier attempt, None unless it is a sane state of `like`.

    folder: host:path or path.
    """
    from monty.os.path import zpath

    path = Path(zpath(str(Path(folder.rpartition(":")[2]) / "CONTCAR")))
    if not path.is_file():
        return None
    try:
        found = Structure.from_file(path)
    except (ValueError, IndexError, OSError, EOFError):
        return None
    same = [s.specie for s in found] == [s.specie for s in like]
    finite = np.isfinite(found.lattice.matrix).all() and np.isfinite(found.frac_coords).all()
    if not (same and finite) or lost_volume(found.volume / like.volume):
        return None
    if "magmom" in like.site_properties:
        found.add_site_property("magmom", like.site_properties["magmom"])
    return found
