"""No tensor is left behind on the CPU, checked without a GPU.

Tensors of torch's device "meta" have shapes and no numbers; as with a GPU, few operations take
them together with tensors of the CPU, and in FakeTensorMode none that a GPU would refuse.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pccd_workflows.generators.pccd.cells import Cell, SampleRequest, condition_batch
from pccd_workflows.generators.pccd.config import Architecture
from pccd_workflows.generators.pccd.denoiser import build_denoiser
from pccd_workflows.generators.pccd.process import noise_from_clean
from pccd_workflows.generators.pccd.sample import ddim, ddpm, dpm_solver
from pccd_workflows.generators.pccd.schedule import cosine_log_snr
from pccd_workflows.generators.request import Conditions

ELSEWHERE = torch.device("meta")
NETWORKS = (
    Architecture(kind="point-transformer", width=16, depth=2, heads=2, max_sites=8, max_elements=5),
    Architecture(kind="paper-unet", width=8, depth=2, heads=2),
)
each_network = pytest.mark.parametrize("architecture", NETWORKS, ids=lambda a: a.kind)


def conditions():
    cells = [Cell((12, 8)), Cell((12, 12, 25, 8), 225, 3)]
    requests = [
        SampleRequest(0, ("Mg", "O"), Conditions(band_gap=1.0)),
        SampleRequest(1, ("Mg", "Mn", "O"), Conditions(energy_above_hull=0.1)),
    ]
    return condition_batch(requests, cells)


def move_fake(mode, network):
    """Put parameters and buffers on the other device, as tensors that know it."""
    for module in network.modules():
        for name, weights in module._parameters.items():
            if weights is not None:
                moved = mode.from_tensor(weights.detach()).to(ELSEWHERE)
                module._parameters[name] = nn.Parameter(moved)
        for name, numbers in module._buffers.items():
            if numbers is not None:
                module._buffers[name] = mode.from_tensor(numbers).to(ELSEWHERE)


def test_the_check_finds_tensors_left_behind():
    here, there = torch.ones(3, 3), torch.ones(3, 3, device=ELSEWHERE)
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
        pytest.raises(RuntimeError, match="same device"),
    ):
        mode.from_tensor(there) @ here


@each_network
def test_networks_stay_on_their_device(architecture):
    network, given = build_denoiser(architecture), conditions()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        move_fake(mode, network)
        given = given.to(ELSEWHERE)
        noisy = torch.randn(2, 3, 128, network.columns, device=ELSEWHERE)
        log_snr = torch.randn(2, device=ELSEWHERE)
        clean = network(noisy, log_snr, given)
        apart = network.separate(clean, given, 0.75)
        made = network.decode(apart)
        loss = network.loss(noisy, torch.randn_like(noisy), log_snr, given)
        loss.backward()
    assert clean.device == apart.device == made.device == loss.device == ELSEWHERE
    assert made.shape == noisy.shape
    gradients = {p.grad.device for p in network.parameters() if p.grad is not None}
    assert gradients == {ELSEWHERE}


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpm-solver++"])
@each_network
def test_samplers_stay_on_their_device(architecture, solver):
    network, given = build_denoiser(architecture).to(ELSEWHERE), conditions().to(ELSEWHERE)
    levels = cosine_log_snr(1000, 4.0).float()[torch.linspace(1000, 0, 5).long()]
    start = torch.randn(2, 3, 128, network.columns, device=ELSEWHERE)

    def predict(noisy, log_snr):
        assert noisy.device == ELSEWHERE
        clean = network(noisy, log_snr.to(ELSEWHERE).expand(len(noisy)), given)
        return network.separate(clean, given, 0.75)

    if solver == "ddpm":
        made = ddpm(predict, start, lambda: torch.randn_like(start), levels)
    elif solver == "ddim":
        made = ddim(predict, start, levels)
    else:
        made = dpm_solver(predict, start, levels)
    assert made.device == noise_from_clean(start, made, levels[:1].to(ELSEWHERE)).device
    assert made.device == ELSEWHERE
