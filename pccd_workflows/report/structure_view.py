"""The picture of a crystal: atoms, bonds and cell as data, and their first drawing as SVG.

The page turns the same data with the mouse; without scripts, and on paper, the first drawing stays.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from pccd_workflows.report.svg import element, figure, line, text

FloatArray = NDArray[np.float64]

SIZE = 372.0
HEIGHT = 320.0
FACE = 0.03
"""Sites this near to a face of the cell (fractional) are drawn on the opposite face too."""
MAX_ATOMS = 160
"""Larger pictures show the cell as it is stored, without the copies on its faces."""
BOND = 1.18
"""Longest bond as a multiple of the sum of the covalent radii."""
VIEW = (-1.18, -0.42)
"""First view: rotation about z, then tilt (radians); shows all three axes."""


@dataclass(frozen=True)
class Atom:
    """x, y, z in Å about the cell's centre; radius as drawn, Å."""

    symbol: str
    x: float
    y: float
    z: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """All that is drawn.

    bonds: pairs of atom numbers.
    corners: the eight corners of the cell, Å about its centre; bit 0, 1, 2 of the number = a, b, c.
    """

    atoms: list[Atom]
    bonds: list[tuple[int, int]]
    corners: list[tuple[float, float, float]]
    colours: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def make_scene(structure: Structure) -> Scene:
    """Return the atoms of one cell, with copies on its faces, its bonds and its box."""
    lattice = structure.lattice
    centre = lattice.get_cartesian_coords([0.5, 0.5, 0.5])
    sites = [
        (site.specie.symbol, image)
        for site in structure
        for image in _images(np.asarray(site.frac_coords) % 1.0)
    ]
    if len(sites) > MAX_ATOMS:
        sites = [(s.specie.symbol, np.asarray(s.frac_coords) % 1.0) for s in structure]
    atoms = [
        Atom(symbol, *_rounded(lattice.get_cartesian_coords(image) - centre), _radius(symbol))
        for symbol, image in sites
    ]
    corners = [
        _rounded(lattice.get_cartesian_coords([n & 1, n >> 1 & 1, n >> 2 & 1]) - centre)
        for n in range(8)
    ]
    symbols = sorted({atom.symbol for atom in atoms}, key=lambda s: (_pull(s), s))
    return Scene(atoms, _bonds(atoms), corners, {s: colour(s) for s in symbols})


