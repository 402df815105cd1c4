"""The page of an evaluation: the seed's Table 1, Figs. 1 and 2 for our model, and what goes beyond.

Written as a folder: evaluation.html (self-contained), metrics.json and each figure as .svg.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pccd_workflows.core.files import make_folder, write_whole
from pccd_workflows.evaluation.inversion import Inversion
from pccd_workflows.evaluation.prediction import Prediction
from pccd_workflows.evaluation.reconstruction import (
    COORDINATES,
    LENGTHS,
    SEED_COUNT_ACCURACY,
    SEED_EFFICIENCY,
    SEED_LIMITS,
    Reconstruction,
    whiskers,
)
from pccd_workflows.evaluation.similarity import Similarity
from pccd_workflows.report.generation import generation_pictures
from pccd_workflows.report.render import asset, render
from pccd_workflows.report.svg import Plot, element, line, padded, path, text

Floats = NDArray[np.float64]
View = dict[str, Any]
Picture = tuple[str, Markup]
"""Caption and drawing."""

SQUARE = (372.0, 340.0)
WIDE = (540.0, 300.0)
MAX_POINTS = 3000
"""Points of a parity plot; more of them are thinned out evenly."""
UNITS = {
    "energy": "eV/atom",
    "superpose": "Å",
    "rms_anonymous": "(V/N)^(1/3)",
    "graph_edit": "edits",
}
NO_RUN = "not measured"


def write_evaluation(
    folder: Path,
    result: Mapping[str, Any],
    parts: Mapping[str, Any],
    *,
    loss_curve: Sequence[Mapping[str, float]] = (),
    command: str = "",
) -> Path:
    """Write the page, its figures and the figures' numbers to a folder; return the page.

    Parameters
    ----------
    folder
        Made if it is missing.
    result
        What `pccd model evaluate --json` prints.
    parts
        The measured parts by name, with their raw data.
    loss_curve
        "step" and "loss" of the training, if they are known.
    command
        That made all this.
    """
    sections = [
        section
        for section in (
            _reconstruction(parts.get("reconstruction"), parts.get("control")),
            _similarity(parts.get("similarity")),
            _prediction(parts.get("csp")),
            _inversion(parts.get("inversion")),
            _generation(parts.get("generation")),
            _training(loss_curve),
        )
        if section is not None
    ]
    make_folder(folder)
    for section in sections:
        for number, (caption, picture) in enumerate(section["pictures"], start=1):
            name = f"{section['anchor']}_{number:02d}_{_slug(caption)}.svg"
            write_whole(folder / name, standalone(picture))
    write_whole(folder / "metrics.json", json.dumps(result, indent=2) + "\n")
    view = {
        "name": result["model"],
        "lead": f"Measured on {result['crystals']:,} crystals ({result['split']}) of "
        f"{result['data']}, {result['samples']} drawn for each part.",
        "protocol": [*_protocol(result), ("Command", command or NO_RUN)],
        "sections": sections,
    }
    return write_whole(folder / "evaluation.html", render("evaluation.html", r=view))


def _slug(caption: str) -> str:
    """Return a caption as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "_", caption.lower()).strip("_")[:60]


def standalone(picture: Markup) -> str:
    """Return a figure as a file of its own, with the style sheet inside."""
    opening, _, rest = str(picture).partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{asset("style.css")}</style>{rest}'


