"""The stand-in's main program: one VASP run in the current folder."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from faults import MESSAGES, MESSAGES_OF_OTHERS, STDERR, next_fault
from pair_potential import Result, evaluate
from vasp_files import Inputs, Step, Writer, read_inputs

LARGEST_STEP = 0.15
"""Å; of one atom (or cell vector) in one ionic step."""
PATIENCE_SECONDS = 120.0
"""How long a hanging run stays."""
PRINTED = MESSAGES | MESSAGES_OF_OTHERS
SIGNALS = {
    "segfault": signal.SIGSEGV,
    "killed": signal.SIGKILL,
    "terminated": signal.SIGTERM,
}
Energy = Callable[[np.ndarray, np.ndarray], Result]


def main() -> None:
    """Run in the current folder; exit as VASP would."""
    folder = Path.cwd()
    fault = next_fault(folder)
    if fault in STDERR:
        (folder / "OUTCAR").write_text(" vasp.6.4.2\n")
        sys.exit(f"{STDERR[fault]}")
    if fault == "hang":
        time.sleep(PATIENCE_SECONDS)
    inputs = read_inputs(folder)
    writer = Writer(folder, inputs, fault)
    say(" running on    1 total cores\n distrk:  each k-point on    1 cores\n vasp.6.4.2 stand-in")
    run(inputs, writer, fault)
    finish(folder, writer, fault)


def say(text: str) -> None:
    """Write to stdout at once: custodian reads it while the run goes on."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(inputs: Inputs, writer: Writer, fault: str | None) -> None:
    """Do the ionic steps; end the process in the middle where the fault says so."""
    n_steps = max(int(inputs.incar.get("NSW", 0)), 1)
    tolerance = float(inputs.incar.get("EDIFFG", 10 * float(inputs.incar.get("EDIFF", 1e-4))))
    n_scf = int(inputs.incar.get("NELM", 60)) if fault == "scf" else 5
    pause = float(os.environ.get("VASP_STANDIN_SECONDS", "0"))
    previous = None
    stopped = False
    for number, (lattice, frac, result) in enumerate(descend(inputs, engine(inputs)), start=1):
        cell = lattice * 0.1 ** (1 / 3) if fault == "collapse" else lattice
        scf = [result.energy + 2.0 * 0.1**i for i in range(n_scf)]
        if fault == "scf":
            scf = [result.energy + (-1) ** i for i in range(n_scf)]
        energy = result.energy + shift(fault, number, len(frac))
        writer.add(Step(cell, frac, energy, result.forces, result.stress, scf))
        say(f"   {number} F= {energy:.8E} E0= {energy:.8E}")
        strike(fault, writer)
        time.sleep(pause)
        if fault == "walltime" or (writer.folder / "STOPCAR").exists():
            stopped = wait_for_stop(writer.folder)
            break
        if number >= n_steps:
            break
        done = fault != "ionic" and converged(inputs, result, previous, tolerance)
        if done:
            break
        previous = result.energy
    writer.finish(stopped=stopped)


def shift(fault: str | None, number: int, n_atoms: int) -> float:
    """Return what a fault adds to the energy of an ionic step, eV."""
    if fault == "positive_energy":
        return 1000.0 * n_atoms
    return 2.0 * number * n_atoms if fault == "potim" else 0.0


def converged(inputs: Inputs, result: Result, previous: float | None, tolerance: float) -> bool:
    """Return whether forces (EDIFFG < 0) or the change of energy are small enough."""
    if tolerance >= 0:
        return previous is not None and abs(result.energy - previous) < tolerance
    largest = float(np.abs(result.forces).max())
    if int(inputs.incar.get("ISIF", 2)) >= 3:
        volume = abs(np.linalg.det(inputs.lattice)) / len(inputs.symbols)
        largest = max(largest, float(np.abs(result.stress).max()) * volume)
    return largest < -tolerance


def strike(fault: str | None, writer: Writer) -> None:
    """End or stall the process if this is the moment for it."""
    if fault in PRINTED:
        say(f" {PRINTED[fault]}")
        sys.exit(1)
    if fault in SIGNALS:
        os.kill(os.getpid(), SIGNALS[fault])
    if fault == "silent":
        time.sleep(PATIENCE_SECONDS)


def wait_for_stop(folder: Path) -> bool:
    """Wait for STOPCAR, as a slow ionic step would; return True when it is there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "STOPCAR").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return True


def finish(folder: Path, writer: Writer, fault: str | None) -> None:
    """Damage finished files where the fault says so."""
    if fault == "truncated":
        path = folder / "vasprun.xml"
        text = path.read_text()
        path.write_text(text[: len(text) // 2])
    if fault == "empty_contcar":
        (folder / "CONTCAR").write_text("")


def engine(inputs: Inputs) -> Energy:
    """Return the function of lattice and positions that gives energy, forces and stress."""
    if os.environ.get("VASP_STANDIN_ENERGY", "pair") != "chgnet":
        return lambda lattice, frac: evaluate(lattice, frac, inputs.symbols)
    from chgnet.model import CHGNet
    from pymatgen.core import Structure

    model = CHGNet.load(use_device="cpu", verbose=False)

    def chgnet(lattice: np.ndarray, frac: np.ndarray) -> Result:
        structure = Structure(lattice, inputs.symbols, frac)
        found = model.predict_structure(structure)
        stress = -np.asarray(found["s"]) / 160.21766208
        return Result(float(found["e"]) * len(structure), np.asarray(found["f"]), stress)

    return chgnet


def descend(inputs: Inputs, energy: Energy) -> Iterator[tuple[np.ndarray, np.ndarray, Result]]:
    """Yield ionic steps downhill: BFGS over positions and, with ISIF 3, the deformation."""
    n = len(inputs.symbols)
    moving_cell = int(inputs.incar.get("ISIF", 2)) >= 3
    factor = float(n)
    x = np.zeros((n + 3, 3))
    x[:n] = inputs.frac @ inputs.lattice
    x[n:] = factor * np.eye(3)
    inverse = np.eye(3 * (n + 3)) / 20.0
    last_x = last_g = None
    while True:
        deformation = x[n:] / factor
        lattice = inputs.lattice @ deformation
        frac = x[:n] @ np.linalg.inv(inputs.lattice)
        result = energy(lattice, frac)
        yield lattice, frac, result
        volume = abs(np.linalg.det(lattice))
        gradient = np.zeros_like(x)
        gradient[:n] = -result.forces @ deformation.T
        if moving_cell:
            gradient[n:] = -np.linalg.solve(deformation.T, volume * result.stress) / factor
        g = gradient.ravel()
        if last_x is not None and last_g is not None:
            inverse = _update(inverse, x.ravel() - last_x, g - last_g)
        last_x, last_g = x.ravel().copy(), g
        step = -inverse @ g
        if step @ g > 0:
            inverse = np.eye(len(g)) / 20.0
            step = -inverse @ g
        step = step.reshape(x.shape)
        longest = float(np.linalg.norm(step, axis=1).max())
        x = x + step * min(1.0, LARGEST_STEP / max(longest, 1e-12))


def _update(inverse: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    sy = s @ y
    if sy <= 1e-12:
        return inverse
    eye = np.eye(len(s))
    left = eye - np.outer(s, y) / sy
    return left @ inverse @ left.T + np.outer(s, s) / sy


if __name__ == "__main__":
    main()
