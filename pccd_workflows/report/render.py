"""One self-contained HTML file from a campaign's documents."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pccd_workflows import __version__
from pccd_workflows.analysis.hull_words import hull_name, missing_notes
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.columns import make_table
from pccd_workflows.core.files import write_whole
from pccd_workflows.core.intervals import percent, show_share
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.query import short_id
from pccd_workflows.report.card import make_card, table_download, table_views, with_downloads
from pccd_workflows.report.diagram_view import diagram_facts
from pccd_workflows.report.phase_diagram import pretty
from pccd_workflows.report.protocol import protocol_facts, show_time
from pccd_workflows.report.shares import level_views
from pccd_workflows.report.stages import rescore_notes
from pccd_workflows.report.statistics import Step, Summary, summarize
from pccd_workflows.rescore import Rescore

MAX_CARDS = 6
MAX_DIAGRAMS = 6
SECTIONS = [
    ("best", "Best crystals"),
    ("funnel", "Funnel"),
    ("energies", "Energy above hull"),
    ("diagrams", "Phase diagrams"),
    ("cards", "One by one"),
    ("protocol", "Protocol"),
    ("documents", "Documents"),
]
View = dict[str, Any]


def write_report(
    path: Path | str,
    *,
    campaign: dict[str, Any],
    candidates: Iterable[CandidateDoc],
    reference_sets: Sequence[ReferenceSet],
    rescores: Mapping[str, Sequence[Rescore]] = MappingProxyType({}),
) -> Path:
    """Write the report of one campaign and return its path; the file needs no network.

    campaign: its document in the campaigns collection.
    candidates: all of its candidates, read once.
    reference_sets: those that the candidates' hull records name.
    rescores: later verdicts by other references, by candidate_id.

    Raises
    ------
    InputError
        The file cannot be written; a file that was there before stays.
    """
    summary = summarize(candidates, Campaign.model_validate(campaign["campaign"]))
    return write_summary(path, campaign, summary, reference_sets, rescores)


def write_summary(
    path: str | Path,
    campaign: dict[str, Any],
    summary: Summary,
    reference_sets: Sequence[ReferenceSet],
    rescores: Mapping[str, Sequence[Rescore]],
) -> Path:
    """Write the report of a campaign whose candidates were counted; see `write_report`.

    summary: its best crystals with structures and spectra.
    """
    resolved = Campaign.model_validate(campaign["campaign"])
    view = report_view(campaign, resolved, summary, reference_sets, rescores)
    return write_whole(Path(path), render("report.html", r=view))


def render(template: str, **values: Any) -> str:
    """Return a page of this package with its style sheet and script; all values are escaped."""
    return (
        environment()
        .get_template(template)
        .render(style=asset("style.css"), script=script(), **values)
    )


PLAIN_PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><main><h1>{title}</h1>{facts}{pictures}</main></body></html>
""")


def plain_page(title: str, facts: Sequence[str], pictures: Sequence[Markup]) -> str:
    """Return a self-contained page of sentences and pictures."""
    told = Markup("").join(Markup("<p>{}</p>").format(fact) for fact in facts)
    shown = Markup("").join(pictures)
    return str(PLAIN_PAGE.format(title=title, style=asset("style.css"), facts=told, pictures=shown))


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the template environment: everything escaped, nothing undefined passes silently."""
    made = Environment(
        loader=PackageLoader("pccd_workflows.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["subscripts"] = pretty
    return made


def script(*others: str) -> Markup:
    """Return the scripts of every page, and others of this package."""
    return Markup("").join(asset(name) for name in ("page.js", "viewer.js", *others))


def asset(name: str) -> Markup:
    """Return one of this package's style sheets or scripts, as it is."""
    return own_file("pccd_workflows.report", name)


@lru_cache(maxsize=16)
def own_file(package: str, name: str) -> Markup:
    """Return a style sheet or script from the templates of one of our packages, as it is."""
    text = files(package).joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  our own file


