"""Pictures of a generation's measures: shares with intervals, energies above hull, seed Table 2."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pccd_workflows.evaluation.thresholds import THRESHOLDS
from pccd_workflows.report.render import plain_page
from pccd_workflows.report.svg import Plot, element, line, path, text

SIZE = (540.0, 300.0)
TALL = (540.0, 360.0)
SHOWN = (
    "valid",
    "screened",
    "unique",
    "novel",
    "stable_250",
    "stable_100",
    "stable_80",
    "stable_0",
    "metasun",
    "sun",
)
MAX_ENERGY = 1.0
"""eV/atom; crystals above it lie beyond the right edge."""


def batches_page(result: Mapping[str, Any]) -> str:
    """Return a self-contained page of the seed's batches: the JSON of `measure_batches`."""
    table, parts = result["table_2"], []
    batches = [row["batch"] for row in table["rows"] if row["batch"] in result]
    for name in batches:
        parts += generation_pictures(result[name], name)
    facts = [f"{key}: {value}" for key, value in result["protocol"].items()]
    pictures = [table_2_picture(table, key) for key in ("stable_250", "stable_80")]
    return plain_page("The seed paper's batches", [table["caveat"], *facts], [*pictures, *parts])


def generation_pictures(part: Mapping[str, Any], name: str) -> list[Markup]:
    """Return the pictures of one set of samples.

    Parameters
    ----------
    part
        The part `generation` of an evaluation, or one batch: shares, and rows by sample.
    name
        What the samples are.
    """
    pictures = [shares(part, name)]
    rows = part.get("rows") or []
    energies = [r["energy_above_hull"] for r in rows if r.get("energy_above_hull") is not None]
    if energies:
        pictures.append(cumulative(energies, len(rows), name))
    moved = [r["rmsd_to_relaxed"] for r in rows if r.get("rmsd_to_relaxed") is not None]
    if moved:
        pictures.append(displacement(moved, name))
    return pictures


def shares(part: Mapping[str, Any], name: str) -> Markup:
    """Return the shares of the raw samples as bars with their 95 % intervals."""
    found = [key for key in SHOWN if part.get(key) and part[key]["value"] is not None]
    plot = Plot.make(SIZE, (0, max(1, len(found))), (0, 1.05), margins=(16, 14, 64, 54))
    parts = plot.frame("", "Share of raw samples", x_ticks=0)
    for place, key in enumerate(found):
        value, (low, high) = part[key]["value"], part[key]["interval"]
        middle = plot.x(place + 0.5)
        parts += [
            element(
                "rect",
                element("title", f"{key}: {value:.1%} (95 %: {low:.1%} to {high:.1%})"),
                x=plot.x(place + 0.15),
                y=plot.y(value),
                width=plot.x(0.7) - plot.x(0),
                height=plot.y(0) - plot.y(value),
                class_="bar new",
            ),
            line(middle, plot.y(low), middle, plot.y(high), class_="axis"),
            text(
                middle,
                plot.y(0) + 12,
                key,
                class_="tick",
                text_anchor="end",
                transform=f"rotate(-35 {middle:.1f} {plot.y(0) + 12:.1f})",
            ),
        ]
    return plot.draw(f"{name}: shares of raw samples with 95 % intervals", parts)


def cumulative(energies: Sequence[float], total: int, name: str) -> Markup:
    """Return the share of the raw samples within each energy above hull."""
    ordered = sorted(energies)
    low = min(0.0, ordered[0])
    plot = Plot.make(SIZE, (low, MAX_ENERGY), (0, 1.05))
    parts = plot.frame("Energy above hull (eV/atom)", "Share of raw samples")
    points = [(plot.x(low), plot.y(0))]
    for number, energy in enumerate(e for e in ordered if e <= MAX_ENERGY):
        points += [
            (plot.x(energy), plot.y(number / total)),
            (plot.x(energy), plot.y((number + 1) / total)),
        ]
    points.append((plot.x(MAX_ENERGY), points[-1][1]))
    parts.append(path(points, class_="axis", fill="none"))
    for limit in THRESHOLDS.values():
        x = plot.x(limit)
        parts += [
            line(x, plot.y(0), x, plot.y(1), class_="zero"),
            text(x + 3, plot.y(1) + 4, f"{1000 * limit:g}", class_="tick"),
        ]
    return plot.draw(f"{name}: cumulative energy above hull of {len(energies)} crystals", parts)


def displacement(moved: Sequence[float], name: str) -> Markup:
    """Return how far relaxing moved the atoms."""
    high = max(0.1, float(np.percentile(moved, 99)))
    counts, edges = np.histogram(moved, bins=24, range=(0.0, high))
    plot = Plot.make(SIZE, (0, high), (0, max(1.0, counts.max() * 1.1)))
    parts = plot.frame("RMS displacement of atoms by relaxing (Å)", "Crystals", counts=True)
    for count, start, end in zip(counts.tolist(), edges.tolist(), edges[1:].tolist(), strict=False):
        parts.append(
            element(
                "rect",
                element("title", f"{start:.2f} to {end:.2f} Å: {count}"),
                x=plot.x(start),
                y=plot.y(count),
                width=max(0.5, plot.x(end) - plot.x(start) - 0.5),
                height=plot.y(0) - plot.y(count),
                class_="bar known",
            )
        )
    return plot.draw(f"{name}: displacement of {len(moved)} crystals by relaxing", parts)


def table_2_picture(table: Mapping[str, Any], key: str = "stable_250") -> Markup:
    """Return the seed's share and ours of screened samples, batch by batch."""
    rows = table["rows"]
    plot = Plot.make(TALL, (0, len(rows)), (0, 1.05), margins=(30, 14, 90, 54))
    limit = f"{1000 * THRESHOLDS[key]:g} meV/atom"
    parts = plot.frame("", f"Below {limit}, of screened", x_ticks=0)
    for place, row in enumerate(rows):
        ours = row[key]["ours_of_screened"]
        bars = [("seed", row[key]["seed_of_screened"], "bar known")]
        if ours and ours["value"] is not None:
            bars.append(("ours", ours["value"], "bar new"))
        for number, (whose, value, look) in enumerate(bars):
            parts.append(
                element(
                    "rect",
                    element("title", f"{row['batch']}, {whose}: {value:.1%}"),
                    x=plot.x(place + 0.1 + 0.4 * number),
                    y=plot.y(value),
                    width=plot.x(0.38) - plot.x(0),
                    height=plot.y(0) - plot.y(value),
                    class_=look,
                )
            )
            if whose == "ours":
                x = plot.x(place + 0.69)
                low, high = ours["interval"]
                parts.append(line(x, plot.y(low), x, plot.y(high), class_="axis"))
        x, y = plot.x(place + 0.5), plot.y(0) + 12
        name = row["batch"].removeprefix("seed-")
        parts.append(
            text(
                x,
                y,
                name,
                class_="tick",
                text_anchor="end",
                transform=f"rotate(-25 {x:.1f} {y:.1f})",
            )
        )
    return plot.draw(f"Below {limit}: the seed's batches, grey, and ours", parts)
