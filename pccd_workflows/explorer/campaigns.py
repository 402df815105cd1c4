"""Pages of campaigns: how far they are, what failed, the graph of their jobs, their diagrams."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pccd_workflows.collect import count_funnel, stored_campaign
from pccd_workflows.core.errors import DatabaseError, InputError
from pccd_workflows.core.intervals import percent
from pccd_workflows.engines.levels import LEVELS
from pccd_workflows.execution.job_graph import failed_jobs, job_kinds, job_states
from pccd_workflows.execution.mongo import get_reference_set
from pccd_workflows.explorer.answers import Answer, NotFoundError, data, page
from pccd_workflows.explorer.flow_graph import STATES, draw_graph, state_word
from pccd_workflows.explorer.state import parse_fields
from pccd_workflows.query import campaign_ids
from pccd_workflows.report.diagram_view import diagram_facts
from pccd_workflows.report.protocol import show_time
from pccd_workflows.report.statistics import REACHABLE, Point
from pccd_workflows.stages import funnel_by_stage

if TYPE_CHECKING:
    from pymongo.database import Database

MOST_CAMPAIGNS = 50
"""Campaigns on one page, the latest."""
MOST_DIAGRAMS = 6
MOST_POINTS = 5000
"""Crystals in the diagrams of a campaign, lowest above the hull first."""
Document = dict[str, Any]


def campaigns_page(database: "Database[Document]", _query: str) -> Answer:
    """Return the latest campaigns with their progress."""
    ids = campaign_ids(database["candidates"])
    shown = [_overview(database, name) for name in ids[:MOST_CAMPAIGNS]]
    return page("campaigns.html", campaigns=shown, more=len(ids) - len(shown))


def campaign_page(database: "Database[Document]", reference: str, _query: str) -> Answer:
    """Return one campaign: funnel, jobs, failures, flow graph."""
    view = _overview(database, known_campaign(database, reference))
    kinds = job_kinds(database, view["id"], LEVELS)
    return page(
        "campaign.html",
        c=view,
        graph=draw_graph(kinds, view["id"]) if kinds else None,
        failures=failed_jobs(database, view["id"]),
    )


def progress_json(database: "Database[Document]", reference: str, _query: str) -> Answer:
    """Return what changes while a campaign runs."""
    return data(_overview(database, known_campaign(database, reference)))


def compare_page(database: "Database[Document]", query: str) -> Answer:
    """Return two campaigns side by side: ``a`` and ``b`` are their ids.

    Raises
    ------
    InputError
        Fewer are given.
    """
    asked = parse_fields(query, {"a", "b"})
    if len(asked) < 2:
        raise InputError("Choose two campaigns to compare.")
    views = [_overview(database, known_campaign(database, asked[name])) for name in ("a", "b")]
    labels = dict.fromkeys(step["label"] for view in views for step in view["funnel"])
    steps = [(label, [_step(view, label) for view in views]) for label in labels]
    protocols = [view["settings"] for view in views]
    names = dict.fromkeys(name for one in protocols for name in one)
    settings = [(name, [one.get(name, "") for one in protocols]) for name in names]
    differing = [(name, values) for name, values in settings if values[0] != values[1]]
    return page("compare_campaigns.html", views=views, steps=steps, settings=differing)


def _step(view: Document, label: str) -> Document | None:
    return next((step for step in view["funnel"] if step["label"] == label), None)


def diagrams_page(database: "Database[Document]", reference: str, _query: str) -> Answer:
    """Return the phase diagrams of a campaign's systems, with its crystals."""
    name = known_campaign(database, reference)
    points = _points(database, name)
    used = list(dict.fromkeys(point.references for point in points))
    sets = [get_reference_set(database, one) for one in used[:MOST_DIAGRAMS]]
    diagrams = [diagram_facts(one, points, "/candidate/") for one in sets if one is not None]
    left_out = len(used) - len(sets)
    return page("diagrams.html", name=name, diagrams=diagrams, left_out=left_out)


def _points(database: "Database[Document]", name: str) -> list[Point]:
    """Return a campaign's crystals near the hull, at every level that they were judged at."""
    fields = ("candidate_id", "formula_pretty", "novel", "spacegroup", "stabilities")
    query = {"campaign_id": name, "energy_above_hull": {"$lte": REACHABLE}}
    rows = database["candidates"].find(query, fields).sort("energy_above_hull", 1)
    return [
        Point(
            row["candidate_id"],
            row["formula_pretty"],
            stability["energy_above_hull"],
            stability["formation_energy_per_atom"],
            stability["references"],
            row["novel"],
            row["spacegroup"] or "",
            "",
        )
        for row in rows.limit(MOST_POINTS)
        for stability in row["stabilities"]
        if stability["energy_above_hull"] is not None
        and not (stability.get("novelty") or {}).get("duplicate_of")
    ]


def known_campaign(database: "Database[Document]", reference: str) -> str:
    """Return the id of a campaign given by id or name."""
    query = {"$or": [{"_id": str(reference)}, {"name": str(reference)}]}
    found = database["campaigns"].find_one(query, {"_id": 1}, sort=[("submitted_at", -1)])
    if found is not None:
        return str(found["_id"])
    if database["candidates"].find_one({"campaign_id": str(reference)}, {"_id": 1}) is not None:
        return str(reference)
    raise NotFoundError("There is no such campaign.")


def _overview(database: "Database[Document]", name: str) -> Document:
    """Return where a campaign stands."""
    document = database["campaigns"].find_one({"_id": name}) or {}
    states = job_states(database, name)
    done, total = states.get("COMPLETED", 0), sum(states.values())
    unfinished = sum(states.get(state, 0) for state in ("READY", "RESERVED", "RUNNING"))
    return {
        "id": name,
        "name": document.get("name", name),
        "submitted": show_time(document.get("submitted_at")),
        "states": {state_word(one): states[one] for one in STATES if states.get(one)},
        "done": done,
        "total": total,
        "percent": percent(done, total),
        "running": unfinished > 0,
        "failed": states.get("FIZZLED", 0),
        "funnel": _funnel(database, document),
        "settings": _flat(document.get("campaign", {})),
    }


def _funnel(database: "Database[Document]", document: Document) -> list[Document]:
    if "campaign" not in document:
        return []
    try:
        campaign = stored_campaign(document)
    except (ValidationError, InputError, DatabaseError):  # a newer version's
        return []
    steps = count_funnel(campaign, database["candidates"])
    whole = max([steps[0].out_of or 0, *(step.reached for step in steps)]) or 1
    rungs = [stage.rung for stage, _ in funnel_by_stage(campaign)]
    last = len(rungs) - 1 - rungs[::-1].index(True)
    return [
        {
            "label": step.name,
            "count": step.reached,
            "out_of": step.out_of,
            "width": f"{100 * step.reached / whole:.2f}",
            "percent": (
                f"of {steps[number - 1].reached:,}"  # few crystals are tried there
                if number > last
                else percent(step.reached, steps[0].reached)
            ),
        }
        for number, step in enumerate(steps)
    ]


def _flat(content: Any, before: str = "") -> dict[str, str]:
    """Return nested settings as ``a.b[0].c: value``."""
    if isinstance(content, dict):
        pairs = [(f"{before}.{key}" if before else key, value) for key, value in content.items()]
    elif isinstance(content, list) and any(isinstance(one, dict) for one in content):
        pairs = [(f"{before}[{number}]", value) for number, value in enumerate(content)]
    else:
        text = ", ".join(map(str, content)) if isinstance(content, list) else str(content)
        return {before: text}
    return {name: told for path, value in pairs for name, told in _flat(value, path).items()}
