"""New structure types: a small network that proposes Wyckoff positions for a composition.

The space group first, then one orbit after the other, as in WyFormer (Kazeev et al. 2025,
arXiv:2503.02407) and Matra-Genoa (arXiv:2501.16051): each orbit's position is drawn given all
before it, the elements and their atoms that still have no place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pccd_workflows.generators.pccd.chemistry import MAX_Z, element_features
from pccd_workflows.generators.pccd.wyckoff import Orbits, WyckoffTable, wyckoff_table

N_GROUPS = 230
MOST_SITES = 20
"""Most atoms of one element that it has places for."""
POSITION = 64
"""Size of the embedding of a Wyckoff position."""
BATCH = 256
"""Crystals per step."""
RATE = 2e-3
"""Highest learning rate."""


class Positions(NamedTuple):
    """The Wyckoff positions of all space groups, at most P in one; unused places are 0.

    Attributes
    ----------
    multiplicity
        Shape (230, P), int64.
    freedom
        Shape (230, P), int64. Number of free coordinates.
    features
        Shape (230, P, F), float32. What the network is told of a position.
    """

    multiplicity: Tensor
    freedom: Tensor
    features: Tensor


def tabulate_positions(tables: Sequence[WyckoffTable]) -> Positions:
    """Return the tables of all space groups as tensors."""
    most = max(map(len, tables))
    multiplicity, freedom = (torch.zeros((len(tables), most), dtype=torch.int64) for _ in range(2))
    features = torch.zeros((len(tables), most, 10 + 4 + 2))
    for row, table in enumerate(tables):
        n = len(table)
        multiplicity[row, :n] = torch.from_numpy(table.multiplicity)
        freedom[row, :n] = torch.from_numpy(table.freedom)
        order = table.site_symmetry.sum(1)
        shares = table.site_symmetry / order[:, None]
        told = [shares, np.eye(4)[table.freedom], np.log(table.multiplicity)[:, None]]
        told.append(np.log(order)[:, None])
        features[row, :n] = torch.from_numpy(np.concatenate(told, 1))
    return Positions(multiplicity, freedom, features)


class Sequences(NamedTuple):
    """N crystals as sequences of at most T orbits; at most E elements, those of few atoms first.

    Attributes
    ----------
    elements, counts
        Shape (N, E), int64. 0 where there is none.
    group
        Shape (N,), int64. Space group less 1.
    slot
        Shape (N, T), int64. Which element an orbit has; -1 beyond the last.
    position
        Shape (N, T), int64. Place of its position among those of the space group.
    """

    elements: Tensor
    counts: Tensor
    group: Tensor
    slot: Tensor
    position: Tensor

    def take(self, rows: Tensor) -> "Sequences":
        """Return some of the crystals, without columns that are empty in all of them."""
        taken = Sequences(*(column[rows] for column in self))
        longest = int((taken.slot >= 0).sum(1).max())
        return taken._replace(slot=taken.slot[:, :longest], position=taken.position[:, :longest])


class WyckoffNetwork(nn.Module):
    """Probabilities of space groups, and of the next orbit's Wyckoff position.

    Parameters
    ----------
    positions
        Of all space groups.
    width
        Of the recurrent state.
    dropout
        For training.
    """

    multiplicity: Tensor
    freedom: Tensor
    features: Tensor
    elements: Tensor

    def __init__(self, positions: Positions, *, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        for name, column in positions._asdict().items():
            self.register_buffer(name, column)
        self.register_buffer("elements", torch.from_numpy(element_features()), persistent=False)
        most = positions.multiplicity.shape[1]
        self.element_table = nn.Embedding(MAX_Z + 1, 32)
        self.element_in = nn.Linear(self.elements.shape[1], 32)
        self.slot_in = nn.Linear(32 + MOST_SITES + 2, 64)
        self.context = nn.Sequential(
            nn.Linear(2 * 64, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.group_out = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, N_GROUPS))
        self.group_table = nn.Embedding(N_GROUPS, 64)
        self.begin = nn.Linear(width + 64, width)
        self.position_table = nn.Embedding(N_GROUPS * most + 1, POSITION, padding_idx=0)
        self.position_in = nn.Linear(self.features.shape[2], POSITION)
        self.remaining_table = nn.Embedding(MOST_SITES + 1, 32)
        self.cell = nn.GRU(POSITION + 64 + 32 + 64, width, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(width + 64 + 32, POSITION)
        for table in (self.element_table, self.position_table, self.group_table):
            nn.init.normal_(table.weight, std=0.05)

    @cached_property
    def completable(self) -> Tensor:
        """Whether positions from a place on can hold so many atoms; see `completable`."""
        return completable(self.multiplicity, self.freedom)

    def of_slots(self, elements: Tensor, counts: Tensor) -> Tensor:
        """Return the embeddings (B, E, 64) of elements and their numbers of atoms (B, E)."""
        known = self.element_table(elements) + self.element_in(self.elements[elements])
        share = counts / counts.sum(1, keepdim=True).clamp(min=1)
        told = [known, one_hot(counts.clamp(max=MOST_SITES), MOST_SITES + 1)[..., 1:].float()]
        told += [share[..., None], (counts / 10)[..., None]]
        slots: Tensor = self.slot_in(torch.cat(told, -1)) * (counts > 0)[..., None]
        return slots

    def of_context(self, slots: Tensor) -> Tensor:
        """Return what the slots (B, E, 64) say together, (B, width)."""
        active = torch.nn.functional.gelu(slots)
        context: Tensor = self.context(torch.cat([active.sum(1), active.amax(1)], -1))
        return context

    def group_logits(self, context: Tensor) -> Tensor:
        """Return log-probabilities (B, 230)."""
        logits: Tensor = self.group_out(context).log_softmax(-1)
        return logits

    def of_positions(self, group: Tensor) -> Tensor:
        """Return the embeddings (B, P, 64) of the positions of space groups (B,)."""
        most = self.multiplicity.shape[1]
        places = 1 + group[:, None] * most + torch.arange(most, device=group.device)
        embedded: Tensor = self.position_table(places) + self.position_in(self.features[group])
        return embedded

    def first_state(self, context: Tensor, group: Tensor) -> Tensor:
        """Return the state (1, B, width) before the first orbit."""
        told = torch.cat([context, self.group_table(group)], -1)
        state: Tensor = self.begin(told).tanh()[None]
        return state

    def step(
        self, last: Tensor, slot: Tensor, remaining: Tensor, group: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return queries (B, T, 64) for the next positions, and the state after them.

        Parameters
        ----------
        last
            Shape (B, T, 64). Embedding of the orbit before; 0 at first.
        slot
            Shape (B, T, 64). Embedding of the element whose turn it is.
        remaining
            Shape (B, T). Its atoms without a place.
        group
            Shape (B,).
        state
            Shape (1, B, width).
        """
        left = self.remaining_table(remaining)
        groups = self.group_table(group)[:, None].expand(-1, last.shape[1], -1)
        hidden, state = self.cell(torch.cat([last, slot, left, groups], -1), state)
        query: Tensor = self.out(torch.cat([self.drop(hidden), slot, left], -1))
        return query, state

    def log_likelihood(self, crystals: Sequences) -> tuple[Tensor, Tensor]:
        """Return log p of the space group and of the orbits given it, (B,) each."""
        slots = self.of_slots(crystals.elements, crystals.counts)
        context = self.of_context(slots)
        of_group = self.group_logits(context).gather(1, crystals.group[:, None])[:, 0]
        known = crystals.slot >= 0
        slot, position = crystals.slot.clamp(min=0), crystals.position
        table = self.of_positions(crystals.group)
        chosen = table.gather(1, position[..., None].expand(-1, -1, POSITION))
        last = torch.cat([torch.zeros_like(chosen[:, :1]), chosen[:, :-1]], 1)
        turn = slots.gather(1, slot[..., None].expand(-1, -1, slots.shape[2]))
        remaining, lowest = _bookkeeping(self.multiplicity, crystals)
        state = self.first_state(context, crystals.group)
        query, _ = self.step(last, turn, remaining, crystals.group, state)
        logits = torch.einsum("btd,bpd->btp", query, table) / POSITION**0.5
        size = self.multiplicity[crystals.group][:, None]
        places = torch.arange(size.shape[2], device=size.device)
        allowed = (size > 0) & (size <= remaining[..., None]) & (places >= lowest[..., None])
        log_p = logits.masked_fill(~allowed, -1e9).log_softmax(-1)
        of_orbits = log_p.gather(2, position[..., None])[..., 0]
        return of_group, (of_orbits * known).sum(1)


