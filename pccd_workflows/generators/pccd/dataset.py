"""Training data: crystals of a file or folder -> one columnar file in canonical form."""

import hashlib
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.generators.pccd.canonical import CanonicalCell, canonical_cell
from pccd_workflows.generators.pccd.chemistry import MAX_Z
from pccd_workflows.generators.pccd.config import Setting
from pccd_workflows.generators.pccd.pointcloud.elements import (
    atomic_number,
    canonical_elements,
    symbol,
)
from pccd_workflows.generators.pccd.records import Record, read_records
from pccd_workflows.generators.pccd.standard import StandardCell, standard_cell
from pccd_workflows.generators.pccd.structure_type import number_types
from pccd_workflows.generators.request import LAST_SPACE_GROUP

if TYPE_CHECKING:
    from pymatgen.core import Structure

Split = Literal["train", "val", "test"]
SETTINGS: dict[str, Setting] = {name: name for name in get_args(Setting)}
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ORDERINGS = ("NM", "FM", "AFM", "FiM")
CRYSTAL_SYSTEMS = tuple(LAST_SPACE_GROUP)
MAX_VOLUME_PER_ATOM = 150.0
"""Å^3; larger cells are broken entries or isolated molecules."""
NEVER_RELAXED = "X2YZ never relaxed (MP's mp-109xxxx)"
"""Some 1,900 entries that MP serves at about 200 Å^3 per atom, counted apart."""
CHUNK = 4096
"""Crystals that are held as rows before they become columns."""
FORMAT_VERSION = 3


DTYPES: dict[str, Any] = {
    "numbers": np.uint8,
    "frac_coords": np.float32,
    "lengths": np.float32,
    "angles": np.float32,
    "band_gap": np.float32,
    "energy_above_hull": np.float32,
    "ordering": np.int8,
    "space_group": np.int16,
    "structure_type": np.int64,
    "split": np.int8,
    "key": np.int64,
}
"""Columns of a dataset as they are read; structure types become numbers at the end."""


@dataclass(frozen=True)
class CrystalArrays:
    """Crystals in columns, each in canonical form; N crystals of at most M sites.

    Attributes
    ----------
    numbers
        Shape (N, M). Atomic numbers, 0 beyond the last site.
    frac_coords
        Shape (N, M, 3).
    lengths
        Shape (N, 3). Å
    angles
        Shape (N, 3). Degrees
    band_gap, energy_above_hull
        Shape (N,). eV and eV/atom, NaN where unknown.
    ordering
        Shape (N,). Index into ORDERINGS, -1 unknown.
    space_group
        Shape (N,). Number of the space group, 1 to 230.
    structure_type
        Shape (N,). Structure types (see `structure_type`) by their frequency in the train split,
        from 1; 0 is one that the train split does not have.
    split
        Shape (N,). Index into SPLITS.
    key
        Shape (N,). Equal for equal formula, space group and number of sites.
    """

    numbers: NDArray[np.uint8]
    frac_coords: NDArray[np.float32]
    lengths: NDArray[np.float32]
    angles: NDArray[np.float32]
    band_gap: NDArray[np.float32]
    energy_above_hull: NDArray[np.float32]
    ordering: NDArray[np.int8]
    space_group: NDArray[np.int16]
    structure_type: NDArray[np.int32]
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

    def structure(self, row: int) -> "Structure":
        """Return one crystal."""
        from pymatgen.core import Lattice, Structure

        n = int(np.count_nonzero(self.numbers[row]))
        lengths, angles = self.lengths[row].astype(float), self.angles[row].astype(float)
        elements = [symbol(int(z)) for z in self.numbers[row, :n]]
        coords = self.frac_coords[row, :n].astype(float)
        return Structure(Lattice.from_parameters(*lengths, *angles), elements, coords)


def crystal_system(spacegroup: int) -> int:
    """Return the index into CRYSTAL_SYSTEMS of a space group number (1 to 230)."""
    return int(np.searchsorted(list(LAST_SPACE_GROUP.values()), spacegroup))


