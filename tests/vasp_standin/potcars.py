"""Synthetic POTCARs that pymatgen reads; the numbers mean nothing."""

from pathlib import Path

ATOMIC_NUMBERS = {
    "H": 1, "Li": 3, "C": 6, "N": 7, "O": 8, "F": 9, "Na": 11, "Mg": 12, "Al": 13, "Si": 14,
    "S": 16, "Cl": 17, "K": 19, "Ca": 20, "Ti": 22, "Cr": 24, "Mn": 25, "Fe": 26, "Co": 27,
    "Ni": 28, "Cu": 29, "Zn": 30, "Zr": 40,
}  # fmt: skip
TEMPLATE = """\
  PAW_PBE {symbol} 01Jan2000
   {zval:.8f}
 parameters from PSCTR are:
   VRHFIN ={element}: synthetic
   LEXCH  = PE
   EATOM  =   100.0000 eV,    7.0000 Ry

   TITEL  = PAW_PBE {symbol} 01Jan2000
   LULTRA =        F    use ultrasoft PP ?
   IUNSCR =        1    unscreen: 0-lin 1-nonlin 2-no
   RPACOR =    1.000    partial core radius
   POMASS = {mass:8.3f}; ZVAL   = {zval:8.3f}    mass and valenz
   RCORE  =    1.500    outmost cutoff radius
   RWIGS  =    1.500; RWIGS  =    0.794    wigner-seitz radius (au A)
   ENMAX  =  300.000; ENMIN  =  200.000 eV
   ICORE  =        2    local potential
   LCOR   =        T    correct aug charges
   LPAW   =        T    paw PP
   EAUG   =  500.000
   DEXC   =    0.000
   RMAX   =    1.532    core radius for proj-oper
   RAUG   =    1.300    factor for augmentation sphere
   RDEP   =    1.550    radius for radial grids
   RDEPT  =    1.300    core radius for aug-charge

   Atomic configuration
    2 entries
     n  l   j            E        occ.
     1  0  0.50       -13.6000   1.0000
     2  1  0.50        -3.4000   1.0000
   Description
     l       E           TYP  RCUT    TYP  RCUT
     0     -10.0000      23  1.200
     1      -5.0000      23  1.200
  Error from kinetic energy argument (eV)
   NDATA  =      100
END of PSCTR-controll parameters
 local part
 0.0
 End of Dataset
"""


def write_potcars(root: Path, symbols: list[str], functional: str = "POT_GGA_PAW_PBE") -> Path:
    """Write POTCARs for POTCAR symbols such as Mn_pv below `root`; return `root`."""
    for symbol in symbols:
        element = symbol.partition("_")[0]
        number = ATOMIC_NUMBERS[element]
        folder = root / functional / symbol
        folder.mkdir(parents=True, exist_ok=True)
        zval = float(min(number, 2 + number % 10))
        text = TEMPLATE.format(symbol=symbol, element=element, zval=zval, mass=2.0 * number)
        (folder / "POTCAR").write_text(text)
    return root
