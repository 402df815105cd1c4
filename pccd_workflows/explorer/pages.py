"""The explorer's addresses: a database and an address in, a page, JSON or a file out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pccd_workflows.core.errors import DatabaseError, InputError, PccdError
from pccd_workflows.explorer import campaigns, crystals, jobs, lists, scatter, selection
from pccd_workflows.explorer.answers import Answer, NotFoundError, data, page

if TYPE_CHECKING:
    from pymongo.database import Database

Respond = Callable[["Database[dict[str, Any]]", str], Answer]
QUERIED: dict[str, Respond] = {
    "/": lists.list_page,
    "/api/candidates": lists.list_json,
    "/scatter": scatter.scatter_page,
    "/campaigns": campaigns.campaigns_page,
    "/compare": crystals.compare_page,
    "/compare-campaigns": campaigns.compare_page,
    "/export": selection.export_selected,
}
"""Answers to whole addresses; the second argument is what follows the question mark."""
NAMED: dict[str, Callable[["Database[dict[str, Any]]", str, str], Answer]] = {
    "/candidate/": crystals.crystal_page,
    "/api/candidate/": crystals.crystal_json,
    "/api/scene/": crystals.scene_json,
    "/api/mode/": crystals.mode_json,
    "/cif/": crystals.crystal_cif,
    "/campaign/": campaigns.campaign_page,
    "/api/campaign/": campaigns.progress_json,
    "/diagrams/": campaigns.diagrams_page,
    "/job/": jobs.job_page,
    "/jobs/": jobs.jobs_page,
}
"""Answers to addresses that end in an id, by what stands before it."""


def answer(database: "Database[dict[str, Any]]", path: str, query: str) -> Answer:
    """Return the page or data at an address; errors become pages (or JSON) of one sentence."""
    try:
        return _route(database, path, query)
    except PccdError as error:
        status = {InputError: 400, NotFoundError: 404, DatabaseError: 503}.get(type(error), 500)
        if path.startswith("/api/"):
            return data({"error": str(error)}, status)
        return page("error.html", message=str(error), code=status, status=status)


def _route(database: "Database[dict[str, Any]]", path: str, query: str) -> Answer:
    if path in QUERIED:
        return QUERIED[path](database, query)
    for prefix, respond in NAMED.items():
        if path.startswith(prefix):
            return respond(database, unquote(path.removeprefix(prefix)), query)
    raise NotFoundError("There is no such page.")