def _protocol(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    sampler = result["sampler"]
    skipped = ", ".join(f"{n:,} × {why}" for why, n in result["skipped"].items()) or "none"
    return [
        ("Weights", f"sha256 {result['weights_sha256']}"),
        (
            "Sampler",
            f"{sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance']:g}",
        ),
        ("Seed", str(result["seed"])),
        ("Crystals skipped", skipped),
        (
            "Crystals of the data that the model was trained on, by geometry",
            _shown(result["known_to_model"]) if result.get("known_to_model") else NO_RUN,
        ),
        ("Matcher", "StructureMatcher, stol 0.5, ltol 0.3, angle_tol 10 (CDVAE, DiffCSP, FlowMM)"),
        ("Relaxation", "none, except for energies above the hull of the generation"),
        ("Intervals", "95 %: Wilson for shares, bootstrap for means and medians"),
    ]


def _reconstruction(made: Reconstruction | None, control: Reconstruction | None) -> View | None:
    if made is None and control is None:
        return None
    pictures: list[Picture] = []
    if made is not None:
        pictures += reconstruction_pictures(made, "reconstruction")
    if control is not None:
        pictures += reconstruction_pictures(control, "control")
    parts = {"reconstruction": made, "control": control}
    found = {name: None if part is None else part.summary() for name, part in parts.items()}
    return {
        "anchor": "reconstruction",
        "title": "Reconstruction (seed Table 1, Fig. 1)",
        "text": "Crystals are noised to t = T and denoised, given elements, band gap and magnetic "
        "ordering; the control starts from the noise alone. Errors are taken where the number of "
        "atoms is right. Efficiency: share of errors within the whiskers of their box plot, which "
        "adapt to the errors; the share within the seed's own whiskers does not. The seed's "
        "figures are of its training crystals.",
        "columns": ["reconstruction", "control (pure noise)", "seed paper"],
        "rows": _table(found),
        "pictures": pictures,
    }


def _table(found: Mapping[str, Any]) -> list[View]:
    """Return rows of the seed's Table 1, ours and theirs."""
    columns = ("reconstruction", "control")

    def row(label: str, keys: Sequence[str], seed: str) -> View:
        cells = []
        for column in columns:
            value: Any = found[column]
            for key in keys:
                value = None if value is None else value[key]
            cells.append(NO_RUN if value is None else _shown(value))
        return {"name": label, "cells": [*cells, seed]}

    names = (*LENGTHS, *COORDINATES)
    rows = [row("number of atoms right", ("atom_count_accuracy",), f"{SEED_COUNT_ACCURACY:.1%}")]
    rows.append(row("... at best, from the conditions alone", ("atom_count_ceiling",), ""))
    rows += [
        row(f"efficiency {name}", ("efficiency", name), f"{SEED_EFFICIENCY[name]:.1%}")
        for name in names
    ]
    rows += [
        row(f"efficiency {name}, periodic", ("periodic", "efficiency", name), "")
        for name in COORDINATES
    ]
    rows += [
        row(
            f"{name} within the seed's whiskers, periodic",
            ("periodic", "within_seed_limits", name),
            f"{low:.1%} to {high:.1%}",
        )
        for name, (low, high) in SEED_LIMITS.items()
    ]
    rows.append(row("composition right", ("composition_accuracy",), ""))
    rows.append(row("crystal matched", ("match_rate",), ""))
    return rows


def _shown(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "none"
    low, high = value["interval"]
    return f"{value['value']:.1%} ({low:.1%} to {high:.1%}, n = {value['n']})"


def reconstruction_pictures(made: Reconstruction, name: str) -> list[Picture]:
    """Return heat map, parity plots and box plots of a reconstruction."""
    counts = np.array(
        [[len(t), 0 if m is None else len(m)] for t, m in zip(made.targets, made.made, strict=True)]
    )
    errors = made.errors(periodic=True)
    plain = made.errors(periodic=False)
    return [
        (f"Number of atoms, {name} (0: no crystal)", heat_map(counts, f"Atoms, {name}")),
        *(
            (
                f"Lattice length {axis}, {name}",
                parity(before, after, f"{axis} (Å)", f"{axis}, {name}"),
            )
            for axis, before, after in zip(
                LENGTHS, made.lengths[0].T, made.lengths[1].T, strict=True
            )
        ),
        *(
            (
                f"Fractional coordinate {axis}, {name}",
                parity(before, after, f"{axis} (fractional)", f"{axis}, {name}"),
            )
            for axis, before, after in zip(
                COORDINATES, made.coordinates[0].T, made.coordinates[1].T, strict=True
            )
        ),
        (
            f"Relative errors of the lattice lengths, {name}",
            box_plot({k: errors[k] for k in LENGTHS}, "relative error", f"Lengths, {name}"),
        ),
        (
            f"Errors of the coordinates as the seed takes them, {name}",
            box_plot({k: plain[k] for k in COORDINATES}, "difference", f"Coordinates, {name}"),
        ),
        (
            f"Errors of the coordinates to the nearest image, {name}",
            box_plot(
                {k: errors[k] for k in COORDINATES}, "difference", f"Coordinates, periodic, {name}"
            ),
        ),
    ]


def heat_map(counts: NDArray[np.int64], title: str) -> Markup:
    """Return how often which number (first column) became which (second column)."""
    top = int(counts.max(initial=1))
    grid = np.zeros((top + 1, top + 1), dtype=int)
    np.add.at(grid, (counts[:, 0], counts[:, 1]), 1)
    plot = Plot.make(SQUARE, (-0.5, top + 0.5), (-0.5, top + 0.5))
    parts = plot.frame("atoms of the crystal", "atoms made", counts=True)
    width, height = plot.x(1) - plot.x(0), plot.y(0) - plot.y(1)
    for (before, after), count in np.ndenumerate(grid):
        if count:
            parts.append(
                element(
                    "rect",
                    element("title", f"{before} atoms made {after}: {count}"),
                    x=plot.x(before - 0.5),
                    y=plot.y(after + 0.5),
                    width=width,
                    height=height,
                    class_="bar new",
                    fill_opacity=0.15 + 0.85 * float(np.sqrt(count / grid.max())),
                )
            )
    return plot.draw(title, parts)


def parity(before: Floats, after: Floats, label: str, title: str) -> Markup:
    """Return made against given values."""
    limits = padded([*before.tolist(), *after.tolist()])
    plot = Plot.make(SQUARE, limits, limits)
    parts = plot.frame(f"{label}, crystal", f"{label}, made")
    low, high = limits
    parts.append(line(plot.x(low), plot.y(low), plot.x(high), plot.y(high), class_="axis"))
    step = max(1, len(before) // MAX_POINTS)
    parts += [
        element("circle", cx=plot.x(x), cy=plot.y(y), r=2.0, class_="mark", fill_opacity=0.45)
        for x, y in zip(before[::step].tolist(), after[::step].tolist(), strict=True)
    ]
    return plot.draw(title, parts)


def box_plot(columns: Mapping[str, Floats], label: str, title: str) -> Markup:
    """Return a box plot per column with its density; the axis ends a little beyond the whiskers."""
    boxes = {name: whiskers(values) for name, values in columns.items()}
    ends = [end for box in boxes.values() if box is not None for end in box]
    low, high = padded(ends, margin=0.4, least=1e-3)
    plot = Plot.make(WIDE, (0, max(1, len(columns))), (low, high))
    parts = plot.frame("", label, x_ticks=0)
    for place, (name, values) in enumerate(columns.items()):
        box = boxes[name]
        parts.append(
            text(plot.x(place + 0.5), plot.y(low) + 17, name, class_="label", text_anchor="middle")
        )
        if box is not None:
            parts += _box(plot, place, values, box)
            shown = values[(values >= low) & (values <= high)]
            parts.append(_density(plot, place, shown, (low, high)))
    return plot.draw(title, parts)


def _box(plot: Plot, place: int, values: Floats, box: tuple[float, float]) -> list[Markup]:
    first, median, third = np.percentile(values, [25, 50, 75]).tolist()
    left, middle, right = (plot.x(place + at) for at in (0.16, 0.3, 0.44))
    outside = int(((values < box[0]) | (values > box[1])).sum())
    return [
        line(middle, plot.y(box[0]), middle, plot.y(box[1]), class_="axis"),
        *(line(left, plot.y(end), right, plot.y(end), class_="axis") for end in box),
        element(
            "rect",
            element(
                "title",
                f"median {median:.3g}, box {first:.3g} to {third:.3g}, whiskers {box[0]:.3g} to "
                f"{box[1]:.3g}, {outside} of {len(values)} outside",
            ),
            x=left,
            y=plot.y(third),
            width=right - left,
            height=max(0.5, plot.y(first) - plot.y(third)),
            class_="bar known",
        ),
        line(left, plot.y(median), right, plot.y(median), class_="threshold"),
    ]


def _density(plot: Plot, place: int, values: Floats, limits: tuple[float, float]) -> Markup:
    """Return the smoothed density of values beside their box."""
    grid = np.linspace(*limits, 120)
    width = max(0.5 * float(np.std(values)) * max(len(values), 1) ** -0.2, 1e-6)
    width = max(width, (limits[1] - limits[0]) / 120)
    heights = np.exp(-0.5 * ((grid[:, None] - values[None]) / width) ** 2).sum(1)
    heights /= max(float(heights.max(initial=0.0)), 1e-12)
    points = [
        (plot.x(place + 0.5 + 0.4 * h), plot.y(v))
        for h, v in zip(heights.tolist(), grid.tolist(), strict=True)
    ]
    start, end = (plot.x(place + 0.5), plot.y(grid[0])), (plot.x(place + 0.5), plot.y(grid[-1]))
    return path([start, *points, end], class_="curve")


def _similarity(part: Similarity | None) -> View | None:
    if part is None:
        return None
    summary = part.summary()
    return {
        "anchor": "similarity",
        "title": "Similarity (seed Fig. 2)",
        "text": "Distances between crystals and their reconstructions with the right number of "
        "atoms; 0 means the same. What each metric is stands in evaluation/similarity.py.",
        "columns": ["median", "95 % interval", "pairs", "unit"],
        "rows": [
            {
                "name": name,
                "cells": [
                    "none" if found["value"] is None else f"{found['value']:.3g}",
                    str(found["interval"]),
                    found["n"],
                    UNITS.get(name, ""),
                ],
            }
            for name, found in summary.items()
        ],
        "pictures": [
            (f"Distance {name}", box_plot({name: values[np.isfinite(values)]}, name, name))
            for name, values in part.distances.items()
        ],
    }


def _prediction(part: Prediction | None) -> View | None:
    if part is None:
        return None
    summary = part.summary()
    best = summary.get("best_of")
    rows = [
        {"name": "match rate, one sample", "cells": [_shown(summary["match_rate"])]},
        {"name": "RMSE / (V/N)^(1/3)", "cells": [_number(summary["rmse"])]},
        *(
            {"name": f"match rate, {sizes} atoms", "cells": [_shown(found)]}
            for sizes, found in summary["by_sites"].items()
        ),
    ]
    if best:
        name = f"match rate, best of {best['attempts']}"
        rows.append({"name": name, "cells": [_shown(best["match_rate"])]})
    known = part.rmse[0][np.isfinite(part.rmse[0])]
    return {
        "anchor": "csp",
        "title": "Structure prediction",
        "text": "Composition and number of atoms of held-out crystals given, samples as drawn. "
        "On MP-20 with random splits (easier than ours, which are by chemical system): CDVAE "
        "34 %, DiffCSP 52 %, FlowMM 61 %.",
        "columns": ["value"],
        "rows": rows,
        "pictures": [("RMSE of the crystals found", box_plot({"RMSE": known}, "RMSE", "RMSE"))],
    }


def _inversion(part: Inversion | None) -> View | None:
    if part is None:
        return None
    summary = part.summary()
    return {
        "anchor": "inversion",
        "title": "Deterministic reconstruction",
        "text": "Held-out crystals are carried to t = T by the model's ODE, step by step undone, "
        "and sampled back. Composition known.",
        "columns": ["value"],
        "rows": [
            {"name": "match rate", "cells": [_shown(summary["match_rate"])]},
            {"name": "steps solved to the tolerance", "cells": [_shown(summary["solved"])]},
            {"name": "RMSE / (V/N)^(1/3)", "cells": [_number(summary["rmse"])]},
        ],
        "pictures": [],
    }


def _generation(part: Mapping[str, Any] | None) -> View | None:
    if part is None:
        return None
    rows = [
        {"name": name, "cells": [_shown(value)]}
        for name, value in part.items()
        if isinstance(value, dict)
        and {"value", "interval", "n"} <= set(value)
        and (value["value"] is None or value["value"] <= 1)
    ]
    return {
        "anchor": "generation",
        "title": "Generation",
        "text": "Elements of held-out crystals given, nothing else. Denominator: raw samples, "
        "unless the name says otherwise.",
        "columns": ["value"],
        "rows": rows,
        "pictures": [("Generated crystals", p) for p in generation_pictures(part, "generation")],
    }


def _training(curve: Sequence[Mapping[str, float]]) -> View | None:
    if len(curve) < 2:
        return None
    steps = [float(point["step"]) for point in curve]
    losses = [float(point["loss"]) for point in curve]
    plot = Plot.make(WIDE, (0.0, max(steps)), padded(losses))
    parts = plot.frame("step", "loss")
    parts.append(
        path([(plot.x(s), plot.y(v)) for s, v in zip(steps, losses, strict=True)], class_="curve")
    )
    return {
        "anchor": "training",
        "title": "Training",
        "text": f"{len(curve)} points of the training loss.",
        "columns": [],
        "rows": [],
        "pictures": [("Loss of the training", plot.draw("Loss of the training", parts))],
    }


def _number(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "none"
    low, high = found["interval"]
    return f"{found['value']:.3g} ({low:.3g} to {high:.3g}, n = {found['n']})"