def split_of(chemsys: str) -> Split:
    """Return the split of a chemical system: 92 % train, 3 % val, 5 % test, fixed for ever."""
    digest = hashlib.sha256(chemsys.encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 100
    return "train" if place < 92 else "val" if place < 95 else "test"


def split_of_record(record: Record) -> str | None:
    """Return the split that a record names or that its elements decide; None if it must be read."""
    named, species = record.get("split"), record.get("species")
    if named is not None:
        return str(named)
    if isinstance(species, list) and all(isinstance(name, str) for name in species):
        return split_of("-".join(sorted(set(species))))
    return None


@dataclass(frozen=True)
class DatasetLimits:
    """Which crystals are taken; the defaults are the seed paper's.

    Attributes
    ----------
    max_elements, max_sites
    band_gap
        (float, float) or None. eV; a crystal whose gap is not known is left out if limits are
        given. So with the others.
    max_energy_above_hull
        eV/atom
    orderings, crystal_systems
        Of ORDERINGS and CRYSTAL_SYSTEMS; empty takes all.
    """

    max_elements: int = 3
    max_sites: int = 16
    band_gap: tuple[float, float] | None = None
    max_energy_above_hull: float | None = None
    orderings: tuple[str, ...] = ()
    crystal_systems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that no crystal has."""
        for name, given, options in (
            ("magnetic ordering", self.orderings, ORDERINGS),
            ("crystal system", self.crystal_systems, CRYSTAL_SYSTEMS),
        ):
            if unknown := sorted(set(given) - set(options)):
                raise InputError(f"Unknown {name} {unknown[0]!r}; use {', '.join(options)}.")


class RejectedError(Exception):
    """A crystal that is left out; the message is the class it is counted under."""


def build_dataset(
    source: Path | Iterable[Record],
    limits: DatasetLimits = DatasetLimits(),
    *,
    resplit: bool = False,
    with_types: bool = True,
    setting: Setting = "reduced",
    progress: Callable[[int], None] | None = None,
) -> tuple[CrystalArrays, Counter[str]]:
    """Read crystals and write them in canonical form.

    Parameters
    ----------
    source
        JSON lines (.jsonl, .jsonl.gz), a folder of CIFs, or records as `records` describes them.
    limits
        Other crystals are left out.
    resplit
        Ignore the splits that records name; the chemical system decides.
    with_types
        Name the structure types: what training needs, and most of the time that this takes.
    setting
        "reduced" or "standard". Of the cells; "standard" ones have their symmetry exactly, see
        `standard`.
    progress
        Called with the number of crystals read so far.

    Returns
    -------
    arrays
    rejected
        Crystals left out, by reason.

    Raises
    ------
    InputError
        If the source is missing, empty or holds nothing usable.
    """
    chunks: list[dict[str, NDArray[Any]]] = []
    rows: list[dict[str, Any]] = []
    rejected: Counter[str] = Counter()
    records = read_records(source) if isinstance(source, Path) else source
    for count, record in enumerate(records, start=1):
        try:
            rows.append(_row(record, limits, setting, resplit=resplit, with_types=with_types))
        except RejectedError as reason:
            rejected[str(reason)] += 1
        if len(rows) == CHUNK:
            chunks.append(_columns(rows))
            rows = []
        if progress is not None and count % 500 == 0:
            progress(count)
    if rows:
        chunks.append(_columns(rows))
    if not chunks:
        why = ", ".join(f"{n} × {reason}" for reason, n in rejected.most_common()) or "it is empty"
        name = source if isinstance(source, Path) else "The source"
        raise InputError(f"{name} holds no crystal to learn from ({why}).")
    columns = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in DTYPES}
    in_train = columns["split"] == SPLITS.index("train")
    columns["structure_type"] = number_types(columns["structure_type"], in_train)
    return CrystalArrays(**columns), rejected


def _columns(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return rows as columns: a tenth of the memory."""
    return {
        name: np.array([row[name] for row in rows], dtype=dtype) for name, dtype in DTYPES.items()
    }


def _row(
    record: Record, limits: DatasetLimits, setting: Setting, *, resplit: bool, with_types: bool
) -> dict[str, Any]:
    """Return one crystal in columns; raises RejectedError with the reason if it is left out."""
    if record.get("structure") is not None:
        record = {**record, **reduced_cell(record["structure"])}
    gap, hull = _float(record.get("band_gap")), _float(_energy_above_hull(record))
    ordering = record.get("magnetic_ordering")
    _check_properties(gap, hull, ordering, limits)
    try:
        lattice = np.asarray(record["lattice"], dtype=float).reshape(3, 3)
        numbers = np.array([atomic_number(s) for s in record["species"]], dtype=np.int64)
        frac = np.asarray(record["frac_coords"], dtype=float).reshape(len(numbers), 3)
    except (KeyError, TypeError, ValueError):
        raise RejectedError("malformed") from None
    n = len(numbers)
    _check(lattice, numbers, frac, limits)
    elements = canonical_elements(record["species"])
    in_standard = setting == "standard"
    standard = standard_cell(lattice, numbers, frac) if in_standard or with_types else None
    cell: CanonicalCell | StandardCell
    cell = (
        canonical_cell(lattice, numbers, frac) if standard is None or not in_standard else standard
    )
    spacegroup = int(record.get("spacegroup") or _spacegroup(lattice, numbers, frac))
    key = crystal_key(record["species"], spacegroup)
    if standard is not None:  # what its structure type has
        spacegroup = standard.space_group
    padded_numbers = np.zeros(limits.max_sites, dtype=np.uint8)
    padded_numbers[:n] = cell.numbers
    padded_frac = np.zeros((limits.max_sites, 3), dtype=np.float32)
    padded_frac[:n] = cell.frac_coords
    system = crystal_system(spacegroup)
    if limits.crystal_systems and CRYSTAL_SYSTEMS[system] not in limits.crystal_systems:
        raise RejectedError("other crystal system")
    chemsys = "-".join(sorted(elements))
    named = None if resplit else record.get("split")
    split = named or split_of(chemsys)
    if split not in SPLITS:
        raise InputError(f"Crystal {record.get('id')}: split {split!r} must be one of {SPLITS}.")
    return {
        "numbers": padded_numbers,
        "frac_coords": padded_frac,
        "lengths": cell.lengths,
        "angles": cell.angles,
        "band_gap": gap,
        "energy_above_hull": hull,
        "ordering": ORDERINGS.index(ordering) if ordering in ORDERINGS else -1,
        "space_group": spacegroup,
        "structure_type": standard.structure_type if standard is not None else 0,
        "split": SPLITS.index(split),
        "key": key,
    }


def _energy_above_hull(record: Record) -> object:
    published = record.get("energy_above_hull")
    return record.get("energy_above_hull_legacy_derived") if published is None else published


def _check_properties(gap: float, hull: float, ordering: object, limits: DatasetLimits) -> None:
    """Raise RejectedError if a property is outside the limits, or not known where it must be."""
    if limits.band_gap is not None:
        low, high = limits.band_gap
        if not low <= gap <= high:
            raise RejectedError("band gap unknown" if math.isnan(gap) else "other band gap")
    if limits.max_energy_above_hull is not None and not hull <= limits.max_energy_above_hull:
        raise RejectedError(
            "energy above hull unknown" if math.isnan(hull) else "too far above the hull"
        )
    if limits.orderings and ordering not in limits.orderings:
        known = ordering in ORDERINGS
        raise RejectedError("other magnetic ordering" if known else "magnetic ordering unknown")


def _check(
    lattice: NDArray[np.float64],
    numbers: NDArray[np.int64],
    frac: NDArray[np.float64],
    limits: DatasetLimits,
) -> None:
    n = len(numbers)
    if not 1 <= n <= limits.max_sites:
        raise RejectedError(f"more than {limits.max_sites} sites" if n else "no sites")
    if len(set(numbers.tolist())) > limits.max_elements:
        raise RejectedError(f"more than {limits.max_elements} elements")
    if numbers.max() > MAX_Z:
        raise RejectedError("element beyond Lr")
    if not (np.isfinite(lattice).all() and np.isfinite(frac).all()):
        raise RejectedError("NaN")
    volume = abs(float(np.linalg.det(lattice)))
    if volume / n >= MAX_VOLUME_PER_ATOM and _is_x2yz(numbers):
        raise RejectedError(NEVER_RELAXED)
    if not 1.0 < volume / n < MAX_VOLUME_PER_ATOM:
        raise RejectedError("volume per atom")


def _is_x2yz(numbers: NDArray[np.int64]) -> bool:
    counts = np.unique(numbers, return_counts=True)[1]
    return sorted((counts // np.gcd.reduce(counts)).tolist()) == [1, 1, 2]


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def crystal_key(species: Sequence[str], spacegroup: int) -> int:
    """Return what crystals are counted apart by: a signed 64-bit hash of their primitive cells.

    No verdict on novelty rests on it: see `training_crystals`.
    """
    from pymatgen.core import Composition

    text = f"{Composition(Counter(species)).reduced_formula}|{spacegroup}|{len(species)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def reduced_cell(structure: Any) -> dict[str, Any]:
    """Return lattice, species and frac_coords of the primitive Niggli cell.

    Parameters
    ----------
    structure
        The dictionary is pymatgen's.

    Raises
    ------
    RejectedError
        If it is no crystal, or not an ordered one.
    """
    try:
        whole = plain_structure(structure) if isinstance(structure, dict) else structure
        if not whole.is_ordered:
            raise RejectedError("partial occupancies")
        if not np.isfinite(whole.lattice.matrix).all():
            raise RejectedError("NaN")
        cell = whole.get_primitive_structure(tolerance=0.1).get_reduced_structure("niggli")
        species = [site.specie.symbol for site in cell]
    except (KeyError, TypeError, ValueError, AttributeError, np.linalg.LinAlgError):
        raise RejectedError("malformed") from None
    return {"lattice": cell.lattice.matrix, "species": species, "frac_coords": cell.frac_coords}


def _spacegroup(
    lattice: NDArray[np.float64], numbers: NDArray[np.int64], frac: NDArray[np.float64]
) -> int:
    import spglib

    found = spglib.get_symmetry_dataset((lattice, frac, numbers), symprec=0.1)
    return int(found.number) if found is not None else 1


def write_dataset(
    path: Path, arrays: CrystalArrays, provenance: Mapping[str, Any] | None = None
) -> str:
    """Write the columns to one compressed .npz file; return its sha256 over the content.

    Parameters
    ----------
    provenance
        Source, limits and what was left out, as plain JSON values; kept in the file, not hashed.
    """
    content = {f.name: getattr(arrays, f.name) for f in fields(arrays)}
    told = np.array(json.dumps(dict(provenance or {})))
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file, format_version=np.array(FORMAT_VERSION), provenance=told, **content
        )
    partial.replace(path)
    return content_hash(arrays)


def read_provenance(path: Path) -> dict[str, Any]:
    """Return where a dataset came from; empty if its file does not say."""
    with np.load(path, allow_pickle=False) as file:
        told = json.loads(str(file["provenance"])) if "provenance" in file else {}
    return dict(told)


def check_splits(arrays: CrystalArrays) -> None:
    """Refuse a dataset that cannot be learned from, or whose measures would be worth nothing.

    Raises
    ------
    InputError
        A chemical system occurs in several splits (a leak), the training split is empty, or it
        has nothing but crystals of one element each.
    """
    leaking = shared_systems(arrays)
    if leaking:
        raise InputError(
            f"{len(leaking)} chemical systems occur in more than one split, e.g. {leaking[0]}: "
            "what is measured on val or test would be memory. Give each system one split, or let "
            "--resplit decide."
        )
    train = arrays.of_split("train")
    if len(train) == 0:
        raise InputError("No crystal is in the train split: there is nothing to learn from.")
    if all(len(set(row[row > 0].tolist())) == 1 for row in train.numbers):
        raise InputError(
            "Every crystal of the train split consists of one element: nothing can be learned of "
            "compounds. Add some, or check the limits."
        )


def shared_systems(arrays: CrystalArrays) -> list[str]:
    """Return the chemical systems that occur in more than one split, by name."""
    splits_of: dict[frozenset[int], set[int]] = {}
    for row, place in zip(arrays.numbers, arrays.split.tolist(), strict=True):
        splits_of.setdefault(frozenset(row[row > 0].tolist()), set()).add(place)
    return sorted(
        "-".join(sorted(symbol(z) for z in system))
        for system, found in splits_of.items()
        if len(found) > 1
    )


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
    sizes = Counter(arrays.n_sites.tolist())
    by_elements = Counter(len(system) for system in systems)
    by_system = Counter(arrays.crystal_system.tolist())
    return {
        "crystals": len(arrays),
        "splits": {name: int((arrays.split == i).sum()) for i, name in enumerate(SPLITS)},
        "chemical_systems": len(set(systems)),
        "shared_between_splits": len(shared_systems(arrays)),
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
