"""Hull: where relaxed crystals lie on the convex hull of their competing phases; keep the near."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pccd_workflows.analysis.hull_words import (
    may_be_stable,
    may_be_words,
    missing_lines,
    place_in_words,
)
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.records import EnergyConvention, Record
from pccd_workflows.core.reference_set import MissingPhase, ReferenceSet
from pccd_workflows.core.storage import ALL, Share, StageRow, Storage
from pccd_workflows.core.systems import covering_system
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.engines.levels import hull_convention
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.known.novelty import Novelty
from pccd_workflows.stages.level_difference import difference, heights, side_by_side
from pccd_workflows.stages.novelty import Compared, goes_on, judge_novelty, known_in, novelty_of
from pccd_workflows.stages.references import find as find_references
from pccd_workflows.stages.relax import among_chosen, left_out, stage_before
from pccd_workflows.stages.rung import Rung
from pccd_workflows.stages.sharing import by_composition
from pccd_workflows.stages.stage import (
    Column,
    Description,
    FunnelStep,
    Outcome,
    Records,
    Stage,
    Status,
    facts,
    number,
    words,
)

if TYPE_CHECKING:
    from pymatgen.core import Composition

    from pccd_workflows.analysis.hull import HullQuery, HullResult
    from pccd_workflows.campaign import Campaign


NO_REFERENCES = "no_references"
"""Class of reason of crystals without a hull to place them on."""
SAME_CRYSTAL = ("duplicate", "known")
"""Classes of reasons that rest on what a crystal is, not on where it lies."""


class Stability(Record):
    """Position on the convex hull of one reference set at one level."""

    level: str
    passed: bool
    reason_class: str | None = None
    reason: str | None = None
    energy_above_hull: float | None = Field(
        None, description="eV/atom against the references; negative = a new ground state"
    )
    formation_energy_per_atom: float | None = Field(None, description="eV/atom")
    decomposition: dict[str, float] = Field(
        default_factory=dict, description="Atomic fraction of each competing phase, by its entry id"
    )
    references: str = Field("", description="Id (content hash) of the reference set")
    convention: EnergyConvention | None = None
    threshold: float | None = Field(None, description="Kept if energy_above_hull <= this, eV/atom")
    novelty: Novelty | None = Field(
        None,
        description="Of the relaxed crystal, among those near the hull; known before, known now",
    )
    n_missing: int | None = Field(
        None,
        description="Phases of its chemical system and the parts of it that are known to exist and "
        "that the references lack; None where nobody compared them with what is known",
    )
    missing: list[MissingPhase] = Field(
        default_factory=list, description="Which: those that could move the hull most come first"
    )
    may_be: list[str] = Field(
        default_factory=list,
        description="Ids of the missing phases of its composition: it may be one of them",
    )

    @property
    def is_repeated(self) -> bool:
        """Whether it relaxed to another candidate's crystal, or to a known one that is dropped."""
        return self.reason_class in SAME_CRYSTAL

    @property
    def place(self) -> str:
        """Where it lies, in words (see `analysis.hull_words`)."""
        return place_in_words(self.energy_above_hull, self.n_missing)


PAGE = 500
"""Rows without a usable relaxation that are judged together: bounds the memory."""


def shares(campaign: "Campaign", rung: Rung, storage: Storage, share: Share = ALL) -> list[Share]:
    """Return shares of the relaxed crystals that can be judged apart from each other."""
    return by_composition(storage.formulas(campaign.campaign_id, f"relax:{rung.level}", share))


def refuse(campaign: "Campaign", rung: Rung, storage: Storage) -> None:
    """Write the verdict of what a rung left without energy, and of what its budget left out."""
    unusable = storage.rows(campaign.campaign_id, f"relax:{rung.level}", goes_on=False)
    while page := list(islice(unusable, PAGE)):
        chosen = among_chosen(campaign, rung, storage, [row.candidate_id for row in page])
        pairs = [(row, row.read(Relaxation)) for row in page if row.candidate_id in chosen]
        storage.put_rows(
            [_row(row, _refused(rung, found.verdict, found.reason)) for row, found in pairs]
        )
    others = left_out(campaign, rung, storage)
    while page := list(islice(others, PAGE)):
        storage.put_rows([_row(row, _over_budget(rung)) for row in page])


