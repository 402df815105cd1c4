"""Structure -> point cloud, as the seed paper describes it (section "Data preprocessing")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.pointcloud.elements import (
    atomic_number,
    canonical_elements,
    symbol,
)

N_POINTS = 128
"""Points of a cloud (rows of each channel)."""
N_COLUMNS = 3
"""Columns of each channel: x, y, z; three elements; three angles or lengths."""
LENGTH_SCALE = 15.0
"""Lattice lengths are stored in units of this, Å."""
ANGLE_SCALE = 2 * np.pi
"""Lattice angles are stored in units of this, rad."""
STRICT_MAX_SITES = 16
"""Most sites of a cell in the seed paper."""

Spread = Literal["seed", "even"]
"""How the points are shared among the atoms, see `site_of_point`."""


@dataclass(frozen=True)
class PointCloud:
    """A crystal as the diffusion model sees it.

    Attributes
    ----------
    values
        Shape (3, 128, 3), dimensionless, channel first:
        channel 0 fractional coordinates, one row per point;
        channel 1 likelihood that the point is ``elements[column]``, unused columns zero;
        channel 2 rows 0-63 (alpha, beta, gamma) / 2 pi, rows 64-127 (a, b, c) / 15 Å.
        With more than three elements all channels widen to one column per element; the added
        columns of channels 0 and 2 are zero.
    elements
        Element symbols, one per used column of channel 1.
    """

    values: NDArray[np.floating]
    elements: tuple[str, ...]


def site_of_point(
    n_sites: int, *, spread: Spread = "even", n_points: int = N_POINTS
) -> NDArray[np.intp]:
    """Return the atom that owns each point, shape (n_points,).

    Parameters
    ----------
    n_sites
        Atoms in the cell.
    spread
        "seed": ``n_points // n_sites`` copies of each atom, the remainder goes to the last atom.
        "even": point i belongs to atom ``floor(i * n_sites / n_points)``, so that no two atoms
        differ by more than one copy.

    Raises
    ------
    InputError
        If there is no atom, or more atoms than points.
    """
    if not 1 <= n_sites <= n_points:
        raise InputError(f"A cloud of {n_points} points cannot hold {n_sites} atoms.")
    points = np.arange(n_points)
    if spread == "even":
        return points * n_sites // n_points
    return np.minimum(points // (n_points // n_sites), n_sites - 1)


def encode(
    structure: Structure,
    *,
    elements: Sequence[str] | None = None,
    spread: Spread = "even",
    strict: bool = False,
) -> PointCloud:
    """Return the point cloud of an ordered crystal; atoms keep the order they have in it.

    Parameters
    ----------
    elements
        Symbols of the columns of channel 1, in this order; they may name elements that the
        crystal lacks. By default the crystal's own, by atomic number.
    strict
        Refuse what the seed paper's representation excludes: more than three elements or 16
        sites, or a lattice length above 15 Å (which otherwise is stored as a value above one).

    Raises
    ------
    InputError
        If the crystal has partially occupied sites, more than 128 atoms or an element missing
        from `elements`, or if `strict` excludes it.
    """
    if not structure.is_ordered:
        raise InputError(f"{structure.formula} has partially occupied sites; order it first.")
    symbols = [symbol(site.specie.Z) for site in structure]
    columns = _columns(symbols, elements)
    if strict:
        _check_seed_limits(structure, columns)

    values = np.zeros((3, N_POINTS, max(N_COLUMNS, len(columns))))
    owner = site_of_point(len(structure), spread=spread)
    values[0, :, :3] = wrap(structure.frac_coords)[owner]
    column_of_site = np.array([columns.index(name) for name in symbols])
    values[1, np.arange(N_POINTS), column_of_site[owner]] = 1.0
    half = N_POINTS // 2
    values[2, :half, :3] = np.radians(structure.lattice.angles) / ANGLE_SCALE
    values[2, half:, :3] = np.array(structure.lattice.abc) / LENGTH_SCALE
    return PointCloud(values, columns)


def wrap(frac_coords: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return fractional coordinates in [0, 1), any shape; also for -1e-20, which % rounds to 1."""
    wrapped = np.asarray(frac_coords) % 1.0
    return np.where(wrapped >= 1.0, 0.0, wrapped)


def _columns(symbols: Sequence[str], elements: Sequence[str] | None) -> tuple[str, ...]:
    """Return the column order, after checking that it covers the crystal's elements."""
    if elements is None:
        return canonical_elements(symbols)
    for name in elements:
        atomic_number(name)
    if len(set(elements)) != len(elements):
        raise InputError(f"An element is named twice in {list(elements)}.")
    missing = canonical_elements(set(symbols) - set(elements))
    if missing:
        raise InputError(f"The crystal holds {list(missing)}, not among {list(elements)}.")
    return tuple(elements)


def _check_seed_limits(structure: Structure, columns: tuple[str, ...]) -> None:
    """Raise InputError if the seed paper's representation excludes the crystal."""
    what = structure.composition.reduced_formula
    if len(columns) > N_COLUMNS:
        raise InputError(f"{what}: at most {N_COLUMNS} elements, not {len(columns)}.")
    if len(structure) > STRICT_MAX_SITES:
        raise InputError(f"{what}: at most {STRICT_MAX_SITES} atoms, not {len(structure)}.")
    if max(structure.lattice.abc) > LENGTH_SCALE:
        raise InputError(
            f"{what}: lattice lengths of at most {LENGTH_SCALE:g} Å, "
            f"not {max(structure.lattice.abc):.2f} Å."
        )
