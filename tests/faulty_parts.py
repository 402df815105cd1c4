"""Parts of a small campaign that fail on demand: marker files in FAULTS say how.

`lose-<k>`: sample k raises. `kill-<k>`: sample k kills its process; `kill-once`: any sample does,
once. `undecodable`: no sample is a crystal. `poison`: the device breaks, for the whole process,
where it meets an alloy; `poison-once`: in one process. `no-metals`: elements cannot be computed.
`no-maker-<formula>`: the first of the two jobs of the relaxing Maker raises. `skip-<k>`: sample k
is left out. `kill-before-row`: the process is killed before it writes a row of a relaxation, once.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT
from jobflow import Flow, Maker, job
from pymatgen.core import Lattice, Structure

from pccd_workflows.engines.optimize import relax_atoms, to_atoms
from pccd_workflows.generators import Generated, Generation, GeneratorInfo, SourceOptions
from pccd_workflows.jobs import compute

FOLDER = "PCCD_TEST_FAULTS"
NAME = __name__


def asked(fault: str) -> bool:
    return (Path(os.environ[FOLDER]) / fault).exists()


class AlloyOptions(SourceOptions):
    elements: list[str] = ["Au", "Cu"]  # noqa: RUF012  # pydantic copies it


class Alloys:
    """Crystal k is Au Cu(2k+1): gold in a stack of copper layers."""

    options_type = AlloyOptions

    def __init__(self, options: AlloyOptions) -> None:
        self.options = options

    def info(self) -> GeneratorInfo:
        return GeneratorInfo(name="alloys", version="1")

    def check(self) -> None:
        pass

    def generate(self, indices: Any) -> Any:
        for index in indices:
            if asked(f"kill-{index}"):
                os.kill(os.getpid(), 9)
            if asked("kill-once"):
                (Path(os.environ[FOLDER]) / "kill-once").unlink()
                os.kill(os.getpid(), 9)
            if asked(f"lose-{index}"):
                raise RuntimeError("no crystal today")
            if asked(f"skip-{index}"):
                continue
            yield Generated(index, *self.made(index))

    def made(self, index: int) -> tuple[Structure | None, Generation]:
        how = {
            "source": self.options.source,
            "model": "alloys",
            "weights_sha256": "1",
            "index": index,
            "elements": self.options.elements,
        }
        if asked("undecodable"):
            return None, Generation(**how, error_class="no_sites", reason="No sites.")
        n = 2 * (index + 1)
        sites = [[0.5 * (k % 2), 0.5 * (k % 2), k / n] for k in range(n)]
        cell = Lattice.tetragonal(2.9, 1.7 * n)
        return Structure(cell, ["Au"] + ["Cu"] * (n - 1), sites), Generation(**how)


class Device:
    """What all calculators of this process share."""

    broken = False


class FaultyEMT(EMT):  # type: ignore[misc]
    """EMT on a device that may break: then everything fails until the process ends."""

    convention = "as_computed"

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        atoms = kwargs.get("atoms") or (args[0] if args else self.atoms)
        alloy = len(set(atoms.numbers)) > 1
        if asked("no-metals") and not alloy:
            raise RuntimeError("no metals today")
        if alloy and asked("poison-once"):
            (Path(os.environ[FOLDER]) / "poison-once").unlink()
            Device.broken = True
        if Device.broken or (asked("poison") and alloy):
            Device.broken = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        super().calculate(*args, **kwargs)


def emt() -> FaultyEMT:
    if asked("kill-before-row"):
        compute._Step.tell = _killed  # type: ignore[method-assign]
    return FaultyEMT()


def _killed(_step: Any, _record: Any) -> None:
    (Path(os.environ[FOLDER]) / "kill-before-row").unlink()
    os.kill(os.getpid(), 9)


emt.convention = "as_computed"  # type: ignore[attr-defined]


@job
def step(structure: Structure, asked_first: bool) -> dict[str, Any]:
    """Relax a little."""
    if asked_first and asked(f"no-maker-{structure.composition.reduced_formula}"):
        raise RuntimeError("no relaxation today")
    atoms = to_atoms(structure)
    atoms.calc = FaultyEMT()
    found = relax_atoms(structure, atoms, fmax=0.05, steps=3)
    return {
        "structure": found["structure"],
        "output": {"energy": found["energy"]},
        "is_force_converged": True,
    }


@dataclass
class TwoStepMaker(Maker):
    """A flow of two jobs, as of atomate2's double relaxations."""

    name: str = "two steps"

    def make(self, structure: Structure) -> Flow:
        first = step(structure, asked_first=True)
        second = step(first.output["structure"], asked_first=False)
        return Flow([first, second], output=second.output, name=self.name)


def write_metals(folder: Path) -> Path:
    """Write the competing phases as CIFs; return the folder."""
    folder.mkdir(parents=True)
    for symbol, a in (("Cu", 3.6), ("Au", 4.1)):
        metal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [symbol], [[0, 0, 0]])
        metal.to(filename=str(folder / f"{symbol}.cif"))
    return folder


def campaign(known: Path, **changed: Any) -> dict[str, Any]:
    """Return a campaign of six samples in three jobs."""
    return {
        "name": "faulty",
        "generate": {"source": f"{NAME}:Alloys", "samples": 6, "shard": 2},
        "references": {"source": "file", "path": str(known)},
        "screen": {"charge_neutral": "ignore"},
        "rungs": [
            {"level": f"{NAME}:emt", "steps": 5, "batch": 8, "keep": {"energy_above_hull": 9.0}}
        ],
    } | changed
