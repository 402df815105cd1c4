"""From what stages and lost jobs say to one document for each candidate: a fold, repeatable.

Stages write only their own rows. This module reads them and writes the candidates, from outside of
the workflow, so that a job that died in mid-chain is accounted for. It reads what changed since it
last did, and writes only documents that differ from those stored.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from pccd_workflows import columns, query, stages
from pccd_workflows.campaign import Campaign, index_of
from pccd_workflows.candidate import CandidateDoc, stage_fields
from pccd_workflows.core.records import AS_STORED, Record
from pccd_workflows.core.storage import Document, Storage
from pccd_workflows.core.unit_cells import UnitCell, unit_cell
from pccd_workflows.engines.records import Bands, Relaxation
from pccd_workflows.stages import phonons
from pccd_workflows.stages.generate import JOB_FAILED, not_made
from pccd_workflows.stages.hull import Stability
from pccd_workflows.stages.novelty import novelty_of
from pccd_workflows.stages.stage import Outcome

if TYPE_CHECKING:
    from pymongo.database import Database

SYMPREC = 0.1
"""Å; spglib tolerance of the space group in a candidate's document."""
OVERLAP = timedelta(seconds=60)
"""Rows that are no older than this when they are read are read once more: writers do not end in
order."""
TOGETHER = 200
"""Candidates folded at once: bounds the memory, whatever the size of the campaign."""


Crystal = Structure | Document
"""A crystal, or the dictionary that it is stored as where nobody needs more."""


@dataclass(frozen=True)
class Loss:
    """A failed job that may hold a candidate back.

    Attributes
    ----------
    reason
        Why it failed, as one sentence.
    stage
        The stage whose row it writes last: a candidate with that row is not held back. None if no
        row tells.
    """

    reason: str
    stage: str | None = None


Losses = Mapping[str, Sequence[Loss]]
"""Failed jobs by candidate_id."""


@dataclass
class CandidateHistory:
    """What is known about one candidate.

    Attributes
    ----------
    index
        Number of its sample in the campaign.
    records
        By stage name.
    jobs
        uuid of the job that made each.
    generated
        The crystal as it was sampled.
    losses
        Jobs that failed and may hold it back.
    """

    index: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    generated: Crystal | None = None
    losses: Sequence[Loss] = ()

    @property
    def failure(self) -> str | None:
        """Why a lost job holds it back; None if none does."""
        held = (loss.reason for loss in self.losses if loss.stage not in self.records)
        return next(held, None)


def candidate_document(
    campaign: Campaign, candidate_id: str, history: CandidateHistory
) -> CandidateDoc | None:
    """Fold one candidate's records into its document.

    None while its generation is not stored, unless the job that was to make it is lost.
    """
    order = stages.names(campaign)
    records = {name: history.records[name] for name in order if name in history.records}
    if "generate" not in records:
        return _never_made(campaign, candidate_id, history.losses)
    relaxed = [r.structure for r in _of(records, Relaxation) if r.structure is not None]
    structure = relaxed[-1] if relaxed else history.generated
    hulls = _of(records, Stability)
    energies = [s.energy_above_hull for s in hulls if _is_number(s.energy_above_hull)]
    gaps = [record.band_gap for record in _of(records, Bands) if record.band_gap is not None]
    novelty = novelty_of(records)
    judged = novelty if novelty is not None and novelty.duplicate_of is None else None
    outcome = judge(campaign, records, history.failure)
    cell = None if structure is None else unit_cell(structure)
    fields = dict(
        candidate_id=candidate_id,
        campaign_id=campaign.campaign_id,
        campaign=campaign.name,
        index=history.index,
        status=outcome.status,
        stage=list(records)[-1],
        reason_class=outcome.reason_class,
        reason=outcome.reason,
        structure=structure,
        **_composition_fields(cell),
        spacegroup=None if cell is None or novelty is None else cell.space_group(SYMPREC),
        energy_above_hull=energies[-1] if energies else None,
        novel=None if judged is None else judged.novel,
        kind_of_new=None if judged is None else judged.kind,
        known_id=None if judged is None else judged.known_id,
        phonon_stable=phonons.stable(records),
        band_gap=gaps[-1] if gaps else None,
        values=columns.sortable(records),
        **stage_fields(records),
        reached=reached(campaign, records),
        jobs={name: history.jobs[name] for name in records if name in history.jobs},
        seconds={
            name: seconds
            for name, record in records.items()
            if (seconds := getattr(record, "seconds", None))
        },
    )
    return CandidateDoc.model_validate(fields, context=AS_STORED)


