"""A page of pictures that says what a dataset holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.pointcloud.elements import symbol
from pccd_workflows.report.render import plain_page
from pccd_workflows.report.svg import Plot, element, text

SIZE = (540.0, 260.0)
WIDE = (1100.0, 260.0)


def dataset_page(
    name: str,
    arrays: CrystalArrays,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """Return a self-contained HTML page.

    Parameters
    ----------
    name
        Of the file.
    summary
        From `describe_dataset`, with its sha256.
    provenance
        From `read_provenance`.
    """
    facts = [
        f"{summary['crystals']:,} crystals of {summary['elements']} elements",
        f"{summary['chemical_systems']:,} chemical systems",
        "splits " + ", ".join(f"{k} {v:,}" for k, v in summary["splits"].items()),
        f"{summary['shared_between_splits']} chemical systems in more than one split",
        f"content sha256 {summary['sha256'][:12]}",
    ]
    left_out = provenance.get("left_out", {})
    facts += [f"left out {count:,} with {reason}" for reason, count in left_out.items()]
    return plain_page(name, facts, pictures(arrays, summary))


def pictures(arrays: CrystalArrays, summary: Mapping[str, Any]) -> list[Markup]:
    """Return one picture per column of a dataset."""
    numbers = [z for row in arrays.numbers for z in np.unique(row[row > 0]).tolist()]
    counts = np.bincount(numbers, minlength=1)
    elements = {symbol(z): int(counts[z]) for z in np.flatnonzero(counts).tolist()}
    return [
        bars(summary["n_elements"], "Elements per crystal", SIZE),
        bars(summary["n_sites"], "Atoms per cell", SIZE),
        bars(summary["crystal_systems"], "Crystal system", SIZE),
        histogram(volumes_per_atom(arrays), "Volume per atom (Å³)"),
        histogram(arrays.lengths.max(1), "Longest axis (Å)"),
        histogram(arrays.band_gap, "Band gap (eV), where known"),
        histogram(arrays.energy_above_hull, "Energy above hull (eV/atom), where known"),
        bars(elements, "Crystals with each element", WIDE),
    ]


def volumes_per_atom(arrays: CrystalArrays) -> NDArray[np.float64]:
    """Return the volume per atom of each crystal, Å^3, shape (N,)."""
    lengths, cosines = arrays.lengths.astype(float), np.cos(np.radians(arrays.angles))
    root = 1 - (cosines**2).sum(1) + 2 * cosines.prod(1)
    volumes = lengths.prod(1) * np.sqrt(np.maximum(root, 0.0)) / arrays.n_sites
    return np.asarray(volumes)


def bars(counts: Mapping[str, int], title: str, size: tuple[float, float]) -> Markup:
    """Return a bar per name."""
    top = max([1, *counts.values()])
    plot = Plot.make(size, (0, max(1, len(counts))), (0, top * 1.1))
    parts = plot.frame(title, "Crystals", x_ticks=0, counts=True)
    for place, (name, count) in enumerate(counts.items()):
        parts += [
            _bar(plot, place + 0.1, place + 0.9, count, f"{name}: {count:,}"),
            text(
                plot.x(place + 0.5),
                plot.y(0) + 15,
                name if len(counts) < 30 or place % 2 == 0 else "",
                class_="tick",
                text_anchor="middle",
            ),
        ]
    return plot.draw(title, parts)


def histogram(values: Sequence[float] | NDArray[Any], title: str, *, bins: int = 40) -> Markup:
    """Return the distribution of numbers up to their 99.5th percentile; NaN are left out."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return bars({}, f"{title}: none", SIZE)
    low = min(0.0, float(known.min()))
    high = max(float(np.percentile(known, 99.5)), low + 1e-3)
    counts, edges = np.histogram(known, bins=bins, range=(low, high))
    plot = Plot.make(SIZE, (low, high), (0, max(1.0, counts.max() * 1.1)))
    parts = plot.frame(title, "Crystals", counts=True)
    for count, start, end in zip(counts.tolist(), edges, edges[1:], strict=False):
        parts.append(_bar(plot, start, end, count, f"{start:.3g} to {end:.3g}: {count:,}"))
    return plot.draw(title, parts)


def _bar(plot: Plot, start: float, end: float, count: int, tip: str) -> Markup:
    x, y = plot.x(start), plot.y(count)
    return element(
        "rect",
        element("title", tip),
        x=x,
        y=y,
        width=max(0.5, plot.x(end) - x - 0.5),
        height=plot.y(0) - y,
        class_="bar known",
    )
