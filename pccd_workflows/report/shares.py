"""Shares of crystals near the hull, with the digits that their denominators carry."""

from collections.abc import Sequence
from typing import Any

from pccd_workflows.analysis.hull_words import hull_name
from pccd_workflows.core.intervals import Share, percent, share_digits
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.report.figures import cumulative_share, hull_histogram
from pccd_workflows.report.statistics import Point, Summary, ThresholdRow


def level_views(summary: Summary) -> list[dict[str, Any]]:
    """Return what a page shows of each level's energies above hull: pictures and shares."""
    return [_level(summary, level, points) for level, points in summary.points.items()]


def _level(summary: Summary, level: str, points: Sequence[Point]) -> dict[str, Any]:
    if not points:
        return {"name": level, "absent": f"No crystal has an energy above the {level} hull."}
    unique, n_new = summary.count("unique"), sum(point.novel is True for point in points)
    below = f"{len(points)} of {unique} unique crystals have an energy at this level."
    return {
        "name": level,
        "absent": "",
        "n_new": n_new,
        "n_known": len(points) - n_new,
        "histogram": hull_histogram(points, level),
        "histogram_caption": f"{below} Those that relaxed to the same crystal count once. Dashed: "
        "80 and 250 meV/atom.",
        "cumulative": cumulative_share(points, unique, level),
        "cumulative_caption": f"Share of the {unique} unique crystals within each energy, with its "
        "95 % Wilson interval.",
        "denominators": [
            ("unique", unique),
            ("screened", summary.count("screened")),
            ("raw", summary.count("generated")),
        ],
        "rows": [
            _row(row, hull_name(summary.n_missing(level))) for row in summary.thresholds(level)
        ],
    }


def _row(row: ThresholdRow, hull: str) -> dict[str, Any]:
    near = f"≤ {EV_TO_MEV * row.threshold:g} meV/atom"
    return {
        "label": near if row.threshold else f"on or below {hull}",
        "count": row.count,
        "new": row.new,
        "shares": [_share(one) for one in (row.of_unique, row.of_screened, row.of_raw)],
    }


def _share(share: Share) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "nothing to divide by"
    digits = share_digits(share.total)
    interval = f"{100 * share.low:.{digits}f} to {100 * share.high:.{digits}f}"
    return f"{percent(share.count, share.total)} ({interval})"
