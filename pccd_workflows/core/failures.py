"""Why jobs failed: a class, the evidence and a suggested cure, from what a job left behind."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pccd_workflows.core.errors import InputError

EVIDENCE_LENGTH = 300
MAX_ATTEMPTS = 5
"""A job that failed so often is not run again unless more is asked for."""


def custodian_error(*errors: str) -> str:
    """Return the sign that custodian met one of these errors (and could not mend it for good)."""
    return rf"custodian saw:.*\b(?:{'|'.join(errors)})\b"


@dataclass(frozen=True)
class ErrorClass:
    """A kind of failure.

    signs: regular expressions, searched in the traceback (and the evidence it carries).
    cure: what usually helps, as one sentence.
    from_contcar: whether the last geometry is worth starting from.
    incar: INCAR tags that usually help; a value in <> is to be chosen by hand.
    """

    name: str
    signs: tuple[str, ...]
    cure: str
    from_contcar: bool = False
    incar: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> str:
        """Return the options of `pccd job rerun` that usually help."""
        tags = "".join(f" --set INCAR.{tag}={value}" for tag, value in self.incar.items())
        return " --from-contcar" * self.from_contcar + tags


CLASSES: tuple[ErrorClass, ...] = (  # the first that fits wins: causes before consequences
    ErrorClass(
        "walltime",
        (
            r"WalltimeReached: ",
            r"DUE TO TIME LIMIT",
            r"walltime .*exceeded",
            r"Walltime reached",
            r"was ended by SIGTERM",
        ),
        "Rerun from the last CONTCAR, with a longer walltime if it recurs.",
        from_contcar=True,
    ),
    ErrorClass(
        "node",
        (r"NODE FAILURE", r"node fail", r"Bus error", r"ORTE has lost", r"Stale file handle"),
        "Rerun; drain the node if the same one recurs.",
        from_contcar=True,
    ),
    ErrorClass(
        "worker",
        (r"WorkerDied",),
        "Workers died in this job: look for memory, then rerun it alone.",
    ),
    ErrorClass(
        "disk",
        (r"No space left", r"Disk quota exceeded", r"severe \(38\)", r"OutOfDiskSpace"),
        "Free space or raise the quota, then rerun.",
    ),
    ErrorClass(
        "memory",
        (
            r"insufficient virtual memory",
            r"oom[-_ ]?kill",
            r"Out[ _]?Of[ _]?Memory",
            r"was ended by SIGKILL",
            r"MemoryError",
            r"Cannot allocate memory",
            r"exceed(?:ed)? memory limit",
        ),
        "Rerun with more memory per node, or fewer cores per node (larger NCORE).",
        incar={"NCORE": 4},
    ),
    ErrorClass(
        "device",
        (r"MachineFault: .*(?:CUDA|cuBLAS|cuDNN|HIP|NCCL|Accelerator)", r"CUDA error"),
        "Rerun on another GPU; drain the node if the same one recurs.",
    ),
    ErrorClass(
        "potcar",
        (r"POTCAR", r"PmgVaspPspDirError", r"PMG_VASP_PSP_DIR", r"SET_CORE_WF"),
        "Install the POTCAR that is named (or, for SET_CORE_WF, a newer one), then rerun.",
    ),
    ErrorClass(
        "missing_program",
        (r"MissingDependencyError", r"is not on PATH", r"command not found"),
        "Load VASP in the queue template's env file, then rerun.",
    ),
    ErrorClass(
        "frozen",
        (r"custodian saw:.*Frozen", r"FrozenJobErrorHandler"),
        "Rerun; if it hangs again, with ALGO = Normal.",
        incar={"ALGO": "Normal"},
    ),
    ErrorClass(
        "ionic",
        (r"Unconverged.*ionic", r"custodian saw:.*(?:zbrent|brions|Unconverged_ionic|POTIM)"),
        "Rerun from the last CONTCAR with IBRION = 1.",
        from_contcar=True,
        incar={"IBRION": 1},
    ),
    ErrorClass(
        "scf",
        (
            r"custodian saw:.*(?:Unconverged|Non-converging|edddav|eddrmm|brmix|eddiag|zheev)",
            r"(?:EDDDAV|EDDRMM|BRMIX|EDDIAG|ZHEGV|Sub-Space-Matrix|gradient is not orthogonal)",
            r"NonConverging",
            r"UnconvergedErrorHandler",
        ),
        "Rerun with ALGO = All, and with Gaussian smearing: it fails with tetrahedra.",
        incar={"ALGO": "All", "ISMEAR": 0, "SIGMA": 0.05},
    ),
    ErrorClass(
        "symmetry",
        (
            custodian_error(
                "ksymm", "inv_rot_mat", "rot_matrix", "posmap", "point_group", "pricelv?", "bravais"
            ),
            # meshes of k-points that do not suit the symmetry
            custodian_error(
                "ibzkpt", "incorrect_shift", "hnform", "mesh_symmetry", "kpoints_trans", "rhosyg"
            ),
            r"(?:SYMPREC|SGRCON|POSMAP|PRICEL|Bravais|group operation)",
        ),
        "Rerun with ISYM = 0.",
        incar={"ISYM": 0},
    ),
    ErrorClass(
        "smearing",
        (
            custodian_error(
                "tet", "tetirr", "dentet", "algo_tet", "LargeSigma", "IncorrectSmearing"
            ),
        ),
        "Rerun with Gaussian smearing, which needs no tetrahedra and little entropy.",
        incar={"ISMEAR": 0, "SIGMA": 0.05},
    ),
    ErrorClass(
        "projectors",
        (custodian_error("real_optlay", "rspher", "nicht_konv"),),
        "Rerun with projectors in reciprocal space.",
        incar={"LREAL": False},
    ),
    ErrorClass(
        "bands",
        (custodian_error("too_few_bands", "nbands_not_sufficient"),),
        "Rerun with a tenth more bands than NBANDS in OUTCAR.",
        incar={"NBANDS": "<number>"},
    ),
    ErrorClass(
        "step",
        (custodian_error("zpotrf", "fexcf", "Positive energy"),),
        "Atoms came too close: rerun with shorter steps and without symmetry; look at the crystal.",
        incar={"POTIM": 0.1, "ISYM": 0},
    ),
    ErrorClass(
        "parallel",
        (custodian_error("pssyevx", "pdsyevx", "elf_kpar", "dfpt_ncore"),),
        "Rerun with fewer ways of sharing the work: no ScaLAPACK, KPAR = NCORE = 1.",
        incar={"ALGO": "Normal", "LSCALAPACK": False, "KPAR": 1, "NCORE": 1},
    ),
    ErrorClass(
        "wavecar",
        (custodian_error("coef"),),
        "Rerun without the WAVECAR of the run before.",
        incar={"ISTART": 0, "ICHARG": 2},
    ),
    ErrorClass(
        "long_cell",
        (custodian_error("amin"),),
        "Rerun with less mixing of the charge along a long cell vector.",
        incar={"AMIN": 0.01},
    ),
    ErrorClass(
        "input",
        (custodian_error("read_error", "spin_polarized_harris", "elf_ncl", "triple_product"),),
        "VASP refuses its input: correct the tag or the crystal that the evidence names.",
    ),
    ErrorClass(
        "vasp",
        (r"custodian saw:", r"NonRecoverableError", r"MaxCorrections", r"ReturnCodeError"),
        "Custodian could not mend it: look at the run folder, set INCAR tags, rerun.",
    ),
    ErrorClass(
        "crash",
        (r"was ended by SIG(?:SEGV|ABRT|BUS|FPE|ILL)", r"SIGSEGV|segmentation fault"),
        "Rerun; if it recurs, with `ulimit -s unlimited` or other cores per node (NCORE).",
        from_contcar=True,
    ),
    ErrorClass(
        "parse",
        (
            r"ValidationError: Validation failed",
            r"VasprunXMLValidator",
            r"XMLSyntaxError|ParseError|VaspParseError",
            r"no element found",
            r"ValueError: Empty POSCAR",
            r"DensityGone",
        ),
        "VASP ended without usable output: rerun from the start.",
    ),
    ErrorClass(
        "lost_input",
        (r"ValueError: Could not resolve reference",),  # jobflow's
        "The failed job whose output it takes is to be run again; this one follows it.",
    ),
    ErrorClass(
        "database",
        (r"DatabaseError", r"pymongo\.errors", r"AutoReconnect", r"DocumentTooLarge"),
        "See `pccd db check`, then rerun.",
    ),
)
PYTHON = ErrorClass(
    "python",
    (),
    "A fault of a program: read the traceback (`job.out` in the job's folder), then rerun.",
)
BY_NAME = {known.name: known for known in (*CLASSES, PYTHON)}


@dataclass(frozen=True)
class Diagnosis:
    """What is known of one failure."""

    error_class: str
    evidence: str
    cure: str


def diagnose(traceback: str) -> Diagnosis:
    """Classify a failure by its traceback, which carries the last lines of VASP's files."""
    for known in CLASSES:
        for sign in known.signs:
            if (match := re.search(sign, traceback, re.IGNORECASE)) is not None:
                return Diagnosis(known.name, _line_at(traceback, match.start()), known.cure)
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    return Diagnosis(PYTHON.name, last[:EVIDENCE_LENGTH], PYTHON.cure)


def _line_at(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : end if end >= 0 else None].strip()
    return re.sub(r"^[\w.]+: (?=\[)", "", line)[:EVIDENCE_LENGTH]  # not the exception's name


def check_class(name: str) -> str:
    """Return the name of an error class; refuse others with the options.

    Raises
    ------
    InputError
        There is no such class.
    """
    if name not in BY_NAME:
        raise InputError(f"Unknown error class {name!r}; use one of {sorted(BY_NAME)}.")
    return name


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Return the INCAR tags of ``INCAR.ALGO=All`` and the like.

    Raises
    ------
    InputError
        One is not of that form.
    """
    tags: dict[str, Any] = {}
    for text in texts:
        match = re.fullmatch(r"INCAR\.([A-Z][A-Z0-9_]*)=([^<>]+)", text)
        if match is None:
            raise InputError(f"--set {text!r} must look like INCAR.ALGO=All.")
        tags[match[1]] = _value(match[2])
    return tags


def _value(text: str) -> Any:
    if text.lower().strip(".") in ("true", "false", "t", "f"):
        return text.lower().strip(".")[0] == "t"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
