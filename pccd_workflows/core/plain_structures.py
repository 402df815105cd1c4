"""Crystals of texts and documents that others wrote: plain numbers, no object that they name."""

import io
import json
import warnings
from ast import literal_eval
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import DummySpecies, Lattice, Structure

Document = dict[str, Any]

FLAT = 1e-3
"""Å^3; a cell with less has no lattice that could be compared."""


class CrystalError(ValueError):
    """An entry is no crystal that could be used; `error_class` says in which way."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True)
class Unreadable:
    """Why an entry is no crystal that could be used: in one sentence, and as a class."""

    reason: str
    error_class: str = "unreadable"


def attempt(
    content: Callable[[], Structure], judge: Callable[[Structure], Structure] | None = None
) -> Structure | Unreadable:
    """Return a crystal, or why it cannot be made; `judge` is `checked` unless given."""
    try:
        return (judge or checked)(content())
    except CrystalError as error:
        return Unreadable(str(error), error.error_class)
    except KeyError as error:
        return Unreadable(f"{error} is missing")
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
        return Unreadable(" ".join(str(error).split())[:200] or type(error).__name__)
    except (AssertionError, RecursionError, OSError, SyntaxError) as error:
        return Unreadable(" ".join(str(error).split())[:200] or type(error).__name__)


def checked(structure: Structure) -> Structure:
    """Return a crystal of whole atoms of real elements in a cell with a volume.

    Raises
    ------
    CrystalError
        It is none.
    """
    if not structure.is_ordered:
        raise CrystalError("partial_occupancy", "it has disorder")
    if len(structure) == 0:
        raise CrystalError("no_sites", "it has no sites")
    if (
        not np.isfinite(structure.lattice.matrix).all()
        or not np.isfinite(structure.cart_coords).all()
    ):
        raise CrystalError("not_finite", "it has numbers that are not finite")
    if not abs(structure.volume) > FLAT:
        raise CrystalError("no_volume", "its cell has no volume")
    alien = {site.specie.symbol for site in structure if isinstance(site.specie, DummySpecies)}
    if alien:
        raise CrystalError("no_element", f"it has sites of no element ({', '.join(sorted(alien))})")
    return structure


def from_object(document: Document) -> Structure:
    """Return the crystal of a JSON object; see `core.crystal_files.entries`.

    Raises
    ------
    ValueError, KeyError, TypeError
        It holds none.
    """
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if isinstance(document.get("attributes"), dict):
        return from_optimade(document)
    inner = document.get("structure", document)
    if isinstance(inner, dict) and "sites" in inner:
        return plain_structure(inner)
    if isinstance(inner, dict) and {"lattice", "species", "frac_coords"} <= set(inner):
        return Structure(inner["lattice"], inner["species"], inner["frac_coords"])
    if isinstance(inner, dict) and {"lengths", "angles", "atom_types", "frac_coords"} <= set(inner):
        lattice = Lattice.from_parameters(*inner["lengths"], *inner["angles"])
        return Structure(lattice, inner["atom_types"], inner["frac_coords"])
    if isinstance(document.get("cif"), str):
        return from_cif(document["cif"])
    raise ValueError("it holds no structure")


def plain_structure(document: Document) -> Structure:
    """Return the crystal of a pymatgen dictionary; whatever else it holds makes no object.

    ``Structure.from_dict`` makes any class that a site property names; of those only numbers and
    texts are kept.
    """
    if document["lattice"].get("pbc", [True] * 3) not in ([True] * 3, (True,) * 3):
        raise CrystalError("not_periodic", "it is not periodic in three dimensions")
    sites = [
        {
            "species": [
                {k: s[k] for k in ("element", "occu", "oxidation_state", "spin") if k in s}
                for s in site["species"]
            ],
            "abc": site["abc"],
            "label": str(site["label"]) if site.get("label") is not None else None,
            "properties": _plain(site.get("properties") or {}),
        }
        for site in document["sites"]
    ]
    whole: Document = {"lattice": {"matrix": document["lattice"]["matrix"]}, "sites": sites}
    if isinstance(document.get("charge"), int | float):
        whole["charge"] = document["charge"]
    return Structure.from_dict(whole)


def _plain(properties: Document) -> Document:
    def is_plain(value: Any) -> bool:
        if isinstance(value, list):
            return all(map(is_plain, value))
        return value is None or isinstance(value, bool | int | float | str)

    return {str(name): value for name, value in properties.items() if is_plain(value)}


def from_optimade(resource: Document) -> Structure:
    """Return the crystal of an OPTIMADE structures resource.

    Raises
    ------
    ValueError, KeyError, TypeError
        It is disordered, not periodic in three dimensions, or lacks positions.
    """
    attributes = resource["attributes"]
    if attributes.get("structure_features"):
        raise ValueError(f"it has {', '.join(attributes['structure_features'])}")
    if attributes.get("dimension_types", [1, 1, 1]) != [1, 1, 1]:
        raise CrystalError("not_periodic", "it is not periodic in three dimensions")
    symbols = {}
    for species in attributes.get("species") or []:
        if len(species["chemical_symbols"]) != 1:
            raise CrystalError("partial_occupancy", "it has disorder")
        symbols[species["name"]] = species["chemical_symbols"][0]
    names = attributes["species_at_sites"]
    return Structure(
        attributes["lattice_vectors"],
        [symbols.get(name, name) for name in names],
        attributes["cartesian_site_positions"],
        coords_are_cartesian=True,
    )


def from_cif(text: str) -> Structure:
    """Return the crystal of a CIF with one data block, in the cell of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Structure.from_str(text, fmt="cif")


def from_poscar(text: str) -> Structure:
    """Return the crystal of a POSCAR that names its elements."""
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # without names pymatgen takes the first elements of the table
        warnings.simplefilter("error", BadPoscarWarning)
        try:
            return Poscar.from_str(text).structure
        except BadPoscarWarning:
            raise CrystalError("no_element", "it does not name its elements") from None


def from_xyz(text: str) -> Structure:
    """Return the crystal of one frame of an extended XYZ file."""
    from ase.io.extxyz import read_xyz

    atoms = next(read_xyz(io.StringIO(text), 0))
    if not all(atoms.pbc):
        raise CrystalError("not_periodic", "it is not periodic in three dimensions")
    return Structure(
        atoms.cell.array, atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )


def from_text(cell: str) -> Structure:
    """Return the crystal of a CIF, or of a dictionary written as JSON or as Python does."""
    if not cell.lstrip().startswith("{"):
        return from_cif(cell)
    try:
        document = json.loads(cell)
    except json.JSONDecodeError:
        document = literal_eval(cell)
    return from_object(document)


def value_at(document: Document, path: str) -> Any:
    """Return what stands at a dotted path of a document, or None."""
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
