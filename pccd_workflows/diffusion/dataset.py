"""Training data: crystals of a file or folder -> one columnar file in canonical form."""

import gzip
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.campaign import LAST_SPACE_GROUP
from pccd_workflows.diffusion.canonical import canonical_cell
from pccd_workflows.diffusion.chemistry import MAX_Z
from pccd_workflows.diffusion.training_index import hash_key
from pccd_workflows.errors import InputError
from pccd_workflows.pointcloud.elements import atomic_number, canonical_elements

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ORDERINGS = ("NM", "FM", "AFM", "FiM")
CRYSTAL_SYSTEMS = tuple(LAST_SPACE_GROUP)
MAX_VOLUME_PER_ATOM = 150.0
"""Å^3; larger cells are broken entries or isolated molecules."""
FORMAT_VERSION = 2


DTYPES: dict[str, Any] = {
    "numbers": np.uint8,
    "frac_coords": np.float32,
    "lengths": np.float32,
    "angles": np.float32,
    "band_gap": np.float32,
    "energy_above_hull": np.float32,
    "ordering": np.int8,
    "space_group": np.int16,
    "split": np.int8,
    "key": np.int64,
}
"""Columns of a dataset file."""


@dataclass(frozen=True)
class CrystalArrays:
    """Crystals in columns, each in canonical form; N crystals of at most M sites.

    Attributes
    ----------
    numbers : uint8 array (N, M)
        Atomic numbers, 0 beyond the last site.
    frac_coords : float32 array (N, M, 3)
    lengths : float32 array (N, 3)
        Å
    angles : float32 array (N, 3)
        Degrees
    band_gap, energy_above_hull : float32 array (N,)
        eV and eV/atom, NaN where unknown.
    ordering : int8 array (N,)
        Index into ORDERINGS, -1 unknown.
    space_group : int16 array (N,)
        Number of the space group, 1 to 230.
    split : int8 array (N,)
        Index into SPLITS.
    key : int64 array (N,)
        See `training_index.crystal_key`.
    """

    numbers: NDArray[np.uint8]
    frac_coords: NDArray[np.float32]
    lengths: NDArray[np.float32]
    angles: NDArray[np.float32]
    band_gap: NDArray[np.float32]
    energy_above_hull: NDArray[np.float32]
    ordering: NDArray[np.int8]
    space_group: NDArray[np.int16]
    split: NDArray[np.int8]
    key: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.numbers)

    @property
    def n_sites(self) -> NDArray[np.int64]:
        """Atoms in each cell, (N,)."""
        return np.asarray(np.count_nonzero(self.numbers, axis=1))

    @property
    def crystal_system(self) -> NDArray[np.int64]:
        """Index into CRYSTAL_SYSTEMS, (N,)."""
        return np.asarray(np.searchsorted(list(LAST_SPACE_GROUP.values()), self.space_group))

    def take(self, rows: NDArray[Any]) -> "CrystalArrays":
        """Return some of the crystals, chosen by index or mask."""
        return CrystalArrays(*(getattr(self, f.name)[rows] for f in fields(self)))

    def of_split(self, split: Split) -> "CrystalArrays":
        """Return the crystals of one split."""
        return self.take(self.split == SPLITS.index(split))


def crystal_system(spacegroup: int) -> int:
    """Return the index into CRYSTAL_SYSTEMS of a space group number (1 to 230)."""
    return int(np.searchsorted(list(LAST_SPACE_GROUP.values()), spacegroup))