def _bookkeeping(multiplicity: Tensor, crystals: Sequences) -> tuple[Tensor, Tensor]:
    """Return the atoms without a place and the lowest place allowed before each orbit, (B, T)."""
    slot, position = crystals.slot.clamp(min=0), crystals.position
    size = multiplicity[crystals.group].gather(1, position) * (crystals.slot >= 0)
    same = slot[:, :, None] == slot[:, None, :]
    before = torch.ones(slot.shape[1], slot.shape[1]).tril(-1).bool()
    placed = (same & before) * size[:, None, :]
    total = crystals.counts.gather(1, slot)
    remaining = (total - placed.sum(2)).clamp(min=0, max=MOST_SITES)
    lowest = torch.where(slot[:, 1:] == slot[:, :-1], position[:, :-1], 0)
    return remaining, torch.cat([torch.zeros_like(slot[:, :1]), lowest], 1)


@dataclass(frozen=True)
class Proposal:
    """A space group and the orbits of each element.

    Attributes
    ----------
    space_group
    orbits
        Elements in the order in which they were asked for.
    log_p
    """

    space_group: int
    orbits: Orbits
    log_p: float


@dataclass
class _Beam:
    """B sequences under way."""

    group: Tensor
    slot: Tensor
    lowest: Tensor
    remaining: Tensor
    used: Tensor
    last: Tensor
    state: Tensor
    log_p: Tensor
    tokens: Tensor
    length: Tensor

    def take(self, rows: Tensor) -> "_Beam":
        columns = {name: column[rows] for name, column in vars(self).items() if name != "state"}
        return _Beam(**columns, state=self.state[:, rows])


