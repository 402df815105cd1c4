"""Crystals of files, one at a time: CIF, JSON, extended XYZ, POSCAR, CSV, folders and archives.

What lies in a file was written by others: nothing is unpickled, no class that a document names is
made, one entry is read at a time and none without bound.
"""

import csv
import hashlib
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO

from pymatgen.core import Structure

from pccd_workflows.core.bounded_files import COMPRESSIONS, Allowance, lines, metered, unpacked
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import (
    CrystalError,
    Document,
    Unreadable,
    attempt,
    from_cif,
    from_object,
    from_poscar,
    from_text,
    from_xyz,
)

CHUNK = 1 << 20
"""Characters of a JSON file read at a time."""
MAX_TEXT = 1 << 26
"""Most characters of a CIF file, of a POSCAR and of one JSON object: some 10^5 atoms."""
MAX_ATOMS = 100_000
"""Most atoms of a frame of an extended XYZ file."""
ID_FIELDS = ("mat_id", "material_id", "entry_id", "candidate_id", "id", "_id", "uid")
"""Where a crystal's id stands: Alexandria, Materials Project, pymatgen, this project, others."""
CRYSTAL_COLUMNS = ("cif", "structure", "cif.conv")
"""Columns of a CSV file with a CIF or a pymatgen dictionary (CDVAE's data, CrystalFormer)."""
NOT_OPENED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy")
"""Pickles, or files that may hold some: reading one can run any code."""
SUPERSEDED = {
    "generated_crystals_cif.zip": "generated_crystals.extxyz",
    "generated_trajectories.zip": "generated_crystals.extxyz",
}
"""MatterGen writes the same crystals twice, and each of them at every step."""
_WRAPPED = re.compile(r'\s*(\{\s*"entries"\s*:\s*)?\[')
_SEPARATORS = re.compile(r"[\s,]*")
_DAMAGE = (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


@dataclass(frozen=True)
class Entry:
    """One crystal of a file, not read yet.

    Attributes
    ----------
    name
        Id of the crystal, or what stands for it in the file.
    file
        Where it lies, seen from the folder that was named.
    content
        Makes the crystal; raises what `attempt` understands.
    """

    name: str
    file: str
    content: Callable[[], Structure]

    def read(self) -> Structure | Unreadable:
        """Return the crystal, or why there is none."""
        return attempt(self.content)


Row = tuple[str, Structure | Unreadable]
"""Id and crystal of one entry."""
Reader = Callable[[TextIO, str, str], Iterator[Entry]]
"""Takes a text, the name of its file without folder, and where it lies."""


def read_crystals(path: Path) -> Iterator[Row]:
    """Yield ids and crystals of a file or folder; see `entries`."""
    for entry in entries(path):
        yield entry.name, entry.read()


def entries(path: Path, *, tolerant: bool = False) -> Iterator[Entry]:
    """Yield the entries of a file, an archive or a folder of such, each to be read when needed.

    CIF (each data block), JSON (one object per line, a list, ``{"entries": [...]}`` as Alexandria
    has it, OPTIMADE responses), extended XYZ, POSCAR, CSV with a column ``cif`` or ``structure``;
    compressed (.gz, .bz2, .xz), in a .zip or a .tar.
    A JSON object is a pymatgen Structure or holds one under ``structure``, is an OPTIMADE
    resource, or has ``lattice``, ``species`` and ``frac_coords``, or ``cif``, or CDVAE's
    ``lengths``, ``angles``, ``atom_types`` and ``frac_coords``.

    Parameters
    ----------
    path
        File or folder.
    tolerant
        A damaged file becomes an entry that cannot be read, where it would be an error.

    Raises
    ------
    InputError
        There is no such file, it is of no known kind, it holds nothing, or it is cut off.
    """
    if path.is_dir():
        for file in _files(path):
            yield from _of_file(file, file.relative_to(path).as_posix(), tolerant=tolerant)
        return
    if not path.is_file():
        raise InputError(f"There is no file or folder {path}.")
    if not _is_known(path.name):
        raise InputError(f"{path.name} is of no known kind: {_advice([path])}")
    yield from _of_file(path, path.name, tolerant=tolerant)


def content_sha256(path: Path) -> str:
    """Return the sha256 over the files that `entries` reads: their names and their bytes.

    Raises
    ------
    InputError
        There is no such file or folder, or it holds nothing to read.
    """
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    digest = hashlib.sha256()
    for file in _files(path) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        with file.open("rb") as stream:
            digest.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold crystals, by name; InputError if there are none."""
    found = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = {file.relative_to(folder).as_posix() for file in found}

    def counts(file: Path) -> bool:
        place = file.relative_to(folder)
        other = SUPERSEDED.get(file.name)
        if other is not None and (place.parent / other).as_posix() in names:
            return False
        return _is_known(file.name) and not any(part.startswith(".") for part in place.parts)

    files = [file for file in found if counts(file)]
    if not files:
        raise InputError(f"Folder {folder} holds no .cif, .zip or .json files. {_advice(found)}")
    return files


def _advice(found: list[Path]) -> str:
    advice = (
        "give .cif, .json, .jsonl, .extxyz, .csv, POSCAR (also .gz, .bz2, .xz, in a .zip or .tar), "
        "or a folder of them."
    )
    if any(file.suffix in NOT_OPENED for file in found):
        advice += " Pickles (.pt, .pkl) are not opened: they can run any code; see its docs."
    return advice


def _plain_name(name: str) -> str:
    """Return a name without the suffix of its compression."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}" in COMPRESSIONS else name


def _is_archive(name: str) -> bool:
    return name.endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"))


def _is_known(name: str) -> bool:
    return _is_archive(name.lower()) or _reader(name) is not None


def _reader(name: str) -> Reader | None:
    """Return what reads a text, by the name of its file."""
    name = _plain_name(name)
    low = name.lower()
    if name.startswith(("POSCAR", "CONTCAR")) or low.endswith((".vasp", ".poscar")):
        return _poscar
    for suffixes, reader in _READERS:
        if low.endswith(suffixes):
            return reader
    return None


def _of_file(path: Path, where: str, *, tolerant: bool) -> Iterator[Entry]:
    try:
        allowance = Allowance(path.stat().st_size, str(path))
        if _is_archive(path.name.lower()):
            yield from _of_archive(path, where, allowance)
        else:
            with path.open("rb") as raw:
                yield from _of_text(raw, path.name, where, allowance)
    except InputError as error:
        if not tolerant:
            raise
        yield _damaged(where, where, str(error))
    except _DAMAGE:
        if not tolerant:
            raise InputError(f"{path} is damaged or cut off.") from None
        yield _damaged(where, where, f"{where} is damaged or cut off")


def _of_text(raw: IO[bytes], name: str, where: str, allowance: Allowance) -> Iterator[Entry]:
    """Yield the entries of one file, of a folder or of an archive."""
    reader = _reader(name)
    if reader is None:
        return
    suffix = name[len(_plain_name(name)) :]
    stream = metered(COMPRESSIONS[suffix](raw), allowance) if suffix else raw
    # JSON has one encoding; the comments of CIFs have any
    errors = "strict" if reader is _json else "replace"
    with io.TextIOWrapper(stream, encoding="utf-8", errors=errors) as text:
        yield from reader(text, _plain_name(name), where)


def _of_archive(path: Path, where: str, allowance: Allowance) -> Iterator[Entry]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(filter(_is_member, archive.namelist())):
                with archive.open(name) as packed:
                    text = metered(packed, allowance)
                    yield from _of_text(text, Path(name).name, f"{where}/{name}", allowance)
        return
    with path.open("rb") as raw, _tar_of(raw, path, allowance) as tar:
        for member in tar:
            if member.isfile() and _is_member(member.name):
                content = tar.extractfile(member)
                if content is not None:
                    name = Path(member.name).name
                    yield from _of_text(content, name, f"{where}/{member.name}", allowance)


def _tar_of(raw: IO[bytes], path: Path, allowance: Allowance) -> tarfile.TarFile:
    """Return an archive, unpacked within an allowance."""
    suffix = ".gz" if path.suffix.lower() == ".tgz" else path.suffix.lower()
    packed = suffix in COMPRESSIONS
    stream = metered(COMPRESSIONS[suffix](raw), allowance) if packed else raw
    return tarfile.open(fileobj=stream, mode="r:")


def _is_member(name: str) -> bool:
    """Return whether a member is none of the files that systems hide in archives."""
    parts = (part for part in Path(name).parts if part != "..")
    return not any(part.startswith((".", "__MACOSX")) for part in parts)


def _damaged(name: str, where: str, reason: str, error_class: str = "unreadable") -> Entry:
    def content() -> Structure:
        raise CrystalError(error_class, reason)

    return Entry(name, where, content)


# --- formats -------------------------------------------------------------------------------------


def _whole(text: TextIO, where: str) -> str:
    content = text.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise CrystalError("too_large", f"{where} has more than {MAX_TEXT >> 20} MB")
    return content


def _cif(text: TextIO, name: str, where: str) -> Iterator[Entry]:
    """Yield a crystal for each data block with a cell."""
    stem = (Path(where).parent / name).as_posix().rpartition(".")[0]
    if _in_archive(where):
        stem = Path(name).stem
    try:
        blocks = cif_blocks(_whole(text, where))
    except CrystalError as error:
        yield _damaged(stem, where, str(error), error.error_class)
        return
    except _DAMAGE:
        yield _damaged(stem, where, "its file is damaged or cut off")
        return
    for header, block in blocks:
        label = stem if len(blocks) == 1 else f"{stem}#{header}"
        yield Entry(label, where, lambda block=block: from_cif(block))  # type: ignore[misc]


def _in_archive(where: str) -> bool:
    return any(_is_archive(part.lower()) for part in Path(where).parts[:-1])


def cif_blocks(text: str) -> list[tuple[str, str]]:
    """Return header and text of the data blocks of a CIF that hold a cell; all if none does."""
    blocks: list[tuple[str, list[str]]] = []
    in_text = False  # between two lines that begin with a semicolon
    for line in text.splitlines():
        if line.startswith(";"):
            in_text = not in_text
        if not in_text and line.lower().startswith("data_"):
            blocks.append((line[5:].strip(), []))
        if blocks:
            blocks[-1][1].append(line)
    whole = [(header, "\n".join(lines)) for header, lines in blocks] or [("", text)]
    return [block for block in whole if "_cell_length_a" in block[1].lower()] or whole[:1]


def _poscar(text: TextIO, name: str, where: str) -> Iterator[Entry]:
    label = where if not _in_archive(where) else name
    try:
        content = _whole(text, where)
    except CrystalError as error:
        yield _damaged(label, where, str(error), error.error_class)
        return
    yield Entry(label, where, lambda: from_poscar(content))


def _xyz(text: TextIO, name: str, where: str) -> Iterator[Entry]:
    """Yield a crystal for each frame."""
    number = 0
    while line := text.readline(CHUNK):
        if not line.strip():
            continue
        number += 1
        label = f"{name}-{number}"
        if not line.strip().isdigit() or int(line) > MAX_ATOMS:
            reason = f"frame {number} does not begin with a number of atoms up to {MAX_ATOMS}"
            yield _damaged(label, where, reason)
            return
        rest = list(islice(text, int(line) + 1))
        if len(rest) < int(line) + 1:
            yield _damaged(label, where, "its frame is cut off")
            return
        frame = "".join([line, *rest])
        yield Entry(label, where, lambda frame=frame: from_xyz(frame))  # type: ignore[misc]


def _csv(text: TextIO, name: str, where: str) -> Iterator[Entry]:
    csv.field_size_limit(MAX_TEXT)
    rows = csv.DictReader(text)
    column = next((c for c in CRYSTAL_COLUMNS if c in (rows.fieldnames or [])), None)
    if column is None:
        raise InputError(f"{where} has none of the columns {', '.join(CRYSTAL_COLUMNS)}.")
    try:
        for number, row in enumerate(rows, start=1):
            label = identifier(row) or f"{name}-{number}"
            cell = row[column] or ""
            yield Entry(label, where, lambda cell=cell: from_text(cell))  # type: ignore[misc]
    except csv.Error as error:
        raise InputError(f"{where} is no CSV file that can be read: {error}.") from None


def _json(text: TextIO, name: str, where: str) -> Iterator[Entry]:
    count = 0
    for count, document in enumerate(json_objects(text, where), start=1):
        label = identifier(document) or f"{name}-{count}"
        content: Callable[..., Structure] = lambda document=document: from_object(document)  # noqa: E731
        yield Entry(label, where, content)
    if count == 0:
        raise InputError(f"{where} holds no records.")


_READERS: tuple[tuple[tuple[str, ...], Reader], ...] = (
    ((".cif",), _cif),
    ((".json", ".jsonl", ".ndjson"), _json),
    ((".xyz", ".extxyz"), _xyz),
    ((".csv",), _csv),
)


def json_objects(stream: TextIO, where: str) -> Iterator[Document]:
    """Yield the JSON objects of a list or of lines, reading no more than needed.

    Raises
    ------
    InputError
        The text is damaged or cut off, or one object is too large.
    """
    broken = InputError(f"{where} is damaged or cut off: what was read before is kept.")
    decoder = json.JSONDecoder()
    try:
        text = stream.read(CHUNK)
        wrapped = _WRAPPED.match(text)
        position = wrapped.end() if wrapped else 0
        while True:
            position = _SEPARATORS.match(text, position).end()  # type: ignore[union-attr]
            if position == len(text):
                text, position = stream.read(CHUNK), 0
                if not text:
                    break
                continue
            if wrapped and text[position] == "]":
                return
            try:
                value, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError:
                more = stream.read(max(CHUNK, len(text)))
                if not more:
                    raise
                text, position = text[position:] + more, 0
                if len(text) > MAX_TEXT:
                    raise InputError(
                        f"{where} holds a JSON object of more than {MAX_TEXT >> 20} MB."
                    ) from None
                continue
            yield from _members(value)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, *_DAMAGE):
        raise broken from None
    if wrapped:
        raise broken