def split_of(chemsys: str) -> Split:
    """Return the split of a chemical system: 92 % train, 3 % val, 5 % test, fixed for ever."""
    digest = hashlib.sha256(chemsys.encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 100
    return "train" if place < 92 else "val" if place < 95 else "test"


@dataclass(frozen=True)
class DatasetLimits:
    """Which crystals are taken."""

    max_elements: int = 3
    max_sites: int = 16


class _RejectedError(Exception):
    """A crystal that is left out; the message is the class it is counted under."""


def build_dataset(
    source: Path,
    limits: DatasetLimits = DatasetLimits(),
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[CrystalArrays, Counter[str]]:
    """Read crystals and write them in canonical form.

    Parameters
    ----------
    source : Path
        JSON lines (.jsonl, .jsonl.gz, keys as in the README of `pccd dataset`) or a folder of CIFs.
    limits : DatasetLimits
        Larger crystals are left out.
    progress : callable
        Called with the number of crystals read so far.

    Returns
    -------
    arrays : CrystalArrays
    rejected : Counter
        Crystals left out, by reason.

    Raises
    ------
    InputError
        If the source is missing, empty or holds nothing usable.
    """
    rows: list[dict[str, Any]] = []
    rejected: Counter[str] = Counter()
    for count, record in enumerate(read_records(source), start=1):
        try:
            rows.append(_row(record, limits))
        except _RejectedError as reason:
            rejected[str(reason)] += 1
        if progress is not None and count % 500 == 0:
            progress(count)
    if not rows:
        why = ", ".join(f"{n} × {reason}" for reason, n in rejected.most_common()) or "it is empty"
        raise InputError(f"{source} holds no crystal to learn from ({why}).")
    columns: dict[str, Any] = {
        name: np.array([row[name] for row in rows], dtype=dtype) for name, dtype in DTYPES.items()
    }
    return CrystalArrays(**columns), rejected


def read_records(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the crystals of a JSON lines file or a folder of CIFs as dictionaries."""
    if source.is_dir():
        yield from _read_cifs(source)
        return
    try:
        with _open_text(source) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    raise InputError(f"{source} line {number} is not JSON.") from None
    except FileNotFoundError:
        raise InputError(f"There is no file or folder {source}.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read: {error}.") from None


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _read_cifs(folder: Path) -> Iterator[dict[str, Any]]:
    from pymatgen.core import Structure

    paths = sorted(folder.glob("*.cif"))
    if not paths:
        raise InputError(f"Folder {folder} holds no .cif file.")
    for path in paths:
        try:
            structure = Structure.from_file(path)
        except Exception as error:  # pymatgen raises anything on a broken CIF
            raise InputError(f"{path} is not a readable CIF: {error}.") from None
        yield {"id": path.stem, "structure": structure}


def _row(record: dict[str, Any], limits: DatasetLimits) -> dict[str, Any]:
    """Return one crystal in columns; raises _RejectedError with the reason if it is left out."""
    if "structure" in record:
        record = {**record, **_reduced(record["structure"])}
    try:
        lattice = np.asarray(record["lattice"], dtype=float).reshape(3, 3)
        numbers = np.array([atomic_number(s) for s in record["species"]], dtype=np.int64)
        frac = np.asarray(record["frac_coords"], dtype=float).reshape(len(numbers), 3)
    except (KeyError, TypeError, ValueError):
        raise _RejectedError("malformed") from None
    n = len(numbers)
    _check(lattice, numbers, frac, limits)
    elements = canonical_elements(record["species"])
    cell = canonical_cell(lattice, numbers, frac)
    padded_numbers = np.zeros(limits.max_sites, dtype=np.uint8)
    padded_numbers[:n] = cell.numbers
    padded_frac = np.zeros((limits.max_sites, 3), dtype=np.float32)
    padded_frac[:n] = cell.frac_coords
    spacegroup = int(record.get("spacegroup") or _spacegroup(lattice, numbers, frac))
    chemsys = "-".join(sorted(elements))
    split = record.get("split") or split_of(chemsys)
    if split not in SPLITS:
        raise InputError(f"Crystal {record.get('id')}: split {split!r} must be one of {SPLITS}.")
    ordering = record.get("magnetic_ordering")
    hull = record.get("energy_above_hull", record.get("energy_above_hull_legacy_derived"))
    return {
        "numbers": padded_numbers,
        "frac_coords": padded_frac,
        "lengths": cell.lengths,
        "angles": cell.angles,
        "band_gap": _float(record.get("band_gap")),
        "energy_above_hull": _float(hull),
        "ordering": ORDERINGS.index(ordering) if ordering in ORDERINGS else -1,
        "space_group": spacegroup,
        "split": SPLITS.index(split),
        "key": hash_key(_reduced_formula(record["species"]), spacegroup, n),
    }


def _check(
    lattice: NDArray[np.float64],
    numbers: NDArray[np.int64],
    frac: NDArray[np.float64],
    limits: DatasetLimits,
) -> None:
    n = len(numbers)
    if not 1 <= n <= limits.max_sites:
        raise _RejectedError(f"more than {limits.max_sites} sites" if n else "no sites")
    if len(set(numbers.tolist())) > limits.max_elements:
        raise _RejectedError(f"more than {limits.max_elements} elements")
    if numbers.max() > MAX_Z:
        raise _RejectedError("element beyond Lr")
    if not (np.isfinite(lattice).all() and np.isfinite(frac).all()):
        raise _RejectedError("NaN")
    volume = abs(float(np.linalg.det(lattice)))
    if not 1.0 < volume / n < MAX_VOLUME_PER_ATOM:
        raise _RejectedError("volume per atom")


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _reduced_formula(species: list[str]) -> str:
    from pymatgen.core import Composition

    return str(Composition(Counter(species)).reduced_formula)


def _reduced(structure: Any) -> dict[str, Any]:
    """Return the primitive Niggli cell of a pymatgen Structure as plain lists."""
    if not structure.is_ordered:
        raise _RejectedError("partial occupancies")
    cell = structure.get_primitive_structure(tolerance=0.1).get_reduced_structure("niggli")
    return {
        "lattice": cell.lattice.matrix,
        "species": [site.specie.symbol for site in cell],
        "frac_coords": cell.frac_coords,
    }


def _spacegroup(
    lattice: NDArray[np.float64], numbers: NDArray[np.int64], frac: NDArray[np.float64]
) -> int:
    import spglib

    found = spglib.get_symmetry_dataset((lattice, frac, numbers), symprec=0.1)
    return int(found.number) if found is not None else 1


def write_dataset(path: Path, arrays: CrystalArrays) -> str:
    """Write the columns to one compressed .npz file; return its sha256 over the content."""
    content = {f.name: getattr(arrays, f.name) for f in fields(arrays)}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, format_version=np.array(FORMAT_VERSION), **content)
    partial.replace(path)
    return content_hash(arrays)


def content_hash(arrays: CrystalArrays) -> str:
    """Return the sha256 over all columns, the version of a dataset."""
    digest = hashlib.sha256()
    for field in fields(arrays):
        column = np.ascontiguousarray(getattr(arrays, field.name))
        digest.update(f"{field.name}{column.shape}{column.dtype}".encode())
        digest.update(column.tobytes())
    return digest.hexdigest()


def read_dataset(path: Path) -> CrystalArrays:
    """Read a dataset file.

    Raises
    ------
    InputError
        If it is missing, damaged, empty, of another version or holds NaN geometry.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            version = int(file["format_version"])
            arrays = CrystalArrays(*(file[f.name] for f in fields(CrystalArrays)))
    except FileNotFoundError:
        raise InputError(f"There is no dataset {path}; `pccd dataset build` makes one.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"Dataset {path} is damaged or not a dataset: {error}.") from None
    if version != FORMAT_VERSION:
        raise InputError(f"Dataset {path} has format {version}, not {FORMAT_VERSION}; rebuild it.")
    if len(arrays) == 0:
        raise InputError(f"Dataset {path} is empty.")
    geometry = (arrays.frac_coords, arrays.lengths, arrays.angles)
    if not all(np.isfinite(column).all() for column in geometry):
        raise InputError(f"Dataset {path} holds NaN coordinates or lattices.")
    return arrays


def describe_dataset(arrays: CrystalArrays) -> dict[str, Any]:
    """Return counts of a dataset as plain JSON values.

    `shared_between_splits` counts the chemical systems that occur in more than one split: a leak.
    """
    systems = [frozenset(row[row > 0].tolist()) for row in arrays.numbers]
    splits_of: dict[frozenset[int], set[int]] = {}
    for system, place in zip(systems, arrays.split.tolist(), strict=True):
        splits_of.setdefault(system, set()).add(place)
    sizes = Counter(arrays.n_sites.tolist())
    by_elements = Counter(len(system) for system in systems)
    by_system = Counter(arrays.crystal_system.tolist())
    return {
        "crystals": len(arrays),
        "splits": {name: int((arrays.split == i).sum()) for i, name in enumerate(SPLITS)},
        "chemical_systems": len(splits_of),
        "shared_between_splits": sum(len(found) > 1 for found in splits_of.values()),
        "distinct": len(np.unique(arrays.key)),
        "n_elements": {str(n): by_elements[n] for n in sorted(by_elements)},
        "n_sites": {str(n): sizes[n] for n in sorted(sizes)},
        "crystal_systems": {name: by_system[i] for i, name in enumerate(CRYSTAL_SYSTEMS)},
        "elements": len(set().union(*systems)),
        "with_band_gap": int(np.isfinite(arrays.band_gap).sum()),
        "with_energy_above_hull": int(np.isfinite(arrays.energy_above_hull).sum()),
        "with_magnetic_ordering": int((arrays.ordering >= 0).sum()),
        "longest_axis_angstrom": round(float(arrays.lengths.max()), 2),
    }
