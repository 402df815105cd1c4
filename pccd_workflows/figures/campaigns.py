"""Figures of a whole campaign: funnel, energies, elements, agreement of two levels."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pymatgen.core import Composition, Element

from pccd_workflows.core.intervals import percent
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.figures.style import BAD, INK, KNOWN, NEW, NothingToShow, new_axes
from pccd_workflows.report.figures import MAX_SHOWN, bin_width
from pccd_workflows.report.statistics import METASTABLE, REACHABLE, Point, Summary

NO_ENERGY = "No crystal of this campaign has an energy above the hull."


def funnel(summary: Summary) -> Figure:
    """Return how many crystals reached each step."""
    steps, whole = summary.steps, summary.count("generated")
    if not whole:
        raise NothingToShow("No sample of this campaign is stored.")
    figure, axes = new_axes(height=0.28 * len(steps) + 0.3)
    axes.barh(range(len(steps)), [step.count for step in steps], color=NEW, height=0.7)
    for row, step in enumerate(steps):
        share = percent(step.count, whole)
        axes.text(step.count, row, f" {step.count:,} ({share})", va="center", color=INK)
    axes.set_yticks(range(len(steps)), [step.label for step in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.7 * whole)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    return figure


def last_points(summary: Summary) -> tuple[str, list[Point]]:
    """Return the highest level with energies, and its crystals."""
    for level, points in reversed(summary.points.items()):
        if points:
            return level, points
    raise NothingToShow(NO_ENERGY)


def energies(summary: Summary) -> Figure:
    """Return the energies above the hull at the highest level, new on top of known crystals."""
    level, points = last_points(summary)
    above = np.clip([point.energy_above_hull for point in points], None, MAX_SHOWN)
    new = np.array([point.novel is True for point in points])
    width = bin_width(len(points))
    low = width * np.floor(min(0.0, float(above.min())) / width)
    edges = np.arange(low, max(0.3, float(above.max())) + 2 * width, width)
    figure, axes = new_axes()
    axes.hist(
        [above[~new], above[new]],
        bins=edges.tolist(),
        stacked=True,
        color=[KNOWN, NEW],
        label=["known", "new"],
        edgecolor="white",
        linewidth=0.4,
    )
    for threshold in (METASTABLE, REACHABLE):
        axes.axvline(threshold, color=BAD, linewidth=0.8, linestyle="--")
    capped = f"; last bar: {MAX_SHOWN:g} and above" if above.max() >= MAX_SHOWN else ""
    axes.set_title(f"{level}, {len(points)} crystals{capped}", fontsize=7)
    axes.set_xlabel("Energy above hull (eV/atom)")
    axes.set_ylabel("Crystals")
    axes.legend()
    return figure


def elements(summary: Summary) -> Figure:
    """Return the periodic table, coloured by how many crystals near the hull hold an element."""
    level, points = last_points(summary)
    near = [point for point in points if point.energy_above_hull <= METASTABLE + 1e-4]
    if not near:
        raise NothingToShow(f"No crystal lies within {EV_TO_MEV * METASTABLE:g} meV/atom.")
    counts = Counter(e.symbol for point in near for e in Composition(point.formula).elements)
    cells = np.full((10, 18), np.nan)
    figure, axes = new_axes(width=7.0, height=3.6)
    for element in (e for e in Element if e.Z <= 103 and e.symbol not in ("D", "T")):
        row, column = _place(element)
        cells[row, column] = counts[element.symbol]
        held = counts[element.symbol]
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": INK if held else KNOWN}
        axes.text(column, row - (0.15 if held else 0), element.symbol, fontsize=8, **style)
        if held:
            axes.text(column, row + 0.25, f"{held:,}", fontsize=5.5, **style)
    held_cells = np.where(cells > 0, cells, np.nan)
    drawn = axes.imshow(held_cells, cmap="Blues", vmin=0, vmax=1.8 * max(counts.values()))
    axes.axis("off")
    title = f"Crystals within {EV_TO_MEV * METASTABLE:g} meV/atom of the hull ({level})"
    figure.colorbar(drawn, ax=axes, shrink=0.7).set_label(title, fontsize=7)
    return figure


def _place(element: Element) -> tuple[int, int]:
    """Return row and column; lanthanides and actinides lie below the table."""
    if element.is_lanthanoid or element.is_actinoid:
        row = 8 if element.is_lanthanoid else 9
        return row, element.Z - (57 if element.is_lanthanoid else 89) + 2
    return element.row - 1, element.group - 1


def parity(summary: Summary) -> Figure:
    """Return the energies above the hull of the last two levels against each other."""
    levels = [level for level, points in summary.points.items() if points]
    if len(levels) < 2:
        only = levels[0] if levels else "none"
        raise NothingToShow(f"Two levels are needed to compare them; there is {only}.")
    (x_level, y_level) = list(pairwise(levels))[-1]
    first, second = ({p.candidate_id: p for p in summary.points[x]} for x in (x_level, y_level))
    shared = [name for name in first if name in second]
    if not shared:
        raise NothingToShow(f"No crystal has energies at both {x_level} and {y_level}.")
    x, y = (np.array([one[n].energy_above_hull for n in shared]) for one in (first, second))
    new = np.array([second[name].novel is True for name in shared])
    figure, axes = new_axes(height=3.3)
    low, high = min(0.0, x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=0.6)
    for chosen, colour, label in ((~new, KNOWN, "known"), (new, NEW, "new")):
        axes.scatter(x[chosen], y[chosen], s=12, color=colour, label=label, linewidths=0)
    error = EV_TO_MEV * np.abs(x - y).mean()
    told = f"mean absolute difference {error:.0f} meV/atom, {len(shared)} crystals"
    axes.set_title(told, fontsize=7)
    axes.set_xlabel(f"Energy above hull, {x_level} (eV/atom)")
    axes.set_ylabel(f"Energy above hull, {y_level} (eV/atom)")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend()
    return figure
