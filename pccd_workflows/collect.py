"""From finished and failed jobs to the ledger: a fold that can be repeated at any time.

Jobs write only their own outputs; this module reads them and writes one candidate document per
generated crystal. It runs outside the workflow, so a job that died in mid-chain is accounted for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from pccd_workflows.analysis.screening import Screening
from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc, StageOutput, Status
from pccd_workflows.engines.records import Bands, Phonons, Relaxation
from pccd_workflows.generators.request import Generation
from pccd_workflows.known.novelty import Novelty
from pccd_workflows.stages.hull import Stability

if TYPE_CHECKING:
    from jobflow import JobStore
    from pymongo.database import Database

SYMPREC = 0.1
"""Å; spglib tolerance of the space group in a candidate's document."""


@dataclass
class Trail:
    """What is known about one candidate: its records and the job that made each, by stage."""

    generated: Structure | None = None
    records: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Where a candidate stands."""

    status: Status
    reason_class: str | None = None
    reason: str | None = None


@dataclass
class Ledger:
    """The trails of one campaign, filled output by output."""

    campaign: Campaign
    trails: dict[str, Trail] = field(default_factory=dict)

    def add(self, output: StageOutput, uuid: str) -> set[str]:
        """Add a stage's output; return the ids of the candidates it says something new about."""
        changed = set()
        for candidate_id, record in output.records.items():
            trail = self.trails.setdefault(candidate_id, Trail())
            if trail.records.get(output.stage) != record:
                trail.records[output.stage] = record
                trail.jobs[output.stage] = uuid
                changed.add(candidate_id)
        if output.stage == "generate":
            for crystal in output.survivors:
                self.trails[crystal.candidate_id].generated = crystal.structure
        return changed

    def set_failures(self, failures: Mapping[str, str]) -> set[str]:
        """Note which candidates a lost job holds back, and why; return those that changed."""
        changed = set()
        for candidate_id, trail in self.trails.items():
            failure = failures.get(candidate_id)
            if failure != trail.failure:
                trail.failure = failure
                changed.add(candidate_id)
        return changed

    def document(self, candidate_id: str) -> CandidateDoc | None:
        """Return a candidate's document; None as long as its generation is not stored."""
        trail = self.trails[candidate_id]
        if "generate" not in trail.records:
            return None
        return candidate_document(self.campaign, candidate_id, trail)


def candidate_document(campaign: Campaign, candidate_id: str, trail: Trail) -> CandidateDoc:
    """Fold one candidate's records into its document."""
    generation: Generation = trail.records["generate"]
    relaxations = _by_prefix(trail, campaign, "relax")
    stabilities = _by_prefix(trail, campaign, "hull")
    bands: list[Bands] = _by_prefix(trail, campaign, "bands")
    gaps = [record.band_gap for record in bands if record.band_gap is not None]
    phonons = [record for stage, record in trail.records.items() if stage.startswith("phonons")]
    novelty = latest_novelty(trail.records.get("deduplicate"), stabilities)
    relaxed = [r.structure for r in relaxations if r.structure is not None]
    structure = relaxed[-1] if relaxed else trail.generated
    energies = [s.energy_above_hull for s in stabilities if s.energy_above_hull is not None]
    verdict = judge_trail(campaign, trail)
    return CandidateDoc(
        candidate_id=candidate_id,
        campaign_id=campaign.campaign_id,
        campaign=campaign.name,
        index=generation.index,
        status=verdict.status,
        stage=[stage for stage in campaign.stages if stage in trail.records][-1],
        reason_class=verdict.reason_class,
        reason=verdict.reason,
        structure=structure,
        **_composition_fields(structure),
        spacegroup=_spacegroup(structure) if novelty is not None else None,
        energy_above_hull=energies[-1] if energies else None,
        novel=novelty.novel if novelty is not None and novelty.duplicate_of is None else None,
        phonon_stable=_phonon_stable(phonons),
        band_gap=gaps[-1] if gaps else None,
        generation=generation,
        screening=trail.records.get("screen"),
        novelty=trail.records.get("deduplicate"),
        relaxations=relaxations,
        stabilities=stabilities,
        band_structures=bands,
        phonons=phonons,
        jobs=trail.jobs,
        seconds={
            stage: record.seconds
            for stage, record in trail.records.items()
            if getattr(record, "seconds", None)
        },
    )


def latest_novelty(first: Novelty | None, stabilities: Iterable[Stability]) -> Novelty | None:
    """Return the verdict on the latest structure that was compared."""
    later = [record.novelty for record in stabilities if record.novelty is not None]
    return later[-1] if later else first


