"""What each stage found out about one crystal, in words: for terminal, report and pages."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pccd_workflows.analysis.screening import Screening
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Novelty
from pccd_workflows.stages.hull import Stability

if TYPE_CHECKING:
    from pccd_workflows.rescore import Rescore

Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True)
class StageRow:
    """One stage of one crystal: its verdict, the numbers behind it, the job that made them."""

    stage: str
    verdict: str
    tone: Tone
    facts: tuple[str, ...]
    job: str = ""


def stage_rows(doc: CandidateDoc, rescores: Sequence["Rescore"] = ()) -> list[StageRow]:
    """Return every stage that left a record, in the order they ran, then later verdicts."""
    rows = [_generation(doc.generation)]
    if doc.screening is not None:
        rows.append(_screening(doc.screening))
    if doc.novelty is not None:
        rows.append(_novelty(doc.novelty))
    hulls = {record.level: record for record in doc.stabilities}
    bands = {record.level: record for record in doc.band_structures}
    for relaxation in doc.relaxations:
        rows.append(_relaxation(relaxation))
        if relaxation.level in hulls:
            rows.append(_stability(hulls.pop(relaxation.level)))
        if relaxation.level in bands:
            rows.append(_bands(bands[relaxation.level], doc.generation))
    rows += [_stability(record) for record in hulls.values()]
    rows += [_phonons(record) for record in doc.phonons]
    rows += [_rescore(record) for record in rescores]
    return [StageRow(**{**vars(row), "job": doc.jobs.get(row.stage, "")}) for row in rows]


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
    parts = [doc.status, (doc.reason_class or "").replace("_", " "), doc.reason or ""]
    return ": ".join(dict.fromkeys(part for part in parts if part))


def millis(energy: float | None) -> str:
    """Return an energy in meV/atom, without a decimal that no potential deserves."""
    return "" if energy is None else f"{round(EV_TO_MEV * energy) + 0}"


def _generation(record: Generation) -> StageRow:
    conditions = [f"{key}={value}" for key, value in record.conditions.items() if value is not None]
    facts = (
        f"model {record.model}, weights {record.weights_sha256[:12]}",
        f"seed {record.seed}, sample {record.index}, elements {'-'.join(record.elements)}",
        ", ".join(conditions),
        record.reason or "",
    )
    failed = record.error_class is not None
    verdict = f"not decoded: {record.error_class}" if failed else "decoded"
    return _row("generate", verdict, "bad" if failed else "good", facts)


def _screening(record: Screening) -> StageRow:
    balance = {True: "charges balance", False: "charges do not balance", None: ""}
    facts = (
        _number("shortest distance", record.min_distance, "Å", 2),
        _number("density", record.density, "g/cm³", 2),
        _number("volume", record.volume_per_atom, "Å³/atom", 1),
        balance[record.charge_balanced],
        record.reason or "",
    )
    verdict = "passed" if record.passed else f"rejected: {_words(record.reason_class)}"
    return _row("screen", verdict, "good" if record.passed else "bad", facts)


def _novelty(record: Novelty) -> StageRow:
    if record.duplicate_of is not None:
        return _row("deduplicate", "duplicate", "bad", (f"same crystal as {record.duplicate_of}",))
    facts = []
    for name, verdict in record.sets.items():
        said = {True: "known", False: "not in it", None: "not consulted"}[verdict.known]
        match = f" as {verdict.matched_id}" if verdict.matched_id else ""
        note = f" ({verdict.note})" if verdict.note else ""
        facts.append(f"{name}: {said}{match}{note}; {verdict.method}")
    consulted = any(verdict.known is not None for verdict in record.sets.values())
    word = (
        "unique, nothing to compare with" if not consulted else "new" if record.novel else "known"
    )
    return _row("deduplicate", word, "good" if record.novel and consulted else "open", facts)


def _relaxation(record: Relaxation) -> StageRow:
    change = record.volume_change
    facts = (
        _number("energy", record.energy_per_atom, "eV/atom", 4),
        f"{record.n_steps} steps",
        _number("largest force", record.max_force, "eV/Å", 3),
        _number("largest stress", record.max_stress, "GPa", 2),
        "" if change is None else f"volume {100 * change:+.1f} %",
        _number("atoms moved", record.rms_displacement, "Å (RMS)", 2),
        f"magnetic order {record.magnetic_ordering}" if record.magnetic_ordering else "",
        record.reason or "",
        f"result {record.key[:16]}",
    )
    tone: Tone = "good" if record.verdict == "converged" else "open" if record.usable else "bad"
    return _row(f"relax:{record.level}", _words(record.verdict), tone, facts)


def _stability(record: Stability) -> StageRow:
    above, limit = record.energy_above_hull, record.threshold
    phases = (f"{100 * part:.0f} % {name}" for name, part in record.decomposition.items())
    facts = (
        "" if above is None else f"{millis(above)} meV/atom above the hull",
        "" if limit is None else f"limit {millis(limit)} meV/atom",
        _number("formation energy", record.formation_energy_per_atom, "eV/atom", 3),
        f"competes with {', '.join(phases)}" if record.decomposition else "",
        f"references {record.references}" if record.references else "",
        *_known_after_relaxation(record.novelty),
        record.reason or "",
    )
    verdict = "kept" if record.passed else f"rejected: {_words(record.reason_class)}"
    return _row(f"hull:{record.level}", verdict, "good" if record.passed else "bad", facts)


def _rescore(record: "Rescore") -> StageRow:
    row = _stability(record.stability)
    verdict = f"{row.verdict} (flipped)" if record.flipped else row.verdict
    facts = (*row.facts, f"before: {record.former_references}", record.reason or "")
    return _row(f"rescore:{record.stability.level}", verdict, row.tone, facts)


def _known_after_relaxation(novelty: Novelty | None) -> list[str]:
    sets = novelty.sets if novelty is not None else {}
    known = [
        f"relaxed, it is known in {name}" + (f" as {found.matched_id}" if found.matched_id else "")
        for name, found in sets.items()
        if found.known
    ]
    types = [
        f"a new composition of a known structure type, that of {found.framework_id} in {name}"
        for name, found in sets.items()
        if found.framework_id and not known
    ]
    return known + types


def _bands(record: Bands, generation: Generation) -> StageRow:
    edges = (("valence maximum", record.vbm_kpoint), ("conduction minimum", record.cbm_kpoint))
    facts = (
        asked_gap(generation),
        *(f"{name} at k = ({_point(point)})" for name, point in edges if point is not None),
        _number("Fermi level", record.efermi, "eV", 3),
        f"path {record.kpath}" if record.kpath else "",
        record.reason or "",
    )
    verdict = "not computed" if record.is_metal is None else gap_text(record)
    return _row(f"bands:{record.level}", verdict, "open", facts)


def gap_text(record: Bands) -> str:
    """Return a band gap in words; empty if it was not computed."""
    if record.is_metal is None or record.band_gap is None:
        return ""
    kind = "direct" if record.direct else "indirect"
    return "metal" if record.is_metal else f"{record.band_gap:.2f} eV, {kind}"


def asked_gap(generation: Generation) -> str:
    """Return the band gap that the model was asked for; empty if it was not."""
    asked = generation.conditions.get("band_gap")
    return "" if asked is None else f"asked for {asked:.2f} eV"


def _point(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _phonons(record: Phonons) -> StageRow:
    at = record.min_frequency_qpoint
    where = f" at q = ({_point(at)})" if at else ""
    matrix = record.supercell_matrix
    cells = "; ".join(" ".join(str(value) for value in row) for row in matrix) if matrix else ""
    facts = (
        _number("lowest frequency", record.min_frequency, f"THz{where}", 2),
        _number("acoustic residual at Γ", record.gamma_residual, "THz", 3),
        f"tolerance {record.tolerance:g} THz",
        f"supercell [{cells}]" if cells else "",
        _displacements(record),
        record.reason or "",
    )
    tones: dict[str, Tone] = {"stable": "good", "unstable": "bad"}
    return _row(f"phonons:{record.level}", record.verdict, tones.get(record.verdict, "open"), facts)


def _displacements(record: Phonons) -> str:
    count = f"{record.n_displacements} displacements" if record.n_displacements else ""
    length = f"of {record.displacement:g} Å" if record.displacement else ""
    return " ".join(filter(None, [count, length]))


def _row(stage: str, verdict: str, tone: Tone, facts: tuple[str, ...] | list[str]) -> StageRow:
    return StageRow(stage, verdict, tone, tuple(fact for fact in facts if fact))


def _number(name: str, value: float | None, unit: str, digits: int) -> str:
    return "" if value is None else f"{name} {value:.{digits}f} {unit}"


def _words(name: str | None) -> str:
    return (name or "no reason stated").replace("_", " ")


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
