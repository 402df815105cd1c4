"""Structure prediction on the test set of MP-20, with substitution beside it.

    OMP_NUM_THREADS=1 python benchmarks/mp20.py --data mp20_test.jsonl.gz [--samples 400] [--json]

The literature's test (CDVAE, DiffCSP): composition and number of atoms given, one guess,
StructureMatcher at stol 0.5, ltol 0.3, angle_tol 10, RMSE over the matches. DATA holds the test
set, one crystal a line (lattice, species, frac_coords).

METRe and cRMSE (arXiv:2509.12178), with polymorphs among the crystals that are drawn from DATA.

The model was trained on most of these crystals, so what is measured is what is left without them.
No training crystal votes, is copied or is read that has the reduced formula of any crystal of DATA:
these are all that could match one (a match has the same formula), and their polymorphs. The
networks, which cannot forget, are not asked: structure types come from the votes alone, coordinates
from the other crystals of the type. What is left of DATA is how alike elements are to each other.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from itertools import permutations
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from numpy.typing import NDArray

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import (
    LITERATURE_MATCHER,
    composition_requests,
    match_all,
)
from pccd_workflows.evaluation.prediction import Prediction, overlap
from pccd_workflows.evaluation.substitution import predict_by_substitution
from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.cells import likeliest_cells
from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
from pccd_workflows.generators.pccd.dataset import CrystalArrays, DatasetLimits, build_dataset
from pccd_workflows.generators.pccd.frames import Template
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.pointcloud.elements import symbol
from pccd_workflows.generators.pccd.records import read_records
from pccd_workflows.generators.pccd.sample import sample_crystals
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.templates import Coordinates
from pccd_workflows.settings import get_settings

LIKELIEST = Sampler(temperature=0)
Formula = frozenset[tuple[str, int]]
"""Elements with their numbers of atoms in lowest terms."""


def main() -> None:
    """Measure, print as JSON or as lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pccd-default", help="a folder of model/, or a path")
    parser.add_argument("--data", type=Path, required=True, help="the test set of MP-20")
    parser.add_argument("--samples", type=int, default=400, help="crystals of it")
    parser.add_argument("--guesses", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    model = load_model(find_model(asked.model, get_settings()), "cpu")
    records = [
        {**record, "split": "test"}
        for record in read_records(asked.data)
        if len(record["species"]) <= model.info.max_sites
    ]
    left, removed = without(model, {formula(Counter(record["species"])) for record in records})
    rows = np.random.default_rng(asked.seed).permutation(len(records))[: asked.samples]
    limits = DatasetLimits(max_sites=model.info.max_sites, max_elements=model.info.max_elements)
    crystals, _ = build_dataset([records[i] for i in rows.tolist()], limits, with_types=False)
    result = {
        "model": model.info.name,
        "weights_sha256": model.info.weights_sha256,
        "test_crystals": len(records),
        "training_crystals_left_out": removed,
        **measure(left, crystals, asked.guesses),
    }
    print(json.dumps(result, indent=2) if asked.json else "\n".join(lines(result)))


@dataclass(frozen=True)
class Some:
    """Some of the crystals that others hold, by their new row."""

    all: Coordinates
    rows: NDArray[np.int64]

    def template(self, row: int) -> Template:
        """Return a crystal."""
        return self.all.template(int(self.rows[row]))


def without(model: Model, tested: Collection[Formula]) -> tuple[Model, int]:
    """Return a model whose votes and coordinates know no crystal of some formulas.

    Returns
    -------
    model
        Without networks of its own before the cloud.
    removed
        Training crystals that were left out.

    Raises
    ------
    InputError
        If its weights hold no training crystals.
    """
    known = model.analogues
    if known is None or model.templates is None:
        raise InputError(f"Model {model.info.name} holds no training crystals.")
    amounts = zip(known.elements.tolist(), known.cells[known.cell].tolist(), strict=True)
    kept = np.array(
        [
            formula({symbol(z): n for z, n in zip(*one, strict=True) if z}) not in tested
            for one in amounts
        ]
    )
    shared = {"cells", "distance"}
    columns = {
        f.name: getattr(known, f.name) if f.name in shared else getattr(known, f.name)[kept]
        for f in fields(known)
    }
    left = replace(
        model,
        analogues=Analogues(**columns),
        templates=Some(model.templates, np.flatnonzero(kept)),
        symmetry=None,
    )
    return left, int((~kept).sum())


def formula(counts: Mapping[str, int]) -> Formula:
    """Return the numbers of atoms of each element in lowest terms."""
    common = gcd(*counts.values())
    return frozenset((element, n // common) for element, n in counts.items())


def measure(model: Model, crystals: CrystalArrays, guesses: int) -> dict[str, Any]:
    """Return what the model and substitution find, and what both do."""
    targets = [crystals.structure(row) for row in range(len(crystals))]
    requests = composition_requests(crystals, model.info)
    made = []
    for attempt, cells in enumerate(likeliest_cells(model, requests, guesses, LIKELIEST)):
        drawn = sample_crystals(model, requests, seed=attempt, sampler=LIKELIEST, cells=cells)
        made.append([one.structure for one in drawn])
    rmse = np.array([match_all(of_attempt, targets) for of_attempt in made])
    found = Prediction(targets, made, rmse)
    control = predict_by_substitution(model, targets, guesses)
    result = {
        "crystals": len(targets),
        **figures(found),
        "substitution": figures(control),
        "overlap": overlap(found.rmse[0], control.rmse[0]),
    }
    if guesses > 1:
        result["overlap_best_of"] = overlap(found.best, control.best)
    return result


def figures(found: Prediction) -> dict[str, Any]:
    """Return match rate, RMSE, METRe and cRMSE of the first guess and of all."""
    result = {
        "match_rate": share(int(np.isfinite(found.rmse[0]).sum()), len(found.targets)),
        "rmse": bootstrapped(found.rmse[0]),
        **of_references(found, 1),
    }
    guesses = len(found.made)
    if guesses > 1:
        result["best_of"] = {
            "guesses": guesses,
            "match_rate": share(int(np.isfinite(found.best).sum()), len(found.targets)),
            "rmse": bootstrapped(found.best),
            **of_references(found, guesses),
        }
    return result


def of_references(found: Prediction, guesses: int) -> dict[str, Any]:
    """Return METRe and cRMSE (arXiv:2509.12178) of the first so many guesses.

    Each crystal is compared with the guesses for all crystals of its composition. METRe is the
    share that one of them matches; cRMSE is the mean of the least RMSE, where nothing matches the
    matcher's tolerance.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for row, target in enumerate(found.targets):
        alike[target.composition.formula].append(row)
    least = np.where(np.isfinite(found.rmse[:guesses]), found.rmse[:guesses], np.inf).min(0)
    for rows in alike.values():
        for row, other in permutations(rows, 2):
            made = [of_attempt[other] for of_attempt in found.made[:guesses]]
            rmse = match_all(made, [found.targets[row]] * len(made))
            least[row] = min([least[row], *rmse[np.isfinite(rmse)]])
    limit = LITERATURE_MATCHER["stol"]
    return {
        "metre": share(int(np.isfinite(least).sum()), len(least)),
        "crmse": bootstrapped(np.minimum(least, limit)),
    }


def lines(content: dict[str, Any], pad: str = "") -> list[str]:
    """Return results as indented lines."""
    written: list[str] = []
    for key, value in content.items():
        if isinstance(value, dict) and "interval" not in value:
            written += [f"{pad}{key}:", *lines(value, pad + "  ")]
        elif isinstance(value, dict):
            written.append(f"{pad}{key}: {value['value']}  95 % {value['interval']}")
        else:
            written.append(f"{pad}{key}: {value}")
    return written


if __name__ == "__main__":
    run(main)