@torch.no_grad()
def propose(
    network: WyckoffNetwork,
    elements: Sequence[int],
    counts: Sequence[int],
    *,
    groups: NDArray[np.bool_] | None = None,
    width: int = 256,
) -> list[Proposal]:
    """Return the likeliest sequences for a composition by beam search, likeliest first.

    Parameters
    ----------
    elements, counts
        Those of few atoms first, then electropositive first.
    groups
        Shape (230,). Which space groups are allowed; all if None.
    width
        Sequences that are followed.
    """
    atoms = torch.tensor([list(counts)])
    slots = network.of_slots(torch.tensor([list(elements)]), atoms)
    context = network.of_context(slots)
    can = network.completable
    log_p = network.group_logits(context)[0]
    fits = can[:, 0][:, atoms[0]].all(1)
    if groups is not None:
        fits &= torch.from_numpy(groups)
    group = torch.argsort(log_p.masked_fill(~fits, -torch.inf), descending=True)
    group = group[: int(fits.sum())][:64]
    n, most = len(group), network.multiplicity.shape[1]
    if not n:
        return []
    beam = _Beam(
        group=group,
        slot=torch.zeros(n, dtype=torch.int64),
        lowest=torch.zeros(n, dtype=torch.int64),
        remaining=atoms[0, :1].expand(n),
        used=torch.zeros((n, most), dtype=torch.bool),
        last=torch.zeros((n, POSITION)),
        state=network.first_state(context.expand(n, -1), group),
        log_p=log_p[group],
        tokens=torch.full((n, int(atoms.sum())), -1),
        length=torch.zeros(n, dtype=torch.int64),
    )
    while (beam.slot < len(counts)).any():
        beam = _advance(network, beam, slots[0], atoms[0], can, width)
    return [_finished(beam, row, atoms[0], network) for row in range(len(beam.group))]


