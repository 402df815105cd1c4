"""The networks: shapes, masks, and the points of a site as copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice

from pccd_workflows.generators.pccd.conditions import conditions_of
from pccd_workflows.generators.pccd.config import Architecture
from pccd_workflows.generators.pccd.dataset import read_dataset
from pccd_workflows.generators.pccd.denoiser import (
    element_columns,
    groups_and_places,
    lattice_vectors,
    pair_features,
)
from pccd_workflows.generators.pccd.networks import build_denoiser
from pccd_workflows.generators.pccd.paper import PaperUNet, element_slots
from pccd_workflows.generators.pccd.pointcloud.decode import decode
from pccd_workflows.generators.pccd.pointcloud.encode import PointCloud
from tests.generators.pccd.two_crystals import only_elements

NUMBERS = torch.tensor([[12, 12, 25, 8, 8], [55, 17, 0, 0, 0]])
CONDITIONS = only_elements(NUMBERS)


@pytest.fixture(params=["point-transformer", "paper-unet"])
def network(request):
    torch.manual_seed(0)
    network = build_denoiser(Architecture(kind=request.param, width=32, depth=2, heads=2))
    with torch.no_grad():  # away from the zeros that some layers start with
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def test_encode_then_decode_gives_the_crystals(network, dataset_file):
    arrays = read_dataset(dataset_file).take(np.array([0, 300]))
    clouds = network.decode(network.encode(arrays)).double().numpy()
    for row, cloud in enumerate(clouds):
        names = ("F", "Na", "Mg") if arrays.n_sites[row] == 5 else ("Na", "Cl")
        structure = decode(PointCloud(cloud, names))
        assert len(structure) == arrays.n_sites[row]
        assert sorted(structure.lattice.abc) == pytest.approx(sorted(arrays.lengths[row]), rel=1e-4)


def test_loss_is_finite_and_has_a_gradient(network, dataset_file):
    arrays = read_dataset(dataset_file).take(np.arange(0, 384, 48))
    conditions, clean = conditions_of(arrays), network.encode(arrays)
    loss = network.loss(clean, torch.randn_like(clean), torch.linspace(-6, 6, 8), conditions)
    loss.backward()
    assert torch.isfinite(loss)
    total = sum(p.grad.abs().sum() for p in network.parameters() if p.grad is not None)
    assert torch.isfinite(total)
    assert total > 0


def test_conditions_reach_the_prediction(network):
    noisy = torch.randn((2, 3, 128, 3), generator=torch.Generator().manual_seed(1))
    level = torch.zeros(2)
    plain = network(noisy, level, CONDITIONS)
    gap = replace(CONDITIONS, band_gap=torch.tensor([3.0, 3.0]))
    assert not torch.allclose(plain, network(noisy, level, gap))
    assert not torch.allclose(plain, network(noisy, level, CONDITIONS.unconditional()))


def test_other_crystals_of_a_batch_do_not_matter(network):
    noisy = torch.randn((2, 3, 128, 3), generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0.5, -1.0])
    both = network(noisy, level, CONDITIONS)
    alone = network(noisy[1:], level[1:], CONDITIONS.take(torch.tensor([1])))
    assert torch.allclose(both[1], alone[0], atol=1e-4)


def test_the_transformer_sees_only_the_means_of_copies():
    network = build_denoiser(
        Architecture(kind="point-transformer", width=32, depth=1, heads=2)
    ).eval()
    noisy = torch.randn((2, 3, 128, 3), generator=torch.Generator().manual_seed(1))
    swapped = noisy.clone()
    swapped[1, 0, :64] = noisy[1, 0, :64].flip(0)  # the first of two atoms owns the first 64
    level = torch.zeros(2)
    before, after = (network(x, level, CONDITIONS) for x in (noisy, swapped))
    assert torch.allclose(before, after, atol=1e-5)
    assert (before[1, 0, :64] == before[1, 0, :1]).all()


def test_the_paper_network_has_the_published_shape():
    with torch.device("meta"):
        network = PaperUNet(width=64, depth=5, heads=4)
    assert [level[3].out_channels for level in network.down] == [64, 128, 256, 512, 1024]
    assert 130e6 < sum(p.numel() for p in network.parameters()) < 170e6


def test_columns_groups_and_slots_of_elements():
    assert element_columns(NUMBERS)[0].tolist() == [1, 1, 2, 0, 0]
    assert element_columns(NUMBERS)[1, :2].tolist() == [1, 0]
    group, place = groups_and_places(NUMBERS)
    assert group[0].tolist() == [0, 0, 1, 2, 2]
    assert place[0].tolist() == [0, 1, 0, 0, 1]
    assert element_slots(NUMBERS).tolist() == [[8, 12, 25], [17, 55, 0]]


def test_pairs_are_described_the_same_in_any_cell_and_at_any_origin():
    generator = torch.Generator().manual_seed(0)
    frac = torch.rand((1, 4, 3), generator=generator)
    lattice, radii = torch.zeros(1, 6), torch.tensor([[1.5, 1.4, 0.6, 0.6]])
    here = pair_features(frac, lattice, radii)
    moved = (frac + torch.tensor([0.3, 0.8, 0.1])) % 1.0
    assert torch.allclose(here, pair_features(moved, lattice, radii), atol=1e-4)
    assert not torch.allclose(here, pair_features(frac * 0.9, lattice, radii), atol=1e-2)


def test_lattice_vectors_have_the_lengths_and_angles():
    lattice = torch.tensor([[0.2, -0.4, 0.5, 0.3, -0.2, 1.0]])
    vectors = lattice_vectors(lattice)[0].double().numpy()
    cell = Lattice(vectors)
    assert cell.abc == pytest.approx(np.exp(np.array([0.3, -0.2, 1.0]) * 0.33 + 1.68), rel=1e-5)
    assert cell.angles == pytest.approx(np.array([0.2, -0.4, 0.5]) * 18.3 + 87.3, abs=1e-3)


def test_the_noise_of_means_is_that_of_their_copies():
    """What pooling leaves of a cloud's noise: copies of a site average theirs out."""
    torch.manual_seed(0)
    network = build_denoiser(Architecture(kind="point-transformer", width=32, depth=1, heads=2))
    zero, present = torch.zeros(2), CONDITIONS.numbers > 0
    clouds = [network.pool(torch.randn(2, 3, 128, network.columns), CONDITIONS) for _ in range(400)]
    sites = torch.stack([one for one, _ in clouds]).var((0, 3))[present]
    lattice = torch.stack([one for _, one in clouds]).var((0, 2))
    site_var, lattice_var = network.noise_of_means(zero, CONDITIONS)
    assert torch.allclose(sites, site_var[..., 0][present], rtol=0.25)
    assert torch.allclose(lattice, lattice_var[:, 0], rtol=0.25)
    louder, _ = network.noise_of_means(zero - 2, CONDITIONS)
    assert torch.allclose(louder, site_var * np.exp(2))


