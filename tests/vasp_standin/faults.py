"""Ways in which VASP fails: what it prints, and how it ends."""

import json
import os
import re
from pathlib import Path

MESSAGES = {
    "tet": "Tetrahedron method fails (number of k-points < 4)",
    "ksymm": "Fatal error: unable to match k-point",
    "inv_rot_mat": "rotation matrix was not found (increase SYMPREC)",
    "brmix": "BRMIX: very serious problems",
    "subspacematrix": "WARNING: Sub-Space-Matrix is not hermitian in DAV",
    "tetirr": "Routine TETIRR needs special values",
    "incorrect_shift": "Could not get correct shifts",
    "real_optlay": "REAL_OPTLAY: internal error",
    "rspher": "ERROR RSPHER",
    "dentet": "DENTET",
    "too_few_bands": "TOO FEW BANDS",
    "triple_product": "ERROR: the triple product of the basis vectors",
    "rot_matrix": "Found some non-integer element in rotation matrix",
    "brions": "BRIONS problems: POTIM should be increased",
    "pricel": "internal error in subroutine PRICEL",
    "zpotrf": "LAPACK: Routine ZPOTRF failed",
    "amin": "One of the lattice vectors is very long (>50 A), but AMIN",
    "zbrent": "ZBRENT: fatal error in bracketing",
    "pssyevx": "ERROR in subspace rotation PSSYEVX",
    "pdsyevx": "ERROR in subspace rotation PDSYEVX",
    "eddrmm": "WARNING in EDDRMM: call to ZHEGV failed",
    "edddav": "Error EDDDAV: Call to ZHEGV failed",
    "algo_tet": "ALGO=A and IALGO=5X tend to fail",
    "grad_not_orth": "EDWAV: internal error, the gradient is not orthogonal",
    "nicht_konv": "ERROR: SBESSELITER : nicht konvergent",
    "zheev": "ERROR EDDIAG: Call to routine ZHEEV failed!",
    "eddiag": "ERROR in EDDIAG: call to ZHEEV/ZHEEVX/DSYEV/DSYEVX failed",
    "elf_kpar": "ELF: KPAR>1 not implemented",
    "elf_ncl": "WARNING: ELF not implemented for non collinear case",
    "rhosyg": "RHOSYG",
    "posmap": "POSMAP",
    "point_group": "group operation missing",
    "pricelv": "PRICELV: current lattice and primitive lattice are incommensurate",
    "symprec_noise": "determination of the symmetry of your systems shows a strong",
    "dfpt_ncore": "PEAD routines do not work for NCORE",
    "bravais": "Inconsistent Bravais lattice",
    "nbands_not_sufficient": "number of bands is not sufficient",
    "hnform": "HNFORM: k-point generating",
    "coef": "while reading WAVECAR",
    "set_core_wf": "internal error in SET_CORE_WF",
    "read_error": "Error reading item",
    "auto_nbands": "The number of bands has been changed",
    "ibzkpt": "not all point group operations",
    "fexcf": "supplied exchange-correlation table",
    "spin_polarized_harris": "Spin polarized Harris functional dynamics is a good joke",
}
"""What VASP prints, by VaspErrorHandler's name of the error; the run stops there."""

MESSAGES_OF_OTHERS = {
    "mesh_symmetry": "Reciprocal lattice and k-lattice belong to different class of lattices.",
}
"""The same, of custodian's other handlers."""

STDERR = {
    "memory": "forrtl: severe (41): insufficient virtual memory",
    "disk": "forrtl: No space left on device\nforrtl: severe (38): error during write, unit 20",
    "node": "slurmstepd: error: *** STEP CANCELLED DUE TO NODE FAILURE ***",
    "time_limit": "slurmstepd: error: *** STEP CANCELLED DUE TO TIME LIMIT ***",
    "kpoints_trans": (
        "internal error in GENERATE_KPOINTS_TRANS: number of G-vector changed in star"
    ),
    "out_of_memory": "Allocation would exceed memory limit",
}
"""What the run-time library or the queue prints on stderr, by fault; the run stops there."""

ENDINGS = (
    "hang",  # never writes anything
    "silent",  # stops making progress after some output
    "segfault",
    "killed",  # SIGKILL, as the kernel's memory killer does it
    "terminated",  # SIGTERM, as a queue does it at the walltime
    "walltime",  # slow: waits for STOPCAR or SIGTERM
    "truncated",  # vasprun.xml ends in the middle
    "empty_contcar",
    "scf",  # no ionic step reaches self-consistency
    "ionic",  # still moving after NSW steps
    "positive_energy",  # the energy is above zero
    "potim",  # the energy rises by 2 eV/atom from step to step
    "large_sigma",  # the entropy term is 10 meV/atom
    "metal",  # no gap, which the smearing or k-points chosen for an insulator do not suit
    "collapse",  # the cell shrinks to a tenth
)
FAULTS = (*MESSAGES, *MESSAGES_OF_OTHERS, *STDERR, *ENDINGS)


def next_fault(folder: Path) -> str | None:
    """Return the fault of the first rule that fits this run and has not struck often enough."""
    control = os.environ.get("VASP_STANDIN_FAULTS")
    if not control or not Path(control).exists():
        return None
    for number, rule in enumerate(json.loads(Path(control).read_text())):
        if re.search(rule["folder"], str(folder)) and _strike(
            Path(control), number, rule.get("times", 1)
        ):
            return str(rule["fault"])
    return None


def _strike(control: Path, number: int, times: int) -> bool:
    """Take one of a rule's strikes; False if all are taken. Safe among processes."""
    folder = control.with_suffix(".struck")
    folder.mkdir(exist_ok=True)
    for strike in range(times):
        try:
            (folder / f"{number}.{strike}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False
