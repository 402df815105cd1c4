"""Prints the environment in which VASP is the stand-in, for a shell:

    eval "$(python tests/vasp_standin/environment.py FOLDER)"

FOLDER gets synthetic POTCARs; its faults.json says which runs fail (README.md).
"""

import shlex
import sys
from pathlib import Path

from potcars import write_potcars

HERE = Path(__file__).resolve().parent
POTCARS = ["Mg_pv", "Mn_pv", "O", "Na_pv", "Cl", "Ni_pv"]
QUICK = {"custodian_polling": 0.2, "custodian_check": 1.0}
"""Seconds; the stand-in needs less time than VASP."""


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return variables by name; settings: of pccd, in place of those here."""
    programs = {"vasp_command": HERE / "vasp_std", "vasp_gamma_command": HERE / "vasp_gam"}
    for functional in ("POT_GGA_PAW_PBE", "POT_GGA_PAW_PBE_54"):
        write_potcars(folder / "potcars", POTCARS, functional)
    return {
        "PMG_VASP_PSP_DIR": str(folder / "potcars"),
        "VASP_STANDIN_PYTHON": sys.executable,
        "VASP_STANDIN_FAULTS": str(folder / "faults.json"),
        "OMP_NUM_THREADS": "1",
        **{
            f"PCCD_{name.upper()}": str(value)
            for name, value in (programs | QUICK | settings).items()
        },
    }


if __name__ == "__main__":
    for name, value in environment(Path(sys.argv[1]).resolve()).items():
        print(f"export {name}={shlex.quote(value)}")  # noqa: T201
