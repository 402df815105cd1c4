"""How figures look: a journal's single column, colours that colour-blind readers tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NEW, KNOWN, BAD, GOOD, INK = "#0072b2", "#a9b1bc", "#b3362b", "#14764a", "#1b2430"
"""Colours of the report, from Okabe and Ito's palette where they stand for a class."""
WIDTH = 3.5
"""Width of a journal's single column, inches."""
DPI = 300
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "pccd",  # the same figure is the same file
    "mathtext.default": "regular",
}


class NothingToShow(Exception):  # noqa: N818
    """Why there is no such figure of this campaign, in one sentence."""


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save inside this: changes nothing of the caller's own settings."""
    with mpl.rc_context(SETTINGS):
        yield


def new_axes(width: float = WIDTH, height: float = 2.6) -> tuple[Figure, Axes]:
    """Return a figure (inches) with one pair of axes; no window, no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG; return the files."""
    files = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")]
    figure.savefig(files[0], dpi=DPI)
    figure.savefig(files[1], metadata={"Date": None})
    return files


def subscripts(formula: str) -> str:
    """Return a formula as matplotlib writes it, amounts as subscripts."""
    from pymatgen.util.string import latexify

    return str(latexify(formula))
