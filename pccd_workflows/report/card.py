"""One crystal as a page shows it: pictures, verdicts, lineage."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pccd_workflows import stages
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.columns import Heading, Table, TableCell
from pccd_workflows.export import best_relaxation, cif_text, file_stem, write_csv
from pccd_workflows.report.panels import Panel, stage_panels, structure_panel, xrd_panel
from pccd_workflows.report.phase_diagram import energy_class, pretty
from pccd_workflows.report.stages import StageLine, stage_lines
from pccd_workflows.rescore import Rescore
from pccd_workflows.stages.hull import millis
from pccd_workflows.stages.level_difference import note
from pccd_workflows.stages.stage import words


@dataclass(frozen=True)
class Badge:
    """A verdict in a word or two; `tone` is the class that colours it."""

    text: str
    tone: str


@dataclass(frozen=True)
class Download:
    """A file that a page holds in itself or links to."""

    label: str
    filename: str
    href: str


@dataclass(frozen=True)
class Card:
    """Everything a page shows of one crystal."""

    doc: CandidateDoc
    formula: str
    badges: list[Badge]
    panels: list[Panel]
    lines: list[StageLine]
    lattice: str
    downloads: list[Download] = field(default_factory=list)


def make_card(doc: CandidateDoc, name: str | None = None, rescores: Sequence[Rescore] = ()) -> Card:
    """Return the card of one crystal, without pictures if it has no `name` unique on its page."""
    panels = [] if name is None else _panels(doc, name)
    formula = pretty(doc.formula_pretty or "no formula")
    return Card(doc, formula, make_badges(doc), panels, stage_lines(doc, rescores), _lattice(doc))


def _panels(doc: CandidateDoc, name: str) -> list[Panel]:
    return [structure_panel(doc, name), xrd_panel(doc), *stage_panels(doc.records)]


def with_downloads(card: Card) -> Card:
    """Return a card that holds its crystal's files in itself, for a page without a server."""
    doc, files = card.doc, []
    relaxation = best_relaxation(doc)
    if relaxation is not None and relaxation.structure is not None:
        stem = file_stem(doc, relaxation.structure)
        files.append(_inline("CIF", f"{stem}.cif", cif_text(doc, relaxation.structure)))
    text = doc.model_dump_json(exclude={"relaxations": {"__all__": {"energies"}}})
    files.append(_inline("JSON", f"{doc.candidate_id}.json", text))
    return replace(card, downloads=files)


def table_download(docs: Sequence[CandidateDoc], stem: str) -> Download:
    """Return a table of crystals as a CSV that a page holds in itself."""
    text = io.StringIO(newline="")
    write_csv(docs, text)
    return _inline("CSV", f"{stem}.csv", text.getvalue())


def _inline(label: str, filename: str, text: str) -> Download:
    content = b64encode(text.encode()).decode()
    return Download(label, filename, f"data:application/octet-stream;base64,{content}")


def make_badges(doc: CandidateDoc) -> list[Badge]:
    """Return novelty, kind, energy, verdicts of stages and, if it did not pass, how it ended."""
    badges = [badge] if (badge := novelty_badge(doc.novel)) else []
    if doc.novel and doc.kind_of_new is not None:
        like = f" of {doc.known_id}" if doc.known_id else ""
        badges.append(Badge(f"{words(doc.kind_of_new)}{like}", "new"))
    if doc.energy_above_hull is not None:
        text = f"{millis(doc.energy_above_hull)} meV/atom"
        badges.append(Badge(text, energy_class(doc.energy_above_hull)))
    records = doc.records
    if differ := note(records):
        badges.append(Badge(differ, "open"))
    for stage in stages.all_stages():
        record = stage.latest(records)
        if record is not None and any(column.badge for column in stage.columns):
            said = stage.describe(record, records)
            badges.append(Badge(f"{stage.kind} {said.verdict}", said.tone))
    if doc.status in ("rejected", "failed", "pending"):
        badges.append(Badge(doc.status, "open" if doc.status == "pending" else "bad"))
    return badges


def novelty_badge(novel: bool | None) -> Badge | None:
    """Return whether a crystal is new; None if that was not judged."""
    if novel is None:
        return None
    return Badge("new", "new") if novel else Badge("known", "known")


def table_views(table: Table) -> list[list[dict[str, Any]]]:
    """Return the cells of a table as templates show them, row by row."""
    return [
        [_cell(*pair) for pair in zip(table.headings, cells, strict=True)] for cells in table.rows
    ]


def _cell(heading: Heading, cell: TableCell) -> dict[str, Any]:
    """Return a cell as text or a badge, coloured where there is a scale."""
    view: dict[str, Any] = {
        "key": heading.key,
        "text": pretty(cell.text) if heading.key == "formula_pretty" else cell.text,
        "sort": cell.sort,
        "numeric": heading.numeric,
        "badge": None,
        "energy_class": "",
    }
    if heading.key == "energy_above_hull":
        view["energy_class"] = "e-far" if cell.sort is None else energy_class(cell.sort)
    elif heading.key == "novel":
        view["badge"] = novelty_badge(cell.sort)
    elif cell.tone is not None and cell.text:
        view["badge"] = Badge(cell.text, cell.tone)
    return view


def _lattice(doc: CandidateDoc) -> str:
    if doc.structure is None:
        return ""
    lattice = doc.structure.lattice
    lengths = ", ".join(f"{value:.3f}" for value in lattice.abc)
    angles = ", ".join(f"{value:.1f}" for value in lattice.angles)
    return (
        f"a, b, c = {lengths} Å; α, β, γ = {angles}°; {len(doc.structure)} atoms in the stored "
        f"cell; density {doc.structure.density:.2f} g/cm³"
    )
