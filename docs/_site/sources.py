"""The table of data sources with licence and attribution, from the library of known crystals."""

from pccd_workflows.known.library import library

MARKER = "<!-- data sources -->"


def filled(text: str) -> str:
    """Return a page with the table in place of the marker."""
    attributions = dict.fromkeys((s.licence, s.attribution) for s in library().sources)
    lines = ["| licence | attribution |", "|---|---|"]
    lines += [f"| {licence} | {attribution} |" for licence, attribution in attributions]
    return text.replace(MARKER, "\n".join(lines))
