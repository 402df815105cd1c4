"""Pictures of numbers: energy above hull, its cumulative share, a relaxation, bands."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pccd_workflows.core.intervals import wilson_share
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.report.statistics import METASTABLE, REACHABLE, Point
from pccd_workflows.report.svg import Plot, element, line, padded, path, text

MAX_SHOWN = 1.0
"""eV/atom; crystals above it share the last bar of the histogram."""
CARD = (372.0, 300.0)
HALF = (540.0, 300.0)
DOS_WIDTH = 52.0
"""Pixels for the density of states beside the bands."""
XRD_RANGE = (10.0, 90.0)
"""2θ, degrees."""
ELECTRON_VOLTS = 5.0
"""How far electronic bands are drawn below and above the gap, eV."""


def hull_histogram(points: Sequence[Point], level: str) -> Markup:
    """Return the energies above hull of one level as stacked bars, new on top of known."""
    energies = np.array([point.energy_above_hull for point in points])
    width = bin_width(len(points))
    low = min(0.0, math.floor(float(energies.min()) / width + 1e-9) * width)
    top = max(0.3, min(MAX_SHOWN, math.ceil(float(energies.max()) / width) * width))
    n_bins = round((top - low) / width)
    bins = np.clip(((energies - low) / width + 1e-9).astype(int), 0, n_bins)
    beyond = int((bins == n_bins).sum())
    x_high = top + (2 * width if beyond else 0.0)
    heights = np.bincount(bins, minlength=n_bins + 1)
    plot = Plot.make(HALF, (low, x_high), (0, max(1.0, float(heights.max()) * 1.12)))
    parts: list[Markup] = plot.frame("Energy above hull (eV/atom)", "Crystals", counts=True)
    novel = np.array([point.novel is True for point in points])
    for number in range(n_bins + 1):
        start = low + number * width if number < n_bins else top + width
        label = f"{start:.2f} to {start + width:.2f} eV/atom"
        if number == n_bins:
            label = f"more than {top:g} eV/atom"
        base = 0
        for new, name in ((False, "known"), (True, "new")):
            chosen = np.flatnonzero((bins == number) & (novel == new))
            if len(chosen) == 0:
                continue
            x, y = plot.x(start), plot.y(base + len(chosen))
            names = ", ".join(sorted({points[int(i)].formula for i in chosen})[:8])
            parts.append(
                element(
                    "rect",
                    x=x + 0.5,
                    y=y,
                    width=max(1.0, plot.x(start + width) - x - 1),
                    height=plot.y(base) - y,
                    class_=f"bar {name}",
                    data_tip=f"{len(chosen)} {name}, {label}\n{names}",
                )
            )
            base += len(chosen)
    if beyond:
        middle = plot.x(top + 1.5 * width)
        parts.append(
            text(middle, plot.y(0) + 30, f"> {top:g}", class_="tick", text_anchor="middle")
        )
    parts += _thresholds(plot)
    return plot.draw(f"Energy above hull of {len(points)} crystals, {level}", parts)


def bin_width(n_points: int) -> float:
    """Return a bar width (eV/atom) that few crystals still fill."""
    return 0.05 if n_points < 60 else 0.025 if n_points < 1000 else 0.01


def cumulative_share(points: Sequence[Point], n_unique: int, level: str) -> Markup:
    """Return the share of unique crystals within each energy, with its 95 % Wilson band."""
    energies = sorted(point.energy_above_hull for point in points)
    low = min(0.0, energies[0])
    top = max(0.3, min(MAX_SHOWN, energies[-1]))
    grid = np.linspace(low, top, 240)
    shares = [
        wilson_share(int(np.searchsorted(energies, x + 1e-9, side="right")), n_unique) for x in grid
    ]
    highest = max(100 * (share.high or 0) for share in shares)
    plot = Plot.make(HALF, (low, float(top)), (0, max(1.0, highest * 1.08)))
    upper = [(plot.x(x), plot.y(100 * (s.high or 0))) for x, s in zip(grid, shares, strict=True)]
    lower = [(plot.x(x), plot.y(100 * (s.low or 0))) for x, s in zip(grid, shares, strict=True)]
    curve = [(plot.x(x), plot.y(100 * (s.value or 0))) for x, s in zip(grid, shares, strict=True)]
    parts: list[Markup] = plot.frame("Energy above hull (eV/atom)", "Unique crystals within (%)")
    parts += [path(upper + lower[::-1], class_="band"), path(curve, class_="curve")]
    parts += _thresholds(plot)
    return plot.draw(f"Cumulative share of {n_unique} unique crystals, {level}", parts)


def _thresholds(plot: Plot) -> list[Markup]:
    parts: list[Markup] = []
    for threshold in (METASTABLE, REACHABLE):
        x = plot.x(threshold)
        parts.append(line(x, plot.y.start, x, plot.y.end, class_="threshold"))
        label = f"{threshold * EV_TO_MEV:g} meV"
        parts.append(text(x + 4, plot.y.end + 10, label, class_="note"))
    return parts


def relaxation_curve(relaxation: Relaxation) -> Markup:
    """Return the energy of each step relative to the last, meV/atom."""
    energies = [EV_TO_MEV * (e - relaxation.energies[-1]) for e in relaxation.energies]
    plot = Plot.make(CARD, (0, max(1, len(energies) - 1)), padded(energies, least=2.0))
    points = [(plot.x(step), plot.y(energy)) for step, energy in enumerate(energies)]
    parts: list[Markup] = plot.frame("Step", "Energy − last (meV/atom)", x_ticks=5)
    parts.append(path(points, class_="curve"))
    marks = points if len(points) <= 60 else [points[0], points[-1]]
    parts += [element("circle", cx=x, cy=y, r=2.2, class_="mark") for x, y in marks]
    return plot.draw(f"Energy over {len(energies)} relaxation steps", parts)


Segment = tuple[list[float], list[list[float]]]
"""Distances along one leg of a path, and each band's values there."""
Labels = list[tuple[float, str]]
"""Distance and name of each point of high symmetry."""


