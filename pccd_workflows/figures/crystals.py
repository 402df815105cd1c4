"""Figures of one crystal: phonon bands with their density of states, electronic bands."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pccd_workflows.engines.records import Bands, Phonons
from pccd_workflows.figures.style import BAD, INK, KNOWN, NEW, WIDTH, NothingToShow, new_axes
from pccd_workflows.report.figures import ELECTRON_VOLTS, Segment, band_segments, electron_segments


def phonons(record: Phonons) -> Figure:
    """Return the bands (imaginary ones below zero) with the density of states beside them."""
    try:
        segments, labels = band_segments(record)
    except ValueError as error:
        raise NothingToShow(str(record.reason or error)) from None
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    widths = [3, 1] if record.dos else [1]
    first, *beside = np.atleast_1d(
        figure.subplots(1, len(widths), sharey=True, gridspec_kw={"width_ratios": widths})
    )
    _curves(first, segments, lambda band: BAD if min(band) < -record.tolerance else NEW)
    _points(first, labels)
    first.axhline(0, color=INK, linewidth=0.5)
    first.axhline(-record.tolerance, color=BAD, linewidth=0.6, linestyle="--")
    first.set_ylabel("Frequency (THz)")
    for axes in beside:
        dos = record.dos or {}
        axes.fill_betweenx(dos["frequencies"], 0, dos["density"], color=KNOWN)
        axes.set_xlabel("States/THz")
        axes.set_xlim(left=0)
    return figure


def electrons(record: Bands) -> Figure:
    """Return the electronic bands, from the valence maximum (a metal's Fermi level) on."""
    try:
        channels, labels, zero = electron_segments(record)
    except ValueError as error:
        raise NothingToShow(str(record.reason or error)) from None
    figure, axes = new_axes(height=2.8)
    for segments, colour in zip(channels, (NEW, BAD), strict=False):
        moved = [(x, [[e - zero for e in band] for band in bands]) for x, bands in segments]
        _curves(axes, moved, lambda _band, colour=colour: colour)
    _points(axes, labels)
    axes.axhline(0, color=INK, linewidth=0.5)
    axes.set_ylim(-ELECTRON_VOLTS, (record.band_gap or 0.0) + ELECTRON_VOLTS)
    axes.set_ylabel("Energy (eV)")
    return figure


def _curves(axes: Any, segments: list[Segment], colour: Any) -> None:
    for along, bands in segments:
        for band in bands:
            axes.plot(along, band, color=colour(band), linewidth=0.8)


def _points(axes: Any, labels: list[tuple[float, str]]) -> None:
    """Mark the points of high symmetry."""
    for position, _ in labels:
        axes.axvline(position, color=KNOWN, linewidth=0.5, zorder=0)
    axes.set_xticks([position for position, _ in labels], [label for _, label in labels])
    axes.set_xlim(labels[0][0], labels[-1][0])
