"""The networks that remove noise from a cloud."""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from pccd_workflows.generators.pccd.chemistry import (
    MAX_Z,
    atomic_radii,
    covalent_radii,
    element_features,
)
from pccd_workflows.generators.pccd.conditions import ConditionBatch, conditions_of
from pccd_workflows.generators.pccd.dataset import CRYSTAL_SYSTEMS, ORDERINGS, CrystalArrays
from pccd_workflows.generators.pccd.pointcloud.encode import (
    ANGLE_SCALE,
    LENGTH_SCALE,
    N_COLUMNS,
    N_POINTS,
    site_of_point,
)
from pccd_workflows.generators.pccd.process import add_noise

N_HALF = N_POINTS // 2


def averaging_matrices(max_sites: int) -> Tensor:
    """Return the matrices that average the points of each site.

    Returns
    -------
    Shape (max_sites + 1, max_sites, 128), float32. Entry n maps the points of a cloud of n sites to
    the means of its sites.
    """
    matrices = torch.zeros(max_sites + 1, max_sites, N_POINTS)
    for n in range(1, max_sites + 1):
        owner = torch.from_numpy(site_of_point(n))
        matrices[n, owner, torch.arange(N_POINTS)] = 1.0
    return matrices / matrices.sum(-1, keepdim=True).clamp(min=1.0)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which mixed precision (autocast) is off."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class Denoiser(nn.Module, ABC):
    """What training and sampling need of a network; B clouds in its own normalised units."""

    draws_composition: bool
    """Whether the composition is fixed before the cloud is drawn."""
    conditions: tuple[str, ...]
    """Names of the conditions that it reads, beside elements and numbers of atoms."""
    columns: int = N_COLUMNS
    """Columns C of the clouds: 3, or the most elements if that is more."""

    @abstractmethod
    def encode(self, crystals: CrystalArrays) -> Tensor:
        """Return clean clouds (B, 3, 128, C)."""

    @abstractmethod
    def decode(self, cloud: Tensor) -> Tensor:
        """Return clouds (B, 3, 128, C) in the units of a PointCloud."""

    @abstractmethod
    def forward(self, noisy: Tensor, log_snr: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the predicted clean clouds for noisy ones (B, 3, 128, C) and log_snr (B,)."""

    @abstractmethod
    def loss(
        self, clean: Tensor, noise: Tensor, log_snr: Tensor, conditions: ConditionBatch
    ) -> Tensor:
        """Return the training loss, a scalar."""

    @abstractmethod
    def separate(self, clean: Tensor, conditions: ConditionBatch, closest: float) -> Tensor:
        """Return predicted clean clouds whose atoms are pushed apart where they overlap.

        Networks that do not know which points make an atom leave the clouds as they are.

        Parameters
        ----------
        clean
            Shape (B, 3, 128, C).
        conditions
        closest
            Distance aimed at, relative to the sum of the covalent radii.

        """


class PointTransformer(Denoiser):
    """A transformer over the sites that the 128 points of a cloud belong to.

    All points of a site are copies of one position, and which points those are follows from the
    number of sites. The mean of the copies is therefore all that a cloud says about the site: the
    network reads these means (n + 1 tokens instead of 128 points), predicts the clean position of
    each site and the clean lattice, and writes them back to all copies. Predictions are
    preconditioned at the noise that the means have (v-prediction per site).

    Pairs of sites are described by their periodic distance in the least-squares estimate of the
    crystal; the descriptions weight the attention and are gathered by it.

    Parameters
    ----------
    width, depth, heads
        Size of the transformer.
    max_sites, max_elements
        Most sites and elements of a cell.
    structure_types
        Structure types 1, 2, ... that it knows; others are open to it.
    """

    draws_composition = True
    conditions = (
        "band_gap",
        "magnetic_ordering",
        "energy_above_hull",
        "crystal_system",
        "space_group",
    )
    element_features: Tensor
    averaging: Tensor
    owner: Tensor
    radii: Tensor
    covalent_radii: Tensor

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        max_sites: int,
        max_elements: int = 3,
        structure_types: int = 0,
    ) -> None:
        super().__init__()
        self.max_sites = max_sites
        self.columns = max(N_COLUMNS, max_elements)
        features = torch.from_numpy(element_features())
        self.register_buffer("element_features", features, persistent=False)
        self.register_buffer("radii", torch.from_numpy(atomic_radii()), persistent=False)
        covalent = torch.from_numpy(covalent_radii())
        self.register_buffer("covalent_radii", covalent, persistent=False)
        self.register_buffer("averaging", averaging_matrices(max_sites), persistent=False)
        self.register_buffer(
            "owner",
            torch.stack(
                [torch.zeros(N_POINTS, dtype=torch.long)]
                + [torch.from_numpy(site_of_point(n)).long() for n in range(1, max_sites + 1)]
            ),
            persistent=False,
        )
        self.element_table = nn.Embedding(MAX_Z + 1, width)  # row 0: hidden element
        self.element_linear = nn.Linear(features.shape[1], width, bias=False)
        self.place_table = nn.Embedding(max_sites, width)  # place among the sites of its element
        self.group_table = nn.Embedding(self.columns, width)  # first, second, third... element
        self.site_in = nn.Linear(3 + 6 * N_HARMONICS, width)
        self.lattice_in = nn.Linear(6 + features.shape[1], width)
        self.count_table = nn.Embedding(max_sites + 1, width)
        self.ordering_table = nn.Embedding(len(ORDERINGS) + 1, width)
        self.system_table = nn.Embedding(len(CRYSTAL_SYSTEMS) + 1, width)
        self.space_group_table = nn.Embedding(N_SPACE_GROUPS + 1, width)
        self.type_table = nn.Embedding(structure_types + 1, width)
        self.type_in = nn.Linear(width, width, bias=False)
        self.gap_in = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.energy_in = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.noise_in = nn.Sequential(nn.Linear(N_NOISE, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.pair_in = nn.Linear(6 * N_PAIR_HARMONICS + N_SHELLS, PAIR_WIDTH)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.out_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out_modulation = nn.Linear(width, 2 * width)
        self.site_out = nn.Linear(width, 3)
        self.lattice_out = nn.Linear(width, 6)
        for linear in (self.modulation, self.out_modulation, self.site_out, self.lattice_out):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        for table in (m for m in self.modules() if isinstance(m, nn.Embedding)):
            nn.init.normal_(table.weight, std=0.1)
        for new in (self.space_group_table, self.type_table, self.type_in):
            nn.init.zeros_(new.weight)

    def forward(self, noisy: Tensor, log_snr: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the predicted clean cloud.

        Parameters
        ----------
        noisy
            Shape (B, 3, 128, C). Normalised noisy clouds.
        log_snr
            Shape (B,). Noise of the points.
        conditions

        Returns
        -------
        Shape (B, 3, 128, C).
        """
        sites, lattice = self.predict_means(*self.pool(noisy, conditions), log_snr, conditions)
        return self.spread(sites, lattice, conditions)

    def loss(
        self, clean: Tensor, noise: Tensor, log_snr: Tensor, conditions: ConditionBatch
    ) -> Tensor:
        """Return the mean absolute error of ε (seed Eq. 7), weighted by noise level.

        The weight makes it the error of v = √ᾱ ε - √(1-ᾱ) x_0 at the noise of the site means; the
        unit vectors of channel 1 are known and left out.
        """
        sites, lattice = self.pool(clean, conditions)
        noisy_sites, noisy_lattice = self.pool(add_noise(clean, noise, log_snr), conditions)
        site_var, lattice_var = self.noise_of_means(log_snr, conditions)
        signal = torch.sigmoid(log_snr).sqrt()[:, None, None]
        y_site, y_lattice = noisy_sites / signal, noisy_lattice / signal[:, :, 0]
        f_site, f_lattice = self.network(y_site, y_lattice, site_var, lattice_var, conditions)
        site_error = f_site - (sites - y_site / (1 + site_var)) / (site_var / (1 + site_var)).sqrt()
        lattice_error = (
            f_lattice
            - (lattice - y_lattice / (1 + lattice_var)) / (lattice_var / (1 + lattice_var)).sqrt()
        )
        present = (conditions.numbers > 0)[..., None]
        per_crystal = (site_error.abs() * present).sum((1, 2)) / (3 * present.sum((1, 2)))
        return per_crystal.mean() + lattice_error.abs().mean()

    def encode(self, crystals: CrystalArrays) -> Tensor:
        """Return clean clouds (B, 3, 128, C) with zero mean and unit variance."""
        device = self.owner.device
        conditions = conditions_of(crystals).to(device)
        sites = sites_of(torch.from_numpy(crystals.frac_coords).to(device))
        lengths, angles = (
            torch.from_numpy(x).to(device) for x in (crystals.lengths, crystals.angles)
        )
        return self.spread(sites, lattice_rows(lengths, angles), conditions)

    def decode(self, cloud: Tensor) -> Tensor:
        """Return clouds (B, 3, 128, C) in the units of a PointCloud."""
        positions = (cloud[:, 0, :, :3] * COORD_STD + COORD_MEAN) % 1.0
        kinds = cloud[:, 1] * KIND_STD + KIND_MEAN
        halves = cloud[:, 2, :, :3]
        angles = torch.deg2rad(halves[:, :N_HALF] * ANGLE_STD + ANGLE_MEAN) / ANGLE_SCALE
        lengths = torch.exp(halves[:, N_HALF:] * LENGTH_STD + LENGTH_MEAN) / LENGTH_SCALE
        lattice = self.widen(torch.cat([angles, lengths], 1))
        return torch.stack([self.widen(positions), kinds, lattice], dim=1)

    def separate(self, clean: Tensor, conditions: ConditionBatch, closest: float) -> Tensor:
        """Push overlapping atoms apart; see the base class."""
        sites, lattice = self.pool(clean, conditions)
        sites = self.push_apart(sites, lattice, conditions, closest)
        return self.spread(sites, lattice, conditions)

    def push_apart(
        self, sites: Tensor, lattice: Tensor, conditions: ConditionBatch, closest: float
    ) -> Tensor:
        """Return site means (B, N, 3) pushed apart where they overlap; see `separate`."""
        frac = frac_of(sites)
        vectors = lattice_vectors(lattice)
        present = conditions.numbers > 0
        radii = self.covalent_radii[conditions.numbers]
        target = closest * (radii[:, :, None] + radii[:, None, :])
        target = target * (present[:, :, None] & present[:, None, :])
        target = target * (1 - torch.eye(target.shape[1], device=target.device))
        inverse = torch.linalg.inv(vectors)
        for _ in range(N_PUSHES):
            difference = frac[:, :, None, :] - frac[:, None, :, :]
            apart = (difference - difference.round()) @ vectors[:, None]
            distance = (apart**2).sum(-1, keepdim=True).add(1e-6).sqrt()
            overlap = (target[..., None] - distance).clamp(min=0)
            push = (overlap * apart / distance).sum(2) / 2
            frac = frac + push @ inverse
        return sites_of(frac)

    def pool(self, cloud: Tensor, conditions: ConditionBatch) -> tuple[Tensor, Tensor]:
        """Return the means over copies: sites (B, N, 3) and lattice (B, 6)."""
        n_max = conditions.numbers.shape[1]
        averaging = self.averaging[(conditions.numbers > 0).sum(1)][:, :n_max]
        halves = cloud[:, 2, :, :3].reshape(-1, 2, N_HALF, 3).mean(2)
        with full_precision(cloud.device):
            return averaging @ cloud[:, 0, :, :3], halves.flatten(1)

    def spread(self, sites: Tensor, lattice: Tensor, conditions: ConditionBatch) -> Tensor:
        """Write site means (B, N, 3) and lattices (B, 6) to all their points (B, 3, 128, C)."""
        owner = self.owner[(conditions.numbers > 0).sum(1)]
        positions = sites.gather(1, owner[:, :, None].expand(-1, -1, 3))
        columns = element_columns(conditions.numbers).clamp(max=self.columns - 1).gather(1, owner)
        kinds = (functional.one_hot(columns, self.columns).to(sites.dtype) - KIND_MEAN) / KIND_STD
        halves = lattice.reshape(-1, 2, 3).repeat_interleave(N_HALF, dim=1)
        return torch.stack([self.widen(positions), kinds, self.widen(halves)], dim=1)

    def widen(self, values: Tensor) -> Tensor:
        """Return (..., 3) values with columns of zeros up to C."""
        return functional.pad(values, (0, self.columns - values.shape[-1]))

    def predict_means(
        self, sites: Tensor, lattice: Tensor, log_snr: Tensor, conditions: ConditionBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the clean site means (B, N, 3) and lattices (B, 6) for noisy ones at √ᾱ scale."""
        signal = torch.sigmoid(log_snr).sqrt()[:, None, None]
        site_var, lattice_var = self.noise_of_means(log_snr, conditions)
        y_site, y_lattice = sites / signal, lattice / signal[:, :, 0]
        f_site, f_lattice = self.network(y_site, y_lattice, site_var, lattice_var, conditions)
        return (
            y_site / (1 + site_var) + (site_var / (1 + site_var)).sqrt() * f_site,
            y_lattice / (1 + lattice_var) + (lattice_var / (1 + lattice_var)).sqrt() * f_lattice,
        )

    def noise_of_means(self, log_snr: Tensor, conditions: ConditionBatch) -> tuple[Tensor, Tensor]:
        """Return noise/signal variances of the means: sites (B, N, 1) and lattice (B, 1)."""
        n = (conditions.numbers > 0).sum(1)
        n_max = conditions.numbers.shape[1]
        inverse_copies = self.averaging[n][:, :n_max].amax(-1, keepdim=True)
        inverse_copies = inverse_copies.where(inverse_copies > 0, torch.ones_like(inverse_copies))
        variance = torch.exp(-log_snr)
        return inverse_copies * variance[:, None, None], variance[:, None] / N_HALF

    def network(
        self,
        y_site: Tensor,
        y_lattice: Tensor,
        site_var: Tensor,
        lattice_var: Tensor,
        conditions: ConditionBatch,
    ) -> tuple[Tensor, Tensor]:
        """Return the raw outputs of the transformer for sites (B, N, 3) and lattice (B, 6).

        Only its layers run in reduced precision, where that is asked for: at the lowest noise
        levels half precision of a coordinate is a good part of the noise.
        """
        device = y_site.device
        with full_precision(device):
            x, pairs = self.tokens(y_site, y_lattice, site_var, lattice_var, conditions)
            n = (conditions.numbers > 0).sum(1)
            context = functional.silu(self.context(lattice_var[:, 0], n, conditions))
            modulation = self.modulation(context)[:, None].chunk(6, -1)
        absent = functional.pad(conditions.numbers == 0, (1, 0), value=False)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, modulation, pairs, absent)
        with full_precision(device):
            shift, scale = self.out_modulation(context)[:, None].chunk(2, -1)
            x = self.out_norm(x) * (1 + scale) + shift
            return self.site_out(x[:, 1:]), self.lattice_out(x[:, 0])

    def tokens(
        self,
        y_site: Tensor,
        y_lattice: Tensor,
        site_var: Tensor,
        lattice_var: Tensor,
        conditions: ConditionBatch,
    ) -> tuple[Tensor, Tensor]:
        """Return lattice and site tokens (B, 1 + N, width) and pairs (B, 1 + N, 1 + N, pairs)."""
        numbers = conditions.numbers
        present = numbers > 0
        shown = numbers * conditions.known_elements[:, None]
        group, place = groups_and_places(numbers)
        group = group.clamp(max=self.columns - 1)
        features = self.element_features[shown]
        frac = y_site * COORD_STD + COORD_MEAN
        waves = 2 * math.pi * frac[..., None] * HARMONICS.to(frac.device)
        site_features = torch.cat(
            [y_site / (1 + site_var).sqrt(), waves.sin().flatten(2), waves.cos().flatten(2)], -1
        )
        site_tokens = (
            self.site_in(site_features)
            + self.element_table(shown)
            + self.element_linear(features)
            + self.group_table(group)
            + self.place_table(place)
        )
        mean_features = (features * present[..., None]).sum(1) / present.sum(1)[:, None]
        lattice_token = self.lattice_in(
            torch.cat([y_lattice / (1 + lattice_var).sqrt(), mean_features], -1)
        ) + self.type_in(self.of_type(conditions))
        pairs = functional.silu(
            self.pair_in(
                pair_features(
                    (y_site / (1 + site_var)) * COORD_STD + COORD_MEAN,
                    y_lattice / (1 + lattice_var),
                    self.radii[shown],
                )
            )
        )
        pairs = functional.pad(pairs, (0, 0, 1, 0, 1, 0))  # none with the lattice token
        return torch.cat([lattice_token[:, None], site_tokens], dim=1), pairs

    def of_type(self, conditions: ConditionBatch) -> Tensor:
        """Return the embedding (B, width) of the structure type; types it does not know as 0."""
        kinds = conditions.structure_type
        known = kinds < self.type_table.num_embeddings
        embedded: Tensor = self.type_table(kinds * known)
        return embedded

    def context(self, variance: Tensor, n: Tensor, conditions: ConditionBatch) -> Tensor:
        """Return the embedding (B, width) of noise level and conditions."""
        level = variance.log()[:, None] / 4
        angles = level * NOISE_FREQUENCIES.to(level.device)
        noise = self.noise_in(torch.cat([angles.sin(), angles.cos()], -1))
        gap, hull = conditions.band_gap, conditions.energy_above_hull
        context: Tensor = (
            noise
            + self.count_table(n)
            + self.ordering_table(conditions.ordering + 1)
            + self.system_table(conditions.crystal_system + 1)
            + self.space_group_table(conditions.space_group.clamp(min=0))
            + self.of_type(conditions)
            + self.gap_in(scalar_features(gap, 0.05, 2.0))
            + self.energy_in(scalar_features(hull, 0.01, 0.1))
        )
        return context


class Layer(nn.Module):
    """Attention over tokens and pairs, and feed-forward, modulated by the context (adaLN)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.pair_bias = nn.Linear(PAIR_WIDTH, heads, bias=False)
        self.pair_mix = nn.Linear(heads * PAIR_WIDTH, width, bias=False)
        nn.init.zeros_(self.pair_bias.weight)
        nn.init.zeros_(self.pair_mix.weight)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.offsets = nn.Parameter(torch.zeros(6, width))
        with torch.no_grad():  # gates start at a small value, shifts and scales at zero
            self.offsets[2] = self.offsets[5] = 0.2

    def forward(
        self, x: Tensor, modulation: tuple[Tensor, ...], pairs: Tensor, absent: Tensor
    ) -> Tensor:
        """Return the tokens (B, N, width) after this layer.

        Parameters
        ----------
        x
            Shape (B, N, width).
        modulation
            Shape (B, 1, width).
        pairs
            Shape (B, N, N, PAIR_WIDTH).
        absent
            Shape (B, 1, 1, N), bool. Tokens beyond the last site.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            m + o for m, o in zip(modulation, self.offsets, strict=True)
        )
        h = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        logits = logits + self.pair_bias(pairs).permute(0, 3, 1, 2)
        weights = logits.masked_fill(absent, -torch.inf).softmax(-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        gathered = (weights.transpose(1, 2) @ pairs).flatten(2)
        x = x + gate1 * (self.mix(attended) + self.pair_mix(gathered))
        h = self.norm2(x) * (1 + scale2) + shift2
        fed: Tensor = self.down(functional.gelu(self.up(h), approximate="tanh"))
        out: Tensor = x + gate2 * fed
        return out


N_SPACE_GROUPS = 230
N_PUSHES = 3
"""Times that overlapping atoms are pushed apart in one prediction."""
PAIR_WIDTH = 32
N_PAIR_HARMONICS = 2
N_SHELLS = 8
SHELLS = torch.linspace(0.3, 1.7, N_SHELLS)
"""Distances that pairs are compared with, in units of the sum of the atomic radii."""
SHELL_WIDTH = 0.2
N_HARMONICS = 4
HARMONICS = torch.arange(1.0, N_HARMONICS + 1)
N_NOISE = 32
NOISE_FREQUENCIES = torch.linspace(0.25, 4.0, N_NOISE // 2)
COORD_MEAN, COORD_STD = 0.39, 0.29
ANGLE_MEAN, ANGLE_STD = 87.3, 18.3  # degrees
LENGTH_MEAN, LENGTH_STD = 1.68, 0.33  # of log(length / Å)
KIND_MEAN, KIND_STD = 1 / 3, 0.5


def scalar_features(value: Tensor, small: float, typical: float) -> Tensor:
    """Return (known, log-like, near zero) features (B, 3) of a number that may be NaN."""
    known = ~value.isnan()
    filled = value.nan_to_num(0.0).clamp(min=0.0)
    return torch.stack(
        [known.to(value.dtype), torch.log1p(filled / typical) * known, (filled < small) & known], -1
    )


def frac_of(sites: Tensor) -> Tensor:
    """Return fractional coordinates of sites in the network's units."""
    return sites * COORD_STD + COORD_MEAN


def sites_of(frac: Tensor) -> Tensor:
    """Return sites in the network's units of fractional coordinates."""
    return (frac - COORD_MEAN) / COORD_STD


def cell_of(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Return lengths and angles (B, 3), Å and degrees, of lattices (B, 6) in network's units."""
    angles = lattice[:, :3] * ANGLE_STD + ANGLE_MEAN
    return torch.exp(lattice[:, 3:] * LENGTH_STD + LENGTH_MEAN), angles


def lattice_rows(lengths: Tensor, angles: Tensor) -> Tensor:
    """Return lattices (B, 6) in the network's units of lengths and angles, Å and degrees."""
    return torch.cat(
        [(angles - ANGLE_MEAN) / ANGLE_STD, (lengths.log() - LENGTH_MEAN) / LENGTH_STD], -1
    )


def lattice_vectors(lattice: Tensor) -> Tensor:
    """Return lattice vectors in rows (B, 3, 3), Å, of normalised angles and lengths (B, 6).

    Angles that no cell has give a flat but finite one.
    """
    angles = torch.deg2rad(lattice[:, :3] * ANGLE_STD + ANGLE_MEAN)
    a, b, c = torch.exp(lattice[:, 3:] * LENGTH_STD + LENGTH_MEAN).unbind(-1)
    cos_alpha, cos_beta, cos_gamma = angles.cos().unbind(-1)
    sin_gamma = angles[:, 2].sin().clamp(min=0.1)
    across = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    height = (1 - cos_beta**2 - across**2).clamp(min=0.01).sqrt()
    zero = torch.zeros_like(a)
    rows = [
        torch.stack([a, zero, zero], -1),
        torch.stack([b * cos_gamma, b * sin_gamma, zero], -1),
        torch.stack([c * cos_beta, c * across, c * height], -1),
    ]
    return torch.stack(rows, 1)


def pair_features(frac: Tensor, lattice: Tensor, radii: Tensor) -> Tensor:
    """Describe where site j is as seen from site i, in periodic terms.

    Parameters
    ----------
    frac
        Shape (B, N, 3). Fractional coordinates.
    lattice
        Shape (B, 6). Normalised.
    radii
        Shape (B, N). Atomic radii, Å.

    Returns
    -------
    Shape (B, N, N, 6 N_PAIR_HARMONICS + N_SHELLS). Harmonics of the difference and, smeared over
    shells, the distance to the nearest image in units of the sum of radii.
    """
    difference = frac[:, None, :, :] - frac[:, :, None, :]
    difference = difference - difference.round()
    harmonics = torch.arange(1.0, N_PAIR_HARMONICS + 1, device=frac.device)
    waves = (2 * math.pi * difference[..., None] * harmonics).flatten(3)
    vectors = difference @ lattice_vectors(lattice)[:, None]
    distance = (vectors**2).sum(-1).add(1e-6).sqrt() / (radii[:, :, None] + radii[:, None, :])
    shells = torch.exp(-(((distance[..., None] - SHELLS.to(frac.device)) / SHELL_WIDTH) ** 2) / 2)
    return torch.cat([waves.sin(), waves.cos(), shells], -1)


def groups_and_places(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return which element (0, 1, ...) each site has and its place among that element's sites."""
    new = functional.pad(numbers[:, 1:] != numbers[:, :-1], (1, 0), value=False)
    group = new.long().cumsum(1)
    index = torch.arange(numbers.shape[1], device=numbers.device).expand_as(numbers)
    start = torch.where(new, index, 0).cummax(1).values
    return group, index - start


def element_columns(numbers: Tensor) -> Tensor:
    """Return the column of channel 1 of each site: place of its element by atomic number."""
    lower = numbers[:, None, :] < numbers[:, :, None]
    lower = lower & (numbers > 0)[:, None, :]
    first = functional.pad(numbers[:, 1:] != numbers[:, :-1], (1, 0), value=True)
    return (lower & first[:, None, :]).sum(-1)