def phonon_bands(phonons: Phonons) -> Markup:
    """Return the bands in THz along the path, imaginary frequencies below zero.

    Raises
    ------
    ValueError
        The record holds no bands, or their shapes do not agree.
    """
    segments, labels = band_segments(phonons)
    frequencies = [value for _, bands in segments for band in bands for value in band]
    low, high = padded([*frequencies, 0.0, -phonons.tolerance], least=1.0)
    margins = (16, DOS_WIDTH + 20 if phonons.dos else 14, 44, 54)
    plot = Plot.make(CARD, (0.0, segments[-1][0][-1]), (low, high), margins=margins)
    parts: list[Markup] = _dos(plot, phonons.dos) if phonons.dos else []
    limit = plot.y(-phonons.tolerance)
    if min(frequencies) < -phonons.tolerance:
        parts.append(_between(plot, plot.y.start, limit, "imaginary"))
    parts += plot.frame("", "Frequency (THz)", x_ticks=0)
    parts += _point_names(plot, labels)
    for distances, bands in segments:
        for band in bands:
            curve = [(plot.x(x), plot.y(f)) for x, f in zip(distances, band, strict=True)]
            bad = min(band) < -phonons.tolerance
            parts.append(path(curve, class_="phonon bad" if bad else "phonon"))
    parts.append(line(plot.x.start, plot.y(0), plot.x.end, plot.y(0), class_="zero"))
    parts.append(
        line(
            plot.x.start,
            limit,
            plot.x.end,
            limit,
            class_="threshold",
            data_tip=f"Tolerance: -{phonons.tolerance:g} THz",
        )
    )
    return plot.draw("Phonon bands", parts, class_="bands", **_scales(plot))


def _scales(plot: Plot) -> dict[str, str]:
    """Return what a page needs to read distance and frequency from a place in the picture."""
    axes = {"data_x": plot.x, "data_y": plot.y}
    return {name: f"{a.low} {a.high} {a.start} {a.end}" for name, a in axes.items()}


def _dos(plot: Plot, dos: Mapping[str, Sequence[float]]) -> list[Markup]:
    """Return the density of states at the right of the bands, and its name."""
    shown = [(f, d) for f, d in zip(dos["frequencies"], dos["density"], strict=True)]
    shown = [(f, d) for f, d in shown if plot.y.low <= f <= plot.y.high]
    if not shown:
        return []
    left, top = plot.x.end + 8, max([1e-9, *(d for _, d in shown)])
    curve = [(left + DOS_WIDTH * d / top, plot.y(f)) for f, d in shown]
    outline = [(left, curve[0][1]), *curve, (left, curve[-1][1])]
    tip = f"Density of states, at most {top:.3g} states/THz"
    name = text(left + DOS_WIDTH / 2, plot.y.start + 16, "DOS", class_="tick", text_anchor="middle")
    return [path(outline, class_="dos", data_tip=tip), name]


def xrd_pattern(angles: Sequence[float], heights: Sequence[float], names: Sequence[str]) -> Markup:
    """Return a powder pattern as sticks, the strongest reflections named.

    angles: 2θ, degrees. heights: percent of the strongest. names: Miller indices.
    """
    plot = Plot.make(CARD, XRD_RANGE, (0.0, 108.0))
    parts: list[Markup] = plot.frame("2θ (°), Cu Kα", "Intensity (%)")
    taken: list[float] = []
    ranked = sorted(zip(angles, heights, names, strict=True), key=lambda peak: -peak[1])
    for angle, height, name in ranked:
        x, y = plot.x(angle), plot.y(height)
        tip = f"({name}) at {angle:.2f}°, {height:.0f} %"
        parts.append(line(x, plot.y.start, x, y, class_="peak", data_tip=tip))
        if len(taken) < 6 and all(abs(x - other) > 7 * len(name) for other in taken):
            taken.append(x)
            parts.append(text(x, y - 4, name, class_="tick", text_anchor="middle"))
    return plot.draw("Simulated X-ray powder pattern", parts)


