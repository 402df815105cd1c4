"""Levels of theory by name: what a rung or a reference set was computed with.

One row holds everything of a level. Energies of different levels, or of different conventions, are
never mixed. Where a level comes from, in this order: the rows below; ``module:attribute``, a Level
or a callable that returns an ASE calculator, importable by whoever runs a campaign and by its
workers; the entry points ``pccd_workflows.levels`` of installed packages, whose value is a Level or
a list of them.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import EnergyConvention
from pccd_workflows.engines.cost_models import CostModel, PlaneWaveCost, PotentialCost

TaskKind = Literal["relax", "tight", "static", "forces", "bands"]
"""Kinds of tasks; see `pccd_workflows.engines.engine.Task`."""
Runs = Mapping[TaskKind, tuple[str, ...]]
"""Names of the runs of each kind of task, in order."""

ENTRY_POINTS = "pccd_workflows.levels"
IMPORTABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
ONE_RUN: Runs = {
    "relax": ("relax",),
    "tight": ("tight",),
    "static": ("static",),
    "forces": ("forces",),
}

MPTRJ_ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As "
        "Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu "
        "Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Ac Th Pa U Np Pu",
    )
)
"""The 89 elements of MPtrj, with which CHGNet and the SevenNet models were trained
(10.1038/s42256-023-00716-3)."""


@dataclass(frozen=True)
class Level:
    """A level of theory.

    Attributes
    ----------
    name
        In campaign files, records and keys.
    engine
        What computes it: a name in `pccd_workflows.engines.engine.ENGINES`, or ``module:attribute``
        of an `Engine` of one's own.
    convention
        The energy convention of what it returns.
    calculator
        ``module:callable`` that makes the ASE calculator of a potential, or atomate2's flow.
    options
        Keyword arguments of that callable; a ``device`` among them is that of the settings.
    package
        What to install when it is missing.
    identity
        What stands for the calculator in content addresses; `calculator` if left out.
    elements
        Symbols that a potential was trained on; None if it does not say.
    runs
        Names of the runs of each kind of task that it computes.
    cost
        What its runs cost before any is known.
    materials_project
        Whether the Materials Project's own energies are at this level.
    fixed_density
        Whether bands are computed in the density of a static run before.
    mesh_density
        k-points per Å^-3 of reciprocal space of the mesh for bands.
    """

    name: str
    engine: str
    convention: EnergyConvention
    calculator: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    package: str = ""
    identity: str = ""
    elements: frozenset[str] | None = None
    runs: Runs = field(default_factory=lambda: ONE_RUN)
    cost: CostModel = field(default_factory=PotentialCost)
    materials_project: bool = False
    fixed_density: bool = False
    mesh_density: int = 0

    @property
    def address(self) -> str:
        """What stands for the calculator in content addresses."""
        return self.identity or self.calculator

    def computes(self, kind: TaskKind) -> bool:
        """Return whether it can do tasks of a kind."""
        return kind in self.runs


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        # CHGNet was trained on MP2020-corrected energies (10.1038/s42256-023-00716-3).
        Level(
            "chgnet",
            "potential",
            "mp2020",
            "pccd_workflows.engines.chgnet_calculator:ChgnetCalculator",
            {"device": "cpu"},
            "chgnet",
            elements=MPTRJ_ELEMENTS,
            # where the module was when the first results were stored: their keys stay as they are
            identity="pccd_workflows.external.chgnet_calculator:ChgnetCalculator",
        ),
        Level(
            "7net-0",
            "potential",
            "uncorrected",
            "sevenn.calculator:SevenNetCalculator",
            {"model": "7net-0", "device": "cpu"},
            "sevenn",
            elements=MPTRJ_ELEMENTS,
        ),
        Level(
            "7net-l3i5",
            "potential",
            "uncorrected",
            "sevenn.calculator:SevenNetCalculator",
            {"model": "7net-l3i5", "device": "cpu"},
            "sevenn",
            elements=MPTRJ_ELEMENTS,
        ),
        # PBE(+U), ENCUT 520: the settings the Materials Project's GGA(+U) hull belongs to
        Level(
            "vasp/mp-gga",
            "vasp",
            "uncorrected",
            "atomate2.vasp.flows.mp:MPGGADoubleRelaxStaticMaker",
            package="pccd-workflows[vasp]",
            runs={
                "relax": ("relax 1", "relax 2", "static"),
                "tight": ("tight relax",),
                "static": ("single point",),
                "forces": ("forces",),
                "bands": ("bands static", "bands uniform", "bands line"),
            },
            cost=PlaneWaveCost(
                scale=60.0,
                kpoint_volume=64.0,
                steps={"relax 1": 15, "relax 2": 5, "static": 1},
                bands={
                    "bands static": (100 / 64, 0),
                    "bands uniform": (200 / 64, 0),
                    "bands line": (0, 200),
                },
            ),
            materials_project=True,
            fixed_density=True,
            mesh_density=200,  # twice that of a static run
        ),
        # PBEsol pre-relaxation, r2SCAN, ENCUT 680: the settings of the Materials Project's r2SCAN
        # energies (10.1103/PhysRevMaterials.6.013801), to which no MP2020 correction belongs
        Level(
            "vasp/mp-r2scan",
            "vasp",
            "as_computed",
            "atomate2.vasp.flows.mp:MPMetaGGADoubleRelaxStaticMaker",
            package="pccd-workflows[vasp]",
            runs={
                "relax": ("pre-relax", "relax", "static"),
                "tight": ("tight relax",),
                "static": ("single point",),
                "forces": ("forces",),
                # a meta-GGA's potential is not fixed by a density: the path is part of a
                # self-consistent run
                "bands": ("bands static", "bands line"),
            },
            cost=PlaneWaveCost(
                scale=180.0,  # a meta-GGA at 680 eV takes about three times as long
                kpoint_volume=93.9,
                steps={"pre-relax": 15, "relax": 8, "static": 1},
                bands={"bands static": (1, 0), "bands line": (1, 200)},
            ),
            mesh_density=100,  # as many as a static run (KSPACING 0.22)
        ),
        # PBE without U in plane waves and GPAW's own PAW data: shares no zero with VASP
        Level(
            "gpaw/pbe",
            "gpaw",
            "as_computed",
            "gpaw:GPAW",
            package="pccd-workflows[gpaw]",
            cost=PlaneWaveCost(scale=60.0, kpoint_volume=64.0, steps={"relax": 12}, n_spins=1),
        ),
    )
}


MATERIALS_PROJECT_LEVEL = next(level.name for level in LEVELS.values() if level.materials_project)
"""Level of the Materials Project's own energies: PBE(+U) with its input sets, convention
``mp2020``."""


BEST_POTENTIAL = "7net-l3i5"
"""What judges where nothing else is asked for."""


def is_potential(name: str) -> bool:
    """Return whether a level is a potential; one that has to be imported is taken for one."""
    return bool(IMPORTABLE.fullmatch(name)) or get_level(name).engine == "potential"


def hull_convention(convention: EnergyConvention) -> EnergyConvention:
    """Return the convention in which energies of `convention` are placed on a hull."""
    return "mp2020" if convention == "uncorrected" else convention


def get_level(name: str) -> Level:
    """Return the level called `name`.

    Raises
    ------
    InputError
        There is none: the message names the options, or says why it cannot be imported.
    """
    if name in LEVELS:
        return LEVELS[name]
    if IMPORTABLE.fullmatch(name):
        return _imported(name)
    installed = _installed()
    if name in installed:
        return installed[name]
    raise InputError(
        f"Unknown level {name!r}; use one of {sorted({*LEVELS, *installed})}, or module:callable "
        "for an ASE calculator of your own."
    )


@lru_cache(maxsize=64)
def _imported(name: str) -> Level:
    """Return the level at ``module:attribute``, by that name."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Level {name!r} cannot be imported ({error}): install its module, or put its folder "
            "on PYTHONPATH, here and where the workers run; the current folder does not count."
        ) from None
    if isinstance(found, Level):
        return replace(found, name=name)
    if not callable(found):
        raise InputError(f"Level {name!r} is neither a Level nor makes an ASE calculator.")
    convention = getattr(found, "convention", "uncorrected")
    options: tuple[EnergyConvention, ...] = ("uncorrected", "mp2020", "as_computed")
    if convention not in options:
        raise InputError(f"Level {name!r}: convention {convention!r} is not one of {options}.")
    # a changed file makes another level: results of the old one are not those of the new one
    identity = f"{name}@{_digest(module_name)}"
    return Level(name, "potential", convention, name, package=module_name, identity=identity)


def _digest(module: str) -> str:
    """Return a hash of the source of a module; empty where it has none."""
    path = getattr(sys.modules[module], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""


@lru_cache(maxsize=1)
def _installed() -> dict[str, Level]:
    """Return the levels that installed packages bring."""
    found: dict[str, Level] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            value = point.load()
        except Exception as error:
            raise InputError(
                f"The levels of entry point {point.name!r} ({point.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        for level in [value] if isinstance(value, Level) else value:
            found[level.name] = level
    return found


def _level(name: str) -> str:
    """Check a name as it is read: what has to be imported is checked before a campaign starts."""
    if not IMPORTABLE.fullmatch(name):
        get_level(name)
    return name


LevelName = Annotated[str, AfterValidator(_level)]
