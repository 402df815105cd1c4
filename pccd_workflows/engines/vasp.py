"""VASP through atomate2 and custodian: one run at a time, and what a crystal's runs amount to.

The only module that knows either. A level's runs (relax, relax, static) are atomate2's makers with
the Materials Project's input sets; each is done by one job, so that a queue's walltime limits one
run and not three.
"""

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Structure

from pccd_workflows.analysis.kpaths import path_name
from pccd_workflows.analysis.magnetism import MagneticOrdering, ordering_of, starting_moments
from pccd_workflows.core.bound_process import leashed
from pccd_workflows.core.errors import InputError, MissingDependencyError, PccdError
from pccd_workflows.core.records import StoredStructure
from pccd_workflows.core.units import KBAR_TO_GPA
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Bands, Relaxation
from pccd_workflows.engines.vasp_bands import RunBands, band_gap, read_bands
from pccd_workflows.settings import Settings

ALGORITHM = 1
"""Raised when the runs of a level change in a way that changes results: part of every key."""
VOLUME_RANGE = (0.25, 4.0)
"""V / V_start outside of it is a collapse or an explosion."""
EVIDENCE_LINES = 12
"""Last lines of a file that are kept of a failed run."""
GRACE_SECONDS = 5.0
"""How long VASP may take to end after SIGTERM."""
WALLTIME_REACHED = "Walltime reached"
RUNS = {
    "vasp/mp-gga": ("relax 1", "relax 2", "static"),
    "vasp/mp-r2scan": ("pre-relax", "relax", "static"),
}
"""Names of a level's runs, in order; the last one's energy counts."""
PLANS = {"tight": ("tight relax",), "forces": ("forces",)}
"""What else is done at a level than relaxing, for phonons: a crystal brought to rest, the forces
in a displaced supercell."""
BAND_RUNS = {
    "vasp/mp-gga": ("bands static", "bands uniform", "bands line"),
    # a meta-GGA's potential is not fixed by a density: the path is part of a self-consistent run
    "vasp/mp-r2scan": ("bands static", "bands line"),
}
"""Names of the runs of the plan ``bands``: the density, then bands on a mesh and along a path."""
FIXED_DENSITY = ("vasp/mp-gga",)
"""Levels whose bands are computed in the density of a static run."""
MESH_DENSITY = {"vasp/mp-gga": 200, "vasp/mp-r2scan": 100}
"""k-points per Å^-3 of reciprocal space: twice that of a static run, or as many (KSPACING 0.22)."""
LINE_DENSITY = 20
"""k-points per 1/Å of the path, as the Materials Project's."""
PHONON_TAGS: dict[str, Any] = {
    # forces to 1e-4 eV/Å: real-space projectors and loose energies would spoil them
    "EDIFF": 1e-7,
    "PREC": "Accurate",
    "LREAL": False,
    # the tetrahedron method gives no forces in metals
    "ISMEAR": 0,
    "SIGMA": 0.05,
    **dict.fromkeys(("LWAVE", "LCHARG", "LAECHG", "LVTOT"), False),
}
# no projections: of large cells they would be gigabytes
BAND_TAGS: dict[str, Any] = {"LREAL": False, "LORBIT": None}
TAGS: dict[str, dict[str, Any]] = {
    "tight relax": {**PHONON_TAGS, "EDIFFG": -0.003},
    "forces": PHONON_TAGS,
    "bands static": {},
    "bands uniform": BAND_TAGS,
    "bands line": {**BAND_TAGS, "ISMEAR": 0, "SIGMA": 0.05},
}
"""INCAR tags of these runs that differ from the level's."""
ENERGY_TAGS = (
    "GGA",
    "METAGGA",
    "ENCUT",
    "LDAU",
    "LDAUU",
    "LDAUJ",
    "IVDW",
    "LUSE_VDW",
    "LHFCALC",
    "LSORBIT",
    "ISPIN",
    "LASPH",
    "NELECT",
)
"""INCAR tags on which total energies depend: with others they share no hull."""
FILES_AS_EVIDENCE = ("custodian.json", "vasp.out", "std_err.txt", "OUTCAR")


