"""What VASP is asked: inputs of each run, the keys of results, and what has to be installed."""

import importlib
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from pccd_workflows.analysis.magnetism import MagneticOrdering, starting_moments
from pccd_workflows.core.errors import InputError, MissingDependencyError
from pccd_workflows.core.optional import optional_imports
from pccd_workflows.engines.engine import Task
from pccd_workflows.engines.geometry import content_key, structure_content, text_key
from pccd_workflows.engines.levels import Level
from pccd_workflows.settings import Settings

ALGORITHM = 1
"""Raised when the runs of a level change in a way that changes results: part of every key."""
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
    "single point": {},
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


def relaxation_key(structure: Structure, level: Level, ordering: MagneticOrdering | None) -> str:
    """Return the content address of a crystal's relaxation at a VASP level."""
    content = {"level": [level.name, ALGORITHM], "magnetic_ordering": ordering}
    return content_key({**structure_content(structure), **content})


def task_key(structure: Structure, level: Level, task: Task) -> str:
    """Return the content address of what a task computes of a crystal."""
    key = relaxation_key(structure, level, task.ordering)
    tags = {name: TAGS[name] for name in level.runs[task.kind] if name in TAGS}
    if not tags:  # the level's own runs
        return key
    return content_key([key, task.kind, tags, structure.site_properties.get("magmom")])


def run_key(key: str, number: int) -> str:
    """Return the content address of run `number` of the task `key`."""
    return text_key(f"{key}:{number}")


def check_ready(level: Level, elements: Sequence[str], settings: Settings) -> None:
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

    input_set = maker_of(level, level.runs["relax"][0]).input_set_generator
    folder = POTCAR_FUNCTIONAL_MAP[input_set.user_potcar_functional]
    root = os.environ.get("PMG_VASP_PSP_DIR") or SETTINGS.get("PMG_VASP_PSP_DIR")
    if not root:
        raise InputError(
            f"Level {level.name!r} needs POTCARs: set PMG_VASP_PSP_DIR to the folder that holds "
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
            raise InputError(f"Level {level.name!r} has no POTCAR for {element} in its input set.")
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


def maker_of(level: Level, name: str) -> Any:
    """Return atomate2's maker of a run."""
    module, _, factory = level.calculator.partition(":")
    with optional_imports(f"Level {level.name!r}"):
        whole = getattr(importlib.import_module(module), factory)()
    first, second = whole.relax_maker.relax_maker1, whole.relax_maker.relax_maker2
    makers = dict(zip(level.runs["relax"], (first, second, whole.static_maker), strict=True))
    if name in makers:
        return makers[name]
    if level.fixed_density and name in ("bands uniform", "bands line"):
        return _fixed_density_maker(level, name)
    maker = second if name == "tight relax" else whole.static_maker
    if name == "bands static":
        maker.task_document_kwargs = {"parse_bandstructure": "auto"}
    if name == "bands line":
        density = {"reciprocal_density": level.mesh_density}
        path = {"zero_weighted_line_density": LINE_DENSITY}
        maker.input_set_generator.user_kpoints_settings = density | path
        maker.task_document_kwargs = {"parse_bandstructure": "line"}
    settings = maker.input_set_generator.user_incar_settings or {}
    maker.input_set_generator.user_incar_settings = {**settings, **TAGS[name]}
    maker.name = name
    return maker


def _fixed_density_maker(level: Level, name: str) -> Any:
    """Return the maker of bands in the density of a GGA run before: on a mesh or along a path."""
    from atomate2.vasp.jobs.core import NonSCFMaker
    from pymatgen.io.vasp.sets import MPNonSCFSet

    inputs = MPNonSCFSet(
        mode=name.removeprefix("bands "),
        reciprocal_density=level.mesh_density,
        kpoints_line_density=LINE_DENSITY,
        force_gamma=True,
        user_incar_settings=dict(TAGS[name]),
    )
    return NonSCFMaker(name=name, input_set_generator=inputs)


def mode_of(maker: Any) -> dict[str, str]:
    """Return what NonSCFMaker is asked for beside a structure; nothing for other makers."""
    mode = getattr(maker.input_set_generator, "mode", None)
    return {} if mode is None else {"mode": mode}


def incar_of(maker: Any, structure: Structure) -> dict[str, Any]:
    """Return the INCAR that a maker gives a crystal."""
    return dict(maker.input_set_generator.get_input_set(structure, potcar_spec=True).incar)


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


def with_moments(structure: Structure, ordering: MagneticOrdering | None) -> Structure:
    """Return a structure that VASP starts with the moments of `ordering`; as it is for None."""
    if ordering is None:
        return structure
    return structure.copy(site_properties={"magmom": starting_moments(structure, ordering)})