def run(
    campaign: "Campaign",
    rung: Rung,
    systems: Sequence[str],
    storage: Storage,
    share: Share = ALL,
) -> int:
    """Judge the relaxed crystals of a rung, composition by composition; return how many go on.

    Crystals that became the same one, or a known one, by relaxing are noticed here.

    Parameters
    ----------
    systems
        Chemical systems whose competing phases are stored.
    share
        Only these crystals.
    """
    references = list(find_references(campaign, rung.level, systems, storage).values())
    compared = Compared(campaign, storage, systems, kinds=True)
    return sum(
        _judge(compared, rung, references, part) for part in shares(campaign, rung, storage, share)
    )


def _judge(compared: Compared, rung: Rung, references: Sequence[ReferenceSet], share: Share) -> int:
    """Judge the relaxed crystals of some compositions; return how many go on."""
    campaign, storage, stage = compared.campaign, compared.storage, f"relax:{rung.level}"
    names = [row.candidate_id for row in storage.going_on(campaign.campaign_id, stage, share)]
    chosen = among_chosen(campaign, rung, storage, names)
    rows = storage.rows(campaign.campaign_id, stage, ids=[name for name in names if name in chosen])
    relaxed = {row.candidate_id: row for row in rows}
    relaxations = {name: row.read(Relaxation) for name, row in relaxed.items()}
    records = judge_stability(relaxations, rung, references)
    near = sorted(
        (name for name, record in records.items() if record.passed),
        key=lambda name: (records[name].energy_above_hull or 0.0, name),
    )
    crystals = {
        name: structure for name in near if (structure := relaxations[name].structure) is not None
    }
    earlier = _earlier_novelty(campaign, rung, list(crystals), storage)
    for name, novelty in judge_novelty(crystals, compared).items():
        whole = novelty.after(earlier.get(name))
        records[name] = with_novelty(campaign, records[name], whole)
    written = [_row(relaxed[name], record) for name, record in records.items()]
    storage.put_rows(written)
    return sum(row.goes_on for row in written)


def _earlier_novelty(
    campaign: "Campaign", rung: Rung, names: Sequence[str], storage: Storage
) -> dict[str, Novelty]:
    """Return what was said of candidates before this rung relaxed them."""
    before = stage_before(campaign, rung)
    kind: type[Record] = Stability if before.startswith("hull:") else Novelty
    rows = storage.rows(campaign.campaign_id, before, ids=names)
    found = ((row.candidate_id, novelty_of({before: row.read(kind)})) for row in rows)
    return {name: novelty for name, novelty in found if novelty is not None}


def _row(before: StageRow, record: Stability) -> StageRow:
    return before.following(
        f"hull:{record.level}",
        record,
        goes_on=record.passed,
        rank=record.energy_above_hull or 0.0,
    )


def _over_budget(rung: Rung) -> Stability:
    return Stability(
        level=rung.level,
        passed=False,
        reason_class="budget",
        reason=f"The rung's budget of {rung.budget.candidates} candidates was spent on others.",
    )


def with_novelty(campaign: "Campaign", record: Stability, novelty: Novelty) -> Stability:
    """Return a verdict that counts in what the crystal turned out to be when it was relaxed."""
    update: dict[str, Any] = {"novelty": novelty}
    if not goes_on(campaign, novelty):
        same = novelty.duplicate_of
        update |= {
            "passed": False,
            "reason_class": "known" if same is None else "duplicate",
            "reason": f"Relaxed to a crystal known in {known_in(novelty)}."
            if same is None
            else f"Relaxed to the same crystal as {same}, which lies no higher.",
        }
    return record.model_copy(update=update)