def report_view(
    document: dict[str, Any],
    campaign: Campaign,
    summary: Summary,
    reference_sets: Sequence[ReferenceSet],
    rescores: Mapping[str, Sequence[Rescore]] = MappingProxyType({}),
) -> View:
    """Return everything the template shows, as text, numbers and finished pictures."""
    later = [rescores.get(doc.candidate_id, ()) for doc in summary.best]
    cards = [
        with_downloads(make_card(doc, f"c{i}", later[i]))
        for i, doc in enumerate(summary.best[:MAX_CARDS])
    ]
    plain = zip(summary.best[MAX_CARDS:], later[MAX_CARDS:], strict=True)
    view: View = {
        "name": campaign.name,
        "description": campaign.description,
        "campaign_id": document["_id"],
        "sections": [s for s in SECTIONS if cards or s[0] != "cards"],
        "tiles": _tiles(summary, campaign),
        "notes": [
            *_notes(summary, campaign),
            *rescore_notes(rescores),
            *missing_notes({each.chemsys: each.missing or () for each in reference_sets}),
        ],
        "protocol": protocol_facts(document, campaign, summary, reference_sets),
        "funnel": _funnel(summary, document["_id"]),
        "levels": level_views(summary) if any(summary.points.values()) else [],
        "no_energies": _no_energies(summary),
        **_diagrams(summary, reference_sets),
        "table": _best_table(summary.best),
        "table_file": table_download(summary.best, document["_id"]),
        "kinds": _kinds(summary),
        "no_best": "No crystal reached a hull, so there is none to rank.",
        "best_caption": _best_caption(summary),
        "cards": cards,
        "meanings": list(dict.fromkeys(p.meaning for c in cards for p in c.panels if p.meaning)),
        "cards_caption": f"The first {len(cards)} of the table. Turn a structure with the mouse or "
        "the arrow keys, zoom with the wheel or + and -; a double click turns it back. CIFs are "
        "symmetrised; their first lines state the tolerance.",
        "documents": [make_card(doc, rescores=others) for doc, others in plain],
        "essentials": summary.essentials,
        "embedded_caption": _embedded_caption(summary),
        "written": show_time(datetime.now(UTC)),
        "version": __version__,
    }
    return view


def _tiles(summary: Summary, campaign: Campaign) -> list[View]:
    raw = summary.count("generated")
    tiles = [
        _tile(raw, "raw samples", f"of {campaign.n_samples} asked for"),
        _tile(summary.count("screened"), "passed the screen", _of_raw(summary, "screened")),
        _tile(summary.count("unique"), "unique crystals", f"{summary.n_new} of them new"),
    ]
    level = _last_level(summary)
    if level is not None:
        on_hull, near, _ = summary.thresholds(level)
        tiles.append(_tile(near.count, "within 80 meV/atom", f"{near.new} new, {level}"))
        label = f"on or below {hull_name(summary.n_missing(level))}"
        tiles.append(_tile(on_hull.count, label, f"{on_hull.new} new"))
    tiles.append(_tile(summary.kinds.new, "new and kept", f"of {summary.kinds.kept:,} kept"))
    return tiles + [
        _tile(step.count, step.label, _of_before(before, step))
        for before, step in summary.after_rungs()
    ]


def _of_before(before: Step, step: Step) -> str:
    """Return what a step after the rungs is to be compared with: few crystals are tried there."""
    tried = "tried" if before.stage is step.stage else before.label
    return f"of {before.count:,} {tried}"


def _tile(value: int, label: str, note: str) -> View:
    return {"value": f"{value:,}", "label": label, "note": note}


def _notes(summary: Summary, campaign: Campaign) -> list[str]:
    raw, asked = summary.count("generated"), campaign.n_samples
    waiting = sum(
        loss.count for step in summary.steps for loss in step.lost if loss.status == "pending"
    )
    failed = sum(
        loss.count for step in summary.steps for loss in step.lost if loss.status == "failed"
    )
    notes = []
    if raw == 0:
        notes.append("No sample of this campaign is stored: generation has not finished or failed.")
    elif raw < asked:
        notes.append(f"Only {raw} of the {asked} samples asked for are stored so far.")
    if waiting:
        notes.append(f"Waiting for their next job: {_crystals(waiting)}; the numbers will grow.")
    if failed:
        notes.append(
            f"Held back by a failed job: {_crystals(failed)}; `pccd campaign resume` reruns it."
        )
    return notes


def _crystals(number: int) -> str:
    return f"{number:,} crystal{'' if number == 1 else 's'}"