class VaspFailed(PccdError):  # noqa: N818
    """A run that left no result. The message holds the evidence; its last line sums up."""


class WalltimeReached(VaspFailed):
    """VASP was stopped in time, with a usable CONTCAR."""


@dataclass(frozen=True)
class Restart:
    """How a run differs from a plain first one.

    structure: geometry to start from instead (of an earlier attempt).
    incar: INCAR tags set by hand, e.g. {"ALGO": "All"}.
    """

    structure: Structure | None = None
    incar: dict[str, Any] = field(default_factory=dict)


class VaspRun(BaseModel):
    """What one VASP run ended with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="One of RUNS")
    structure: StoredStructure
    energy: float = Field(description="eV, of the cell; uncorrected")
    energies: list[float] = Field(description="After each ionic step, eV/atom")
    max_force: float | None = Field(None, description="eV/Å")
    max_stress: float | None = Field(None, description="GPa")
    converged: bool = Field(description="Electronic and ionic, and not stopped at walltime")
    stopped: bool = Field(False, description="Ended by STOPCAR at walltime")
    moments: list[float] = Field(default_factory=list, description="μB per site")
    corrections: list[str] = Field(default_factory=list, description="Errors custodian mended")
    forces: list[list[float]] | None = Field(None, description="eV/Å, of the run 'forces'")
    bands: RunBands | None = Field(None, description="Of the runs of the plan 'bands'")
    band_gap: float | None = Field(None, description="eV")
    n_kpoints: int | None = Field(None, description="Irreducible ones")
    n_electrons: float | None = None
    n_spins: int = 1
    n_scf: int = Field(0, description="Electronic steps of all ionic steps")
    cores: int | None = Field(None, description="As VASP says")
    incar: dict[str, Any] = Field(default_factory=dict, description="INCAR tags set by hand")
    continued: bool = Field(False, description="Started from an earlier attempt's CONTCAR")
    run_type: str | None = Field(None, description="GGA or GGA+U")
    hubbards: dict[str, float] = Field(default_factory=dict, description="eV")
    potcars: list[str] = Field(default_factory=list, description="TITEL of each")
    vasp_version: str | None = None
    folder: str = Field("", description="host:path of the run")
    seconds: float = 0.0


# --- keys ------------------------------------------------------------------------------------


def relaxation_key(structure: Structure, level: str, ordering: MagneticOrdering | None) -> str:
    """Return the content address of a crystal's relaxation at a VASP level."""
    content = {
        "lattice": (np.round(structure.lattice.matrix, 6) + 0.0).tolist(),
        "species": [site.species_string for site in structure],
        "frac_coords": (np.mod(np.round(structure.frac_coords, 6), 1) + 0.0).tolist(),
        "level": [level, ALGORITHM],
        "magnetic_ordering": ordering,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan_key(structure: Structure, level: str, plan: str, ordering: MagneticOrdering | None) -> str:
    """Return the content address of what a plan computes of a crystal (see PLANS)."""
    key = relaxation_key(structure, level, ordering)
    if plan == "relax":
        return key
    tags = {name: TAGS[name] for name in runs_of(level, plan)}
    content = [key, plan, tags, structure.site_properties.get("magmom")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def runs_of(level: str, plan: str = "relax") -> tuple[str, ...]:
    """Return the names of a plan's runs, in order."""
    if level not in RUNS:
        raise InputError(f"Level {level!r} is not one of {sorted(RUNS)}.")
    return BAND_RUNS[level] if plan == "bands" else PLANS.get(plan, RUNS[level])


def run_key(key: str, number: int) -> str:
    """Return the content address of run `number` of the relaxation `key`."""
    return hashlib.sha256(f"{key}:{number}".encode()).hexdigest()


# --- before anything is submitted --------------------------------------------------------------


def check_ready(level: str, elements: Sequence[str], settings: Settings) -> None:
    """See that VASP and a POTCAR for each element are there.

    Raises
    ------
    InputError, MissingDependencyError
        One sentence that names the element and the expected path, or the command.
    """
    for command in (settings.vasp_command, settings.vasp_gamma_command):
        check_command(command)
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp.inputs import POTCAR_FUNCTIONAL_MAP

    input_set = _maker(level, RUNS[level][0]).input_set_generator
    folder = POTCAR_FUNCTIONAL_MAP[input_set.user_potcar_functional]
    root = os.environ.get("PMG_VASP_PSP_DIR") or SETTINGS.get("PMG_VASP_PSP_DIR")
    if not root:
        raise InputError(
            f"Level {level!r} needs POTCARs: set PMG_VASP_PSP_DIR to the folder that holds "
            f"{folder}/."
        )
    pseudopotentials = Path(root).expanduser() / folder
    if not pseudopotentials.is_dir():
        raise InputError(
            f"PMG_VASP_PSP_DIR has no folder {pseudopotentials}: make it with "
            "`pmg config -p <VASP's folders> <PMG_VASP_PSP_DIR>`."
        )
    for element in elements:
        symbol = input_set.CONFIG["POTCAR"].get(element)
        if symbol is None:
            raise InputError(f"Level {level!r} has no POTCAR for {element} in its input set.")
        paths = (pseudopotentials / symbol / "POTCAR", pseudopotentials / f"POTCAR.{symbol}")
        if not any(p.with_name(p.name + end).is_file() for p in paths for end in ("", ".gz")):
            raise InputError(
                f"There is no POTCAR for {element} ({symbol}): expected {paths[0]} (or .gz)."
            )


def check_command(command: str) -> None:
    """Refuse a VASP command whose program is not on this machine."""
    try:
        words = shlex.split(os.path.expandvars(command))
    except ValueError:
        words = []
    missing = [word for word in words[:1] + words[-1:] if shutil.which(word) is None]
    if missing or not words:
        raise MissingDependencyError(
            f"VASP command {command!r}: {missing[0] if missing else 'it'} is not on PATH; set "
            "PCCD_VASP_COMMAND and PCCD_VASP_GAMMA_COMMAND (on the nodes, in the queue's env file)."
        )


# --- one run -------------------------------------------------------------------------------------


def run(
    structure: Structure,
    level: str,
    name: str,
    *,
    settings: Settings,
    restart: Restart,
    previous: str | None = None,
) -> tuple[VaspRun, Any]:
    """Run VASP in the current folder; return the result and atomate2's TaskDoc.

    Parameters
    ----------
    structure
        The start, with ``magmom`` as site property where moments are wanted.
    name
        Which of the runs of `level` (see `runs_of`).
    previous
        host:path of the run before this one, whose WAVECAR and CHGCAR are used if they are
        on this machine; bands need its CHGCAR.

    Raises
    ------
    VaspFailed
        The run left no result, or would leave one of another level; WalltimeReached if it was
        stopped in time and can go on.
    MissingDependencyError
        VASP is not on this node.
    """
    check_command(settings.vasp_command)
    maker = _maker(level, name)
    maker.run_vasp_kwargs = _run_options(settings)
    maker.stop_children_kwargs = {"handle_unsuccessful": False}
    incar = maker.input_set_generator.user_incar_settings or {}
    expected = _incar(maker, structure)
    maker.input_set_generator.user_incar_settings = {**incar, **restart.incar}
    start = restart.structure if restart.structure is not None else structure
    began = time.perf_counter()
    try:
        _refuse_other_level(_incar(maker, structure), expected, level)
        with _no_orphans():
            make = type(maker).make.original
            response = make(maker, start, prev_dir=_here(previous), **_mode(maker))
    except PccdError:
        raise
    except Exception as error:
        raise VaspFailed(_explain(error, Path.cwd())) from error
    document = response.output
    incar = _input(document, "incar")
    if _mode(maker):  # bands of a crystal that ended without moments need one spin only
        expected["ISPIN"] = incar.get("ISPIN")
    _refuse_other_level(incar, expected, level)
    result = read_run(
        document,
        name,
        incar=restart.incar,
        continued=restart.structure is not None,
        seconds=round(time.perf_counter() - began, 3),
    )
    if result.stopped:
        steps = len(result.energies)
        raise WalltimeReached(
            f"WalltimeReached: VASP was stopped at the walltime after {steps} ionic steps; "
            "it can go on from its CONTCAR."
        )
    if name in BAND_RUNS[level] and not result.converged:
        raise VaspFailed(f"VaspFailed: NonConverging: {name} did not reach self-consistency.")
    return result, document


def _maker(level: str, name: str) -> Any:
    """Return atomate2's maker of a run."""
    from atomate2.vasp.flows.mp import MPGGADoubleRelaxStaticMaker, MPMetaGGADoubleRelaxStaticMaker

    gga = level == "vasp/mp-gga"
    whole = MPGGADoubleRelaxStaticMaker() if gga else MPMetaGGADoubleRelaxStaticMaker()
    first, second = whole.relax_maker.relax_maker1, whole.relax_maker.relax_maker2
    makers = dict(zip(runs_of(level), (first, second, whole.static_maker), strict=True))
    if name in makers:
        return makers[name]
    if name in ("bands uniform", "bands line") and gga:
        return _fixed_density_maker(name)
    maker = second if name == "tight relax" else whole.static_maker
    if name == "bands static":
        maker.task_document_kwargs = {"parse_bandstructure": "auto"}
    if name == "bands line":
        density = {"reciprocal_density": MESH_DENSITY[level]}
        path = {"zero_weighted_line_density": LINE_DENSITY}
        maker.input_set_generator.user_kpoints_settings = density | path
        maker.task_document_kwargs = {"parse_bandstructure": "line"}
    settings = maker.input_set_generator.user_incar_settings or {}
    maker.input_set_generator.user_incar_settings = {**settings, **TAGS[name]}
    maker.name = name
    return maker


def _fixed_density_maker(name: str) -> Any:
    """Return the maker of bands in the density of a GGA run before: on a mesh or along a path."""
    from atomate2.vasp.jobs.core import NonSCFMaker
    from pymatgen.io.vasp.sets import MPNonSCFSet

    inputs = MPNonSCFSet(
        mode=name.removeprefix("bands "),
        reciprocal_density=MESH_DENSITY["vasp/mp-gga"],
        kpoints_line_density=LINE_DENSITY,
        force_gamma=True,
        user_incar_settings=dict(TAGS[name]),
    )
    return NonSCFMaker(name=name, input_set_generator=inputs)


def _mode(maker: Any) -> dict[str, str]:
    """Return what NonSCFMaker is asked for beside a structure; nothing for other makers."""
    mode = getattr(maker.input_set_generator, "mode", None)
    return {} if mode is None else {"mode": mode}


def _incar(maker: Any, structure: Structure) -> dict[str, Any]:
    """Return the INCAR that a maker gives a crystal."""
    return dict(maker.input_set_generator.get_input_set(structure, potcar_spec=True).incar)


def _refuse_other_level(incar: dict[str, Any], expected: dict[str, Any], level: str) -> None:
    if found := deviations(incar, expected):
        raise VaspFailed(
            f"VaspFailed: OtherLevel: {'; '.join(found)}: such an energy shares no hull with "
            f"{level}; run the job again without these tags."
        )


def deviations(incar: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Say which tags of an INCAR make total energies incomparable with those of its level.

    A higher cutoff than the level's is no deviation: MP accepts it, too.
    """
    found = []
    for tag in ENERGY_TAGS:
        have, want = _plain_tag(incar.get(tag)), _plain_tag(expected.get(tag))
        higher = tag == "ENCUT" and want is not None and have is not None and have > want
        if have != want and not higher:
            found.append(f"{tag} is {incar.get(tag)}, not {expected.get(tag)}")
    return found


def _plain_tag(value: Any) -> Any:
    """Return a tag's value so that 1 and 1.0, `Ps` and `PS`, and absent and false, are the same."""
    match value:
        case None | False:
            return None
        case str():
            return value.upper()
        case list():
            return [float(item) for item in value] if any(value) else None
    return value


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
        "vasp_cmd": leashed(settings.vasp_command),
        "vasp_gamma_cmd": leashed(settings.vasp_gamma_command),
        "handlers": handlers,
        "custodian_kwargs": {
            "polling_time_step": settings.custodian_polling,
            "monitor_freq": max(1, round(settings.custodian_check / settings.custodian_polling)),
        },
    }


def lacks_density(level: str, runs: Sequence[VaspRun]) -> bool:
    """Return whether the CHGCAR in which a level's bands go on cannot be read on this machine.

    runs: those of the plan ``bands`` that are done.
    """
    from monty.os.path import zpath

    if level not in FIXED_DENSITY or not runs:
        return False
    return not Path(zpath(str(Path(runs[0].folder.rpartition(":")[2]) / "CHGCAR"))).is_file()


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
    low, high = VOLUME_RANGE
    if not (same and finite and low <= found.volume / like.volume <= high):
        return None
    if "magmom" in like.site_properties:
        found.add_site_property("magmom", like.site_properties["magmom"])
    return found


# --- results -----------------------------------------------------------------------------------


def read_run(
    document: Any,
    name: str,
    *,
    incar: dict[str, Any],
    continued: bool = False,
    seconds: float = 0.0,
) -> VaspRun:
    """Return what counts of an emmet TaskDoc (or of its dictionary)."""
    data = document if isinstance(document, dict) else document.model_dump()
    output, calculation = data["output"], data["calcs_reversed"][0]
    structure = _structure(output["structure"])
    steps = calculation["output"]["ionic_steps"] or []
    parameters = data["input"].get("parameters") or {}
    corrections = [
        str(error)
        for job in data.get("custodian") or []
        for correction in job["corrections"] or []
        for error in correction["errors"]
    ]
    stopped = WALLTIME_REACHED in corrections
    moments = structure.site_properties.get("magmom") or []
    specs = data["input"]["potcar_spec"] or []
    return VaspRun(
        name=name,
        structure=_plain(structure),
        energy=output["energy"],
        energies=[round(step["e_0_energy"] / len(structure), 6) for step in steps],
        max_force=_largest(output["forces"], rows=True),
        max_stress=_largest(output["stress"], scale=KBAR_TO_GPA),
        converged=str(getattr(data["state"], "value", data["state"])) == "successful"
        and not stopped,
        stopped=stopped,
        moments=[round(float(m), 3) for m in moments],
        corrections=corrections,
        incar=incar,
        continued=continued,
        run_type=str(getattr(data["run_type"], "value", data["run_type"])),
        hubbards=data["input"].get("hubbards") or {},
        potcars=[spec["titel"] for spec in specs],
        vasp_version=calculation.get("vasp_version"),
        folder=data["dir_name"] or "",
        seconds=seconds,
        forces=np.asarray(output["forces"]).tolist() if name == "forces" else None,
        bands=read_bands(document) if name.startswith("bands") else None,
        band_gap=output.get("bandgap"),
        n_kpoints=(calculation["input"] or {}).get("nkpoints"),
        n_electrons=parameters.get("NELECT"),
        n_spins=int(parameters.get("ISPIN") or 1),
        n_scf=sum(step.get("num_electronic_steps") or 0 for step in steps),
        cores=_cores(data.get("run_stats")),
    )


def _cores(statistics: Any) -> int | None:
    """Return how many cores VASP said it ran on."""
    numbers = [row.get("cores") for row in (statistics or {}).values()]
    return max((int(n) for n in numbers if n), default=None)


def _structure(value: Any) -> Structure:
    return value if isinstance(value, Structure) else Structure.from_dict(value)


def _plain(structure: Structure) -> Structure:
    """Return a structure without site properties, whose kinds vary from run to run."""
    species = [site.specie.symbol for site in structure]
    return Structure(structure.lattice, species, structure.frac_coords)


def _largest(values: Any, *, rows: bool = False, scale: float = 1.0) -> float | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=float)
    sizes = np.linalg.norm(array, axis=1) if rows else np.abs(array)
    return float(sizes.max()) * scale


def diverged(start: Structure, result: VaspRun) -> str | None:
    """Say how a run left the realm of crystals; None if it did not."""
    ratio = result.structure.volume / start.volume
    low, high = VOLUME_RANGE
    if low <= ratio <= high:
        return None
    word = "collapsed" if ratio < 1 else "exploded"
    return f"The cell {word} to {ratio:.2f} of its first volume in {result.name}."


def with_moments(structure: Structure, ordering: MagneticOrdering | None) -> Structure:
    """Return a structure that VASP starts with the moments of `ordering`; as it is for None."""
    if ordering is None:
        return structure
    return structure.copy(site_properties={"magmom": starting_moments(structure, ordering)})


def relaxation(
    start: Structure,
    level: str,
    runs: Sequence[VaspRun],
    ordering: MagneticOrdering | None,
    plan: str = "relax",
) -> Relaxation:
    """Return the record that a crystal's runs, in order, amount to.

    One that was stopped at walltime, or ran out of steps, is unconverged; a collapsed or exploded
    cell is diverged and has no structure.
    """
    last, names = runs[-1], runs_of(level, plan)
    reason = diverged(start, last)
    record: dict[str, Any] = {
        "level": level,
        "key": plan_key(start, level, plan, ordering),
        "convention": get_level(level).convention,
        "n_steps": sum(max(len(r.energies) - 1, 0) for r in runs),
        "energies": [energy for r in runs for energy in r.energies],
        "software": _software(last),
        "settings": {
            **_settings(runs),
            "magnetic_ordering": ordering,
            "moments": last.moments,
            "band_gap": last.band_gap,
        },
        "seconds": sum(r.seconds for r in runs),
    }
    if reason is not None:
        return Relaxation(**record, verdict="diverged", reason=reason)
    unfinished = [r.name for r in runs if not r.converged]
    if len(runs) < len(names):
        unfinished.append(f"{names[len(runs)]} (not run)")
    end, n_sites = last.structure, len(start)
    forces = [r.max_force for r in runs if r.max_force is not None]
    moved = end.frac_coords - start.frac_coords
    moved -= np.round(moved)
    moved = (moved - moved.mean(axis=0)) @ start.lattice.matrix
    return Relaxation(
        **record,
        verdict="unconverged" if unfinished else "converged",
        reason=f"Not converged: {', '.join(unfinished)}." if unfinished else None,
        structure=end,
        energy=last.energy,
        energy_per_atom=last.energy / n_sites,
        max_force=forces[-1] if forces else None,
        max_stress=last.max_stress,
        volume_change=end.volume / start.volume - 1,
        rms_displacement=float(np.sqrt((moved**2).sum(axis=1).mean())),
        magnetic_ordering=ordering_of(last.moments) if last.moments else None,
    )


def band_structure(start: Structure, level: str, runs: Sequence[VaspRun]) -> Bands:
    """Return the record that the runs of a crystal's bands amount to.

    start: the cell they were computed in.
    """
    found = [run.bands for run in runs if run.bands is not None]
    picture = found[-1].picture or {}
    return Bands(
        level=level,
        **band_gap(found),
        kpath=path_name(picture.get("labels", [])),
        structure=start,
        bands=picture,
        software=_software(runs[-1]),
        settings={**_settings(runs), "moments": runs[0].moments},
        seconds=sum(run.seconds for run in runs),
    )


def _software(run: VaspRun) -> dict[str, str]:
    packages = {name: version(name) for name in ("atomate2", "pymatgen", "custodian")}
    return {"vasp": run.vasp_version or "unknown", **packages}


def _settings(runs: Sequence[VaspRun]) -> dict[str, Any]:
    """Return what a record says of how its runs went, and with which settings."""
    kept = {"name", "corrections", "incar", "continued", "folder"}
    return {
        "runs": [run.model_dump(include=kept) for run in runs],
        "run_type": runs[-1].run_type,
        "hubbards": runs[-1].hubbards,
        "potcars": runs[-1].potcars,
        "algorithm": ALGORITHM,
    }