def as_found_before(record: Stability, before: Stability) -> Stability:
    """Return a new verdict on the energy with what was found before about the relaxed crystal.

    Another hull makes no other crystal of it: a duplicate stays one.
    """
    found: dict[str, Any] = {"novelty": before.novelty}
    if record.passed and before.reason_class in SAME_CRYSTAL:
        found |= {
            "passed": False,
            "reason_class": before.reason_class,
            "reason": before.reason,
        }
    return record.model_copy(update=found)


def judge_stability(
    relaxations: Mapping[str, Relaxation], rung: Rung, references: Sequence[ReferenceSet]
) -> dict[str, Stability]:
    """Return a verdict for every relaxed crystal, against the set that covers its elements.

    Uncorrected energies, of crystals and references alike, get the MP2020 corrections here, once.
    """
    from pccd_workflows.analysis.hull import Hull, correct_references

    sets = {found.chemsys: found for found in references}
    records: dict[str, Stability] = {}
    queries: dict[str, list[HullQuery]] = {}
    for name, relaxation in relaxations.items():
        record_or_query = _query(name, relaxation, rung, sets)
        if isinstance(record_or_query, Stability):
            records[name] = record_or_query
        else:
            system, query = record_or_query
            queries.setdefault(system, []).append(query)
    for system, system_queries in queries.items():
        results = Hull(correct_references(sets[system])).place(system_queries)
        for query, result in zip(system_queries, results, strict=True):
            limit = rung.keep.energy_above_hull
            records[query.id] = placed(result, sets[system], query.composition, limit=limit)
    return records


def _query(
    name: str, relaxation: Relaxation, rung: Rung, sets: Mapping[str, ReferenceSet]
) -> "Stability | tuple[str, HullQuery]":
    """Return the system and the question to its hull; a verdict where none can be asked."""
    from pccd_workflows.analysis.hull import HullQuery, correct_mp2020

    structure, energy = relaxation.structure, relaxation.energy
    convention = relaxation.convention
    if not relaxation.usable or structure is None or energy is None or convention is None:
        return _refused(rung, relaxation.verdict, relaxation.reason)
    system = covering_system(structure.chemical_system, sets)
    if system is None:
        reason = (
            f"There are no competing phases of {structure.chemical_system} at level {rung.level}: "
            "the job that makes them failed; `pccd campaign resume` runs it again."
        )
        return _refused(rung, NO_REFERENCES, reason)
    try:
        corrected = correct_mp2020(structure, energy, convention=convention)
    except InputError as error:
        return _refused(rung, "no_correction", str(error))
    return system, HullQuery(
        id=name,
        composition=structure.composition,
        energy=corrected,
        convention=hull_convention(convention),
        level=relaxation.level,
    )


def _refused(rung: Rung, reason_class: str, reason: str | None) -> Stability:
    return Stability(level=rung.level, passed=False, reason_class=reason_class, reason=reason)


def placed(
    result: "HullResult",
    references: ReferenceSet,
    composition: "Composition",
    *,
    limit: float | None,
) -> Stability:
    """Return the verdict of a place on the hull of `references`.

    composition: of the crystal. limit: largest energy above hull that is kept, eV/atom; None keeps
    all.
    """
    above = result.energy_above_hull
    missing = references.missing_in(element.symbol for element in composition.elements)
    passed = limit is None or above <= limit
    return Stability(
        level=references.level,
        passed=passed,
        reason_class=None if passed else "above_threshold",
        reason=None if passed else f"{above:.3f} eV/atom above the hull, more than {limit:g}.",
        energy_above_hull=above,
        formation_energy_per_atom=result.formation_energy_per_atom,
        decomposition=result.decomposition,
        references=references.reference_id,
        convention=hull_convention(references.convention),
        threshold=limit,
        n_missing=None if missing is None else len(missing),
        missing=missing or [],
        may_be=[
            phase.id for phase in missing or () if phase.formula == composition.reduced_formula
        ],
    )


def _levels(campaign: "Campaign") -> list[str]:
    return [rung.level for rung in campaign.rungs]


