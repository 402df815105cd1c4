"""Where known crystals come from, under which licence, and their records in data files."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pccd_workflows.core.bounded_files import file_lines
from pccd_workflows.core.errors import InputError

ATTRIBUTION = {
    "mp": "The Materials Project, A. Jain et al., APL Materials 1, 011002 (2013), "
    "10.1063/1.4812323; database release 2025.02.12, without entries derived from GNoME",
    "mp-legacy": "The Materials Project, A. Jain et al., APL Materials 1, 011002 (2013), "
    "10.1063/1.4812323; entries of earlier releases",
    "wbm": "WBM, H.-C. Wang, S. Botti, M. A. L. Marques, npj Computational Materials 7, 12 (2021), "
    "10.1038/s41524-020-00481-6",
    "oqmd": "The Open Quantum Materials Database, J. E. Saal et al., JOM 65, 1501 (2013), "
    "10.1007/s11837-013-0755-4",
    "alexandria": "Alexandria, J. Schmidt et al., Materials Today Physics 48, 101560 (2024), "
    "10.1016/j.mtphys.2024.101560",
    "jarvis": "JARVIS-DFT of NIST, K. Choudhary et al., npj Computational Materials 6, 173 (2020), "
    "10.1038/s41524-020-00440-1",
    "aflow": "AFLOW, S. Curtarolo et al., Computational Materials Science 58, 227 (2012), "
    "10.1016/j.commatsci.2012.02.002",
    "phonondb-pbe": "phonondb, A. Togo (10.48505/nims.4197), PBE set of kappa-SRME",
}
LICENCES = {
    "mp": "CC-BY-4.0",
    "mp-legacy": "CC-BY-4.0",
    "wbm": "CC-BY-4.0",
    "oqmd": "CC-BY-4.0",
    "alexandria": "CC-BY-4.0",
    "jarvis": "public domain (NIST, USA)",
    "aflow": "CC-BY-4.0",
    "phonondb-pbe": "CC-BY-4.0",
}
SPLITS = ("train", "val", "test", "reserved")
"""Only crystals of the first one may vote or train; the split belongs to a chemical system."""
FLAT = 1e-3
"""Å^3; a cell with less has no lattice that could be compared."""
MAX_LENGTH = 4e4
"""Å; what a column of lengths can hold."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Where crystals come from.

    Attributes
    ----------
    database
        e.g. mp, wbm, jarvis
    obtained_from
        The collection that the records were taken from.
    functional
        What the geometries were relaxed with.
    licence, attribution
        What whoever passes them on has to say.
    """

    database: str
    obtained_from: str
    functional: str
    licence: str
    attribution: str


@dataclass(frozen=True)
class KnownRow:
    """One record of a data file.

    Attributes
    ----------
    lengths, angles
        Å, degrees
    numbers
        Shape (n,), int.
        Atomic numbers, ascending.
    frac_coords
        Shape (n, 3), float.
    split
        None where the record does not say.
    spacegroup
        0 if the record does not say.
    formation_energy_per_atom, energy_above_hull
        As stated, eV/atom.
    theoretical
        False if the crystal was seen in an experiment, None if that is not known.
    """

    id: str
    source: Source
    lengths: tuple[float, float, float]
    angles: tuple[float, float, float]
    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float64]
    split: str | None
    spacegroup: int
    formation_energy_per_atom: float | None
    energy_above_hull: float | None
    theoretical: bool | None

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Its elements, alphabetically."""
        from pymatgen.core import Element

        return tuple(sorted(Element.from_Z(int(z)).symbol for z in np.unique(self.numbers)))


def read_rows(path: Path) -> Iterator[KnownRow]:
    """Yield the crystals of a data file: one JSON object per line, gzipped or not.

    Raises
    ------
    InputError
        The file cannot be read, or a record is no ordered crystal; names file, line and reason.
    """
    try:
        for number, line in enumerate(file_lines(path), start=1):
            if line.strip():
                yield _row(line, f"{path.name}, line {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def stated_energy_above_hull(record: Mapping[str, Any]) -> float | None:
    """Return what a record says, eV/atom; the hull of one database and vintage comes first."""
    for name in ("energy_above_hull_legacy_derived", "energy_above_hull"):
        if record.get(name) is not None:
            return _finite(record[name], name)
    return None


def _row(line: bytes, where: str) -> KnownRow:
    try:
        record = orjson.loads(line)
        matrix = np.array(record["lattice"], dtype=float).reshape(3, 3)
        numbers = np.array([_number(symbol) for symbol in record["species"]], dtype=np.int64)
        coords = np.array(record["frac_coords"], dtype=float).reshape(len(numbers), 3)
        formation = record.get("formation_energy_per_atom")
        return KnownRow(
            id=_identifier(record["id"]),
            source=_source(record),
            **_cell(matrix),
            **_sites(numbers, coords),
            split=_split(record.get("split")),
            spacegroup=int(record.get("spacegroup") or 0),
            formation_energy_per_atom=(
                None if formation is None else _finite(formation, "formation_energy_per_atom")
            ),
            energy_above_hull=stated_energy_above_hull(record),
            theoretical=record.get("theoretical"),
        )
    except KeyError as error:
        raise InputError(f"{where}: {error} is missing.") from None
    except orjson.JSONDecodeError:
        raise InputError(f"{where}: it is no JSON, which has no NaN and no Infinity.") from None
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: not a crystal ({reason}).") from None


def _identifier(value: object) -> str:
    text = str(value)
    if not text or "\n" in text:
        raise ValueError(f"{text!r} cannot be an id")
    return text


def _number(symbol: object) -> int:
    from pymatgen.core import Element

    if not isinstance(symbol, str) or symbol not in Element.__members__ or symbol in ("D", "T"):
        raise ValueError(f"{symbol!r} is no element: partial occupancies and charges have no place")
    return int(Element[symbol].Z)


def _split(value: object) -> str | None:
    if value is not None and value not in SPLITS:
        raise ValueError(f"split {value!r} is none of {', '.join(SPLITS)}")
    return value if value is None else str(value)


def _finite(value: object, name: str) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not np.isfinite(number):
        raise ValueError(f"{name} is not a number")
    return number


def _cell(matrix: NDArray[np.float64]) -> dict[str, Any]:
    lengths = np.linalg.norm(matrix, axis=1)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < FLAT:
        raise ValueError("its cell is flat or not made of numbers")
    if lengths.max() > MAX_LENGTH:
        raise ValueError(f"its cell is longer than {MAX_LENGTH:g} Å")
    unit = matrix / lengths[:, None]
    cosines = [unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return {"lengths": tuple(lengths.tolist()), "angles": tuple(angles.tolist())}


def _sites(numbers: NDArray[np.int64], coords: NDArray[np.float64]) -> dict[str, Any]:
    if not len(numbers) or not np.isfinite(coords).all():
        raise ValueError("it has no sites or coordinates that are not numbers")
    order = np.argsort(numbers, kind="stable")
    return {"numbers": numbers[order], "frac_coords": coords[order]}


def _source(record: Record) -> Source:
    database = str(record.get("database", "unknown"))
    return Source(
        database=database,
        obtained_from=str(record.get("source", "")),
        functional=str(record.get("functional", "")),
        licence=LICENCES.get(database, str(record.get("license", "unknown"))),
        attribution=ATTRIBUTION.get(database, database),
    )


def sources_of(rows: Sequence[KnownRow]) -> list[Source]:
    """Return the different sources of rows, by name."""
    unique = {row.source for row in rows}
    return sorted(unique, key=lambda s: (s.database, s.obtained_from, s.functional))