def _funnel(summary: Summary, campaign_id: str) -> list[View]:
    raw = summary.count("generated")
    later = {step.key: f"of {before.count:,}" for before, step in summary.after_rungs()}
    words = {"rejected": "rejected", "failed": "failed", "pending": "waiting", "passed": "left out"}
    rows = []
    for step in summary.steps:
        share = 100 * step.count / raw if raw else 0.0
        lost = [
            {
                "status": loss.status,
                "label": loss.label,
                "count": loss.count,
                "verb": words[loss.status],
                "examples": loss.examples,
                "command": _loss_command(campaign_id, loss.status, loss.reason_class),
            }
            for loss in step.lost
        ]
        rows.append(
            {
                "label": step.label,
                "count": f"{step.count:,}",
                "width": f"{max(share, 0.4 if step.count else 0.0):.2f}",
                "percent": later.get(step.key, percent(step.count, raw)),
                "n_lost": step.n_lost,
                "lost_text": f"{step.n_lost:,} did not get here",
                "lost": lost,
            }
        )
    return rows


def _loss_command(campaign_id: str, status: str, reason_class: str) -> str:
    command = f"pccd candidate list --campaign {campaign_id} --status {status}"
    return command if status in ("pending", "passed") else f"{command} --reason {reason_class}"


def _of_raw(summary: Summary, key: str) -> str:
    raw = summary.count("generated")
    return f"{percent(summary.count(key), raw)} of {raw:,} samples" if raw else "of no samples"


def _no_energies(summary: Summary) -> str:
    return (
        f"No crystal has an energy above the hull: of {summary.count('generated')} samples "
        f"{summary.count('decoded')} decoded, {summary.count('screened')} passed the screen and "
        f"{summary.count('unique')} were unique. The funnel above says why the others ended."
    )


def _diagrams(summary: Summary, reference_sets: Sequence[ReferenceSet]) -> View:
    points = [point for level in summary.points.values() for point in level]
    used = Counter(point.references for point in points)
    chosen = sorted(reference_sets, key=lambda r: (-used[r.reference_id], r.chemsys))
    views = [diagram_facts(references, points) for references in chosen[:MAX_DIAGRAMS]]
    left_out = ""
    if len(chosen) > MAX_DIAGRAMS:
        left_out = (
            f"Drawn: the {MAX_DIAGRAMS} systems with most crystals, of {len(chosen)}. "
            "The tables hold the crystals of all."
        )
    absent = "No reference set was used yet, so there is no phase diagram to draw."
    return {"diagrams": views, "diagrams_left_out": left_out, "no_diagrams": absent}


def _best_table(docs: Sequence[CandidateDoc]) -> View:
    """Return the table of the best crystals: headings, and each row's id and cells."""
    table = make_table((vars(doc), doc.records) for doc in docs)
    views = zip(docs, table_views(table), strict=True)
    rows = [
        {
            "id": doc.candidate_id,
            "short": short_id(doc.campaign_id, doc.index, [doc.campaign_id]),
            "cells": cells,
        }
        for doc, cells in views
    ]
    return {"headings": table.headings, "rows": rows}


def _best_caption(summary: Summary) -> str:
    shown = len(summary.best)
    count = (
        f"all {shown}" if shown == summary.n_ranked else f"the first {shown} of {summary.n_ranked}"
    )
    return (
        f"New before known, phonon-stable before undecided before unstable, then the lowest above "
        f"the hull: {count} crystals with an energy. Click a heading to sort, an id for its "
        f"document. Levels are filters: an ML potential's verdict waits for DFT."
    )


def _kinds(summary: Summary) -> View:
    """Return what the kept crystals are to the known ones, in a line and as shares."""
    counts = summary.kinds
    rows = [(name, show_share(share)) for name, share in counts.shares()] if counts.kept else []
    sentence = counts.sentence()
    return {"sentence": f"{sentence[0].upper()}{sentence[1:]}", "rows": rows}


def _embedded_caption(summary: Summary) -> str:
    held, judged = len(summary.essentials), summary.n_judged
    count = f"all {held}" if held == judged else f"the first {held} of {judged}"
    return (
        f"This file carries the essentials (levels, results, jobs) of {count} judged crystals as "
        "JSON in its element documents-json; the full documents are in the database."
    )


def _last_level(summary: Summary) -> str | None:
    return next((level for level, pts in reversed(list(summary.points.items())) if pts), None)
