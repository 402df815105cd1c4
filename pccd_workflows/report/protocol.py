"""The protocol card: everything a campaign's numbers depend on."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pccd_workflows.campaign import Campaign, NumberedSource
from pccd_workflows.core.reference_set import ReferenceSet
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.generators.request import AskedElements, Generate, SourceOptions
from pccd_workflows.known.novelty import LIBRARY
from pccd_workflows.report.statistics import Summary
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
        ("Generative model", _models(summary) or ", ".join(campaign.models) or "none"),
        *(fact for source in campaign.sources for fact in _generation(source, campaign)),
        *_judgement(campaign),
        *_history(document, campaign),
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


def _generation(source: NumberedSource, campaign: Campaign) -> Iterator[Fact]:
    """Yield what a source is asked for; its name stands before it where there are several."""
    options = source.options
    which = f"Source {source.number + 1}, " if len(campaign.sources) > 1 else ""

    def fact(name: str, value: str) -> Fact:
        return (f"{which}{name.lower()}" if which else name, value)

    conditions = options.asked_conditions().model_dump(exclude_none=True)
    yield fact("Elements", _elements(options))
    yield fact("Conditions", ", ".join(f"{k} = {v}" for k, v in conditions.items()) or "none")
    sampling = f"{options.samples} samples"
    if isinstance(options, AskedElements):
        sampling += f", seed {options.seed}"
    if isinstance(options, Generate):
        sampler = options.sampler
        sampling += f", {sampler.name}, {sampler.steps} steps, guidance {sampler.guidance:g}"
    else:
        sampling += f" of {options.source}"
    yield fact("Sampling", sampling)


def _judgement(campaign: Campaign) -> Iterator[Fact]:
    screen, matcher = campaign.screen, campaign.novelty.matcher
    distances = f"{screen.min_distance:g} Å and {screen.min_distance_radii:g} of the radii's sum"
    density = f"{screen.density[0]:g} to {screen.density[1]:g} g/cm³"
    balance = f"charge balance: {screen.charge_neutral}"
    yield "Screen", f"distances from {distances}, density {density}, {balance}"
    tolerances = f"ltol {matcher.ltol:g}, stol {matcher.stol:g}, angle_tol {matcher.angle_tol:g}°"
    yield "Same crystal", f"StructureMatcher, {tolerances}"
    novelty = campaign.novelty
    sets = (*([LIBRARY] if novelty.library else []), *novelty.against, *novelty.sets)
    yield "New against", ", ".join(sets) or "nothing"


def _history(document: dict[str, Any], campaign: Campaign) -> Iterator[Fact]:
    """Yield which campaigns count as history: those that had finished at submission."""
    if "history" in campaign.novelty.against and "history" in document:
        yield "History", ", ".join(document["history"]) or "no campaign had finished before"


def _rung(rung: Rung) -> Fact:
    kept = f"kept within {EV_TO_MEV * rung.keep.energy_above_hull:g} meV/atom of the hull"
    budget = f", at most {rung.budget.candidates} crystals" if rung.budget.candidates else ""
    relaxed = f"relaxed to {rung.fmax:g} eV/Å in at most {rung.steps} steps"
    bands = ", band structures of those kept" if rung.band_structure else ""
    return f"Rung {rung.level}", f"{relaxed}, {kept}{budget}{bands}"


def _references(references: ReferenceSet) -> Fact:
    version = f", {references.source_version}" if references.source_version else ""
    kind = f"{references.level}, {references.convention}{version}"
    value = f"{references.reference_id} ({len(references.entries)} phases, {kind})"
    return f"Hull of {references.chemsys}", value


def _phonons(section: PhononsSection) -> str:
    limit = f"{EV_TO_MEV * section.max_energy_above_hull:g} meV/atom"
    chosen = f"at most {section.candidates} crystals within {limit}"
    chosen += ", new ones only" if section.novel_only else ""
    cell = f"supercell from {section.min_length:g} Å"
    tolerance = f"tolerance {section.tolerance_thz:g} THz"
    return f"{section.level}, {chosen}, {cell}, band path and mesh, {tolerance}"


def _models(summary: Summary) -> str:
    return "; ".join(f"{name}, weights sha256 {sha}" for name, sha in sorted(summary.models))


def _elements(options: SourceOptions) -> str:
    if not isinstance(options, AskedElements) or options.elements is not None:
        return ", ".join(sorted(options.possible_elements())) or "not stated"
    if options.element_sets is not None:
        return "; ".join("-".join(symbols) for symbols in options.element_sets)
    if options.draw is None:
        return "not stated"
    low, high = options.draw.n_elements
    return f"{low} to {high} drawn from {', '.join(options.draw.elements)}"


def _compute_time(summary: Summary) -> str:
    total = sum(summary.seconds.values())
    parts = ", ".join(f"{stage} {show_duration(s)}" for stage, s in summary.seconds.items())
    return f"{show_duration(total)} ({parts})"


def show_duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
