"""Electronic bands: from what VASP computed on a mesh and along a path to a gap and a picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Structure

from pccd_workflows.analysis.kpaths import labels_of, legs_of, symmetric_cell
from pccd_workflows.analysis.magnetism import MagneticOrdering, starting_moments, why_not
from pccd_workflows.core.errors import PccdError

if TYPE_CHECKING:
    from pymatgen.electronic_structure.bandstructure import BandStructure

WINDOW = 6.0
"""eV; bands farther from the gap (or the Fermi level) than this are left out of a picture."""
SAME_ENERGY = 1e-3
"""eV; spin channels that differ by less are drawn once."""
SAME_POINT = 1e-4
"""k-points this close (reduced units, modulo reciprocal lattice vectors) are the same."""


class RunBands(BaseModel):
    """What one run says of the bands: on a mesh or along a path."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    is_metal: bool
    efermi: float = Field(description="eV")
    vbm: float | None = Field(None, description="eV")
    cbm: float | None = Field(None, description="eV")
    vbm_kpoint: list[float] = Field(default_factory=list)
    cbm_kpoint: list[float] = Field(default_factory=list)
    picture: dict[str, Any] | None = Field(None, description="As candidate.Bands.bands; of a path")


def magnetic_cell(structure: Structure, ordering: MagneticOrdering | None) -> Structure:
    """Return the standard primitive cell in which a crystal's bands are computed.

    ordering: moments to start from, as spins of the species, so that an antiferromagnet keeps its
    magnetic cell; None, and an order that the cell cannot have, leave moments to the level.
    """
    cell = structure.copy()
    if ordering is not None and why_not(structure, ordering) is None:
        moments = starting_moments(structure, ordering)
        if any(moments):
            cell.add_spin_by_site(moments)
    return symmetric_cell(cell)


def read_bands(document: Any) -> RunBands:
    """Return the bands of a run.

    document: an emmet TaskDoc whose band structure was parsed.

    Raises
    ------
    PccdError
        It has none.
    """
    from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine

    objects = getattr(document, "vasp_objects", None) or {}
    found = next((o for name, o in objects.items() if "bandstructure" in str(name).lower()), None)
    if found is None:
        raise PccdError("The run left no band structure.")
    lines = found if isinstance(found, BandStructureSymmLine) else None
    edges: dict[str, Any] = {"is_metal": bool(found.is_metal()), "efermi": float(found.efermi)}
    if not edges["is_metal"]:
        for name, edge in (("vbm", found.get_vbm()), ("cbm", found.get_cbm())):
            edges[name] = float(edge["energy"])
            edges[f"{name}_kpoint"] = np.round(edge["kpoint"].frac_coords, 6).tolist()
    low, high = edges.get("vbm", found.efermi), edges.get("cbm", found.efermi)
    picture = None if lines is None else _picture(lines, low - WINDOW, high + WINDOW)
    return RunBands(**edges, picture=picture)


def _picture(bands: Any, low: float, high: float) -> dict[str, Any]:
    """Return what a plot needs of the bands that enter the window from `low` to `high`, eV."""
    distances, legs = np.asarray(bands.distance), legs_of(bands)
    channels = [_inside(energies, low, high) for energies in _channels(bands)]
    return {
        "distances": [np.round(distances[leg], 5).tolist() for leg in legs],
        "energies": [
            [np.round(channel[:, leg], 4).tolist() for channel in channels] for leg in legs
        ],
        "labels": labels_of(bands),
    }


def _channels(bands: "BandStructure") -> list[NDArray[np.float64]]:
    """Return the energies of each spin, shape (n_bands, n_k), eV; one array if they agree."""
    channels = [np.asarray(energies) for energies in bands.bands.values()]
    same = len(channels) == 2 and np.abs(channels[0] - channels[1]).max() < SAME_ENERGY
    return channels[:1] if same else channels


def _inside(energies: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    near: NDArray[np.bool_] = (energies.max(axis=1) >= low) & (energies.min(axis=1) <= high)
    return np.asarray(energies[near])


def band_gap(found: Sequence[RunBands]) -> Mapping[str, Any]:
    """Return gap, edges and Fermi level by the runs together, as fields of candidate.Bands.

    An edge may lie on the path and not on the mesh, or the other way round: the highest valence
    and the lowest conduction energy of all runs count. One that finds a metal is believed.

    found: of one crystal with one potential, the mesh (whose Fermi level counts) first.
    """
    efermi = found[0].efermi
    tops = [(run.vbm, run.vbm_kpoint) for run in found if run.vbm is not None]
    bottoms = [(run.cbm, run.cbm_kpoint) for run in found if run.cbm is not None]
    if any(run.is_metal for run in found) or max(tops)[0] >= min(bottoms)[0]:
        return {"is_metal": True, "band_gap": 0.0, "efermi": efermi}
    (vbm, vbm_kpoint), (cbm, cbm_kpoint) = max(tops), min(bottoms)
    apart = np.subtract(vbm_kpoint, cbm_kpoint)
    return {
        "is_metal": False,
        "band_gap": round(cbm - vbm, 6),
        "direct": bool(np.abs(apart - np.round(apart)).max() < SAME_POINT),
        "vbm": vbm,
        "cbm": cbm,
        "vbm_kpoint": vbm_kpoint,
        "cbm_kpoint": cbm_kpoint,
        "efermi": efermi,
    }
