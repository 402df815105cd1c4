"""What each stage found out about one crystal, in words: for terminal, report and pages."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.stage import Records, Tone, facts, words

if TYPE_CHECKING:
    from pccd_workflows.rescore import Rescore


@dataclass(frozen=True)
class StageLine:
    """One stage of one crystal: its verdict, the numbers behind it, the job that made them."""

    stage: str
    verdict: str
    tone: Tone
    facts: tuple[str, ...]
    job: str = ""


def stage_lines(doc: CandidateDoc, rescores: Sequence["Rescore"] = ()) -> list[StageLine]:
    """Return every stage that left a record, in the order they ran, then later verdicts."""
    records = doc.records
    lines = []
    for name, record in records.items():
        said = stage_of(name).describe(record, records)
        job = doc.jobs.get(name, "")
        lines.append(StageLine(name, said.verdict, said.tone, said.facts, job))
    return lines + [_rescore(record, records) for record in rescores]


def rescore_notes(rescores: Mapping[str, Sequence["Rescore"]]) -> list[str]:
    """Return a sentence for each set of references that a campaign was judged by again."""
    judged = [record for records in rescores.values() for record in records]
    total = Counter(record.references for record in judged)
    flipped = Counter(record.references for record in judged if record.flipped)
    return [
        f"Judged again by {references}: {flipped[references]} of {count} verdicts flip. Tables and "
        "pictures here show the verdicts of the campaign's own references."
        for references, count in sorted(total.items())
    ]


def outcome(doc: CandidateDoc) -> str:
    """Return status and reason as one line."""
    reason_class = words(doc.reason_class) if doc.reason_class else ""
    parts = [doc.status, reason_class, doc.reason or ""]
    return ": ".join(dict.fromkeys(part for part in parts if part))


def _rescore(record: "Rescore", records: Records) -> StageLine:
    stability = record.stability
    stage = stage_of(f"hull:{stability.level}")
    said = stage.describe(stability, records)
    verdict = f"{said.verdict} (flipped)" if record.flipped else said.verdict
    added = facts(f"before: {record.former_references}", record.reason or "")
    return StageLine(f"rescore:{stability.level}", verdict, said.tone, said.facts + added)


def cell_lines(doc: CandidateDoc) -> Iterator[str]:
    """Yield the cell of the latest structure: lengths, angles, then one line per site."""
    if doc.structure is None:
        return
    lattice = doc.structure.lattice
    lengths = "  ".join(f"{value:.4f}" for value in lattice.abc)
    angles = "  ".join(f"{value:.2f}" for value in lattice.angles)
    yield f"a b c  {lengths} Å"
    yield f"α β γ  {angles}°"
    for site in doc.structure:
        place = "  ".join(f"{value:8.5f}" for value in site.frac_coords)
        yield f"{site.species_string:<4}{place}"
