"""Phonons: is a crystal at a minimum? Asked of the best crystals of the last rung."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import Field

from pccd_workflows.analysis.dynamics import reduced_point
from pccd_workflows.core.sections import Section
from pccd_workflows.core.storage import CrystalRef, StageRow, Storage
from pccd_workflows.engines.levels import LevelName
from pccd_workflows.engines.records import Phonons
from pccd_workflows.stages.hull import Stability
from pccd_workflows.stages.stage import (
    Column,
    Description,
    FunnelStep,
    Outcome,
    Records,
    Stage,
    Tone,
    facts,
    number,
)

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign


class PhononsSection(Section):
    """Dynamical stability of the best crystals of the last rung."""

    level: LevelName = Field(
        "", description="Of theory; left out, that of the last rung with a potential"
    )
    confirm: LevelName | None = Field(None, description="Level that settles ambiguous verdicts")
    tolerance_thz: float = Field(0.1, ge=0, le=5, description="Imaginary modes below it are noise")
    max_energy_above_hull: float = Field(0.08, ge=0, le=10, description="Only crystals this near")
    candidates: int = Field(3, ge=1, description="At most so many, lowest first")
    min_length: float = Field(10.0, gt=0, le=50, description="Supercell lengths at least, Å")
    displacement: float = Field(0.01, gt=0, le=0.2, description="Å")
    novel_only: bool = Field(True, description="Spend phonons on new crystals only")


def choose(campaign: "Campaign", storage: Storage) -> list[StageRow]:
    """Return the crystals worth a phonon calculation, lowest energy above hull first."""
    section = campaign.phonons
    if section is None:
        return []
    last = f"hull:{campaign.rungs[-1].level}"
    kept = storage.rows(campaign.campaign_id, last, goes_on=True)
    good = (row for row in kept if _qualifies(row.read(Stability), section))
    return list(islice(good, section.candidates))


def _qualifies(record: Stability, section: PhononsSection) -> bool:
    if record.energy_above_hull is None:
        return False
    new = record.novelty is not None and record.novelty.novel
    near = record.energy_above_hull <= section.max_energy_above_hull
    return near and (new or not section.novel_only)


def store(storage: Storage, campaign_id: str, ref: CrystalRef, record: Phonons) -> None:
    """Write a verdict as the record of its candidate."""
    generated = next(r for r in storage.rows_of(campaign_id, [ref.id]) if r.stage == "generate")
    row = generated.following(f"phonons:{record.level}", record, goes_on=record.verdict == "stable")
    storage.put_rows([replace(row, key=ref.key)])


def failed(section: PhononsSection, reason: str) -> Phonons:
    """Return the record of phonons that could not be computed."""
    return Phonons(
        level=section.level, verdict="error", reason=reason, tolerance=section.tolerance_thz
    )


def confirmation(section: PhononsSection, record: Phonons) -> PhononsSection | None:
    """Return what settles an ambiguous verdict; None where nothing has to, or can."""
    if record.verdict != "ambiguous" or section.confirm is None:
        return None
    return section.model_copy(update={"level": section.confirm, "confirm": None})


def verdict(records: Records) -> str | None:
    """Return the last phonon verdict of a candidate; None if there is none."""
    found = [record.verdict for name, record in records.items() if name.startswith("phonons:")]
    return found[-1] if found else None


def _levels(campaign: "Campaign") -> Sequence[str]:
    section = campaign.phonons
    levels = [section.level, section.confirm] if section is not None else []
    return [level for level in levels if level is not None]


def _outcome(record: Phonons, _campaign: "Campaign") -> Outcome | None:
    if record.verdict == "unstable":
        return Outcome("rejected", "phonons", record.reason)
    if record.verdict == "error":
        return Outcome("failed", "phonons", record.reason)
    return None


def _describe(record: Phonons, records: Records) -> Description:
    at = record.min_frequency_qpoint
    where = f" at q = {reduced_point(at)}" if at else ""
    found = facts(
        number("lowest frequency", record.min_frequency, f"THz{where}", 2),
        number("acoustic residual at Γ", record.gamma_residual, "THz (exactly computed: 0)", 3),
        f"tolerance {record.tolerance:g} THz",
        _supercell(record),
        f"mesh of {'x'.join(map(str, record.mesh))} q-points" if record.mesh else "",
        _displacements(record),
        _other_verdicts(record, records),
        record.reason or "",
    )
    tones: dict[str, Tone] = {"stable": "good", "unstable": "bad"}
    return Description(record.verdict, tones.get(record.verdict, "open"), found)


def _other_verdicts(record: Phonons, records: Records) -> str:
    """Return what other levels say, where it is something else."""
    others = [r for name, r in records.items() if name.startswith("phonons:")]
    differ = [f"{r.level} says {r.verdict}" for r in others if r.verdict != record.verdict]
    return ", ".join(differ)


def _supercell(record: Phonons) -> str:
    matrix = record.supercell_matrix
    if not matrix:
        return ""
    cells = "; ".join(" ".join(str(value) for value in row) for row in matrix)
    size = f" of {record.supercell_atoms} atoms" if record.supercell_atoms else ""
    return f"supercell [{cells}]{size}"


def _displacements(record: Phonons) -> str:
    count = f"{record.n_displacements} displacements" if record.n_displacements else ""
    length = f"of {record.displacement:g} Å" if record.displacement else ""
    return " ".join(filter(None, [count, length]))


def _steps(campaign: "Campaign", level: str) -> tuple[FunnelStep, ...]:
    if level != _levels(campaign)[0]:  # a confirmation is no step of its own
        return ()
    return (
        FunnelStep("phonons", "phonons computed", lambda records: verdict(records) is not None),
        FunnelStep("stable", "phonon-stable", _is_stable),
    )


def _is_stable(records: Records) -> bool:
    return stable(records) is True


def stable(records: Records) -> bool | None:
    """Return the last verdict that says yes or no; None if there is none."""
    found = [r.verdict for name, r in records.items() if name.startswith("phonons:")]
    clear = [one for one in found if one in ("stable", "unstable")]
    return clear[-1] == "stable" if clear else None


STAGE = Stage(
    kind="phonons",
    record=Phonons,
    levels=_levels,
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
    columns=(
        Column(
            "phonon_verdict",
            "",
            lambda record: record.verdict,
            show=True,
            badge=True,
            heading="Phonons",
        ),
        Column("min_frequency", "THz", lambda record: record.min_frequency),
    ),
    heavy=("bands", "dos", "supercell_matrix", "mesh", "software"),
    figure="pccd_workflows.report.panels:phonon_panels",
)
