"""Energies of known crystals at a level: two columns beside the library, single point and relaxed.

Energies are what the level returns (its own convention, uncorrected ones as they are), eV/atom.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.known.columns import ColumnsFile, write_columns
from pccd_workflows.known.library_files import pack_energies, unpack_energies

PREFIX, SUFFIX = "energies-", ".columns"
KIND = "energies of known crystals"


@dataclass(frozen=True)
class LevelEnergies:
    """Energies of all crystals of a library at one level.

    Attributes
    ----------
    single_point
        Shape (n,), float.
        Of the crystals as they are, eV/atom; NaN where not computed.
    relaxed
        Shape (n,), float.
        After relaxation at the level, eV/atom; NaN where not relaxed.
    software
        Versions that the energies were computed with.
    """

    level: str
    single_point: NDArray[np.float64]
    relaxed: NDArray[np.float64]
    software: dict[str, str]

    @property
    def best(self) -> NDArray[np.float64]:
        """The lower of what is known, eV/atom; NaN where nothing is.

        A relaxation that went uphill or apart is no better than its start.
        """
        return np.fmin(self.single_point, self.relaxed)

    @property
    def n_computed(self) -> int:
        """Crystals with an energy."""
        return int(np.isfinite(self.best).sum())

    @property
    def n_relaxed(self) -> int:
        """Crystals that were relaxed."""
        return int(np.isfinite(self.relaxed).sum())

    @property
    def coverage(self) -> float:
        """Share of the library's crystals with an energy."""
        return self.n_computed / len(self.single_point) if len(self.single_point) else 0.0


def energies_path(folder: Path, level: str) -> Path:
    """Return where the energies at a level are, or would be."""
    return folder / f"{PREFIX}{level.replace('/', '.')}{SUFFIX}"


def digest_of(folder: Path, level: str) -> str | None:
    """Return what tells the energies at a level from others: 10 hex digits of their sha256."""
    path = energies_path(folder, level)
    if not path.is_file():
        return None
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _digest(path: Path, written: int) -> str:  # noqa: ARG001
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def available_levels(folder: Path) -> list[str]:
    """Return the levels with energies, by name."""
    files = sorted(folder.glob(f"{PREFIX}*{SUFFIX}"))
    return [str(ColumnsFile(file, KIND).header["level"]) for file in files]


def write_energies(folder: Path, version: str, energies: LevelEnergies) -> Path:
    """Write energies beside the library of that version, whole or not at all."""
    header = {"level": energies.level, "library": version, "software": energies.software}
    columns = {
        "single_point": pack_energies(energies.single_point),
        "relaxed": pack_energies(energies.relaxed),
    }
    return write_columns(energies_path(folder, energies.level), KIND, header, columns)


def read_energies(folder: Path, level: str, version: str, size: int) -> LevelEnergies:
    """Return the energies at a level of the library of that version with `size` crystals.

    Raises
    ------
    InputError
        There are none; or they are damaged, or belong to another version of the library.
    """
    path = energies_path(folder, level)
    if not path.is_file():
        there = ", ".join(available_levels(folder)) or "none"
        raise InputError(
            f"The library of known crystals has no energies at level {level!r} (it has: {there})."
        )
    file = ColumnsFile(path, KIND)
    if file.header.get("library") != version:
        raise InputError(
            f"{path} belongs to version {file.header.get('library')} of the library, not to "
            f"{version}: collect the energies again."
        )
    single_point, relaxed = (unpack_energies(file.read(n)) for n in ("single_point", "relaxed"))
    if not len(single_point) == len(relaxed) == size:
        raise InputError(f"{path} is damaged: it has another number of crystals than the library.")
    return LevelEnergies(level, single_point, relaxed, dict(file.header["software"]))
