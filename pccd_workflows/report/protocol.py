"""The protocol card: everything a campaign's numbers depend on."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.report.statistics import Summary, level_label
from pccd_workflows.stages.phonons import PhononsSection
from pccd_workflows.stages.rung import Rung

Fact = tuple[str, str]


def protocol_facts(
    document: dict[str, Any],
    campaign: Campaign,
    summary: Summary,
    reference_sets: Sequence[ReferenceSet],
) -> list[Fact]:
    """Return name and value of each setting and version behind a campaign's numbers."""
    facts = [
        ("Campaign hash", str(document.get("hash", "not recorded"))),
        ("Submitted", show_time(document.get("submitted_at"))),
        ("Last result", show_time(summary.last_update)),
        ("Generative model", _models(summary) or campaign.generate.model),
        *_generation(campaign),
        *_judgement(campaign),
        *(_rung(rung) for rung in campaign.rungs),
        *(_references(references) for references in reference_sets),
    ]
    if campaign.phonons is not None:
        facts.append(("Phonons", _phonons(campaign.phonons)))
    facts.append(("Denominator", "raw samples, before any filter, unless a column says otherwise"))
    if summary.seconds:
        facts.append(("Compute time", _compute_time(summary)))
    return facts


def show_time(moment: datetime | str | None) -> str:
    """Return a stored time (UTC) to the minute."""
    if moment is None:
        return "not recorded"
    return moment if isinstance(moment, str) else moment.strftime("%Y-%m-%d %H:%M UTC")


def _generation(campaign: Campaign) -> Iterator[Fact]:
    generate, sampler = campaign.generate, campaign.generate.sampler
    conditions = generate.conditions.model_dump(exclude_none=True)
    yield "Elements", _elements(campaign)
    yield "Conditions", ", ".join(f"{k} = {v}" for k, v in conditions.items()) or "none"
    sampling = f"{generate.samples} samples, seed {generate.seed}, {sampler.name}, "
    yield "Sampling", f"{sampling}{sampler.steps} steps, guidance {sampler.guidance:g}"


def _judgement(campaign: Campaign) -> Iterator[Fact]:
    screen, matcher = campaign.screen, campaign.novelty.matcher
    distances = f"{screen.min_distance:g} Å and {screen.min_distance_radii:g} of the radii's sum"
    density = f"{screen.density[0]:g} to {screen.density[1]:g} g/cm³"
    balance = f"charge balance: {screen.charge_neutral}"
    yield "Screen", f"distances from {distances}, density {density}, {balance}"
    tolerances = f"ltol {matcher.ltol:g}, stol {matcher.stol:g}, angle_tol {matcher.angle_tol:g}°"
    yield "Same crystal", f"StructureMatcher, {tolerances}"
    yield "New against", ", ".join(campaign.novelty.against) or "nothing"


def _rung(rung: Rung) -> Fact:
    kept = f"kept within {EV_TO_MEV * rung.keep.energy_above_hull:g} meV/atom of the hull"
    budget = f", at most {rung.budget.candidates} crystals" if rung.budget.candidates else ""
    relaxed = f"relaxed to {rung.fmax:g} eV/Å in at most {rung.steps} steps"
    bands = ", band structures of those kept" if rung.band_structure else ""
    return f"Rung {level_label(rung.level)}", f"{relaxed}, {kept}{budget}{bands}"


def _references(references: ReferenceSet) -> Fact:
    version = f", {references.source_version}" if references.source_version else ""
    kind = f"{level_label(references.level)}, {references.convention}{version}"
    value = f"{references.reference_id} ({len(references.entries)} phases, {kind})"
    return f"Hull of {references.chemsys}", value


def _phonons(section: PhononsSection) -> str:
    limit = f"{EV_TO_MEV * section.max_energy_above_hull:g} meV/atom"
    chosen = f"at most {section.candidates} crystals within {limit}"
    chosen += ", new ones only" if section.novel_only else ""
    cell = f"supercell from {section.min_length:g} Å"
    tolerance = f"tolerance {section.tolerance_thz:g} THz"
    return f"{level_label(section.level)}, {chosen}, {cell}, {tolerance}"


def _models(summary: Summary) -> str:
    return "; ".join(f"{name}, weights sha256 {sha}" for name, sha in sorted(summary.models))


def _elements(campaign: Campaign) -> str:
    generate = campaign.generate
    if generate.elements is not None:
        return ", ".join(generate.elements)
    if generate.element_sets is not None:
        return "; ".join("-".join(symbols) for symbols in generate.element_sets)
    if generate.draw is None:
        return "not stated"
    low, high = generate.draw.n_elements
    return f"{low} to {high} drawn from {', '.join(generate.draw.elements)}"


def _compute_time(summary: Summary) -> str:
    total = sum(summary.seconds.values())
    parts = ", ".join(f"{stage} {_duration(s)}" for stage, s in summary.seconds.items())
    return f"{_duration(total)} ({parts})"


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
