"""Candidates as files that other programs read: CIF, POSCAR, extXYZ, CSV, JSON."""

import csv
import io
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from pymatgen.core import Structure

from pccd_workflows.analysis.symmetry import symmetrised
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.collect import SYMPREC
from pccd_workflows.columns import EXPORTED, values
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import make_folder
from pccd_workflows.core.unit_cells import unit_cell
from pccd_workflows.engines.records import Relaxation

Format = Literal["cif", "cif-p1", "poscar", "extxyz", "csv", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
SUFFIXES = {
    "cif": ".cif",
    "cif-p1": ".cif",
    "poscar": ".vasp",
    "extxyz": ".extxyz",
    "csv": ".csv",
    "json": ".json",
}
ONE_FILE_EACH = {"cif", "cif-p1", "poscar"}
"""Formats with one crystal per file; the others hold all crystals in one."""

AS_STORED = {"csv", "json"}
"""Formats that need no crystals but what is stored of them (see `core.records.AS_STORED`)."""


@dataclass
class Export:
    """What was written, and which crystals had no relaxed structure to write."""

    files: list[Path] = field(default_factory=list)
    n_written: int = 0
    left_out: list[str] = field(default_factory=list)


def export_candidates(
    candidates: Iterable[CandidateDoc], out: Path, form: str, *, force: bool = False
) -> Export:
    """Write candidates in one format, all of them or none.

    out: a folder, or a file if its name ends as the format's files do. Everything is written
    beside it first and moved into place at the end.
    force: replace files that are there already.

    Raises
    ------
    InputError
        Unknown format, a target exists, `out` cannot be written, or one file is asked for and
        several crystals would go into it.
    """
    if form not in FORMATS:
        raise InputError(f"Unknown format {form!r}; use one of {', '.join(FORMATS)}.")
    folder, name = _target(out, form)
    result, was_there = Export(), folder.exists()
    try:
        _make_folder(folder)
        scratch = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from None
    try:
        files = _write_all(candidates, scratch, form, name, result)
        if result.n_written == 0:
            lacking = " has a relaxed structure" if result.left_out else " was found"
            raise InputError(f"No candidate of that kind{lacking}; nothing was written.")
        result.files = _move_into_place(files, folder, force=force)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not (result.files or was_there):
            shutil.rmtree(folder, ignore_errors=True)
    return result


def best_relaxation(doc: CandidateDoc) -> Relaxation | None:
    """Return the relaxation of the highest rung that left a structure."""
    return next((r for r in reversed(doc.relaxations) if r.structure is not None), None)


def properties(doc: CandidateDoc) -> dict[str, Any]:
    """Return the scalar facts of a candidate: a CSV row, the comments of a structure file."""
    relaxation = best_relaxation(doc)
    structure = relaxation.structure if relaxation else doc.structure
    cell = unit_cell(structure) if structure else None
    parameters = cell.parameters if cell else (None,) * 6
    return {
        **{name: getattr(doc, name) for name in EXPORTED},
        **values(doc.records),
        **dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), parameters, strict=True)),
        "volume_a3_per_atom": cell.volume / len(cell.kinds) if cell else None,
        "density_g_per_cm3": cell.density if cell else None,
    }


def file_stem(doc: CandidateDoc, structure: Structure) -> str:
    """Return a name that is the same in every export: candidate id and formula."""
    # "Mg1 (Fe1 O2)2" would not do as a file name: plain amounts, no brackets
    parts = structure.composition.reduced_composition.formula.split()
    formula = "".join(re.sub(r"(?<=\D)1$", "", part) for part in parts)
    return f"{doc.candidate_id}_{formula}"


def _target(out: Path, form: str) -> tuple[Path, str | None]:
    """Return the folder to write to and the one file's name; None for a file per crystal."""
    if out.suffix.lower() in _suffixes(form) and not out.is_dir():
        return out.parent, out.name
    return out, None if form in ONE_FILE_EACH else f"candidates{SUFFIXES[form]}"


def _suffixes(form: str) -> set[str]:
    return {SUFFIXES[form]} | {"extxyz": {".xyz"}, "poscar": {".poscar"}}.get(form, set())


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder, or a file name of the format.")
    make_folder(folder)