def _advance(
    network: WyckoffNetwork, beam: _Beam, slots: Tensor, atoms: Tensor, can: Tensor, width: int
) -> _Beam:
    """Return the `width` likeliest of the finished and of those that are one orbit longer."""
    done = beam.slot >= len(atoms)
    going = beam.take(torch.where(~done)[0])
    table = network.of_positions(going.group)
    turn = slots[going.slot]
    query, state = network.step(
        going.last[:, None], turn[:, None], going.remaining[:, None], going.group, going.state
    )
    logits = torch.einsum("btd,bpd->bp", query, table) / POSITION**0.5
    size, freedom = network.multiplicity[going.group], network.freedom[going.group]
    places = torch.arange(size.shape[1])
    seen = (size > 0) & (size <= going.remaining[:, None]) & (places >= going.lowest[:, None])
    log_p = logits.masked_fill(~seen, -1e9).log_softmax(-1)
    left = (going.remaining[:, None] - size).clamp(min=0)
    following = places + (freedom == 0)
    ends = can[going.group[:, None], following.clamp(max=can.shape[1] - 1), left]
    allowed = seen & ends & ~(going.used & (freedom == 0))
    total = (going.log_p[:, None] + log_p).masked_fill(~allowed, -torch.inf).flatten()
    kept = torch.where(done)[0]
    pool = torch.cat([beam.log_p[kept], total])
    best = pool.topk(min(width, int(pool.isfinite().sum()))).indices
    old = beam.take(kept[best[best < len(kept)]])
    new = best[best >= len(kept)] - len(kept)
    row, place = new // size.shape[1], new % size.shape[1]
    grown = going.take(row)
    grown.log_p = total[new]
    grown.tokens[torch.arange(len(row)), grown.length] = place
    grown.length = grown.length + 1
    grown.used[torch.arange(len(row)), place] = True
    grown.last = table[row, place]
    grown.state = state[:, row]
    grown.remaining = left[row, place]
    grown.lowest = following[row, place]
    full = grown.remaining == 0
    grown.slot = grown.slot + full
    upcoming = atoms[grown.slot.clamp(max=len(atoms) - 1)]
    grown.remaining = torch.where(full, upcoming, grown.remaining)
    grown.lowest = torch.where(full, 0, grown.lowest)
    return _joined(old, grown)


def _joined(first: _Beam, second: _Beam) -> _Beam:
    columns = {
        name: torch.cat([column, getattr(second, name)], 1 if name == "state" else 0)
        for name, column in vars(first).items()
    }
    beam = _Beam(**columns)
    return beam.take(torch.argsort(beam.log_p, descending=True, stable=True))


def _finished(beam: _Beam, row: int, atoms: Tensor, network: WyckoffNetwork) -> Proposal:
    group = int(beam.group[row])
    tokens = beam.tokens[row, : int(beam.length[row])].tolist()
    orbits: list[tuple[int, ...]] = []
    for count in atoms.tolist():
        of_element: list[int] = []
        while sum(int(network.multiplicity[group, place]) for place in of_element) < count:
            of_element.append(tokens.pop(0))
        orbits.append(tuple(of_element))
    return Proposal(group + 1, tuple(orbits), float(beam.log_p[row]))


def completable(multiplicity: Tensor, freedom: Tensor) -> Tensor:
    """Return whether positions from a place on can hold so many atoms, (230, P + 1, 21)."""
    groups, most = multiplicity.shape
    can = np.zeros((groups, most + 1, MOST_SITES + 1), dtype=bool)
    can[:, most, 0] = True
    sizes, free = multiplicity.numpy(), freedom.numpy() > 0
    for place in reversed(range(most)):
        can[:, place] = can[:, place + 1]
        for group in np.flatnonzero((sizes[:, place] > 0) & (sizes[:, place] <= MOST_SITES)):
            size = int(sizes[group, place])
            again = can[group, place] if free[group, place] else can[group, place + 1]
            for atoms in range(size, MOST_SITES + 1):  # rising: a free position may come again
                can[group, place, atoms] |= again[atoms - size]
    return torch.from_numpy(can)


def train_wyckoff_network(
    crystals: Sequences, weights: Tensor, *, width: int, epochs: int, seed: int
) -> WyckoffNetwork:
    """Fit the network.

    Parameters
    ----------
    crystals
        To learn from.
    weights
        Shape (N,). What each counts.
    """
    tables = [wyckoff_table(number) for number in range(1, N_GROUPS + 1)]
    torch.manual_seed(seed)
    network = WyckoffNetwork(tabulate_positions(tables), width=width, dropout=0.1)
    length = (crystals.slot >= 0).sum(1)
    n = len(length)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    total = epochs * -(-n // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in _batches(length, generator):
            of_group, of_orbits = network.log_likelihood(crystals.take(rows))
            loss = -(weights[rows] * (of_group + of_orbits)).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    return network.eval()


def _batches(length: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return the rows of an epoch's batches, those of a batch alike in length, in random order."""
    batches: list[Tensor] = []
    for chunk in torch.split(torch.randperm(len(length), generator=generator), 16 * BATCH):
        batches += torch.split(chunk[length[chunk].argsort(stable=True)], BATCH)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
