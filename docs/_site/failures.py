"""What `pccd job failures` says of each class of failure, by the code that says it.

`job-failed.md` has a section for each class with the line ``<!-- failure: NAME -->``, which becomes
what the class means, the output and the command.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from pccd_workflows.cli.job import failure_table
from pccd_workflows.core.failure_notes import NOTES
from pccd_workflows.core.failures import BY_NAME, diagnose
from pccd_workflows.execution.reruns import Failure

MARKER = re.compile(r"^<!-- failure: (\w+) -->$", re.MULTILINE)
WIDTH = 80

LEFT_BEHIND = {
    "walltime": "WalltimeReached: VASP was told to stop 300 s before the end of the walltime.",
    "node": "VaspFailed: [std_err.txt] slurmstepd: error: *** DUE TO NODE FAILURE ***",
    "worker": "WorkerDied: 5 workers died in this job.",
    "disk": "VaspFailed: [std_err.txt] forrtl: No space left on device",
    "memory": "VaspFailed: [std_err.txt] forrtl: severe (41): insufficient virtual memory",
    "device": "MachineFault: CUDA error: an illegal memory access was encountered",
    "potcar": "InputError: POTCAR of Mg_pv is not in PMG_VASP_PSP_DIR.",
    "missing_program": "MissingDependencyError: vasp_std is not on PATH.",
    "frozen": "VaspFailed: [custodian.json] custodian saw: Frozen job",
    "ionic": "VaspFailed: [custodian.json] custodian saw: zbrent, zbrent, zbrent, zbrent, zbrent",
    "scf": "VaspFailed: [custodian.json] custodian saw: edddav, edddav, edddav, edddav, edddav",
    "symmetry": "VaspFailed: [custodian.json] custodian saw: inv_rot_mat, inv_rot_mat",
    "smearing": "VaspFailed: [custodian.json] custodian saw: tet, tet, tet, tet, tet",
    "projectors": "VaspFailed: [custodian.json] custodian saw: real_optlay, real_optlay",
    "bands": "VaspFailed: [custodian.json] custodian saw: too_few_bands, too_few_bands",
    "step": "VaspFailed: [custodian.json] custodian saw: zpotrf, zpotrf",
    "parallel": "VaspFailed: [custodian.json] custodian saw: pssyevx, pssyevx",
    "wavecar": "VaspFailed: [custodian.json] custodian saw: coef, coef",
    "long_cell": "VaspFailed: [custodian.json] custodian saw: amin, amin",
    "input": "VaspFailed: [custodian.json] custodian saw: read_error",
    "vasp": "custodian.custodian.MaxCorrectionsPerJobError: MaxCorrections reached",
    "crash": "VaspFailed: [std_err.txt] The program was ended by SIGSEGV",
    "parse": "ValidationError: Validation failed: VasprunXMLValidator",
    "lost_input": "ValueError: Could not resolve reference - 0d6c is not in the job store",
    "database": "pymongo.errors.AutoReconnect: connection closed",
    "python": "ValueError: no such crystal",
}
"""A traceback's last line, as a job of each class leaves it."""


@dataclass(frozen=True)
class Example:
    """What a user sees of a failure, and what cures it."""

    output: str
    command: str


def example(name: str) -> Example:
    """Return what the program says of a failure of a class.

    Raises ValueError if there is no example of the class, or the program gives it another one.
    """
    traceback = LEFT_BEHIND.get(name, "")
    found = diagnose(traceback)
    if found.error_class != name:
        raise ValueError(f"The example of {name!r} is diagnosed as {found.error_class!r}.")
    failure = Failure(
        fw_id=17,
        name="relax 1 vasp/mp-gga",
        campaign_id="mine-0123456789",
        candidates=["mine-0123456789-000004"],
        error_class=name,
        evidence=found.evidence,
        cure=found.cure,
        attempts=1,
        folder=None,
        worker=None,
    )
    console = Console(width=WIDTH, record=True, file=_Nowhere())
    console.print(failure_table([failure]))
    return Example(
        _trimmed(console.export_text()),
        f"pccd job rerun --error-class {name}{BY_NAME[name].options}",
    )


def filled(text: str) -> str:
    """Return the page with meaning, output and command in place of each marker."""

    def replaced(match: re.Match[str]) -> str:
        made = example(match[1])
        return f"{NOTES[match[1]]}\n\n```text\n{made.output}\n```\n\n```sh\n{made.command}\n```"

    return MARKER.sub(replaced, text)


def named(text: str) -> Iterator[str]:
    """Yield the classes that a page has a section of."""
    yield from MARKER.findall(text)


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
