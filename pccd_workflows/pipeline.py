"""The graph of a campaign, read from top to bottom."""

from dataclasses import dataclass

from jobflow import Flow, Job, Maker

from pccd_workflows.campaign import Campaign
from pccd_workflows.jobs.bands import start_bands
from pccd_workflows.jobs.common import GPU, TOLERATE_LOST_PARENTS, assign
from pccd_workflows.jobs.generate import generate
from pccd_workflows.jobs.phonons import start_phonons
from pccd_workflows.jobs.references import prepare_references
from pccd_workflows.jobs.rungs import climb
from pccd_workflows.jobs.screen import deduplicate, screen
from pccd_workflows.stages.rung import Rung


@dataclass
class DiscoveryMaker(Maker):
    """From a campaign to phonon verdicts.

    generate -> screen (shard by shard) -> references -> deduplicate -> rung by rung: relax, hull
    -> phonons; band structures beside the next rung. Jobs that gather others go on without those
    that were lost; when a lost job is rerun, everything after it is, too.
    """

    name: str = "discovery"

    def make(self, campaign: Campaign, weights_sha256: str) -> Flow:
        """Return the flow; every job's metadata names the campaign.

        weights_sha256: of the generative model, so that a rerun samples the same crystals.
        """
        shards = self._shards(campaign, weights_sha256)
        screens = [screen(campaign, shard.output) for shard in shards]
        for number, job in enumerate(screens, start=1):
            job.name = f"screen {number}/{len(screens)}"
        first, *_ = campaign.rungs
        references = self._references(campaign, first, screens)
        unique = deduplicate(campaign, [job.output for job in screens], references.output)
        unique.update_config(TOLERATE_LOST_PARENTS)
        jobs = [*shards, *screens, references, unique]
        judged = unique
        for rung in campaign.rungs:
            if rung is not first:
                references = self._references(campaign, rung, [judged])
                jobs.append(references)
            judged = climb(campaign, rung, judged.output.survivors, references.output)
            judged.name = f"rung {rung.level}"
            jobs.append(judged)
            if rung.band_structure:
                jobs.append(start_bands(campaign, rung, judged.output))
                jobs[-1].name = f"bands {rung.level}"
        if campaign.phonons is not None:
            jobs.append(assign(start_phonons(campaign, judged.output), GPU))
        flow = Flow(jobs, name=f"{self.name} {campaign.campaign_id}")
        flow.update_metadata({"campaign_id": campaign.campaign_id})
        return flow

    @staticmethod
    def _shards(campaign: Campaign, weights_sha256: str) -> list[Job]:
        request = campaign.generate
        starts = range(0, request.samples, request.shard)
        shards = []
        for number, start in enumerate(starts, start=1):
            stop = min(start + request.shard, request.samples)
            shard = assign(generate(campaign, start, stop, weights_sha256), GPU)
            shard.name = f"generate {number}/{len(starts)}"
            shards.append(shard)
        return shards

    @staticmethod
    def _references(campaign: Campaign, rung: Rung, jobs: list[Job]) -> Job:
        references = prepare_references(campaign, rung, [job.output for job in jobs])
        references.name = f"references {rung.level}"
        references.update_config(TOLERATE_LOST_PARENTS)
        return references