def _write_all(
    candidates: Iterable[CandidateDoc], scratch: Path, form: str, name: str | None, result: Export
) -> list[Path]:
    """Write every crystal below `scratch`; return the files."""
    if form == "csv":
        return [_write_csv(candidates, scratch / str(name), result)]
    if form == "json":
        return [_write_json(candidates, scratch / str(name), result)]
    writers: dict[str, Callable[[CandidateDoc, Structure], str]] = {
        "cif": cif_text,
        "cif-p1": partial(cif_text, p1=True),
        "poscar": poscar_text,
        "extxyz": extxyz_text,
    }
    files: list[Path] = []
    for doc in candidates:
        relaxation = best_relaxation(doc)
        if relaxation is None or relaxation.structure is None:
            result.left_out.append(doc.candidate_id)
            continue
        if name is not None and form in ONE_FILE_EACH and files:
            raise InputError(f"{name} can hold one crystal only; give a folder, or narrow down.")
        stem = file_stem(doc, relaxation.structure)
        path = scratch / (name or f"{stem}{SUFFIXES[form]}")
        with path.open("a", encoding="utf-8") as file:
            file.write(writers[form](doc, relaxation.structure))
        result.n_written += 1
        if path not in files:
            files.append(path)
    return files


def cif_text(doc: CandidateDoc, structure: Structure, *, p1: bool = False) -> str:
    """Return a CIF with the properties as comments.

    It is symmetrised within SYMPREC, which the comments state with the space group and how far
    sites moved; the coordinates exactly as relaxed where `p1` asks for that, or where symmetrising
    does not give the same crystal.
    """
    from pymatgen.io.cif import CifWriter

    found = None if p1 else symmetrised(structure, SYMPREC)
    told = dict(_known(doc))
    if found is None:
        told["symmetry"] = "P1: coordinates exactly as relaxed"
        text = str(CifWriter(structure, significant_figures=8))
    else:
        told["symmetry"] = (
            f"{found.symbol} (No. {found.number}), spglib with a tolerance of {SYMPREC:g} Å; "
            f"sites moved by at most {found.moved:.4f} Å"
        )
        text = found.cif
    comments = [f"# {key}: {_plain(value)}" for key, value in told.items()]
    return "\n".join([*comments, text]) + "\n"


def poscar_text(doc: CandidateDoc, structure: Structure) -> str:
    """Return a POSCAR with the sites grouped by element and a title line that names the crystal."""
    from pymatgen.io.vasp.inputs import Poscar

    known = _known(doc)
    keys = ("candidate_id", "spacegroup", "energy_above_hull_ev_per_atom", "hull_level", "novel")
    title = " ".join(f"{key}={_plain(known[key])}" for key in keys if key in known)
    text: str = Poscar(structure.get_sorted_structure(), comment=title).get_str(
        significant_figures=10
    )
    return text


def extxyz_text(doc: CandidateDoc, structure: Structure) -> str:
    """Return one extXYZ frame with the properties in its comment line."""
    from ase.io.extxyz import write_extxyz
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = AseAtomsAdaptor.get_atoms(structure)
    info = {
        k: v if isinstance(v, bool | int | float) else _plain(v) for k, v in _known(doc).items()
    }
    atoms.info = info
    text = io.StringIO()
    write_extxyz(text, [atoms], columns=["symbols", "positions"])
    return text.getvalue()


def _write_csv(candidates: Iterable[CandidateDoc], path: Path, result: Export) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        result.n_written += write_csv(candidates, file)
    return path


def write_csv(candidates: Iterable[CandidateDoc], file: TextIO) -> int:
    """Write a table of candidates, a row of `properties` each; return their number."""
    writer: csv.DictWriter[str] | None = None
    number = 0
    for doc in candidates:
        row = properties(doc)
        if writer is None:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
        writer.writerow({key: _cell(value) for key, value in row.items()})
        number += 1
    return number


def _write_json(candidates: Iterable[CandidateDoc], path: Path, result: Export) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for doc in candidates:
            file.write(",\n" if result.n_written else "\n")
            file.write(doc.model_dump_json())
            result.n_written += 1
        file.write("\n]\n")
    return path


def _move_into_place(files: list[Path], folder: Path, *, force: bool) -> list[Path]:
    targets = [folder / file.name for file in files]
    there = [target for target in targets if target.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}{more} exists already; --force replaces it.")
    for file, target in zip(files, targets, strict=True):
        file.replace(target)
    return targets


def _known(doc: CandidateDoc) -> dict[str, Any]:
    return {key: value for key, value in properties(doc).items() if value is not None}


def _plain(value: object) -> str:
    """Return a value as one line of printable text: what a comment line can hold."""
    text = f"{value:.8g}" if isinstance(value, float) else str(value)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
