"""The graph of a campaign."""

import inspect

from jobflow import Maker, OnMissing

from pccd_workflows import pipeline as makers
from pccd_workflows.campaign import Campaign
from pccd_workflows.pipeline import DiscoveryMaker

CAMPAIGN = Campaign.model_validate(
    {
        "name": "graph",
        "generate": {"elements": ["Mg", "O"], "samples": 10, "shard": 4},
        "rungs": [{"level": "chgnet"}, {"level": "7net-0"}],
        "phonons": {},
    }
)


def parents(flow) -> dict[str, set[str]]:
    names = {job.uuid: job.name for job in flow.jobs}
    return {job.name: {names[u] for u in job.input_uuids} for job in flow.jobs}


def test_every_maker_is_a_dataclass_of_its_own():
    found = [
        cls
        for _, cls in inspect.getmembers(makers, inspect.isclass)
        if issubclass(cls, Maker) and cls is not Maker
    ]
    assert found
    for cls in found:
        assert "__dataclass_fields__" in vars(cls), f"{cls.__name__} would ignore its fields"


def test_graph_is_the_funnel():
    graph = parents(DiscoveryMaker().make(CAMPAIGN, "sha"))
    assert graph == {
        "generate 1/3": set(),
        "generate 2/3": set(),
        "generate 3/3": set(),
        "references chgnet": {"generate 1/3", "generate 2/3", "generate 3/3"},
        "deduplicate": {"generate 1/3", "generate 2/3", "generate 3/3", "references chgnet"},
        "rung chgnet": {"deduplicate", "references chgnet"},
        "references 7net-0": {"rung chgnet"},
        "rung 7net-0": {"rung chgnet", "references 7net-0"},
        "start_phonons": {"rung 7net-0"},
    }


def test_band_structures_wait_for_their_rung_and_nothing_for_them():
    rungs = [{"level": "vasp/mp-gga", "band_structure": True}, {"level": "vasp/mp-r2scan"}]
    whole = Campaign.model_validate(CAMPAIGN.resolved() | {"rungs": rungs})
    graph = parents(DiscoveryMaker().make(whole, "sha"))
    assert graph["bands vasp/mp-gga"] == {"rung vasp/mp-gga"}
    assert not any("bands vasp/mp-gga" in needed for needed in graph.values())
    assert "bands vasp/mp-r2scan" not in graph


def test_shards_cover_every_sample_once():
    flow = DiscoveryMaker().make(CAMPAIGN, "sha")
    ranges = [job.function_args[1:3] for job in flow.jobs if job.name.startswith("generate")]
    assert sorted(i for start, stop in ranges for i in range(start, stop)) == list(range(10))


def test_every_job_names_its_campaign_and_gatherers_tolerate_losses():
    flow = DiscoveryMaker().make(CAMPAIGN, "sha")
    assert {job.metadata["campaign_id"] for job in flow.jobs} == {CAMPAIGN.campaign_id}
    tolerant = {job.name for job in flow.jobs if job.config.on_missing_references == OnMissing.NONE}
    gatherers = {"references chgnet", "references 7net-0", "deduplicate"}
    assert tolerant == gatherers | {"rung chgnet", "rung 7net-0"}
