"""Pages of jobs: one with its attempts and what cures it, and lists of those of one kind."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from markupsafe import Markup

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.failure_notes import NOTES
from pccd_workflows.engines.levels import LEVELS
from pccd_workflows.execution.job_graph import jobs_of_kind
from pccd_workflows.execution.one_job import Job, read_job
from pccd_workflows.explorer.answers import Answer, NotFoundError, page
from pccd_workflows.explorer.campaigns import known_campaign
from pccd_workflows.explorer.flow_graph import STATES, state_word
from pccd_workflows.explorer.state import PER_PAGE, page_number, parse_fields
from pccd_workflows.report.protocol import show_duration

if TYPE_CHECKING:
    from pymongo.database import Database

MOST_CANDIDATES = 20
"""Crystals of a job that are named."""
CODE = re.compile(r"`([^`]+)`")
DOING = {
    "COMPLETED": "It is done.",
    "RUNNING": "A worker runs it.",
    "RESERVED": "It waits in the queue of a cluster.",
    "READY": "It waits for a worker.",
    "WAITING": "It waits for other jobs.",
    "PAUSED": "It was paused by hand.",
    "DEFUSED": "It was taken out by hand.",
}


def job_page(database: "Database[dict[str, Any]]", reference: str, _query: str) -> Answer:
    """Return one job: state, attempts, failure and its cure, what comes before and after."""
    found = reference.isascii() and reference.isdigit() and read_job(database, int(reference[:18]))
    if not found:
        raise NotFoundError(f"There is no job {reference!r}.")
    failed = found.failure
    return page(
        "job.html",
        job=found,
        state_word=state_word,
        duration=show_duration,
        note=with_code(NOTES[failed.error_class]) if failed else "",
        cure=with_code(failed.cure) if failed else "",
        doing=_doing(found),
        crystals=found.candidates[:MOST_CANDIDATES],
        more_crystals=len(found.candidates) - MOST_CANDIDATES,
    )


def _doing(job: Job) -> str:
    last = job.attempts[-1] if job.attempts else None
    if job.state == "RUNNING" and last is not None:
        return f"{last.worker or 'A worker'} runs it since {last.began or 'an unknown time'}."
    return DOING.get(job.state, "")


def with_code(note: str) -> Markup:
    """Return a sentence in which names between backticks are code."""
    parts = CODE.split(note)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def jobs_page(database: "Database[dict[str, Any]]", reference: str, query: str) -> Answer:
    """Return the jobs of a campaign: ``kind``, ``state`` and ``page`` choose.

    Raises
    ------
    InputError
        There is no such state.
    """
    asked = parse_fields(query, {"kind", "state", "page"})
    kind, state = asked.get("kind", ""), asked.get("state", "")
    if state and state not in STATES:
        raise InputError(f"Unknown state {state!r}; use one of {', '.join(STATES)}.")
    number = page_number(asked.get("page", "1"))
    campaign = known_campaign(database, reference)
    rows = jobs_of_kind(database, campaign, kind, state, LEVELS)

    def url(page: int) -> str:
        kept = {"kind": kind, "state": state, "page": page if page > 1 else ""}
        return f"?{urlencode({name: value for name, value in kept.items() if value})}"

    return page(
        "jobs.html",
        campaign=campaign,
        kind=kind,
        state=state,
        states=STATES,
        state_word=state_word,
        rows=rows[(number - 1) * PER_PAGE : number * PER_PAGE],
        total=len(rows),
        pages=max(1, -(-len(rows) // PER_PAGE)),
        number=number,
        url=url,
    )
