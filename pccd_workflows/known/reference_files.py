"""Competing phases from files: JSON lines, a folder of CIFs, a written set, the shipped sets."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError
from pymatgen.core import Element, Lattice, Structure

from pccd_workflows.core.bounded_files import CHUNK, read_bounded
from pccd_workflows.core.crystal_files import entries as crystal_entries
from pccd_workflows.core.crystal_files import json_lines
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import Unreadable, plain_structure
from pccd_workflows.core.records import SCHEMA_VERSION, EnergyConvention
from pccd_workflows.core.reference_set import ReferenceEntry, ReferenceSet
from pccd_workflows.core.resources import resource
from pccd_workflows.engines.levels import hull_convention
from pccd_workflows.engines.records import Relaxation

SET_SUFFIX = ".json.gz"
ENERGIES = "energies.json"
"""Optional file in a folder of CIFs: total energy of each file's cell, eV, by file name, or by
name#block where a file has several data blocks."""

MAX_SET = 1 << 30
"""Most bytes of a written set and of `energies.json`, unpacked: 100,000 phases have 300 MB."""

MOST_ENERGY = 1e6
"""eV/atom; all electrons of uranium have 7.6e5."""
MOST_FORMATION = 20.0
"""eV/atom; compounds have -5 to 1, crystals under no condition 20."""

Relax = Callable[[Structure], Relaxation]


def load_reference_set(
    path: str | Path,
    chemsys: str,
    level: str,
    convention: EnergyConvention,
    *,
    relax: Relax | None = None,
) -> ReferenceSet:
    """Read the phases of `chemsys` and its subsystems from a file or folder.

    Parameters
    ----------
    path
        JSON lines (``.jsonl``, also gzipped) with ``id``, ``structure`` (a pymatgen dictionary) or
        ``lattice``, ``species`` and ``frac_coords``, and ``energy`` (eV of that cell) or
        ``energy_per_atom``; or a folder of CIFs with an optional ``energies.json``; or a set that
        `write_reference_set` wrote.
    chemsys
        Symbols joined by '-'; phases with other elements are left out.
    level, convention
        What the energies were computed with; a row or set that says otherwise is refused.
    relax
        Computes the energies of CIFs that come without.

    Raises
    ------
    InputError
        One sentence with the file, the line and what is wrong: also an element without a phase, an
        id that occurs twice, an energy that cannot be.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no reference file or folder {path}.")
    if path.name.endswith((".json", SET_SUFFIX)):
        found = _restricted(_checked(read_reference_set(path), path, level, convention), chemsys)
        _check_entries(found.entries, chemsys, path, found.convention)
        return found
    rows = _cif_entries(path, chemsys, relax) if path.is_dir() else _line_entries(path, level)
    wanted = set(chemsys.split("-"))
    entries = [entry for entry in rows if _symbols(entry) <= wanted]
    if not entries:
        raise InputError(f"{path} has no phase that consists of {chemsys} only.")
    _check_entries(entries, chemsys, path, convention)
    return ReferenceSet(
        source="file",
        chemsys="-".join(sorted(wanted)),
        level=level,
        convention=convention,
        source_version=f"sha256 {_digest(path)}",
        settings={"path": path.name},
        entries=sorted(entries, key=lambda entry: entry.entry_id),
    )


def _symbols(entry: ReferenceEntry) -> set[str]:
    return {element.symbol for element in entry.composition.elements}


def check_reference_file(
    path: str | Path, chemsys: str, level: str, convention: EnergyConvention, *, computes: bool
) -> None:
    """See that `load_reference_set` will be able to read a file; nothing is relaxed.

    computes: whether the level computes the energies of CIFs that come without.
    """

    def not_yet(structure: Structure) -> Relaxation:
        return Relaxation(
            level=level, key="", verdict="converged", structure=structure, energy=0.0, n_steps=0
        )

    load_reference_set(path, chemsys, level, convention, relax=not_yet if computes else None)


def _check_entries(
    entries: Sequence[ReferenceEntry], chemsys: str, path: Path, convention: EnergyConvention
) -> None:
    """Refuse phases that no hull can be made of, or that would make a wrong one."""
    seen: set[str] = set()
    for entry in entries:
        name = f"{path}: phase {entry.entry_id!r}"
        if entry.entry_id in seen:
            raise InputError(f"{path}: the id {entry.entry_id!r} occurs twice.")
        seen.add(entry.entry_id)
        if entry.structure is not None and not entry.structure.is_ordered:
            raise InputError(f"{name} has partially occupied sites; give an ordered model.")
        if entry.structure is None and convention == "uncorrected":
            raise InputError(f"{name} needs a structure: its energy is to be corrected.")
        if not abs(entry.energy_per_atom) <= MOST_ENERGY:  # NaN is not
            raise InputError(f"{name} has an impossible energy, {entry.energy_per_atom:g} eV/atom.")
    _check_elements(entries, chemsys, path)


def _check_elements(entries: Sequence[ReferenceEntry], chemsys: str, path: Path) -> None:
    """Refuse a file without a phase of each element, or with energies of another zero."""
    elements: dict[str, float] = {}
    for entry in entries:
        if len(symbols := _symbols(entry)) == 1:
            (symbol,) = symbols
            elements[symbol] = min(elements.get(symbol, np.inf), entry.energy_per_atom)
    if lacking := sorted(set(chemsys.split("-")) - set(elements)):
        raise InputError(
            f"{path} has no phase of the element {', '.join(lacking)}, so that there is no hull of "
            f"{chemsys}."
        )
    for entry in entries:
        if "relaxation" not in entry.data:
            of_elements = sum(elements[e.symbol] * n for e, n in entry.composition.items())
            formation = (entry.energy - of_elements) / entry.composition.num_atoms
            if abs(formation) > MOST_FORMATION:
                raise InputError(
                    f"{path}: phase {entry.entry_id!r} has a formation energy of {formation:.3g} "
                    "eV/atom: its energy, or that of an element, is wrong by a unit or a cell."
                )


def _digest(path: Path) -> str:
    """Return the first 16 hex digits of the sha256 over the file, or over a folder's files."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _line_entries(path: Path, level: str) -> Iterator[ReferenceEntry]:
    """Yield an entry per non-empty line of a JSON lines file."""
    empty = True
    for number, row in json_lines(path):
        empty = False
        yield _line_entry(row, f"{path}, line {number}", level)
    if empty:
        raise InputError(f"Reference file {path} is empty.")


