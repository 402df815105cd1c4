"""All figures of a campaign, into one folder; what has nothing to show says why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.engines.records import Bands, Phonons
from pccd_workflows.figures import campaigns, crystals, systems
from pccd_workflows.figures.style import NothingToShow, house_style, save
from pccd_workflows.report.phase_diagram import make_diagram
from pccd_workflows.report.statistics import Summary

MAX_CRYSTALS = 6
"""Crystals, best first, whose bands and phonons are drawn."""
Make = Callable[[], Figure]


@dataclass(frozen=True)
class Written:
    """One figure: its files, or why there is none."""

    name: str
    files: list[Path] = field(default_factory=list)
    absent: str = ""


def write_figures(
    out: Path, summary: Summary, reference_sets: Sequence[ReferenceSet]
) -> list[Written]:
    """Write every figure of a campaign as PNG and SVG.

    Parameters
    ----------
    out
        Folder; made if it is not there.
    reference_sets
        Those that the candidates' hull records name.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with house_style():
            return [_write(out / name, make) for name, make in _figures(summary, reference_sets)]
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}.") from None


def _write(stem: Path, make: Make) -> Written:
    try:
        return Written(stem.name, save(make(), stem))
    except NothingToShow as why:
        return Written(stem.name, absent=str(why))


def _figures(
    summary: Summary, reference_sets: Sequence[ReferenceSet]
) -> Iterator[tuple[str, Make]]:
    yield "funnel", lambda: campaigns.funnel(summary)
    yield "energies", lambda: campaigns.energies(summary)
    yield "elements", lambda: campaigns.elements(summary)
    yield "parity", lambda: campaigns.parity(summary)
    yield from _diagrams(summary, reference_sets)
    yield from _of_crystals(summary.best[:MAX_CRYSTALS])


def _diagrams(
    summary: Summary, reference_sets: Sequence[ReferenceSet]
) -> Iterator[tuple[str, Make]]:
    points = [point for level in summary.points.values() for point in level]
    if not reference_sets:
        yield "diagram", _nothing("No reference set was used yet, so there is no phase diagram.")
    for references in reference_sets:

        def draw(of: ReferenceSet = references) -> Figure:
            return systems.phase_diagram(systems.checked(lambda: make_diagram(of, points)))

        yield f"diagram-{references.chemsys}-{references.level.replace('/', '.')}", draw


def _of_crystals(docs: Sequence[CandidateDoc]) -> Iterator[tuple[str, Make]]:
    kinds: Mapping[str, tuple[type, Callable[[Any], Figure]]] = {
        "phonons": (Phonons, crystals.phonons),
        "bands": (Bands, crystals.electrons),
    }
    for kind, (of, draw) in kinds.items():
        records = [(doc, record) for doc in docs if (record := _last(doc, of)) is not None]
        if not records:
            yield kind, _nothing(f"None of the best crystals has {kind}.")
        for doc, record in records:
            name = f"{kind}-{doc.formula_pretty}-{doc.index}"
            yield name, partial(draw, record)


def _last(doc: CandidateDoc, kind: type) -> Any:
    found: list[Any] = [record for record in doc.records.values() if isinstance(record, kind)]
    return next((record for record in reversed(found) if record.bands), None)


def _nothing(why: str) -> Make:
    def none() -> Figure:
        raise NothingToShow(why)

    return none
