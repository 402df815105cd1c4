"""What is made again after an interruption is the same to the last bit."""

import numpy as np
import pytest

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import OutOfMemory
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.generators.pccd import sample
from pccd_workflows.generators.pccd.generator import BATCH, PccdGenerator
from pccd_workflows.generators.request import Generate
from pccd_workflows.settings import get_settings
from pccd_workflows.stages import generate

ASKED = {
    "elements": ["Na", "Cl"],
    "samples": 12,
    "shard": 8,
    "sampler": {"name": "dpm-solver++", "steps": 8, "start": 1.0},
}


@pytest.fixture
def campaign(tiny_folder, monkeypatch) -> Campaign:
    monkeypatch.setenv("PCCD_MODEL_DIR", str(tiny_folder.parent))
    get_settings.cache_clear()
    asked = ASKED | {"model": tiny_folder.name}
    return Campaign.model_validate(
        {"name": "resumed", "generate": asked, "rungs": [{"level": "chgnet"}]}
    )


def made(campaign: Campaign, storage: MemoryStorage) -> dict[int, str | None]:
    """Make what is missing; return the content addresses of all crystals."""
    for start, stop in campaign.shards:
        generate.run(campaign, start, stop, storage)
    return {row.index: row.key for row in storage.rows(campaign.campaign_id, "generate")}


@pytest.fixture
def rounding(monkeypatch):
    """Let a crystal show the size of its batch, as sums of networks do on some machines."""
    draw = sample.sample_crystals

    def rounded(model, requests, **options):
        found = draw(model, requests, **options)
        for one in found:
            if one.structure is not None:
                one.structure.scale_lattice(one.structure.volume * (1 + 3e-7 * len(requests)))
        return found

    monkeypatch.setattr(sample, "sample_crystals", rounded)


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize("done", [range(7), range(1), (3, 9, 11), range(8)])
def test_crystals_made_after_an_interruption_are_those_of_an_undisturbed_run(campaign, done):
    whole = MemoryStorage()
    expected = made(campaign, whole)
    assert len({*expected.values()} - {None}) > 6
    interrupted = MemoryStorage()
    rows = whole.rows(campaign.campaign_id, "generate")
    interrupted.put_rows([row for row in rows if row.index in done])
    assert made(campaign, interrupted) == expected


def test_no_batch_crosses_a_shard():
    source = PccdGenerator(Generate(elements=["Na", "Cl"], samples=300, shard=100))
    batches = {source._batch_of(index) for index in range(300)}
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert max(map(len, batches)) == BATCH
    assert {batch.stop for batch in batches} >= {100, 200, 300}


def test_a_batch_that_does_not_fit_into_memory_is_drawn_in_halves(campaign, monkeypatch):
    expected = list(PccdGenerator(campaign.generate).generate(range(8)))
    whole, sizes = sample.sample_crystals, []

    def small_memory(model, requests, **options):
        sizes.append(len(requests))
        if len(requests) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(model, requests, **options)

    monkeypatch.setattr(sample, "sample_crystals", small_memory)
    found = list(PccdGenerator(campaign.generate).generate(range(8)))
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.structure is None) == (other.index, other.structure is None)
        if one.structure is not None:
            volumes = (one.structure.volume, other.structure.volume)
            assert np.isclose(*volumes, rtol=1e-3)
    monkeypatch.setattr(sample, "sample_crystals", lambda *_, **__: small_memory(0, [0] * 9))
    with pytest.raises(OutOfMemory):
        list(PccdGenerator(campaign.generate).generate([0]))
