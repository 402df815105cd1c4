"""Relax: the geometry of a crystal at rest at one level of theory."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.core.storage import ALL, CrystalRef, Share, StageRow, Storage, structure_key
from pccd_workflows.engines.levels import get_level
from pccd_workflows.engines.records import Relaxation
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
    words,
)

if TYPE_CHECKING:
    from pccd_workflows.campaign import Campaign
    from pccd_workflows.stages.rung import Rung


def count_chosen(campaign: "Campaign", rung: "Rung", storage: Storage) -> int:
    """Return how many crystals a rung relaxes: what its budget allows of those that reach it."""
    formulas = storage.formulas(campaign.campaign_id, stage_before(campaign, rung))
    reaching = sum(number for _, number in formulas)
    return min(reaching, rung.budget.candidates or reaching)


def choose(
    campaign: "Campaign", rung: "Rung", storage: Storage, share: Share = ALL
) -> list[CrystalRef]:
    """Return the crystals that a rung relaxes, best first, or a share of them by places."""
    places = share.places or (0, count_chosen(campaign, rung, storage))
    before = stage_before(campaign, rung)
    chosen = Share(places=places, after=share.after)
    return [row.ref for row in storage.going_on(campaign.campaign_id, before, chosen)]


def left_out(campaign: "Campaign", rung: "Rung", storage: Storage) -> Iterator[StageRow]:
    """Yield the crystals that reach a rung and for which it has no budget, without records."""
    limit, before = rung.budget.candidates, stage_before(campaign, rung)
    if limit is not None:
        rest = Share(places=(limit, sys.maxsize))
        yield from storage.going_on(campaign.campaign_id, before, rest)


def among_chosen(
    campaign: "Campaign", rung: "Rung", storage: Storage, ids: Sequence[str]
) -> set[str]:
    """Return those of some candidates that a rung relaxes."""
    before, limit = stage_before(campaign, rung), rung.budget.candidates
    end = math.inf, math.inf
    if limit is not None:
        last = storage.going_on(campaign.campaign_id, before, Share(places=(limit - 1, limit)))
        end = next(((row.rank, row.index) for row in last), end)
    reaching = storage.rows(campaign.campaign_id, before, goes_on=True, ids=ids)
    return {row.candidate_id for row in reaching if (row.rank, row.index) <= end}


def stage_before(campaign: "Campaign", rung: "Rung") -> str:
    """Return the name of the stage whose survivors a rung relaxes."""
    number_of_rung = [other.level for other in campaign.rungs].index(rung.level)
    return f"hull:{campaign.rungs[number_of_rung - 1].level}" if number_of_rung else "deduplicate"


def store(storage: Storage, campaign_id: str, level: str, records: Mapping[str, Relaxation]) -> int:
    """Write relaxations as their candidates' records; return how many are usable.

    records: by candidate_id.
    """
    generated = {
        row.candidate_id: row
        for row in storage.rows_of(campaign_id, list(records))
        if row.stage == "generate"
    }
    rows = [
        generated[name].following(
            f"relax:{level}", record, goes_on=record.usable, structure=record.structure
        )
        for name, record in records.items()
    ]
    storage.put_structures(
        {
            row.ref.key: record.structure
            for row, record in zip(rows, records.values(), strict=True)
            if record.structure is not None
        }
    )
    storage.put_rows(rows)
    return sum(row.goes_on for row in rows)


def read_relaxation(document: Any, start: Structure, level: str) -> Relaxation:
    """Return the relaxation in a document of atomate2's kind.

    Parameters
    ----------
    document
        With ``structure``, ``output.energy`` (eV, of the cell), and ``is_force_converged`` or
        ``state``; an object or its dictionary.
    start
        The structure before.
    level
        Level of theory whose energy convention it has.
    """
    structure, energy = _get(document, "structure"), _get(document, "output", "energy")
    if isinstance(structure, Mapping):
        structure = plain_structure(dict(structure))
    convention = get_level(level).convention
    if structure is None or energy is None:
        reason = "The job of the relaxing Maker left no structure or no energy."
        return Relaxation(level=level, key="", verdict="error", reason=reason)
    numbers = np.concatenate([[float(energy)], *structure.lattice.matrix, *structure.frac_coords])
    if not np.isfinite(numbers).all():
        reason = "The job of the relaxing Maker left a value that is not a number."
        return Relaxation(level=level, key="", verdict="not_a_number", reason=reason)
    converged = _get(document, "is_force_converged")
    if converged is None:
        converged = str(_get(document, "state")).rpartition(".")[2].lower() == "successful"
    return Relaxation(
        level=level,
        key=structure_key(structure),
        verdict="converged" if converged else "unconverged",
        reason=None if converged else "The relaxing Maker says that it did not converge.",
        structure=structure,
        energy=float(energy),
        energy_per_atom=float(energy) / len(structure),
        convention=convention,
        volume_change=structure.volume / start.volume - 1,
    )


def _get(document: Any, *path: str) -> Any:
    for name in path:
        if document is None:
            return None
        if isinstance(document, Mapping):
            document = document.get(name)
        else:
            document = getattr(document, name, None)
    return document


def _levels(campaign: "Campaign") -> Sequence[str]:
    return [rung.level for rung in campaign.rungs]


def _outcome(record: Relaxation, _campaign: "Campaign") -> Outcome | None:
    return None if record.usable else Outcome("rejected", record.verdict, record.reason)


def _describe(record: Relaxation, _records: Records) -> Description:
    change = record.volume_change
    found = facts(
        number("energy", record.energy_per_atom, "eV/atom", 4),
        f"{record.n_steps} steps",
        number("largest force", record.max_force, "eV/Å", 3),
        number("largest stress", record.max_stress, "GPa", 2),
        "" if change is None else f"volume {100 * change:+.1f} %",
        number("atoms moved", record.rms_displacement, "Å (RMS)", 2),
        f"magnetic order {record.magnetic_ordering}" if record.magnetic_ordering else "",
        record.reason or "",
        f"result {record.key[:16]}",
    )
    tone: Tone = "good" if record.verdict == "converged" else "open" if record.usable else "bad"
    return Description(words(record.verdict), tone, found)


def _steps(_campaign: "Campaign", level: str) -> tuple[FunnelStep, ...]:
    name = f"relax:{level}"
    return (
        FunnelStep(
            f"relaxed:{level}",
            f"relaxed at {level}",
            lambda records: name in records and records[name].usable,
        ),
    )


STAGE = Stage(
    kind="relax",
    record=Relaxation,
    levels=_levels,
    outcome=_outcome,
    describe=_describe,
    steps=_steps,
    rung=True,
    columns=(
        Column("relaxation_level", "", lambda record: record.level),
        Column("relaxation_verdict", "", lambda record: record.verdict),
        Column("relaxation_key", "", lambda record: record.key),
        Column("energy", "eV/atom", lambda record: record.energy_per_atom),
    ),
    tabulated=lambda record: record.structure is not None,
    heavy=("energies", "settings", "software"),
    figure="pccd_workflows.report.panels:relaxation_panels",
)
