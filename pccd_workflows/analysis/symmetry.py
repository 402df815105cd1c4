"""A crystal with its symmetry made exact, as files for other programs want it."""

from dataclasses import dataclass

from pymatgen.core import Structure


@dataclass(frozen=True)
class Symmetrised:
    """A crystal in the conventional cell of its space group, every site where symmetry has it.

    symbol, number: of the space group.
    moved: how far the sites moved at most, Å.
    cif: of the asymmetric unit, with the operations of the space group.
    """

    structure: Structure
    symbol: str
    number: int
    moved: float
    cif: str


def symmetrised(structure: Structure, symprec: float) -> Symmetrised | None:
    """Return a crystal symmetrised by spglib; None where that does not give the same crystal.

    symprec: how far sites may lie from where symmetry would have them, Å.
    """
    from pymatgen.io.cif import CifWriter
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    plain = Structure(structure.lattice, [s.species for s in structure], structure.frac_coords)
    try:
        found = SpacegroupAnalyzer(plain, symprec=symprec)
        refined = found.get_refined_structure()
        text = str(CifWriter(plain, symprec=symprec, significant_figures=8))
        read = Structure.from_str(text, fmt="cif", primitive=False)
    except (SymmetryUndeterminedError, ValueError, TypeError, IndexError, AssertionError):
        return None  # spglib, on odd cells
    moved = _largest_move(plain, refined)
    if moved is None or len(read) != len(refined) or _largest_move(plain, read) is None:
        return None
    symbol, number = str(found.get_space_group_symbol()), int(found.get_space_group_number())
    return Symmetrised(refined, symbol, number, moved, text)


def _largest_move(first: Structure, second: Structure) -> float | None:
    """Return the largest distance between sites that correspond, Å; None if none do."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    distances = StructureMatcher(scale=False, attempt_supercell=False).get_rms_dist(first, second)
    if distances is None:
        return None
    # the matcher's unit of length is the edge of a cube with one atom's share of the cell
    return float(distances[1] * (first.volume / len(first)) ** (1 / 3))
