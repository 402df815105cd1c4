"""Known crystals whose structures may be aimed at: where their atoms are, compactly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pccd_workflows.generators.pccd.composition import electropositive_first
from pccd_workflows.generators.pccd.config import Setting
from pccd_workflows.generators.pccd.dataset import CrystalArrays
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.standard import StandardCell, standard_cell

UNITS = 2**16
"""Coordinates are stored in units of the cell edge over this."""


class Coordinates(Protocol):
    """Whatever knows where the atoms of analogues are, by their row among the analogues."""

    def template(self, row: int) -> Template:
        """Return a crystal in the primitive setting of its space group."""
        ...


@dataclass(frozen=True)
class Templates:
    """N crystals in the primitive setting of their space groups; S sites in all.

    Attributes
    ----------
    space_group
        Shape (N,).
    n_sites
        Shape (N,).
    numbers
        Shape (S,). Atomic numbers, crystal after crystal.
    coords
        Shape (S, 3). Fractional coordinates in units of 1 / UNITS.
    lattice
        Shape (N, 6). Lengths, Å, and angles, degrees.
    """

    space_group: NDArray[np.int16]
    n_sites: NDArray[np.int16]
    numbers: NDArray[np.uint8]
    coords: NDArray[np.uint16]
    lattice: NDArray[np.float32]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Templates":
        """Return the templates that `state` was called of.

        Raises
        ------
        KeyError
            If a column is missing.
        """
        return cls(**{f.name: state[f.name].cpu().numpy() for f in fields(cls)})

    def state(self) -> dict[str, Tensor]:
        """Return the columns as tensors, by name."""
        return {f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self)}

    def template(self, row: int) -> Template:
        """Return a crystal; see Coordinates."""
        from pymatgen.core import Lattice

        first = self._first[row]
        sites = slice(first, first + int(self.n_sites[row]))
        return Template(
            int(self.space_group[row]),
            self.numbers[sites].astype(np.int64),
            self.coords[sites].astype(np.float64) / UNITS,
            Lattice.from_parameters(*self.lattice[row].tolist()).matrix,
        )

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        """First site of each crystal."""
        ends = np.cumsum(self.n_sites.astype(np.int64))
        return np.concatenate([[0], ends[:-1]])


def find_templates(crystals: CrystalArrays, setting: Setting) -> Templates:
    """Return crystals of a dataset in some setting as templates, in the same order.

    Those in the standard setting are taken as they are; the symmetry of others is found first,
    some hundred a second.
    """
    cells = [_standard(crystals, row, setting) for row in range(len(crystals))]
    coords = np.concatenate([cell.frac_coords for cell in cells]) % 1.0
    return Templates(
        space_group=np.array([cell.space_group for cell in cells], dtype=np.int16),
        n_sites=crystals.n_sites.astype(np.int16),
        numbers=np.concatenate([cell.numbers for cell in cells]).astype(np.uint8),
        coords=(np.rint(coords * UNITS).astype(np.int64) % UNITS).astype(np.uint16),
        lattice=np.array([[*cell.lengths, *cell.angles] for cell in cells], dtype=np.float32),
    )


def template_of(crystals: CrystalArrays, row: int, setting: Setting = "reduced") -> Template:
    """Return a crystal of a dataset in the primitive setting of its space group."""
    from pymatgen.core import Lattice

    cell = _standard(crystals, row, setting)
    lattice = Lattice.from_parameters(*cell.lengths.tolist(), *cell.angles.tolist()).matrix
    return Template(cell.space_group, cell.numbers, cell.frac_coords, lattice)


def _standard(crystals: CrystalArrays, row: int, setting: Setting) -> StandardCell:
    from pymatgen.core import Lattice

    n = int(crystals.n_sites[row])
    numbers = crystals.numbers[row, :n].astype(np.int64)
    frac = crystals.frac_coords[row, :n].astype(np.float64)
    lengths, angles = (x[row].astype(np.float64) for x in (crystals.lengths, crystals.angles))
    if setting == "standard":
        kind, group = int(crystals.structure_type[row]), int(crystals.space_group[row])
        return StandardCell(group, numbers, frac, lengths, angles, kind)
    matrix = Lattice.from_parameters(*lengths.tolist(), *angles.tolist()).matrix
    return standard_cell(matrix, numbers, frac)


def exchange(template: Template, counts: Mapping[int, int]) -> Template:
    """Return a template with other elements, which take the places of those as many.

    Parameters
    ----------
    template
    counts
        Atoms of each element, by atomic number, as many as the template's elements have; of
        elements with equally many the more electropositive takes the more electropositive's place.

    Raises
    ------
    KeyError
        If the numbers of atoms differ.
    """
    present, amounts = np.unique(template.numbers, return_counts=True)
    own = dict(zip(present.tolist(), amounts.tolist(), strict=True))
    if sorted(own.values()) != sorted(counts.values()):
        raise KeyError(f"{own} and {dict(counts)} are different numbers of atoms")
    new = dict(zip(_by_count(own), _by_count(counts), strict=True))
    exchanged = np.array([new[z] for z in template.numbers.tolist()], dtype=np.int64)
    return Template(template.space_group, exchanged, template.frac_coords, template.lattice)


def _by_count(counts: Mapping[int, int]) -> Sequence[int]:
    """Return elements by their number of atoms, then electropositive first."""
    return sorted(electropositive_first(list(counts)), key=counts.__getitem__)