def _never_made(
    campaign: Campaign, candidate_id: str, losses: Sequence[Loss]
) -> CandidateDoc | None:
    """Return the document of a sample whose job was lost before it was stored."""
    reason = next((loss.reason for loss in losses if loss.stage == "screen"), None)
    if reason is None:
        return None
    index = index_of(candidate_id)
    generation = not_made(campaign, index, reason)
    return CandidateDoc(
        candidate_id=candidate_id,
        campaign_id=campaign.campaign_id,
        campaign=campaign.name,
        index=index,
        status="failed",
        reason_class=generation.error_class,
        reason=reason,
        generation=generation,
    )


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _of(records: Mapping[str, Record], kind: type[Any]) -> list[Any]:
    return [record for record in records.values() if isinstance(record, kind)]


def reached(campaign: Campaign, records: Mapping[str, Record]) -> list[str]:
    """Return the keys of the funnel's steps that a candidate reached, up to the first it missed."""
    keys = []
    for step in stages.funnel(campaign):
        if not step.reached(records):
            break
        keys.append(step.key)
    return keys


def judge(campaign: Campaign, records: Mapping[str, Record], failure: str | None) -> Outcome:
    """Return where a candidate stands: the first stage that ended its way decides.

    failure: why a lost job holds it back.
    """
    if (outcome := stages.judge(campaign, records)) is not None:
        return outcome
    if failure is not None:
        return Outcome("failed", JOB_FAILED, failure)
    last_rung = f"hull:{campaign.rungs[-1].level}"
    return Outcome("passed" if last_rung in records else "pending")


def _composition_fields(cell: UnitCell | None) -> dict[str, Any]:
    if cell is None:
        return {}
    found = cell.composition
    return {
        "formula_pretty": found.formula,
        "chemsys": found.chemsys,
        "elements": list(found.elements),
        "nsites": len(cell.kinds),
    }


def fold(
    campaign: Campaign,
    storage: Storage,
    candidate_ids: Iterable[str],
    losses: Losses | None = None,
    *,
    as_stored: bool = False,
) -> Iterator[CandidateDoc]:
    """Yield the documents of candidates from what the storage holds about them.

    as_stored: whether their structures stay dictionaries (see `records.AS_STORED`).
    """
    ids = iter(candidate_ids)
    while batch := list(islice(ids, TOGETHER)):
        for candidate_id, history in _histories(campaign, storage, batch, as_stored).items():
            history.losses = (losses or {}).get(candidate_id, ())
            if (document := candidate_document(campaign, candidate_id, history)) is not None:
                yield document


def _histories(
    campaign: Campaign, storage: Storage, ids: list[str], as_stored: bool
) -> dict[str, CandidateHistory]:
    histories = {candidate_id: CandidateHistory() for candidate_id in ids}
    keys: dict[str, str] = {}
    for row in storage.rows_of(campaign.campaign_id, ids):
        history = histories[row.candidate_id]
        history.index = row.index
        kind = stages.stage_of(row.stage).record
        history.records[row.stage] = row.read(kind, as_stored=as_stored)
        if row.job is not None:
            history.jobs[row.stage] = row.job
        if row.stage == "generate" and row.key is not None:
            keys[row.candidate_id] = row.key
    for candidate_id in [name for name in keys if _was_relaxed(histories[name])]:
        del keys[candidate_id]  # its latest crystal is in the record
    read = storage.structure_documents if as_stored else storage.get_structures
    structures: Mapping[str, Crystal] = read(set(keys.values()))
    for candidate_id, key in keys.items():
        histories[candidate_id].generated = structures.get(key)
    return histories


