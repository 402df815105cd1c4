"""What symmetry by construction saves: steps to relax a crystal, displacements of a phonon run.

    OMP_NUM_THREADS=1 python benchmarks/symmetry.py --json [--samples 40] [--level chgnet]

The same requests (elements as in a batch of the seed paper) three times: with the sampler's
defaults, from noise alone with the symmetry kept, and from noise alone without. Every crystal that
passes the screening is relaxed as a campaign relaxes it; steps count where all three converge. The
displacements are those that determine the force constants of the relaxed crystal: none is computed.
"""

import argparse
import json
from typing import Any

import numpy as np
from command import run

from pccd_workflows.analysis.kpaths import symmetric_cell
from pccd_workflows.analysis.screening import Screen
from pccd_workflows.analysis.validity import screen
from pccd_workflows.core.errors import PccdError
from pccd_workflows.core.intervals import bootstrapped
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.engines.supercells import displacements
from pccd_workflows.evaluation.batches import batch_requests
from pccd_workflows.evaluation.samples import RawSample, draw_samples
from pccd_workflows.evaluation.stored_potential import StoredPotential, stored_potential
from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.settings import get_settings
from pccd_workflows.stages.phonons import PhononsSection

SAMPLERS = {
    "default": Sampler(),
    "from_noise": Sampler(start=1),
    "from_noise_without_symmetry": Sampler(start=1, symmetric=False),
}


def main() -> None:
    """Measure, print as JSON or as lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pccd-default", help="a folder of model/, or a path")
    parser.add_argument("--batch", default="seed-batch-3", help="a campaign file of flows/")
    parser.add_argument("--samples", type=int, default=40, help="requests")
    parser.add_argument("--level", default="chgnet", help="a potential")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    settings = get_settings()
    model = load_model(find_model(asked.model, settings), "cpu")
    potential = stored_potential(asked.level, settings)
    requests, seed = batch_requests(asked.batch, asked.samples)
    steps = np.full((len(SAMPLERS), asked.samples), np.nan)
    moved = np.full_like(steps, np.nan)
    for row, sampler in enumerate(SAMPLERS.values()):
        for column, one in enumerate(draw_samples(model, requests, seed=seed, sampler=sampler)):
            relaxation = relaxed(one, potential)
            if relaxation is not None and relaxation.verdict == "converged":
                steps[row, column] = relaxation.n_steps or 0
                moved[row, column] = n_displacements(relaxation)
    together = np.isfinite(steps).all(0) & np.isfinite(moved).all(0)
    result = {
        "batch": asked.batch,
        "samples": asked.samples,
        "level": asked.level,
        "converged": dict(zip(SAMPLERS, np.isfinite(steps).sum(1).tolist(), strict=True)),
        "compared": int(together.sum()),
        "steps": summary(steps[:, together]),
        "displacements": summary(moved[:, together]),
    }
    print(json.dumps(result, indent=1) if asked.json else lines(result))


def relaxed(sample: RawSample, potential: StoredPotential) -> Relaxation | None:
    """Return a sample at rest; None of what does not pass the screening."""
    if sample.structure is None:
        return None
    passed = screen(sample.structure, elements=sample.elements, settings=Screen()).passed
    return potential.relax(sample.structure) if passed else None


def n_displacements(relaxation: Relaxation) -> float:
    """Return how many displacements a phonon run takes; NaN if its supercell is too large."""
    if relaxation.structure is None:
        return float("nan")
    try:
        cell = symmetric_cell(relaxation.structure)
        return float(len(displacements(cell, PhononsSection())))
    except PccdError:
        return float("nan")


def summary(values: "np.ndarray[Any, np.dtype[np.float64]]") -> dict[str, Any]:
    """Return mean and median of each sampler."""
    return {
        name: {"mean": bootstrapped(row), "median": bootstrapped(row, np.median)}
        for name, row in zip(SAMPLERS, values, strict=True)
    }


def lines(result: dict[str, Any]) -> str:
    """Return what is printed."""
    written = [f"{result['compared']} of {result['samples']} crystals of {result['batch']}"]
    for what in ("steps", "displacements"):
        for name, found in result[what].items():
            median, mean = found["median"]["value"], found["mean"]["value"]
            written.append(f"{what:14} {name:28} median {median:5.1f}  mean {mean:6.1f}")
    return "\n".join(written)


if __name__ == "__main__":
    run(main)
