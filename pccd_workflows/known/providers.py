"""Crystals of OPTIMADE providers and MongoDB collections, one at a time."""

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin

import requests

from pccd_workflows.core.crystal_files import ID_FIELDS, Row, identifier
from pccd_workflows.core.errors import PccdError
from pccd_workflows.core.plain_structures import (
    Document,
    attempt,
    from_object,
    from_optimade,
    value_at,
)
from pccd_workflows.known.http import Patience, PatientAdapter, mount

if TYPE_CHECKING:
    from pymongo.collection import Collection

OPTIMADE_PAGE = 100
"""Structures per answer; providers allow between 50 and 1000."""
OPTIMADE_FIELDS = (
    "lattice_vectors,cartesian_site_positions,species_at_sites,species,structure_features,"
    "dimension_types"
)


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
                yield str(resource.get("id")), attempt(partial(from_optimade, resource))
            url = _next_page(body, url, base)


def read_collection(
    collection: "Collection[Document]", *, structure: str = "structure"
) -> Iterator[Row]:
    """Yield the crystals of a MongoDB collection; `structure` is the path of the field."""
    for document in collection.find({}, [*ID_FIELDS, structure]).sort("_id", 1):
        found = {"structure": value_at(document, structure)}
        yield identifier(document) or str(document["_id"]), attempt(partial(from_object, found))


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
