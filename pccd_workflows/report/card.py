"""One crystal as a page shows it: picture, relaxation, bands, phonons, verdicts, lineage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.engines.records import Phonons, Relaxation
from pccd_workflows.report.figures import electron_bands, phonon_bands, relaxation_curve
from pccd_workflows.report.phase_diagram import energy_class, pretty
from pccd_workflows.report.stages import (
    StageRow,
    asked_gap,
    gap_text,
    millis,
    outcome,
    stage_rows,
)
from pccd_workflows.report.statistics import level_label
from pccd_workflows.report.structure_view import VIEW, draw_scene, make_scene, picture_cell
from pccd_workflows.rescore import Rescore


@dataclass(frozen=True)
class Badge:
    """A verdict in a word or two; `tone` is the class that colours it."""

    text: str
    tone: str


@dataclass(frozen=True)
class Panel:
    """A picture with its caption; a sentence instead where there is nothing to draw."""

    title: str
    caption: str
    picture: Markup | None = None
    absent: str = ""
    scene: dict[str, Any] | None = None
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Card:
    """Everything a page shows of one crystal."""

    doc: CandidateDoc
    formula: str
    badges: list[Badge]
    panels: list[Panel]
    rows: list[StageRow]
    lattice: str


def make_card(doc: CandidateDoc, name: str | None = None, rescores: Sequence[Rescore] = ()) -> Card:
    """Return the card of one crystal, without pictures if it has no `name` unique on its page."""
    panels = []
    if name is not None:
        panels = [structure_panel(doc, name), relaxation_panel(doc), phonon_panel(doc)]
        panels += bands_panels(doc)
    formula = pretty(doc.formula_pretty or "no formula")
    return Card(doc, formula, make_badges(doc), panels, stage_rows(doc, rescores), _lattice(doc))


def make_badges(doc: CandidateDoc) -> list[Badge]:
    """Return novelty, energy, dynamical stability and, if it did not pass, how it ended."""
    badges = [badge] if (badge := novelty_badge(doc)) else []
    if doc.energy_above_hull is not None:
        text = f"{millis(doc.energy_above_hull)} meV/atom"
        badges.append(Badge(text, energy_class(doc.energy_above_hull)))
    if doc.phonons:
        verdict = doc.phonons[-1].verdict
        tone = {"stable": "good", "unstable": "bad"}.get(verdict, "open")
        word = {"error": "phonons failed"}.get(verdict, f"phonons {verdict}")
        badges.append(Badge(word, tone))
    if doc.status in ("rejected", "failed", "pending"):
        badges.append(Badge(doc.status, "open" if doc.status == "pending" else "bad"))
    return badges


def novelty_badge(doc: CandidateDoc) -> Badge | None:
    """Return whether a crystal is new; None if that was not judged."""
    if doc.novel is None:
        return None
    return Badge("new", "new") if doc.novel else Badge("known", "known")


def structure_panel(doc: CandidateDoc, name: str) -> Panel:
    """Return the crystal's picture."""
    if doc.structure is None:
        reason = outcome(doc)
        return Panel("Structure", "", absent=f"There is no structure to show ({reason}).")
    cell, kind = picture_cell(doc.structure)
    scene = make_scene(cell)
    caption = f"{kind}, {len(cell)} atoms; drag to turn"
    picture = draw_scene(scene, f"Structure of {doc.formula_pretty}", name)
    legend = tuple(scene.colours.items())
    data = {**scene.as_dict(), "view": list(VIEW), "name": name}
    return Panel("Structure", caption, picture, scene=data, legend=legend)


def relaxation_panel(doc: CandidateDoc) -> Panel:
    """Return the energy along the last relaxation."""
    if not doc.relaxations:
        return Panel("Relaxation", "", absent="It was not relaxed.")
    last = doc.relaxations[-1]
    caption = _relaxation_caption(last)
    if len(last.energies) < 2:
        absent = f"The relaxation took {last.n_steps} steps; there is no curve to draw."
        return Panel(f"Relaxation ({level_label(last.level)})", caption, absent=absent)
    return Panel(f"Relaxation ({level_label(last.level)})", caption, relaxation_curve(last))


def phonon_panel(doc: CandidateDoc) -> Panel:
    """Return the phonon bands, from the last record that has them."""
    if not doc.phonons:
        return Panel("Phonons", "", absent="No phonons were computed for it.")
    record = next((r for r in reversed(doc.phonons) if r.bands), doc.phonons[-1])
    title, caption = f"Phonons ({level_label(record.level)})", _phonon_caption(record)
    try:
        return Panel(title, caption, phonon_bands(record))
    except ValueError as error:
        return Panel(title, caption, absent=f"{record.reason or error}")


def bands_panels(doc: CandidateDoc) -> list[Panel]:
    """Return the electronic bands of each level that was asked for them."""
    panels = []
    for record in doc.band_structures:
        title = f"Electronic bands ({level_label(record.level)})"
        energies = (record.bands or {}).get("energies") or [[]]
        parts = [gap_text(record), asked_gap(doc.generation), f"path {record.kpath}"]
        parts.append("dashed: spin down" if len(energies[0]) > 1 else "")
        caption = ", ".join(part for part in parts if part)
        try:
            panels.append(Panel(title, caption, electron_bands(record)))
        except ValueError as error:
            panels.append(Panel(title, "", absent=f"{record.reason or error}"))
    return panels


def _relaxation_caption(record: Relaxation) -> str:
    parts = [record.verdict.replace("_", " "), f"{record.n_steps} steps"]
    if record.structure is not None and record.volume_change is not None:
        last = record.structure.volume / len(record.structure)
        first = last / (1 + record.volume_change)
        parts.append(f"{first:.2f} → {last:.2f} Å³/atom ({100 * record.volume_change:+.1f} %)")
    if record.max_force is not None:
        parts.append(f"largest force {record.max_force:.3f} eV/Å")
    return ", ".join(parts)


def _phonon_caption(record: Phonons) -> str:
    parts: list[str] = [record.verdict]
    if record.min_frequency is not None:
        parts.append(f"lowest {record.min_frequency:.2f} THz away from Γ")
    parts.append(f"tolerance {record.tolerance:g} THz (dashed)")
    return ", ".join(parts)


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