def json_lines(path: Path, told: Callable[[int], None] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each line of a JSON lines file (also .gz, .bz2, .xz) that has one.

    Parameters
    ----------
    path
        File.
    told
        Called now and then with the bytes of the file that are read.

    Raises
    ------
    InputError
        The file is missing or cannot be read, or a line is not JSON.
    """
    try:
        with path.open("rb") as raw:
            text = io.TextIOWrapper(unpacked(raw, path), encoding="utf-8")
            for number, line in enumerate(lines(text, str(path)), start=1):
                if told is not None and number % 500 == 0:
                    told(raw.tell())
                if line.strip():
                    yield number, _line(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise InputError(f"There is no file or folder {path}.") from None
    except (*_DAMAGE, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise InputError(f"{where}: not valid JSON.") from None


def _members(value: Any) -> Iterator[Document]:
    """Yield a record, or those of a response that holds many."""
    if isinstance(value, dict):
        many = value.get("data") or value.get("entries")
        yield from many if isinstance(many, list) else [value]


def identifier(document: Document) -> str | None:
    """Return the id that a record carries, or None."""
    data = document.get("data")
    for place in (data if isinstance(data, dict) else {}, document):
        for field in ID_FIELDS:
            if place.get(field) not in (None, ""):
                return str(place[field])
    return None