def _line_entry(row: Any, where: str, level: str) -> ReferenceEntry:
    if not isinstance(row, dict) or "id" not in row:
        raise InputError(f"{where}: a phase needs an 'id'.")
    if row.get("level", level) != level:
        raise InputError(f"{where}: computed at level {row['level']!r}, not {level!r}.")
    structure = _row_structure(row, where)
    known = all(
        getattr(element, "symbol", "") in Element.__members__ for element in structure.elements
    )
    if not (known and structure.is_ordered):
        raise InputError(f"{where}: not a crystal of whole atoms of known elements.")
    energy = _row_energy(row, len(structure), where)
    return _entry(str(row["id"]), structure, energy, {})


def _row_structure(row: dict[str, Any], where: str) -> Structure:
    try:
        if "structure" in row:
            return plain_structure(row["structure"])
        return Structure(Lattice(row["lattice"]), row["species"], row["frac_coords"])
    except KeyError as error:
        raise InputError(
            f"{where}: {error} is missing; give 'structure' or lattice, species and frac_coords."
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: not a crystal ({str(error).splitlines()[0]}).") from None


def _row_energy(row: dict[str, Any], n_sites: int, where: str) -> float:
    total, per_atom = row.get("energy"), row.get("energy_per_atom")
    value = total if total is not None else per_atom
    if value is None:
        raise InputError(f"{where}: 'energy' (eV per cell) or 'energy_per_atom' is missing.")
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{where}: the energy {value!r} is not a number.")
    return float(value if total is not None else value * n_sites)


def _entry(
    entry_id: str, structure: Structure, energy: float, data: dict[str, Any]
) -> ReferenceEntry:
    formula = structure.composition.formula.replace(" ", "")
    return ReferenceEntry(
        entry_id=entry_id, formula=formula, energy=energy, structure=structure, data=data
    )


def _cif_entries(folder: Path, chemsys: str, relax: Relax | None) -> Iterator[ReferenceEntry]:
    """Yield an entry per CIF of `chemsys`, with the energy given for it or computed."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".cif")
    if not paths:
        raise InputError(f"The folder {folder} has no CIF file.")
    energies = _given_energies(folder)
    wanted = set(chemsys.split("-"))
    for path in paths:
        for name, structure in _cif_structures(path):
            if not {element.symbol for element in structure.elements} <= wanted:
                continue
            given = f"{path.name}{name.removeprefix(path.stem)}"
            if given in energies:
                yield _entry(name, structure, energies[given], {"file": path.name})
            elif relax is not None:
                yield _relaxed_entry(name, path, structure, relax)
            else:
                raise InputError(
                    f"{path.parent / given} has no energy in {ENERGIES}, and this level cannot "
                    "compute one here."
                )


def _relaxed_entry(name: str, path: Path, structure: Structure, relax: Relax) -> ReferenceEntry:
    relaxation = relax(structure)
    if not relaxation.usable or relaxation.structure is None or relaxation.energy is None:
        raise InputError(f"{path} cannot be relaxed at {relaxation.level}: {relaxation.reason}")
    data = {"file": path.name, "relaxation": relaxation.key}
    return _entry(name, relaxation.structure, relaxation.energy, data)


def _cif_structures(path: Path) -> Iterator[tuple[str, Structure]]:
    """Yield name and crystal of each data block: the file's name, #block where there are several.

    Raises
    ------
    InputError
        A block holds no ordered crystal.
    """
    for entry in crystal_entries(path):
        found = entry.read()
        if isinstance(found, Unreadable) and found.error_class == "partial_occupancy":
            raise InputError(f"{path} has partially occupied sites; give an ordered model.")
        if isinstance(found, Unreadable):
            raise InputError(f"{path} is not a crystal that can be read ({found.reason}).")
        yield entry.name, found


def _given_energies(folder: Path) -> dict[str, float]:
    path = folder / ENERGIES
    if not path.exists():
        return {}
    try:
        energies = json.loads(read_bounded(path, MAX_SET))
        return {str(name): float(value) for name, value in energies.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} must hold {{'file.cif': energy in eV, ...}}.") from None


def write_reference_set(path: str | Path, reference_set: ReferenceSet) -> None:
    """Write a set as gzipped JSON; the same set gives the same bytes."""
    document = reference_set.model_dump(mode="json")
    text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    Path(path).write_bytes(gzip.compress(text, mtime=0))


def read_reference_set(path: str | Path) -> ReferenceSet:
    """Read a set that `write_reference_set` wrote.

    Raises
    ------
    InputError
        The file cannot be read, is no reference set or was written by a newer version.
    """
    path = Path(path)
    try:
        document = orjson.loads(read_bounded(path, MAX_SET))
        stored = document.get("schema_version", SCHEMA_VERSION)
        reference_set = ReferenceSet.model_validate(document)
    except (OSError, EOFError, orjson.JSONDecodeError, AttributeError):
        raise InputError(f"{path} is not a readable reference set.") from None
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(f"{path} is not a reference set: see its field {field!r}.") from None
    if stored > SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer version (schema {stored}).")
    return reference_set


def _checked(
    reference_set: ReferenceSet, path: Path, level: str, convention: EnergyConvention
) -> ReferenceSet:
    # on a hull, MP's own energies and uncorrected ones of its level are the same
    same = hull_convention(reference_set.convention) == hull_convention(convention)
    if reference_set.level != level or not same:
        raise InputError(
            f"{path} holds {reference_set.convention} energies of level {reference_set.level!r}, "
            f"not {convention} energies of {level!r}."
        )
    return reference_set


def _restricted(reference_set: ReferenceSet, chemsys: str) -> ReferenceSet:
    """Return the part of a set that lies within `chemsys`; InputError if it lacks an element."""
    wanted = set(chemsys.split("-"))
    missing = sorted(wanted - set(reference_set.chemsys.split("-")))
    if missing:
        raise InputError(
            f"The reference set of {reference_set.chemsys} lacks {', '.join(missing)}."
        )
    entries = [entry for entry in reference_set.entries if _symbols(entry) <= wanted]
    changed = {"entries": entries, "chemsys": "-".join(sorted(wanted))}
    return ReferenceSet.model_validate({**dict(reference_set), **changed})


def _shipped() -> Path:
    return resource("flows", "references")


def shipped_paths() -> list[Path]:
    """Return the files of the sets that come with the project."""
    return sorted(_shipped().glob(f"*{SET_SUFFIX}"))


def shipped_path(chemsys: str, level: str) -> Path:
    """Return where the shipped set of a chemical system is, or would be."""
    name = "-".join(sorted(chemsys.split("-"))).lower()
    return _shipped() / f"{name}.{level.replace('/', '.')}{SET_SUFFIX}"


def shipped_reference_set(chemsys: str, level: str) -> ReferenceSet | None:
    """Return the part of a shipped set that covers `chemsys` at `level`, or None."""
    wanted = {symbol.lower() for symbol in chemsys.split("-")}
    for path in shipped_paths():
        system, _, rest = path.name.partition(".")
        same_level = rest == f"{level.replace('/', '.')}{SET_SUFFIX}"
        if same_level and wanted <= set(system.split("-")):
            return _restricted(read_reference_set(path), chemsys)
    return None
