"""Break VASP in every way the stand-in knows; say what becomes of the run.

python tests/vasp_standin/fault_table.py [--out docs/vasp-faults.md] [--only edddav disk ...]

Every fault strikes a first relaxation once, and another one every time it is tried. Custodian,
atomate2 and the diagnosis are the real ones; takes about twenty minutes, mostly of waiting.
"""

# ruff: noqa: E402

import argparse
import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from faults import FAULTS, MESSAGES, MESSAGES_OF_OTHERS, STDERR
from pymatgen.core import Structure
from vasp_fixture import inject, standin_environment

from pccd_workflows.core.failures import BY_NAME, diagnose
from pccd_workflows.engines import vasp
from pccd_workflows.settings import get_settings

LEVEL = "vasp/mp-gga"
ALWAYS = 100
CRYSTAL = Structure(
    [[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]], ["Mg", "O"], [[0, 0, 0], [0.5] * 3]
)
INCAR: dict[str, dict[str, Any]] = {"large_sigma": {"ISMEAR": 1, "SIGMA": 0.2}}
"""Tags without which a fault means nothing at the level's settings."""
SAYS = {
    "hang": "never writes anything",
    "silent": "stops writing after an ionic step",
    "segfault": "ends by SIGSEGV",
    "killed": "ends by SIGKILL (the kernel's memory killer)",
    "terminated": "ends by SIGTERM (a queue at the walltime)",
    "walltime": "is not done when the walltime is near; obeys STOPCAR",
    "truncated": "vasprun.xml ends in the middle",
    "empty_contcar": "CONTCAR is empty",
    "scf": "no ionic step converges within NELM",
    "ionic": "still moving after NSW steps",
    "positive_energy": "the energy is above zero",
    "potim": "the energy rises by 2 eV/atom a step",
    "large_sigma": "entropy of 10 meV/atom (ISMEAR = 1)",
    "metal": "a metal with the smearing of an insulator",
    "collapse": "the cell shrinks to a tenth",
}
CHECK_SECONDS = 15.0
"""For the table only: long enough for VASP to start anew before handlers look at its files."""
FROZEN_SECONDS = 40.0
"""For the table only: VASP that writes nothing for so long is frozen."""
WALLTIME_SECONDS = 12.0
"""For the table only: the walltime is so far, and near from its half on."""


@dataclass(frozen=True)
class Result:
    """What became of a run.

    corrections: what custodian saw and mended.
    outcome: converged, unconverged, diverged or failed.
    error_class, evidence: of a failure, as `pccd job failures` shows them.
    """

    fault: str
    outcome: str
    corrections: list[str] = field(default_factory=list)
    error_class: str | None = None
    evidence: str = ""

    def __str__(self) -> str:
        """Say it as in the table."""
        if self.error_class is not None:
            return f"**{self.error_class}**"
        seen = ", ".join(sorted(set(self.corrections)))
        return f"{self.outcome} (custodian: {seen})" if seen else self.outcome


def run_fault(folder: Path, fault: str, times: int) -> Result:
    """Run VASP in a new folder, where the fault strikes so often."""
    folder.mkdir(parents=True)
    inject(folder, {"folder": "", "fault": fault, "times": times})
    os.environ["VASP_STANDIN_FAULTS"] = str(folder / "faults.json")
    name = vasp.RUNS[LEVEL][0]
    with contextlib.chdir(folder):
        restart = vasp.Restart(incar=INCAR.get(fault, {}))
        try:
            run, _ = vasp.run(CRYSTAL, LEVEL, name, settings=get_settings(), restart=restart)
        except Exception:
            found = diagnose(traceback.format_exc())
            return Result(fault, "failed", [], found.error_class, found.evidence)
    if vasp.diverged(CRYSTAL, run) is not None:
        return Result(fault, "diverged", run.corrections)
    return Result(fault, "converged" if run.converged else "unconverged", run.corrections)


def run_faults(folder: Path, faults: Sequence[str]) -> dict[str, tuple[Result, Result]]:
    """Return what became of the runs that each fault struck once, and always."""
    results = {}
    for fault in faults:
        with near_walltime(fault == "walltime"):
            once, always = (run_fault(folder / f"{fault}-{n}", fault, n) for n in (1, ALWAYS))
        results[fault] = (once, always)
    return results


@contextlib.contextmanager
def near_walltime(near: bool) -> Iterator[None]:
    """Let the walltime of this process come near soon, if `near`."""
    if not near:
        yield
        return
    alive = time.time() - psutil.Process().create_time()
    limits = {"": alive + WALLTIME_SECONDS, "_BUFFER": WALLTIME_SECONDS / 2}
    os.environ |= {f"PCCD_VASP_WALLTIME{name}": str(value) for name, value in limits.items()}
    get_settings.cache_clear()
    try:
        yield
    finally:
        for name in limits:
            del os.environ[f"PCCD_VASP_WALLTIME{name}"]
        get_settings.cache_clear()


def description(fault: str) -> str:
    """Return what VASP prints or does."""
    printed = MESSAGES | MESSAGES_OF_OTHERS | STDERR
    if fault in printed:
        return f"`{printed[fault].splitlines()[0].strip()}`".replace("|", "\\|")
    return SAYS[fault]


def cure(error_class: str | None) -> str:
    """Return the command that `pccd job failures` suggests."""
    if error_class is None:
        return ""
    return f"`rerun --error-class {error_class}{BY_NAME[error_class].options}`"


def row(once: Result, always: Result) -> str:
    """Return a row of the table."""
    worst = always.error_class or once.error_class
    cells = (f"`{once.fault}`", description(once.fault), str(once), str(always), cure(worst))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file whose table is replaced")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=FAULTS)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        os.environ |= standin_environment(
            Path(name), vasp_frozen_seconds=FROZEN_SECONDS, custodian_check=CHECK_SECONDS
        )
        get_settings.cache_clear()
        for fault in arguments.only:
            once, always = run_faults(Path(name), [fault])[fault]
            rows.append(row(once, always))
            for found in (once, always):
                sys.stderr.write(f"{found.fault} | {found} | {found.evidence}\n")
    table = "\n".join(rows)
    if arguments.out is None:
        sys.stdout.write(f"{table}\n")
        return
    head, rule, _ = arguments.out.read_text().partition("|---|---|---|---|---|\n")
    arguments.out.write_text(f"{head}{rule}{table}\n")


if __name__ == "__main__":
    main()
