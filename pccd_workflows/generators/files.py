"""Crystals that any other generator wrote, as a source of a campaign."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, model_validator
from pymatgen.core import Structure

from pccd_workflows.core.crystal_files import Entry, content_sha256, entries
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.plain_structures import Unreadable
from pccd_workflows.core.sections import CampaignPath, from_folder
from pccd_workflows.generators.protocol import Generated, GeneratorInfo
from pccd_workflows.generators.request import MAX_SAMPLES, Generation, SourceOptions

MAX_SITES = 1000
"""Most atoms of a crystal: a larger one costs a potential minutes per step, and is no cell that a
hull or phonons could be asked about."""


@dataclass(frozen=True)
class Survey:
    """What lies in a file or folder.

    Attributes
    ----------
    entries
        Crystals and what is none, in the order of the files.
    elements
        Symbols of the readable crystals, alphabetically.
    most_elements
        Most elements of one of them.
    """

    entries: int
    elements: tuple[str, ...]
    most_elements: int


def survey(path: Path, sha256: str) -> Survey:
    """Count the crystals of a file or folder, and collect their elements.

    Parameters
    ----------
    path
        See `core.crystal_files.entries`.
    sha256
        Of the content: the answer for the last contents is kept.

    Raises
    ------
    InputError
        There is no crystal that can be read, or there are too many.
    """
    found, reason = _survey(path, sha256)
    if not found.elements:
        raise InputError(f"{path} holds no crystal that can be read ({reason or 'it is empty'}).")
    if found.entries > MAX_SAMPLES:
        raise InputError(f"{path} holds more than {MAX_SAMPLES} crystals.")
    return found


@lru_cache(maxsize=8)
def _survey(path: Path, sha256: str) -> tuple[Survey, str | None]:  # noqa: ARG001
    count, most, reason = 0, 0, None
    elements: set[str] = set()
    for count, entry in enumerate(islice(entries(path, tolerant=True), MAX_SAMPLES + 1), start=1):  # noqa: B007
        crystal = plain_crystal(entry)
        if isinstance(crystal, Unreadable):
            reason = reason or f"{entry.name}: {crystal.reason}"
            continue
        own = {element.symbol for element in crystal.elements}
        elements |= own
        most = max(most, len(own))
    return Survey(count, tuple(sorted(elements)), most), reason


def plain_crystal(entry: Entry) -> Structure | Unreadable:
    """Return an entry's crystal as elements on sites, or why there is none."""
    crystal = entry.read()
    if isinstance(crystal, Unreadable):
        return crystal
    if len(crystal) > MAX_SITES:
        reason = f"it has {len(crystal)} atoms in its cell, more than {MAX_SITES}"
        return Unreadable(reason, "too_large")
    symbols = [site.specie.symbol for site in crystal]
    symbols = [{"D": "H", "T": "H"}.get(symbol, symbol) for symbol in symbols]
    return Structure(crystal.lattice.matrix, symbols, crystal.frac_coords)


class FilesOptions(SourceOptions):
    """Crystals of a file, an archive or a folder.

    Content and number are read once, when the campaign file is: they are part of the campaign, so
    that a changed folder is another campaign.
    """

    path: CampaignPath = Field(
        description="CIF, extXYZ, JSON (lines), POSCAR, CSV, .zip, .tar, or a folder of them"
    )
    sha256: str = Field("", description="Of the content; filled in when the file is read")
    elements: list[str] = Field(
        default_factory=list, description="Of the crystals; filled in when the file is read"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_once(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("path"), str | Path):
            return data
        if {"sha256", "samples", "elements"} <= set(data):
            return data  # read when it was submitted, perhaps on another machine
        if data.get("elements"):
            raise ValueError("elements: they are those of the files, leave them out")
        path = from_folder(Path(data["path"]), info)
        sha256 = content_sha256(path)
        if data.get("sha256") not in (None, sha256):
            raise ValueError(f"{path} has other content than sha256 says")
        found, asked = survey(path, sha256), data.get("samples")
        if isinstance(asked, int) and asked > found.entries:
            raise ValueError(f"samples: {path} holds {found.entries} crystals only")
        return {
            **data,
            "path": path,
            "sha256": sha256,
            "elements": list(found.elements),
            "samples": found.entries if asked is None else asked,
        }


class FilesGenerator:
    """What lies in a file or folder, entry by entry.

    Parameters
    ----------
    options
        Where it lies, and what it was when the campaign was submitted.
    """

    options_type: ClassVar[type[FilesOptions]] = FilesOptions

    def __init__(self, options: FilesOptions) -> None:
        self.options = options

    def info(self) -> GeneratorInfo:
        """Return the name of the file or folder and the hash of what lies there now."""
        path = self.options.path
        return GeneratorInfo(name=path.name, version=content_sha256(path))

    def check(self) -> None:
        """See that the files are those that the campaign names.

        Raises
        ------
        InputError
            They have changed since.
        """
        if self.info().version != self.options.sha256:
            raise InputError(
                f"{self.options.path} has changed since the campaign file was read; "
                "read it again, as another campaign."
            )

    def generate(self, indices: Sequence[int]) -> Iterator[Generated]:
        """Yield the entries with these numbers.

        Raises
        ------
        InputError
            The files have fewer entries.
        """
        wanted = set(indices)
        found: dict[int, Generated] = {}
        waiting = iter(indices)
        following = next(waiting, None)
        every = entries(self.options.path, tolerant=True)
        for number, entry in enumerate(islice(every, max(wanted, default=-1) + 1)):
            if number in wanted:
                found[number] = self._generated(number, entry)
            while following in found:
                yield found[following]
                following = next(waiting, None)
        if following is not None:
            raise InputError(f"{self.options.path} has no crystal number {following}.")

    def _generated(self, number: int, entry: Entry) -> Generated:
        began = time.perf_counter()
        crystal = plain_crystal(entry)
        reason = crystal.reason if isinstance(crystal, Unreadable) else None
        structure = None if isinstance(crystal, Unreadable) else crystal
        generation = Generation(
            source=self.options.source,
            model=self.options.path.name,
            weights_sha256=self.options.sha256,
            index=number,
            elements=sorted({e.symbol for e in structure.elements}) if structure else [],
            origin=f"{entry.file}: {entry.name}",
            error_class=crystal.error_class if isinstance(crystal, Unreadable) else None,
            reason=reason,
            seconds=time.perf_counter() - began,
        )
        return Generated(number, structure, generation)