def _was_relaxed(history: CandidateHistory) -> bool:
    return any(found.structure is not None for found in _of(history.records, Relaxation))


@dataclass
class Collector:
    """Keeps the candidates of one campaign up to date."""

    database: "Database[Document]"
    storage: Storage
    campaign: Campaign

    def update(self, losses: Losses | None = None) -> int:
        """Fold what changed into candidate documents; return how many documents changed."""
        losses = losses or {}
        now: datetime = self.database.command("hello")["localTime"]
        changed, _ = self.storage.changed(self.campaign.campaign_id, self._collected_until(now))
        held_back = set(self._held_back())
        written = 0
        for batch in self._folded(sorted({*changed, *losses, *held_back}), losses):
            written += self._write(batch)
            held_back.difference_update(document.candidate_id for document in batch)
        # samples whose lost job is run again: they have no document until they are made
        gone = {"_id": {"$in": sorted(held_back)}, "generation.error_class": JOB_FAILED}
        written += self.database["candidates"].delete_many(gone).deleted_count
        if changed:
            self.database["campaigns"].update_one(
                {"_id": self.campaign.campaign_id}, {"$set": {"collected_until": now - OVERLAP}}
            )
        return written

    def _folded(self, ids: Iterable[str], losses: Losses) -> Iterator[list[CandidateDoc]]:
        documents = fold(self.campaign, self.storage, ids, losses, as_stored=True)
        while batch := list(islice(documents, TOGETHER)):
            yield batch

    def _collected_until(self, now: datetime) -> datetime | None:
        """Return up to when rows were read; None if the server's clock went back since then."""
        query = {"_id": self.campaign.campaign_id}
        document = self.database["campaigns"].find_one(query, {"collected_until": 1}) or {}
        found: datetime | None = document.get("collected_until")
        return None if found is None or found > now else found

    def _held_back(self) -> list[str]:
        """Return the candidates that a lost job held back when they were written."""
        query = {"campaign_id": self.campaign.campaign_id, "reason_class": JOB_FAILED}
        return [row["_id"] for row in self.database["candidates"].find(query, {"_id": 1})]

    def _write(self, documents: list[CandidateDoc]) -> int:
        """Store the documents that differ from what is stored; return their number."""
        from pccd_workflows.execution.mongo import check_schema_version, replace_documents

        ids = [document.candidate_id for document in documents]
        stored = {
            row.pop("_id"): row for row in self.database["candidates"].find({"_id": {"$in": ids}})
        }
        now, rows = datetime.now(UTC), []
        for document in documents:
            name = document.candidate_id
            row = document.model_dump(mode="json", exclude={"updated_at"})
            before = stored.get(name, {})
            if before:
                check_schema_version(before, f"Candidate {name}")
            before.pop("updated_at", None)
            if row != before:
                rows.append({"_id": name, **row, "updated_at": now})
        replace_documents(self.database["candidates"], rows)
        return len(rows)


def stored_campaign(document: Document) -> Campaign:
    """Return the campaign of a stored document, with the id that it was stored under."""
    return Campaign.model_validate({**document["campaign"], "stored_id": document["_id"]})


@dataclass(frozen=True)
class FunnelCount:
    """One step of the funnel.

    reached: candidates that passed it. out_of: those that were asked; None if not known yet.
    """

    name: str
    reached: int
    out_of: int | None = None


def count_funnel(campaign: Campaign, candidates: Any) -> list[FunnelCount]:
    """Count a campaign's candidates step by step, each along an index.

    candidates: a pymongo collection.
    """
    of_campaign = {"campaign_id": campaign.campaign_id}
    older: Counter[str] = Counter()
    for document in candidates.find({**of_campaign, "reached": {"$exists": False}}, {"_id": 0}):
        older.update(reached(campaign, query.to_candidate(document).records))
    steps: list[FunnelCount] = []
    for step in stages.funnel(campaign):
        out_of = steps[-1].reached if steps else campaign.n_samples
        count = candidates.count_documents({**of_campaign, "reached": step.key})
        steps.append(FunnelCount(step.label, count + older[step.key], out_of))
    return steps
