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
from pymatgen.core import Element, Lattice, Structure

from pccd_workflows.report.svg import element, figure, line, text

FloatArray = NDArray[np.float64]
Point = tuple[float, float, float]
Cell = tuple[int, int, int]
Copy = tuple[int, Cell]
"""A site, and the cell in which it is drawn."""
Partners = list[dict[Copy, FloatArray]]
"""Of each site: its bonds."""

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
    stubs: an atom and half the way (Å) to a partner outside of the cell.
    faces: symbol at the centre of a polyhedron, and three atoms at its corners.
    corners: the eight corners of the cell, Å about its centre; bit 0, 1, 2 of the number = a, b, c.
    reach: largest distance from the centre, Å.
    moves: real and imaginary part (x, y, z each) of each atom's amplitude in a phonon mode, Å.
    """

    atoms: list[Atom]
    bonds: list[tuple[int, int]]
    stubs: list[tuple[int, Point]]
    faces: list[tuple[str, int, int, int]]
    corners: list[Point]
    colours: dict[str, str]
    reach: float
    moves: list[tuple[float, ...]] | None = None
    view: tuple[float, float] = VIEW

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def make_scene(structure: Structure) -> Scene:
    """Return the atoms of one cell, with copies on its faces, its bonds and its box."""
    return place_scene(structure)[0]


def place_scene(structure: Structure) -> tuple[Scene, list[Copy]]:
    """Return the scene, and of each atom in it the site and the cell that it is a copy from."""
    lattice = structure.lattice
    centre = lattice.get_cartesian_coords([0.5, 0.5, 0.5])
    partners = _partners(structure)
    copies = _copies(structure, partners)
    places = [structure.frac_coords[site] + cell for site, cell in copies]
    xyz = lattice.get_cartesian_coords(places) - centre
    symbols = [structure[site].specie.symbol for site, _ in copies]
    atoms = [
        Atom(symbol, *_rounded(position), _radius(symbol))
        for symbol, position in zip(symbols, xyz, strict=True)
    ]
    bonds, stubs = _bonds(copies, partners, lattice)
    corners = [
        _rounded(lattice.get_cartesian_coords([n & 1, n >> 1 & 1, n >> 2 & 1]) - centre)
        for n in range(8)
    ]
    reach = float(np.linalg.norm(np.concatenate([xyz, corners]), axis=1).max())
    colours = {s: colour(s) for s in sorted(set(symbols), key=lambda s: (_pull(s), s))}
    faces = _faces(symbols, xyz, bonds)
    return Scene(atoms, bonds, stubs, faces, corners, colours, round(reach, 3)), copies


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
    for index, half in scene.stubs:
        start = rotated[:, index]
        sticks.append((start, start + rotation(*VIEW) @ np.array(half), "bond stub"))
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
    return (min(SIZE, HEIGHT) / 2 - 18) / scene.reach


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


def _copies(structure: Structure, partners: Partners) -> list[Copy]:
    """Return what is drawn: the cell, copies on its faces, all partners of cations inside."""
    home = [tuple((-np.floor(site)).astype(int).tolist()) for site in structure.frac_coords]
    images = [
        [tuple(np.rint(image - site).astype(int).tolist()) for image in _images(site % 1.0)]
        for site in structure.frac_coords
    ]
    copies = [(site, cell) for site, cells in enumerate(images) for cell in cells]
    if len(copies) > MAX_ATOMS:
        return list(enumerate(home))
    inside = [site for site, cells in enumerate(images) if len(cells) == 1]
    pulls = [_pull(site.specie.symbol) for site in structure]
    completed = [
        (other, _moved(images[site][0], cell))
        for site in inside
        for other, cell in partners[site]
        if pulls[other] > pulls[site]
    ]
    whole = list(dict.fromkeys([*copies, *completed]))
    return whole if len(whole) <= MAX_ATOMS else copies


def _moved(cell: Cell, by: Cell) -> Cell:
    return cell[0] + by[0], cell[1] + by[1], cell[2] + by[2]


def _bonds(
    copies: list[Copy], partners: Partners, lattice: Lattice
) -> tuple[list[tuple[int, int]], list[tuple[int, Point]]]:
    """Return the bonds between drawn atoms, and stubs of those that leave the picture."""
    number = {copy: index for index, copy in enumerate(copies)}
    bonds, stubs = set(), []
    for (site, cell), index in number.items():
        for (other, away), half in partners[site].items():
            far = number.get((other, _moved(cell, away)))
            if far is None:
                stubs.append((index, _rounded(lattice.get_cartesian_coords(half))))
            elif far != index:
                bonds.add((min(index, far), max(index, far)))
    return sorted(bonds), stubs


def _partners(structure: Structure) -> Partners:
    """Return each site's bonds: the other site, its cell, and half the way there (fractional).

    Bonded is what is nearer than BOND times the covalent radii; in compounds unlike partners only.
    """
    radii = np.array([_covalent_radius(site.specie.symbol) for site in structure])
    pulls = np.array([_pull(site.specie.symbol) for site in structure])
    longest = 2 * BOND * float(radii.max())
    first, second, cells, distances = structure.get_neighbor_list(longest)
    near = (distances < BOND * (radii[first] + radii[second])) & (distances > 0.4)
    polar = near & (np.abs(pulls[first] - pulls[second]) > 0.5)
    chosen = np.flatnonzero(polar if polar.any() else near)
    found: Partners = [{} for _ in structure]
    for i in chosen.tolist():
        a, b = int(first[i]), int(second[i])
        x, y, z = (int(value) for value in cells[i])
        ends = structure.frac_coords[b] + cells[i] - structure.frac_coords[a]
        found[a][b, (x, y, z)] = ends / 2
    return found


def _faces(
    symbols: list[str], xyz: FloatArray, bonds: list[tuple[int, int]]
) -> list[tuple[str, int, int, int]]:
    """Return the triangles of the polyhedra around atoms that pull electrons less."""
    from scipy.spatial import ConvexHull, QhullError

    around: dict[int, list[int]] = {}
    for pair in bonds:
        a, b = sorted(pair, key=lambda i: _pull(symbols[i]))
        if _pull(symbols[a]) < _pull(symbols[b]):
            around.setdefault(a, []).append(b)
    faces = []
    for centre, corners in around.items():
        if len(corners) < 4:
            continue
        try:
            hull = ConvexHull(xyz[corners])
        except QhullError:  # flat
            continue
        if (hull.equations @ np.append(xyz[centre], 1.0)).max() < 0:  # all around it
            faces += [(symbols[centre], *(corners[i] for i in tri)) for tri in hull.simplices]
    return faces


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


def _rounded(position: FloatArray) -> Point:
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
