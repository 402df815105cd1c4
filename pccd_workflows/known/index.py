"""Indices of imported sets of known crystals: built once per machine, kept in files."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import make_folder
from pccd_workflows.known.sets import KnownSet, stored_crystals
from pccd_workflows.matching.known_crystals import KnownCrystals
from pccd_workflows.matching.settings import MatcherSettings

if TYPE_CHECKING:
    from pymongo.database import Database

MOST_CRYSTALS = 500_000
"""Larger sets are not kept in memory (about 1 GB): their crystals are read by formula."""


def find_index(
    db: "Database[dict[str, Any]]", known_set: KnownSet, folder: Path, settings: MatcherSettings
) -> KnownCrystals | None:
    """Return the index of a complete set; None if the set is too large for one.

    The file's name holds the hash of the set's content. One that is missing or damaged is made
    again from the database, which takes about half a minute per 100,000 crystals.

    Parameters
    ----------
    db
        The campaign database.
    known_set
        What is known about the set.
    folder
        Where indices are kept on this machine.
    settings
        Tolerances to compare with.
    """
    if known_set.n_structures > MOST_CRYSTALS:
        return None
    path = folder / f"{known_set.name}-{known_set.content_sha256[:16]}.npz"
    try:
        return _load(path, settings)
    except InputError:
        index = KnownCrystals(stored_crystals(db, known_set.name), settings=settings)
    with suppress(OSError):  # a machine that cannot keep it can still use it
        make_folder(folder)
        index.save(path)
    return index


@lru_cache(maxsize=2)
def _load(path: Path, settings: MatcherSettings) -> KnownCrystals:
    return KnownCrystals.load(path, settings=settings)
