"""The graph of a campaign, read from top to bottom: nested Makers, each of which can be swapped."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobflow import Flow, Job, Maker

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.storage import ALL
from pccd_workflows.jobs.common import assign, named, taking, tolerant
from pccd_workflows.jobs.metadata import GPU, SAMPLES, WRITES
from pccd_workflows.jobs.phonons import start_phonons
from pccd_workflows.jobs.references import prepare_references
from pccd_workflows.jobs.rungs import start_bands, start_rung
from pccd_workflows.jobs.stages import deduplicate, generate_and_screen, run_stage
from pccd_workflows.stages import all_stages
from pccd_workflows.stages.relax import stage_before
from pccd_workflows.stages.rung import Rung


@dataclass
class GenerateMaker(Maker):
    """Sample a campaign's crystals and screen them, batch by batch."""

    name: str = "generate"

    def make(  # type: ignore[override]  # several jobs for the flow around it
        self, campaign: Campaign, versions: Sequence[str]
    ) -> list[Job]:
        """Return a job for each batch; a lost one holds back none of the others.

        versions: of the campaign's sources, so that a rerun makes the same crystals.
        """
        shards = campaign.shards
        jobs = []
        for number, (start, stop) in enumerate(shards, start=1):
            job = assign(generate_and_screen(campaign, start, stop, list(versions)), GPU)
            job.update_metadata({SAMPLES: [start, stop], WRITES: "screen"})
            jobs.append(named(job, f"{self.name} {number}/{len(shards)}"))
        return jobs


@dataclass
class ReferencesMaker(Maker):
    """See that every chemical system has its competing phases at a rung's level."""

    name: str = "references"

    def make(self, campaign: Campaign, rung: Rung, after: Sequence[Job]) -> Job:
        """Return a job whose output is the list of the systems."""
        job = prepare_references(campaign, rung, [one.output for one in after])
        return named(tolerant(job), f"{self.name} {rung.level}")


@dataclass
class DeduplicateMaker(Maker):
    """Keep one of equal crystals, say which are known."""

    name: str = "deduplicate"

    def make(self, campaign: Campaign, references: Job, after: Sequence[Job]) -> Job:
        """Return a job that runs once the screened crystals and the references are there."""
        job = deduplicate(campaign, references.output, [one.output for one in after])
        return taking(named(tolerant(job), self.name), "screen", ALL, "deduplicate")


@dataclass
class RungMaker(Maker):
    """Relax at one level, place on the hull, keep the near ones; bands beside the next rung.

    Attributes
    ----------
    relax_maker
        Makes the job that relaxes a structure, instead of the level's engine: any Maker whose
        ``make(structure)`` ends in a document with ``structure`` and ``output.energy``, such as
        atomate2's relaxations. The level still says which convention and references it belongs to.
    """

    relax_maker: Maker | None = None
    name: str = "rung"

    def make(  # type: ignore[override]  # several jobs for the flow around it
        self, campaign: Campaign, rung: Rung, references: Job, after: Job
    ) -> list[Job]:
        """Return the job that is done when the rung is, and those that nobody waits for."""
        phases, before = references.output, after.output
        judged = tolerant(start_rung(campaign, rung, phases, self.relax_maker, before))
        taking(judged, stage_before(campaign, rung), ALL, f"hull:{rung.level}")
        jobs = [named(judged, f"{self.name} {rung.level}")]
        if rung.band_structure:
            jobs.append(named(start_bands(campaign, rung, judged.output), f"bands {rung.level}"))
        return jobs


@dataclass
class PhononsMaker(Maker):
    """Phonons of the best crystals of the last rung."""

    name: str = "start_phonons"

    def make(self, campaign: Campaign, after: Job) -> Job:
        """Return the job that starts a flow for each of them."""
        job = named(assign(start_phonons(campaign, after.output), GPU), self.name)
        level = campaign.phonons.level if campaign.phonons is not None else ""
        return taking(job, f"hull:{campaign.rungs[-1].level}", ALL, f"phonons:{level}")


@dataclass
class DiscoveryMaker(Maker):
    """From a campaign to phonon verdicts.

    generate and screen (batch by batch) -> references -> deduplicate -> rung by rung: relax, hull
    -> phonons. Jobs that gather others go on without those that were lost; when a lost job is
    rerun, everything after it is, too.

    Attributes
    ----------
    rung_makers
        Own Makers for the rungs of some levels; all others take `rung_maker`.
    """

    generate_maker: GenerateMaker = field(default_factory=GenerateMaker)
    references_maker: ReferencesMaker = field(default_factory=ReferencesMaker)
    deduplicate_maker: DeduplicateMaker = field(default_factory=DeduplicateMaker)
    rung_maker: RungMaker = field(default_factory=RungMaker)
    rung_makers: dict[str, RungMaker] = field(default_factory=dict)
    phonons_maker: PhononsMaker = field(default_factory=PhononsMaker)
    name: str = "discovery"

    def make(self, campaign: Campaign, versions: Sequence[str] = ()) -> Flow:
        """Return the flow; every job's metadata names the campaign.

        versions: of the campaign's sources (`stages.generate.source_versions`), so that a rerun
        makes the same crystals; not checked if left out.
        """
        first, *later = campaign.rungs
        generated = self.generate_maker.make(campaign, versions)
        references = self.references_maker.make(campaign, first, generated)
        unique = self.deduplicate_maker.make(campaign, references, generated)
        judged, *beside = self._rung(first).make(campaign, first, references, unique)
        jobs = [*generated, references, unique, judged, *beside]
        for rung in later:
            references = self.references_maker.make(campaign, rung, [judged])
            judged, *beside = self._rung(rung).make(campaign, rung, references, judged)
            jobs += [references, judged, *beside]
        if campaign.phonons is not None:
            jobs.append(self.phonons_maker.make(campaign, judged))
        jobs += _plain_stages(campaign, judged)
        flow = Flow([*jobs], name=f"{self.name} {campaign.campaign_id}")
        flow.update_metadata({"campaign_id": campaign.campaign_id})
        return flow

    def _rung(self, rung: Rung) -> RungMaker:
        return self.rung_makers.get(rung.level, self.rung_maker)


def _plain_stages(campaign: Campaign, judged: Job) -> list[Job]:
    """Return a job for each stage that has no Maker of its own."""
    names = [
        stage.name(level)
        for stage in all_stages()
        if stage.run is not None
        for level in stage.levels(campaign)
    ]
    kept = f"hull:{campaign.rungs[-1].level}"
    return [
        taking(named(run_stage(campaign, name, judged.output), name), kept, ALL, name)
        for name in names
    ]