def judge_trail(campaign: Campaign, trail: Trail) -> Verdict:
    """Return where a candidate stands: the first stage that rejected it decides."""
    for stage in campaign.stages:
        record = trail.records.get(stage)
        if record is None:
            continue
        if (rejection := _rejection(campaign, record)) is not None:
            return rejection
    last_rung = f"hull:{campaign.rungs[-1].level}"
    if trail.failure is not None:
        return Verdict("failed", "job_failed", trail.failure)
    return Verdict("passed" if last_rung in trail.records else "pending")


def _rejection(campaign: Campaign, record: Any) -> Verdict | None:
    verdict = None
    match record:
        case Generation(error_class=str(error_class)):
            verdict = Verdict("rejected", error_class, record.reason)
        case Screening(passed=False) | Stability(passed=False):
            verdict = Verdict("rejected", record.reason_class, record.reason)
        case Novelty(duplicate_of=str(other)):
            verdict = Verdict("rejected", "duplicate", f"The same crystal as {other}.")
        case Novelty() if not (record.novel or campaign.novelty.keep_known):
            names = [name for name, found in record.sets.items() if found.known]
            verdict = Verdict("rejected", "known", f"Known in {', '.join(names)}.")
        case Relaxation(usable=False):
            verdict = Verdict("rejected", record.verdict, record.reason)
        case Phonons(verdict="unstable"):
            verdict = Verdict("rejected", "phonons", record.reason)
        case Phonons(verdict="error"):
            verdict = Verdict("failed", "phonons", record.reason)
    return verdict


def _by_prefix(trail: Trail, campaign: Campaign, prefix: str) -> list[Any]:
    stages = [f"{prefix}:{rung.level}" for rung in campaign.rungs]
    return [trail.records[stage] for stage in stages if stage in trail.records]


def _composition_fields(structure: Structure | None) -> dict[str, Any]:
    if structure is None:
        return {}
    return {
        "formula_pretty": structure.composition.reduced_formula,
        "chemsys": structure.chemical_system,
        "elements": sorted(element.symbol for element in structure.composition.elements),
        "nsites": len(structure),
    }


def _spacegroup(structure: Structure | None) -> str | None:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    if structure is None:
        return None
    try:
        return str(SpacegroupAnalyzer(structure, symprec=SYMPREC).get_space_group_symbol())
    except SymmetryUndeterminedError:
        return None


def _phonon_stable(phonons: Iterable[Phonons]) -> bool | None:
    verdicts = [record.verdict for record in phonons if record.verdict in ("stable", "unstable")]
    return verdicts[-1] == "stable" if verdicts else None


@dataclass
class Collector:
    """Keeps the candidates of one campaign up to date; `update` reads only what is new."""

    database: "Database[dict[str, Any]]"
    store: "JobStore"
    campaign: Campaign
    ledger: Ledger = field(init=False)
    _seen: set[tuple[str, int, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start with an empty ledger; the first update reads everything."""
        self.ledger = Ledger(self.campaign)

    def update(self, failures: Mapping[str, str] | None = None) -> int:
        """Fold new job outputs into candidate documents; return how many documents changed.

        failures: reason by candidate_id, of lost jobs.
        """
        changed: set[str] = set()
        for key in self._unread():
            uuid, index, _ = key
            if (output := self._load(uuid, index)) is not None:
                changed |= self.ledger.add(output, uuid)
            self._seen.add(key)
        changed |= self.ledger.set_failures(failures or {})
        return self._write(sorted(changed))

    def _unread(self) -> list[tuple[str, int, str]]:
        """Return uuid, index and time of the outputs not read yet, the oldest first.

        A job that was rerun stores its output again, at a later time.
        """
        self.store.connect()
        query = {"metadata.campaign_id": self.campaign.campaign_id, "output.stage": {"$ne": None}}
        rows = self.store.docs_store.query(query, ["uuid", "index", "name", "completed_at"])
        found = {
            (row["uuid"], row["index"], str(row["completed_at"]))
            for row in rows
            # a replaced job stores the output of the job that replaced it once more
            if row["name"] != "store_inputs"
        }
        return sorted(found - self._seen, key=lambda key: key[2])

    def _load(self, uuid: str, index: int) -> StageOutput | None:
        from monty.json import MontyDecoder

        document = self.store.query_one({"uuid": uuid, "index": index}, ["output"], load=True)
        output = MontyDecoder().process_decoded(document["output"]) if document else None
        return output if isinstance(output, StageOutput) else None

    def _write(self, candidate_ids: Iterable[str]) -> int:
        from pymongo import ReplaceOne

        now = datetime.now(UTC)
        writes = []
        for candidate_id in candidate_ids:
            if (document := self.ledger.document(candidate_id)) is None:
                continue
            row = document.model_dump(mode="json") | {"_id": candidate_id, "updated_at": now}
            writes.append(ReplaceOne({"_id": candidate_id}, row, upsert=True))
        if writes:
            self.database["candidates"].bulk_write(writes, ordered=False)
        return len(writes)
