"""Units, derived from CODATA values in scipy: everything stored is eV, eV/atom, Å, THz, GPa, K."""

from scipy import constants

EV_PER_A3_TO_GPA = constants.elementary_charge / constants.angstrom**3 / constants.giga
"""1 eV/Å^3 in GPa (about 160.2)."""
KBAR_TO_GPA = 0.1
"""1 kbar (VASP's stress unit) in GPa."""
EV_TO_MEV = 1000.0
BOHR_TO_ANGSTROM = constants.value("Bohr radius") / constants.angstrom
"""Bohr radius in Å (about 0.529)."""
