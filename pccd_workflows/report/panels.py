"""Pictures of one crystal with their captions: its structure, and what stages' figures return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from markupsafe import Markup
from pymatgen.core import Structure

from pccd_workflows import stages
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.report.figures import (
    XRD_RANGE,
    electron_bands,
    phonon_bands,
    relaxation_curve,
    xrd_pattern,
)
from pccd_workflows.report.stages import outcome
from pccd_workflows.report.structure_view import draw_scene, make_scene, picture_cell
from pccd_workflows.stages.bands import asked_gap, gap_text
from pccd_workflows.stages.relax import STAGE as RELAX
from pccd_workflows.stages.stage import Records, facts, number, words

OVERLINE = "\N{COMBINING OVERLINE}"


@dataclass(frozen=True)
class Panel:
    """A picture with its caption; a sentence instead where there is nothing to draw.

    scene: what the page can turn; `name` is unique on the page.
    meaning: what the caption's terms mean, for a page to say once.
    """

    title: str
    caption: str
    picture: Markup | None = None
    absent: str = ""
    scene: dict[str, Any] | None = None
    legend: tuple[tuple[str, str], ...] = ()
    name: str = ""
    meaning: str = ""


GAMMA_RESIDUAL = (
    "Γ residual: how far from 0 the acoustic modes were at Γ, where moving the whole crystal costs "
    "nothing, before that was imposed. It measures the noise of the forces and is no instability."
)


def stage_panels(records: Records) -> list[Panel]:
    """Return the pictures of every stage that has a figure and left a record, in order."""
    return [
        panel
        for stage in stages.all_stages()
        if stage.figure is not None and stage.records(records)
        for panel in _function(stage.figure)(records)
    ]


def _function(
    figure: str | Callable[[Records], Sequence[Panel]],
) -> Callable[[Records], Sequence[Panel]]:
    if not isinstance(figure, str):
        return figure
    module, _, name = figure.partition(":")
    found: Callable[[Records], Sequence[Panel]] = getattr(import_module(module), name)
    return found


def structure_panel(doc: CandidateDoc, name: str) -> Panel:
    """Return the crystal's picture; name: unique on its page."""
    if doc.structure is None:
        reason = outcome(doc)
        return Panel("Structure", "", absent=f"There is no structure to show ({reason}).")
    cell, kind = picture_cell(doc.structure)
    scene = make_scene(cell)
    picture = draw_scene(scene, f"Structure of {doc.formula_pretty}", name)
    legend = tuple(scene.colours.items())
    return Panel(
        "Structure",
        cell_caption(cell, kind),
        picture,
        scene=scene.as_dict(),
        legend=legend,
        name=name,
    )


def cell_caption(cell: Structure, kind: str) -> str:
    """Return what stands below a picture of a cell."""
    lengths = ", ".join(f"{value:.3f}" for value in cell.lattice.abc)
    angles = ", ".join(f"{value:.1f}" for value in cell.lattice.angles)
    return f"{kind}, {len(cell)} atoms; a, b, c = {lengths} Å; α, β, γ = {angles}°"


def xrd_panel(doc: CandidateDoc) -> Panel:
    """Return the simulated X-ray powder pattern of the latest structure."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    title = "X-ray powder pattern (simulated)"
    if doc.structure is None:
        return Panel(title, "", absent="There is no structure to simulate.")
    cell, kind = picture_cell(doc.structure)
    try:
        found = XRDCalculator().get_pattern(cell, two_theta_range=XRD_RANGE)
    except (ValueError, KeyError, ArithmeticError) as error:  # no scattering factors, no peak
        return Panel(title, "", absent=f"It cannot be simulated: {error}")
    names = [miller(peak[0]["hkl"]) for peak in found.hkls]
    picture = xrd_pattern(found.x.tolist(), found.y.tolist(), names)
    caption = f"Cu Kα, kinematic, no thermal motion; indices of the {kind}"
    return Panel(title, caption, picture)


def miller(indices: Sequence[int]) -> str:
    """Return Miller indices as crystallographers write them: a bar above what is negative."""
    digits = [f"{abs(index)}{OVERLINE * (index < 0)}" for index in indices]
    return (" " if max(map(abs, indices)) > 9 else "").join(digits)


def relaxation_panels(records: Records) -> list[Panel]:
    """Return the energy along the last relaxation."""
    last: Relaxation = RELAX.records(records)[-1]
    title, caption = f"Relaxation ({last.level})", _relaxation_caption(last)
    if len(last.energies) < 2:
        absent = f"The relaxation took {last.n_steps} steps; there is no curve to draw."
        return [Panel(title, caption, absent=absent)]
    return [Panel(title, caption, relaxation_curve(last))]


def phonon_panels(records: Records) -> list[Panel]:
    """Return the phonon bands, from the last record that has them."""
    found = [record for record in records.values() if isinstance(record, Phonons)]
    record = next((r for r in reversed(found) if r.bands), found[-1])
    title, caption = f"Phonons ({record.level})", _phonon_caption(record)
    meaning = GAMMA_RESIDUAL if record.gamma_residual is not None else ""
    try:
        return [Panel(title, caption, phonon_bands(record), meaning=meaning)]
    except ValueError as error:
        return [Panel(title, caption, absent=f"{record.reason or error}")]


def bands_panels(records: Records) -> list[Panel]:
    """Return the electronic bands of each level that was asked for them."""
    found = [record for record in records.values() if isinstance(record, Bands)]
    return [_bands_panel(record, asked_gap(records)) for record in found]


def _bands_panel(record: Bands, asked: str) -> Panel:
    title = f"Electronic bands ({record.level})"
    energies = (record.bands or {}).get("energies") or [[]]
    spins = "dashed: spin down" if len(energies[0]) > 1 else ""
    caption = ", ".join(facts(gap_text(record), asked, f"path {record.kpath}", spins))
    try:
        return Panel(title, caption, electron_bands(record))
    except ValueError as error:
        return Panel(title, "", absent=f"{record.reason or error}")


def _relaxation_caption(record: Relaxation) -> str:
    parts = [words(record.verdict), f"{record.n_steps} steps"]
    if record.structure is not None and record.volume_change is not None:
        last = record.structure.volume / len(record.structure)
        first = last / (1 + record.volume_change)
        parts.append(f"{first:.2f} → {last:.2f} Å³/atom ({100 * record.volume_change:+.1f} %)")
    return ", ".join(facts(*parts, number("largest force", record.max_force, "eV/Å", 3)))


def _phonon_caption(record: Phonons) -> str:
    told = facts(
        record.verdict,
        number("lowest", record.min_frequency, "THz away from Γ", 2),
        f"tolerance {record.tolerance:g} THz (dashed)",
        number("Γ residual", record.gamma_residual, "THz", 2),
    )
    return ", ".join(told)