def electron_bands(record: Bands) -> Markup:
    """Return the bands in eV along the path, from the valence maximum (a metal's Fermi level) on.

    Raises
    ------
    ValueError
        The record holds no bands, or their shapes do not agree.
    """
    channels, labels, zero = electron_segments(record)
    gap = record.band_gap or 0.0
    low, high = -ELECTRON_VOLTS, gap + ELECTRON_VOLTS
    plot = Plot.make(CARD, (0.0, labels[-1][0]), (low, high))
    parts: list[Markup] = []
    if gap > 0:
        parts.append(_between(plot, plot.y(0), plot.y(gap), "gap", f"Gap: {gap:.2f} eV"))
    parts += plot.frame("", "Energy (eV)", x_ticks=0)
    parts += _point_names(plot, labels)
    for segments, spin in zip(channels, ("", " down"), strict=False):
        for distances, bands in segments:
            for band in bands:
                for run in _shown(distances, [energy - zero for energy in band], low, high):
                    curve = [(plot.x(x), plot.y(energy)) for x, energy in run]
                    parts.append(path(curve, class_=f"electron{spin}"))
    parts.append(line(plot.x.start, plot.y(0), plot.x.end, plot.y(0), class_="zero"))
    return plot.draw("Electronic bands", parts)


def band_segments(record: Phonons) -> tuple[list[Segment], Labels]:
    """Return phonon bands (THz) laid end to end, and the labels of their ends.

    Raises
    ------
    ValueError
        The record holds no bands, or their shapes do not agree.
    """
    picture = record.bands or {}
    return _segments(picture, picture.get("frequencies", []), "phonon bands")


def electron_segments(record: Bands) -> tuple[list[list[Segment]], Labels, float]:
    """Return the bands of each spin (eV), the labels of their ends, and the energy to count from.

    Raises
    ------
    ValueError
        The record holds no bands, or their shapes do not agree.
    """
    picture = record.bands or {}
    channels = list(zip(*picture.get("energies", []), strict=True))
    drawn = [_segments(picture, channel, "electronic bands") for channel in channels]
    if not drawn:
        raise ValueError("The record holds no electronic bands.")
    zero = record.efermi if record.vbm is None else record.vbm
    if zero is None:
        raise ValueError("The record has no Fermi level.")
    return [segments for segments, _ in drawn], drawn[0][1], zero


def _shown(
    distances: Sequence[float], energies: Sequence[float], low: float, high: float
) -> list[list[tuple[float, float]]]:
    """Return the pieces of a band that lie inside the plot."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, energy in zip(distances, energies, strict=True):
        if low <= energy <= high:
            pieces[-1].append((x, energy))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]


def _between(plot: Plot, bottom: float, top: float, class_: str, tip: str | None = None) -> Markup:
    """Return a rectangle as wide as the plot, from pixel `bottom` to `top`."""
    x, width = plot.x.start, plot.x.end - plot.x.start
    return element(
        "rect", x=x, y=top, width=width, height=bottom - top, class_=class_, data_tip=tip
    )


def _point_names(plot: Plot, labels: Sequence[tuple[float, str]]) -> list[Markup]:
    """Return a line and a name at each point of high symmetry."""
    parts, previous = [], None
    for position, label in labels:
        x = plot.x(position)
        # Points closer than their names are wide: the second name goes one line down.
        crowded = previous is not None and x - previous < 4 + 4 * len(label)
        y, previous = plot.y.start + (28 if crowded else 16), None if crowded else x
        parts.append(line(x, plot.y.start, x, plot.y.end, class_="axis"))
        parts.append(text(x, y, label, class_="tick", text_anchor="middle"))
    return parts


def _segments(
    picture: Mapping[str, Any], values: Sequence[Any], what: str
) -> tuple[list[Segment], Labels]:
    """Return segments (distances from 0, bands) laid end to end, and the labels of their ends."""
    distances, names = picture.get("distances", []), picture.get("labels", [])
    if not distances or not len(distances) == len(values) == len(names):
        raise ValueError(f"The record holds no {what}.")
    segments: list[Segment] = []
    labels: Labels = []
    start = 0.0
    for along, branches, (left, right) in zip(distances, values, names, strict=True):
        if any(len(branch) != len(along) for branch in branches):
            raise ValueError("A band and its path have different lengths.")
        x = [start + value - along[0] for value in along]
        left, right = q_label(left), q_label(right)  # noqa: PLW2901
        if labels and labels[-1][1] != left:
            labels[-1] = (start, f"{labels[-1][1]}|{left}")
        elif not labels:
            labels.append((start, left))
        start = x[-1]
        labels.append((start, right))
        segments.append((x, branches))
    return segments, labels


def q_label(name: str) -> str:
    """Return a high-symmetry point's label as it is printed: Γ, subscripts, no TeX."""
    plain = name.replace("$", "").replace("\\mathrm", "").replace("{", "").replace("}", "")
    plain = plain.replace("\\Gamma", "Γ").replace("\\Sigma", "Σ").replace("\\Delta", "Δ")
    for word, sign in (("GAMMA", "Γ"), ("SIGMA", "Σ"), ("DELTA", "Δ"), ("LAMBDA", "Λ")):
        plain = plain.replace(word, sign)
    head, _, index = plain.partition("_")
    return head + index.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
