"""Crystals from files, OPTIMADE providers and MongoDB collections, one at a time."""

import bz2
import gzip
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlencode, urljoin

import requests
from pymatgen.core import DummySpecies, Structure

from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.known.http import Patience, PatientAdapter, mount

if TYPE_CHECKING:
    from pymongo.collection import Collection

Document = dict[str, Any]

CHUNK = 1 << 20
"""Characters read at a time."""
FLAT = 1e-3
"""Å^3; a cell with less has no lattice that could be compared."""
OPTIMADE_PAGE = 100
"""Structures per answer; providers allow between 50 and 1000."""
OPTIMADE_FIELDS = (
    "lattice_vectors,cartesian_site_positions,species_at_sites,species,structure_features,"
    "dimension_types"
)
ID_FIELDS = ("mat_id", "material_id", "entry_id", "id", "_id", "uid")
"""Where a crystal's id stands, in this order: Alexandria, Materials Project, pymatgen, others."""
_WRAPPED = re.compile(r'\s*(\{\s*"entries"\s*:\s*)?\[')
_SEPARATORS = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Unreadable:
    """Why a record is no crystal that could be compared."""

    reason: str


Row = tuple[str, Structure | Unreadable]
"""Id and crystal of one record."""


def read_crystals(path: Path) -> Iterator[Row]:
    """Yield the crystals of a file or folder.

    CIF files (one, or a .zip of them), or JSON, also compressed (.gz, .bz2, .xz): one object per
    line, a list, ``{"entries": [...]}`` as Alexandria has it, or OPTIMADE responses. Or a folder of
    such files, as databases that come in parts are kept.
    An object is a pymatgen Structure or holds one under ``structure``, is an OPTIMADE resource,
    or has ``lattice``, ``species`` and ``frac_coords``.

    Raises
    ------
    InputError
        There is no such file, it is of no known kind, or it is cut off.
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and _reader(file)]
        if not files:
            raise InputError(f"Folder {path} holds no .cif, .zip or .json files.")
        for file in files:
            place = file.relative_to(path).parent
            named_by_file = _reader(file) is _from_cif_file
            for identifier, crystal in read_crystals(file):
                yield (place / identifier).as_posix() if named_by_file else identifier, crystal
        return
    if not path.is_file():
        raise InputError(f"There is no file or folder {path}.")
    reader = _reader(path)
    if reader is None:
        raise InputError(
            f"{path.name} is of no known kind: give .cif, .zip, .json or .jsonl (also .gz, .bz2, "
            ".xz) or a folder of them."
        )
    yield from reader(path)


def _reader(path: Path) -> Callable[[Path], Iterator[Row]] | None:
    """Return what reads a file, by its name."""
    kind = path.name
    for compression in (".gz", ".bz2", ".xz"):
        kind = kind.removesuffix(compression)
    if kind.endswith(".cif"):
        return _from_cif_file
    if kind.endswith(".zip"):
        return _from_zip
    return _from_json if kind.endswith((".json", ".jsonl", ".ndjson")) else None


def read_optimade(
    base_url: str,
    *,
    query: str = "",
    page: int = OPTIMADE_PAGE,
    patience: Patience | None = None,
) -> Iterator[Row]:
    """Yield the crystals of an OPTIMADE provider, page by page.

    Parameters
    ----------
    base_url
        With or without the version: ``https://oqmd.org/optimade`` or ``.../v1``.
    query
        OPTIMADE filter, e.g. ``elements HAS ALL "Mg","O" AND nelements<=3``; all if empty.
    page
        Structures per request.
    patience
        How long to wait and how often to come back.

    Raises
    ------
    HttpError, PccdError
        The provider cannot be reached, refuses the query, or stops before the end.
    """
    base = base_url.rstrip("/")
    base = base if re.search(r"/v\d+$", base) else f"{base}/v1"
    parameters = {"page_limit": str(page), "response_fields": OPTIMADE_FIELDS}
    if query:
        parameters["filter"] = query
    url: str | None = f"{base}/structures?{urlencode(parameters)}"
    seen = set()
    with mount(requests.Session(), PatientAdapter(patience or Patience())) as session:
        while url is not None:
            if url in seen:
                raise PccdError(f"OPTIMADE provider {base} links its pages in a circle.")
            seen.add(url)
            body = session.get(url).json()
            for resource in _resources(body, base):
                yield str(resource.get("id")), _tried(from_optimade, resource)
            url = _next_page(body, url, base)


def read_collection(
    collection: "Collection[Document]", *, structure: str = "structure"
) -> Iterator[Row]:
    """Yield the crystals of a MongoDB collection; `structure` is the path of the field."""
    for document in collection.find({}, [*ID_FIELDS, structure]).sort("_id", 1):
        value: Any = document
        for part in structure.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        identifier = _identifier(document) or str(document["_id"])
        yield identifier, _tried(from_object, {"structure": value})


def from_object(document: Document) -> Structure:
    """Return the crystal of a JSON object; see `read_crystals`.

    Raises
    ------
    ValueError, KeyError, TypeError
        It holds none.
    """
    if isinstance(document.get("attributes"), dict):
        return from_optimade(document)
    inner = document.get("structure", document)
    if isinstance(inner, dict) and "sites" in inner:
        return _checked(Structure.from_dict(inner))
    if isinstance(inner, dict) and {"lattice", "species", "frac_coords"} <= set(inner):
        return _checked(Structure(inner["lattice"], inner["species"], inner["frac_coords"]))
    raise ValueError("it holds no structure")


def from_optimade(resource: Document) -> Structure:
    """Return the crystal of an OPTIMADE structures resource.

    Raises
    ------
    ValueError, KeyError, TypeError
        It is disordered, not periodic in three dimensions, or lacks positions.
    """
    attributes = resource["attributes"]
    if attributes.get("structure_features"):
        raise ValueError(f"it has {', '.join(attributes['structure_features'])}")
    if attributes.get("dimension_types", [1, 1, 1]) != [1, 1, 1]:
        raise ValueError("it is not periodic in three dimensions")
    symbols = {}
    for species in attributes.get("species") or []:
        if len(species["chemical_symbols"]) != 1:
            raise ValueError("it has disorder")
        symbols[species["name"]] = species["chemical_symbols"][0]
    names = attributes["species_at_sites"]
    return _checked(
        Structure(
            attributes["lattice_vectors"],
            [symbols.get(name, name) for name in names],
            attributes["cartesian_site_positions"],
            coords_are_cartesian=True,
        )
    )


def _checked(structure: Structure) -> Structure:
    if not structure.is_ordered:
        raise ValueError("it has disorder")
    if len(structure) == 0:
        raise ValueError("it has no sites")
    if not abs(structure.volume) > FLAT:
        raise ValueError("its cell has no volume")
    alien = {site.specie.symbol for site in structure if isinstance(site.specie, DummySpecies)}
    if alien:
        raise ValueError(f"it has sites of no element ({', '.join(sorted(alien))})")
    return structure


def _tried(read: Callable[[Any], Structure], source: Any) -> Structure | Unreadable:
    try:
        return read(source)
    except KeyError as error:
        return Unreadable(f"{error} is missing")
    except (ValueError, TypeError, ArithmeticError) as error:
        return Unreadable(" ".join(str(error).split())[:200] or type(error).__name__)


def _from_cif(text: str) -> Structure | Unreadable:
    return _tried(lambda content: _checked(Structure.from_str(content, fmt="cif")), text)


def _from_cif_file(path: Path) -> Iterator[Row]:
    try:
        with _open(path, errors="replace") as stream:
            crystal = _from_cif(stream.read())
    except (OSError, EOFError, lzma.LZMAError):
        crystal = Unreadable("its file is damaged or cut off")
    yield path.name.rpartition(".cif")[0], crystal


def _from_zip(path: Path) -> Iterator[Row]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise InputError(f"{path} is damaged or no .zip file.") from None
    with archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".cif")):
            yield Path(name).stem, _from_cif(archive.read(name).decode(errors="replace"))


def _from_json(path: Path) -> Iterator[Row]:
    count = 0
    with _open(path) as stream:
        for count, document in enumerate(_objects(stream, path), start=1):
            yield _identifier(document) or f"{path.name}-{count}", _tried(from_object, document)
    if count == 0:
        raise InputError(f"{path} holds no records.")


def _identifier(document: Document) -> str | None:
    data = document.get("data")
    for place in (data if isinstance(data, dict) else {}, document):
        for field in ID_FIELDS:
            if place.get(field) is not None:
                return str(place[field])
    return None


def _open(path: Path, errors: str = "strict") -> TextIO:
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    stream: TextIO = opener(path, "rt", encoding="utf-8", errors=errors)
    return stream


def _objects(stream: TextIO, path: Path) -> Iterator[Document]:
    """Yield the JSON objects of a list or of lines, reading no more than needed."""
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
                continue
            yield from _members(value)
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, OSError, lzma.LZMAError):
        raise InputError(f"{path} is damaged or cut off: what was read before is kept.") from None
    if wrapped:
        raise InputError(f"{path} is damaged or cut off: what was read before is kept.")


def _members(value: Any) -> Iterator[Document]:
    """Yield a record, or those of a response that holds many."""
    if isinstance(value, dict):
        many = value.get("data") or value.get("entries")
        yield from many if isinstance(many, list) else [value]


def _resources(body: Document, base: str) -> list[Document]:
    data = body.get("data")
    if not isinstance(data, list):
        raise PccdError(f"The answer of OPTIMADE provider {base} lacks the field 'data'.")
    return data


def _next_page(body: Document, url: str, base: str) -> str | None:
    link = (body.get("links") or {}).get("next")
    target = link.get("href") if isinstance(link, dict) else link
    if target:
        return urljoin(url, str(target))
    if (body.get("meta") or {}).get("more_data_available"):
        raise PccdError(f"OPTIMADE provider {base} has more data but no link to it.")
    return None
