"""Levels of theory by name: what a rung or a reference set was computed with.

One row adds a level. Energies of different levels, or of different conventions, are never mixed.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import EnergyConvention


@dataclass(frozen=True)
class Level:
    """A level of theory.

    kind: ``potential`` (an ASE calculator) or ``dft``.
    convention: the energy convention of what it returns.
    calculator: ``module:callable`` that makes the ASE calculator of a potential or the DFT jobs.
    options: keyword arguments of that callable.
    package: what to install when it is missing.
    identity: what stands for the calculator in content addresses; `calculator` if left out.
    """

    name: str
    kind: Literal["potential", "dft"]
    convention: EnergyConvention
    calculator: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    package: str = ""
    identity: str = ""

    @property
    def address(self) -> str:
        """What stands for the calculator in content addresses."""
        return self.identity or self.calculator


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
            # where the module was when the first results were stored: their keys stay as they are
            identity="pccd_workflows.external.chgnet_calculator:ChgnetCalculator",
        ),
        Level(
            "7net-0",
            "potential",
            "uncorrected",
            "sevenn.calculator:SevenNetCalculator",
            {"model": "7net-0", "device": "cpu"},
            "pccd-workflows[sevenn]",
        ),
        Level(
            "7net-l3i5",
            "potential",
            "uncorrected",
            "sevenn.calculator:SevenNetCalculator",
            {"model": "7net-l3i5", "device": "cpu"},
            "pccd-workflows[sevenn]",
        ),
        # PBE(+U), ENCUT 520: the settings the Materials Project's GGA(+U) hull belongs to
        Level(
            "vasp/mp-gga",
            "dft",
            "uncorrected",
            "atomate2.vasp.flows.mp:MPGGADoubleRelaxStaticMaker",
            package="atomate2",
        ),
        # PBEsol pre-relaxation, r2SCAN, ENCUT 680: the settings of the Materials Project's r2SCAN
        # energies (10.1103/PhysRevMaterials.6.013801), to which no MP2020 correction belongs
        Level(
            "vasp/mp-r2scan",
            "dft",
            "as_computed",
            "atomate2.vasp.flows.mp:MPMetaGGADoubleRelaxStaticMaker",
            package="atomate2",
        ),
        # PBE without U in plane waves and GPAW's own PAW data: shares no zero with VASP
        Level("gpaw/pbe", "dft", "as_computed", "gpaw:GPAW", package="pccd-workflows[gpaw]"),
    )
}


MATERIALS_PROJECT_LEVEL = "vasp/mp-gga"
"""Level of the Materials Project's own energies: PBE(+U) with its input sets, convention
``mp2020``."""


def engine(level: str) -> str:
    """Return the program that runs a DFT level: ``vasp`` or ``gpaw``."""
    return level.partition("/")[0]


def hull_convention(convention: EnergyConvention) -> EnergyConvention:
    """Return the convention in which energies of `convention` are placed on a hull."""
    return "mp2020" if convention == "uncorrected" else convention


def get_level(name: str) -> Level:
    """Return the level called `name`; InputError names the options."""
    try:
        return LEVELS[name]
    except KeyError:
        raise InputError(f"Unknown level {name!r}; use one of {sorted(LEVELS)}.") from None


def _level(name: str) -> str:
    get_level(name)
    return name


LevelName = Annotated[str, AfterValidator(_level)]
