"""Crystals with their properties to learn from: the Materials Project, MongoDB collections."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.plain_structures import value_at
from pccd_workflows.known.mp_client import NO_KEY, PAGE, Client, has_api_key

if TYPE_CHECKING:
    from pymongo.collection import Collection

Record = dict[str, Any]

SUMMARIES = "materials/summary/"
FIELDS = (
    "material_id",
    "structure",
    "band_gap",
    "ordering",
    "symmetry",
    "energy_above_hull",
    "nsites",
    "nelements",
)
PROPERTIES = ("band_gap", "energy_above_hull", "magnetic_ordering", "split")
"""Fields of a document of a collection that are taken as they are."""


def materials_project_records(
    *,
    max_elements: int,
    max_sites: int,
    client: Client | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Iterator[Record]:
    """Yield MP's materials, a page at a time: nothing else is held in memory.

    The energy above hull is that of MP's summaries, by MP's own default hull: a condition to learn
    from, not an energy to judge with.

    Parameters
    ----------
    max_elements, max_sites
        The server is asked for no larger ones (sites of MP's own cell, which may not be primitive
        for a few).
    client
        The server to ask; MP's if left out.
    progress
        Told the materials read and their number.

    Raises
    ------
    InputError
        No API key, or a wrong one.
    HttpError, PccdError
        The server cannot be reached, its answers have changed, or it released another version
        meanwhile.
    """
    if not has_api_key():
        raise InputError(NO_KEY)
    client = client or Client()
    version = client.version()
    criteria = {
        "nelements_max": str(max_elements),
        "nsites_max": str(max_sites),
        "deprecated": "False",
        "_fields": ",".join(FIELDS),
        "_sort_fields": "material_id",
        "_limit": str(PAGE),
    }
    done, total = 0, None
    while total is None or done < total:
        documents, total = client.page(SUMMARIES, {**criteria, "_skip": str(done)})
        if not documents and done < total:
            raise PccdError(f"The Materials Project sent {done} of {total} materials: try again.")
        done += len(documents)
        progress(done, total)
        yield from map(_from_summary, documents)
    if client.version() != version:
        raise PccdError(
            f"The Materials Project released a version after {version} during the fetch: run it "
            "again to get the new one."
        )


def _from_summary(document: Record) -> Record:
    return {
        "id": document.get("material_id"),
        "structure": document.get("structure") or {},
        "band_gap": document.get("band_gap"),
        "energy_above_hull": document.get("energy_above_hull"),
        "magnetic_ordering": document.get("ordering"),
        "spacegroup": (document.get("symmetry") or {}).get("number"),
    }


def collection_records(
    collection: "Collection[Record]", *, structure: str = "structure"
) -> Iterator[Record]:
    """Yield the crystals of a MongoDB collection with the properties that they have.

    Parameters
    ----------
    collection
        Documents with a pymatgen structure and, where known, band_gap, energy_above_hull,
        magnetic_ordering (or ordering) and split, at the top.
    structure
        Path of the structure, e.g. ``output.structure``.
    """
    wanted: Sequence[str] = [structure, *PROPERTIES, "ordering"]
    for document in collection.find({}, wanted).sort("_id", 1):
        value = value_at(document, structure)
        found = {name: document.get(name) for name in PROPERTIES}
        found["magnetic_ordering"] = found["magnetic_ordering"] or document.get("ordering")
        yield {**found, "id": str(document["_id"]), "structure": value or {}}