def _outcome(record: Stability, _campaign: "Campaign") -> Outcome | None:
    if record.passed:
        return None
    # without competing phases there is no verdict: their job failed, and can be run again
    status: Status = "failed" if record.reason_class == NO_REFERENCES else "rejected"
    return Outcome(status, record.reason_class, record.reason)


def _describe(record: Stability, records: Records) -> Description:
    above, limit = record.energy_above_hull, record.threshold
    phases = (f"{100 * part:.0f} % {name}" for name, part in record.decomposition.items())
    found = facts(
        "" if above is None else f"{millis(above)} meV/atom above the hull",
        record.place if may_be_stable(above) else "",
        "" if limit is None else f"limit {millis(limit)} meV/atom",
        number("formation energy", record.formation_energy_per_atom, "eV/atom", 3),
        f"competes with {', '.join(phases)}" if record.decomposition else "",
        f"references {record.references}" if record.references else "",
        *_known_after_relaxation(record.novelty),
        may_be_words(record.may_be),
        *missing_lines(record.missing),
        _beside_others(record, records),
        record.reason or "",
    )
    verdict = "kept" if record.passed else f"rejected: {words(record.reason_class)}"
    return Description(verdict, "good" if record.passed else "bad", found)


def _beside_others(record: Stability, records: Records) -> str:
    """Return what all levels say, in the words of the last of them."""
    return side_by_side(records) if [*heights(records)][-1:] == [record.level] else ""


def millis(energy: float | None) -> str:
    """Return an energy in meV/atom, without a decimal that no potential deserves."""
    return "" if energy is None else f"{round(EV_TO_MEV * energy) + 0}"


def _known_sets(novelty: Novelty | None) -> str | None:
    sets = novelty.sets if novelty is not None else {}
    return ", ".join(name for name, found in sets.items() if found.known) or None


def _known_after_relaxation(novelty: Novelty | None) -> list[str]:
    sets = novelty.sets if novelty is not None else {}
    known = [
        f"relaxed, it is known in {name}" + (f" as {found.matched_id}" if found.matched_id else "")
        for name, found in sets.items()
        if found.known
    ]
    types = [
        f"a substitution: {name} knows its structure type with other elements, {found.framework_id}"
        for name, found in sets.items()
        if found.framework_id and not known
    ]
    is_first = novelty is not None and novelty.kind == "new_structure_type"
    return [*known, *types, *(["a new structure type"] if is_first else [])]


def _steps(campaign: "Campaign", level: str) -> tuple[FunnelStep, ...]:
    limit = next(r.keep.energy_above_hull for r in campaign.rungs if r.level == level)
    name = f"hull:{level}"
    return (
        FunnelStep(
            f"within:{level}",
            f"within {limit * EV_TO_MEV:.0f} meV/atom ({level})",
            lambda records: name in records and records[name].passed,
        ),
    )


STAGE = Stage(
    kind="hull",
    record=Stability,
    levels=_levels,
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
    rung=True,
    columns=(
        Column("energy_above_hull", "eV/atom", lambda record: record.energy_above_hull),
        Column(
            "level_difference",
            "eV/atom",
            difference,
            show=True,
            text=side_by_side,
            heading="By level (meV)",
            all_records=True,
        ),
        Column("known_in", "", lambda record: _known_sets(record.novelty), show=True),
        Column(
            "formation_energy",
            "eV/atom",
            lambda record: record.formation_energy_per_atom,
            show=True,
            heading="E of formation",
        ),
        Column("hull_level", "", lambda record: record.level, show=True, heading="Level"),
        Column("hull_references", "", lambda record: record.references),
        Column(
            "place",
            "",
            lambda record: record.place if may_be_stable(record.energy_above_hull) else None,
            show=True,
            heading="Hull",
        ),
        Column("missing_phases", "", lambda record: record.n_missing),
        Column("may_be", "", lambda record: ", ".join(record.may_be) or None, heading="May be"),
    ),
    tabulated=lambda record: record.energy_above_hull is not None,
    heavy=("decomposition", "missing"),
)
