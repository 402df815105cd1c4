"""Sampling one position per site: how loud its noise is."""

import pytest
import torch

from pccd_workflows.generators.pccd.config import Architecture
from pccd_workflows.generators.pccd.frames import batch_frames
from pccd_workflows.generators.pccd.means import _MeanNoise
from pccd_workflows.generators.pccd.networks import build_denoiser
from tests.generators.pccd.two_crystals import only_elements

NUMBERS = torch.tensor([[12, 12, 12, 12, 8, 8, 8, 8], [55, 17, 0, 0, 0, 0, 0, 0]])
CONDITIONS = only_elements(NUMBERS)
DRAWS = 4000


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_noise_of_a_site_is_that_of_the_mean_of_its_points(strength):
    """A cloud has 128 points: 16 for each of eight atoms, 64 for each of two."""
    kind = Architecture(kind="point-transformer", width=16, depth=1, heads=1)
    noise = _MeanNoise(
        build_denoiser(kind), CONDITIONS, batch_frames([None] * 2, 8), [1, 2], strength
    )
    drawn = torch.stack([noise() for _ in range(DRAWS)])
    spread = drawn.std(0)  # (2, 8 + 2, 3); a standard deviation of 12,000 numbers errs by 0.6 %
    for row, (atoms, copies) in enumerate([(8, 16), (2, 64)]):
        sites = spread[row, :atoms].square().mean(1).sqrt()
        assert sites.tolist() == pytest.approx([strength / copies**0.5] * atoms, rel=0.04)
    assert spread[1, 2:8].max() == 0  # no atom, no noise
    # each of the lattice's two rows is repeated by half of the points
    lattice = spread[:, 8:].square().mean().sqrt()
    assert float(lattice) == pytest.approx(strength / 64**0.5, rel=0.04)


def test_the_noise_of_a_crystal_is_fixed_by_its_seed():
    kind = Architecture(kind="point-transformer", width=16, depth=1, heads=1)
    one, same, other = (
        _MeanNoise(build_denoiser(kind), CONDITIONS, batch_frames([None] * 2, 8), seeds, 1.0)()
        for seeds in ([1, 2], [1, 2], [1, 3])
    )
    assert torch.equal(one, same)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])