def test_overlapping_atoms_are_pushed_apart_and_others_stay(dataset_file):
    network = build_denoiser(Architecture(kind="point-transformer", width=32, depth=1, heads=2))
    arrays = read_dataset(dataset_file).take(np.array([0, 300]))
    conditions, clean = conditions_of(arrays), network.encode(arrays)
    assert torch.allclose(network.separate(clean, conditions, 0.75), clean, atol=1e-5)
    sites, lattice = network.pool(clean, conditions)
    sites[1, 1] = sites[1, 0] + 0.05  # one atom nearly on another
    crowded = network.spread(sites, lattice, conditions)
    apart = decode(
        PointCloud(
            network.decode(network.separate(crowded, conditions, 0.75))[1].double().numpy(),
            ("F", "Na", "Mg"),
        )
    )
    assert (apart.distance_matrix + 9 * np.eye(5)).min() > 1.0


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_sees_small_noise(tiny_model, dataset_file, precision):
    """Coordinates rounded to half precision would add 7 % to the loss at the lowest noise."""
    crystals = read_dataset(dataset_file)
    given = conditions_of(crystals)
    clean = tiny_model.denoiser.encode(crystals)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    log_snr = tiny_model.log_snr[1].expand(len(clean))
    exact = float(tiny_model.denoiser.loss(clean, noise, log_snr, given))
    with torch.autocast("cpu", precision):
        rounded = float(tiny_model.denoiser.loss(clean, noise, log_snr, given))
    assert rounded == pytest.approx(exact, rel=5e-3)