def picture_cell(structure: Structure, symprec: float = 0.1) -> tuple[Structure, str]:
    """Return the cell to draw and its name: the conventional one, if symmetry gives a small one."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        analyzer = SpacegroupAnalyzer(structure, symprec=symprec)
        conventional = analyzer.get_conventional_standard_structure()
    except (ValueError, TypeError, IndexError, ArithmeticError):  # spglib, on odd cells
        return structure, "stored cell"
    if len(conventional) > MAX_ATOMS // 2:
        return structure, "stored cell"
    return conventional, "conventional cell"


def draw_scene(scene: Scene, title: str, name: str) -> Markup:
    """Return the first drawing; `name` is unique on its page (colours are defined under it)."""
    rotated = rotation(*VIEW) @ np.array([[a.x, a.y, a.z] for a in scene.atoms]).T
    corners = (rotation(*VIEW) @ np.array(scene.corners).T).T
    scale = scene_scale(scene)
    items: list[tuple[float, Markup]] = []
    sticks = [(corners[a], corners[b], "cell") for a, b in _edges()]
    sticks += [(rotated[:, a], rotated[:, b], "bond") for a, b in scene.bonds]
    for start, end, kind in sticks:
        stick = line(*_px(start, scale), *_px(end, scale), class_=kind)
        items.append((float(start[2] + end[2]) / 2 - 0.01, stick))
    for atom, position in zip(scene.atoms, rotated.T, strict=True):
        x, y = _px(position, scale)
        circle = element(
            "circle",
            cx=x,
            cy=y,
            r=atom.radius * scale,
            fill=f"url(#{name}-{atom.symbol})",
            class_="atom",
        )
        items.append((float(position[2]), circle))
    drawn = [item for _, item in sorted(items, key=lambda item: item[0])]
    axes = [
        text(*_outside(corners[1 << i], scale), label, class_="tick", text_anchor="middle")
        for i, label in enumerate("abc")
    ]
    gradients = [_gradient(f"{name}-{symbol}", shade) for symbol, shade in scene.colours.items()]
    return figure(
        SIZE,
        HEIGHT,
        title,
        element("defs", *gradients),
        element("g", *drawn, *axes, class_="scene"),
        class_="structure",
    )


def scene_scale(scene: Scene) -> float:
    """Return pixels per Å at which every rotation of the scene fits its picture."""
    reach = max(float(np.linalg.norm(corner)) for corner in scene.corners)
    return (min(SIZE, HEIGHT) / 2 - 18) / reach


@lru_cache(maxsize=128)
def colour(symbol: str) -> str:
    """Return the Jmol colour of an element."""
    from ase.data.colors import jmol_colors

    return "#" + "".join(f"{round(255 * part):02x}" for part in jmol_colors[Element(symbol).Z])


def _images(fractional: FloatArray) -> list[FloatArray]:
    """Return a site and its copies on the faces of the cell."""
    choices = []
    for value in fractional:
        other = value + 1 if value < FACE else value - 1 if value > 1 - FACE else None
        choices.append([value] if other is None else [value, other])
    return [np.array(image) for image in product(*choices)]


def _bonds(atoms: list[Atom]) -> list[tuple[int, int]]:
    """Return pairs within bonding distance; in compounds only between unlike partners."""
    if len(atoms) < 2:
        return []
    positions = np.array([[a.x, a.y, a.z] for a in atoms])
    covalent = np.array([_covalent_radius(a.symbol) for a in atoms])
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near = (distance < BOND * (covalent[:, None] + covalent[None])) & (distance > 0.4)
    pull = np.array([_pull(a.symbol) for a in atoms])
    polar = near & (np.abs(pull[:, None] - pull[None]) > 0.5)
    chosen = polar if polar.any() else near
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(chosen)), strict=True)]


def _pull(symbol: str) -> float:
    """Return the electronegativity, 0 where none is known."""
    return float(np.nan_to_num(Element(symbol).X))


def _covalent_radius(symbol: str) -> float:
    from ase.data import covalent_radii

    return float(covalent_radii[Element(symbol).Z])


def _radius(symbol: str) -> float:
    """Return a radius that shows size differences and leaves bonds visible, Å."""
    return round(0.22 + 0.22 * _covalent_radius(symbol), 3)


def rotation(about_z: float, tilt: float) -> FloatArray:
    """Return the rotation to the screen: x right, y up, z towards the reader, shape (3, 3)."""
    cos, sin = np.cos(about_z), np.sin(about_z)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    # Crystal z points up on the screen before the tilt.
    upright = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.asarray(np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ upright @ turn)


def _px(position: FloatArray, scale: float) -> tuple[float, float]:
    return float(SIZE / 2 + scale * position[0]), float(HEIGHT / 2 - scale * position[1])


def _outside(corner: FloatArray, scale: float) -> tuple[float, float]:
    """Return the place of a corner's label: 17 pixels further out, where no atom hides it."""
    x, y = corner[:2] / max(float(np.linalg.norm(corner[:2])), 1e-9)
    left, top = _px(corner, scale)
    return float(left + 17 * x), float(top - 17 * y + 4)


def _edges() -> list[tuple[int, int]]:
    return [(n, n | bit) for n in range(8) for bit in (1, 2, 4) if not n & bit]


def _rounded(position: FloatArray) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 3) for value in position)
    return x, y, z


def _gradient(name: str, shade: str) -> Markup:
    return element(
        "radialGradient",
        element("stop", offset="0", stop_color=_mix(shade, 255, 0.75)),
        element("stop", offset="0.35", stop_color=shade),
        element("stop", offset="1", stop_color=_mix(shade, 0, 0.45)),
        id=name,
        cx="35%",
        cy="32%",
        r="75%",
    )


def _mix(shade: str, target: int, part: float) -> str:
    """Return a colour moved towards black (0) or white (255)."""
    channels = [int(shade[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(c + (target - c) * part):02x}" for c in channels)
