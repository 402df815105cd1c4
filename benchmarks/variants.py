"""What decides whether a crystal is predicted: the choices before the cloud, and how it is drawn.

    OMP_NUM_THREADS=1 python benchmarks/variants.py --data scratch/wide20.npz [--json]

The data set must be the one that the model was trained with. Its validation crystals of at most 3
elements and 16 sites are asked for:

*choices*   how often the likeliest number of atoms of each element (elements given), space group
            and structure type (composition given) is the right one: by the network alone, by the
            votes of training crystals alone, by both;
*ceiling*   how often the right type would be guessed by someone who knows all structures of each
            composition among these crystals, and which of them is the commonest;
*clouds*    structure prediction (match rate, RMSE) with one thing changed at a time, and how many
            pass the default screening. "told" rows are given what the others have to guess.

Test crystals are not touched: what is chosen here is quoted from them.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from pymatgen.core import Structure

from pccd_workflows.analysis.screening import Screen
from pccd_workflows.analysis.validity import screen
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.intervals import bootstrapped, share
from pccd_workflows.evaluation.crystals import (
    composition_requests,
    draw_rows,
    match_all,
    structure_of,
)
from pccd_workflows.generators.pccd.analogues import SHARE, measure
from pccd_workflows.generators.pccd.cells import Cell, SampleRequest, draw_cells
from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
from pccd_workflows.generators.pccd.dataset import CrystalArrays, content_hash, read_dataset
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.sample import sample_crystals
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.settings import get_settings

MAX_ELEMENTS, MAX_SITES = 3, 16
LIKELIEST = Sampler(temperature=0)
COPY = "copied: the analogue without the regression"
Case = tuple[Sequence[SampleRequest], Sampler, Sequence[Cell] | None]
"""What is asked, how it is drawn, and the cells if they are told."""
NOISE = Sampler(temperature=0, start=1)
VARIANTS: dict[str, Sampler] = {
    "as `csp`: temperature 0, the analogue as the regression has it": LIKELIEST,
    "temperature 0.25": Sampler(temperature=0.25),
    "temperature 0.5": Sampler(temperature=0.5),
    "temperature 1": Sampler(temperature=1),
    "network, begun at 0.02 T from the analogue": Sampler(temperature=0, start=0.02),
    "network, begun at 0.2 T from the analogue": Sampler(temperature=0, start=0.2),
    "network, from noise alone: 25 steps of DPM-Solver++": NOISE,
    "... 10 steps": NOISE.model_copy(update={"steps": 10}),
    "... DDIM, 50 steps": NOISE.model_copy(update={"name": "ddim", "steps": 50}),
    "... DDPM, 50 steps": NOISE.model_copy(update={"name": "ddpm", "steps": 50}),
    "... separation 0": NOISE.model_copy(update={"separation": 0}),
    "... guidance 2": NOISE.model_copy(update={"guidance": 2}),
    "... symmetry not given": NOISE.model_copy(update={"symmetric": False}),
}


def main() -> None:
    """Measure, print as JSON or as tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pccd-default", help="a folder of model/, or a path")
    parser.add_argument("--data", type=Path, required=True, help="its data set (.npz)")
    parser.add_argument("--samples", type=int, default=400, help="crystals of each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["choices", "clouds"], help="one part")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    model = load_model(find_model(args.model, get_settings()), "cpu")
    crystals = validation_crystals(model, args.data)
    result: dict[str, Any] = {"model": model.info.name, "crystals": len(crystals)}
    if args.only != "clouds":
        result["choices"] = choices(model, crystals)
        result["ceiling"] = ceiling(crystals)
    if args.only != "choices":
        asked = draw_rows(crystals, args.samples, args.seed)
        result["clouds"] = clouds(model, asked, args.seed, note=not args.json)
    shown = result if args.json else {k: v for k, v in result.items() if k != "clouds"}
    print(json.dumps(shown, indent=1))


def validation_crystals(model: Model, data: Path) -> CrystalArrays:
    """Return the crystals to ask for.

    Raises
    ------
    InputError
        If the data set is not the one of the model, whose structure types are numbered otherwise.
    """
    arrays = read_dataset(data)
    if content_hash(arrays) != model.info.training.get("dataset_sha256"):
        raise InputError(
            f"{data} is not the data set that model {model.info.name} was trained with; its card "
            "has the command that builds it."
        )
    held_out = arrays.of_split("val")
    n_elements = np.array([len(set(numbers[numbers > 0])) for numbers in held_out.numbers])
    return held_out.take((n_elements <= MAX_ELEMENTS) & (held_out.n_sites <= MAX_SITES))


def choices(model: Model, crystals: CrystalArrays) -> dict[str, dict[str, float]]:
    """Return shares of right first guesses."""
    if model.analogues is None or model.symmetry is None or model.composition is None:
        raise InputError(f"Model {model.info.name} chooses nothing before the cloud.")
    parts = model.analogues, model.symmetry, model.composition
    found = {
        name: measure(*parts, crystals, share=of_votes)
        for name, of_votes in (("network", 0.0), ("votes", 1.0), ("both", SHARE))
    }
    cells = draw_cells(model, composition_requests(crystals, model.info), 0, LIKELIEST)
    types = np.array([cell.structure_type for cell in cells])
    found["both"]["structure_type_accuracy"] = float(
        ((types == crystals.structure_type) & (types > 0)).mean()
    )
    return found


def ceiling(crystals: CrystalArrays) -> float:
    """Return how often the commonest known type of each composition is the right one."""
    types: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for numbers, kind in zip(crystals.numbers.tolist(), crystals.structure_type, strict=True):
        types[tuple(numbers)][int(kind)] += kind > 0
    return sum(max(of_cell.values()) for of_cell in types.values()) / len(crystals)


def clouds(model: Model, crystals: CrystalArrays, seed: int, *, note: bool) -> list[dict[str, Any]]:
    """Return match rate and RMSE of each variant."""
    targets = [structure_of(crystals, row) for row in range(len(crystals))]
    requests = composition_requests(crystals, model.info)
    right = [
        Cell(tuple(z for z in numbers if z > 0), int(group), int(kind))
        for numbers, group, kind in zip(
            crystals.numbers.tolist(), crystals.space_group, crystals.structure_type, strict=True
        )
    ]
    told_groups = [
        SampleRequest(
            r.index, r.elements, r.conditions.model_copy(update={"space_group": cell.space_group})
        )
        for r, cell in zip(requests, right, strict=True)
    ]
    cases: dict[str, Case] = {n: (requests, sampler, None) for n, sampler in VARIANTS.items()}
    cases[COPY] = (requests, LIKELIEST, None)
    cases["told the space group"] = (told_groups, LIKELIEST, None)
    cases["told space group and structure type"] = (requests, LIKELIEST, right)
    rows = []
    for name, (asked, sampler, cells) in cases.items():
        sampled = sample_crystals(
            model, asked, seed=seed, sampler=sampler, cells=cells, refined=name != COPY
        )
        made = [one.structure for one in sampled]
        rmse = match_all(made, targets)
        matched = share(int(np.isfinite(rmse).sum()), len(rmse))
        screened = share(sum(map(passes, made, asked)), len(made))
        rows.append(
            {
                "variant": name,
                "match_rate": matched,
                "rmse": bootstrapped(rmse),
                "median_rmse": float(np.nanmedian(rmse)),
                "screened": screened,
            }
        )
        if note:
            print(
                f"{name:52} {matched['value']:5.1%}  RMSE {np.nanmean(rmse):.3f}, "
                f"median {np.nanmedian(rmse):.3f}  screened {screened['value']:.0%}",
                flush=True,
            )
    return rows


def passes(structure: Structure | None, request: SampleRequest) -> bool:
    """Return whether a crystal passes the default screening of a campaign."""
    if structure is None:
        return False
    return screen(structure, elements=request.elements, settings=Screen()).passed


if __name__ == "__main__":
    run(main)
