"""What a crystal costs: the seed paper's configuration against the shipped model, side by side.

    OMP_NUM_THREADS=1 python benchmarks/generation.py --json [--device cpu] [--n 256]

`paper` is the U-Net of model/paper/train.yaml (untrained: weights do not change its cost) sampled
as the seed samples: DDPM over all 1000 steps, each with two network evaluations for guidance. A few
of these steps are timed and multiplied; nothing is charged for decoding. The shipped model makes
whole crystals: elements of the seed's batch 1, compositions, structure types, analogues, and with
--start above 0 the network; what choosing cells and analogues takes of that, which no GPU speeds
up, is printed too. Both run in this process, on one device, in turns; medians count. On a CPU the
ratio is that of CPU seconds, which other work on the machine hardly changes; else of wall time.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command import run

from pccd_workflows.campaign import load_campaign
from pccd_workflows.core.resources import resource
from pccd_workflows.generators.elements import draw_elements
from pccd_workflows.generators.pccd.cells import SampleRequest, draw_cells
from pccd_workflows.generators.pccd.checkpoint import find_model, load_model
from pccd_workflows.generators.pccd.config import load_train_config
from pccd_workflows.generators.pccd.means import find_frames
from pccd_workflows.generators.pccd.model import Model, pick_device
from pccd_workflows.generators.pccd.model_info import ModelInfo
from pccd_workflows.generators.pccd.networks import build_denoiser
from pccd_workflows.generators.pccd.sample import sample_clouds, sample_crystals
from pccd_workflows.generators.pccd.sampler import Sampler
from pccd_workflows.generators.pccd.schedule import cosine_log_snr
from pccd_workflows.generators.request import Conditions, Generate
from pccd_workflows.settings import get_settings

SEED_STEPS = 1000
SEED_GUIDANCE = 3.0
"""Of the authors' released code; any weight but 1 costs two evaluations."""
TIMED_STEPS = 2


def main() -> int:
    """Run the comparison and print it; exit code 1 if the target is missed on a CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pccd-default", help="a folder of model/, or a path")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--n", type=int, help="crystals per round (256; 1000 on a GPU)")
    parser.add_argument("--paper-batch", type=int, help="crystals per step of paper (32; GPU 128)")
    parser.add_argument("--rounds", type=int, default=3, help="turns, of which the median counts")
    parser.add_argument("--steps", type=int, help="of the shipped model; its default if left out")
    parser.add_argument("--start", type=float, default=0.0, help="as sampler.start; 1 = all noise")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    result = compare(args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(f"{key:32} {value}" for key, value in result.items()))
    return int(result["speedup_vs_paper"] < result["target"] and result["device_type"] == "cpu")


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Return seconds per crystal of both configurations, and their ratio."""
    device = pick_device(args.device)
    gpu = device.type == "cuda"
    n = args.n or (1000 if gpu else 256)
    batch = args.paper_batch or (128 if gpu else 32)
    model = load_model(find_model(args.model, get_settings()), device.type)
    steps = {} if args.steps is None else {"steps": args.steps}
    sampler = Sampler(start=args.start, **steps)
    generate = load_campaign(resource("flows", "seed-batch-1.yaml")).generate
    paper = untrained(resource("model", "paper", "train.yaml"), model.info, device)
    step = partial(paper_step, paper, generate, batch, steps=TIMED_STEPS)
    crystals = partial(default_crystals, model, generate, n, sampler)
    paper_step(paper, generate, batch, steps=1)
    asked = requests(generate, n)
    sampled = sample_crystals(model, asked, seed=0, sampler=sampler)
    made = sum(one.structure is not None for one in sampled)
    turns = [(timed(step, device), timed(crystals, device)) for _ in range(args.rounds)]
    per_step = [Spent(s.wall / TIMED_STEPS, s.cpu / TIMED_STEPS) for s, _ in turns]
    per_crystal = [Spent(c.wall / n, c.cpu / n) for _, c in turns]
    scale = SEED_STEPS / batch
    paper_spent, spent = median(per_step), median(per_crystal)
    choosing = timed(partial(draw_cells, model, asked, 0, sampler), device)
    cells = draw_cells(model, asked, 0, sampler)
    framing = timed(partial(find_frames, model, asked, cells, 0, sampler), device)
    ratio = paper_spent.wall / spent.wall if gpu else paper_spent.cpu / spent.cpu
    return {
        "speedup_vs_paper": round(scale * ratio, 1),
        "crystals_per_second": round(1 / spent.wall, 3),
        "device": device_name(device),
        "device_type": device.type,
        "clock": "wall" if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "target": 1000,
        "seconds_per_crystal": rounded(spent),
        "outside_network_seconds_per_crystal": rounded(
            Spent((choosing.wall + framing.wall) / n, (choosing.cpu + framing.cpu) / n)
        ),
        "paper_seconds_per_crystal": rounded(
            Spent(scale * paper_spent.wall, scale * paper_spent.cpu)
        ),
        "paper_is_extrapolated": f"{TIMED_STEPS} of {SEED_STEPS} steps timed, {args.rounds} times, "
        f"batches of {batch}; decoding of paper not charged",
        "paper_parameters": parameters(paper),
        "parameters": parameters(model),
        "network_evaluations_per_crystal": round(sampler.start * sampler.steps)
        * (1 if sampler.guidance == 1 else 2),
        "paper_network_evaluations_per_crystal": 2 * SEED_STEPS,
        "sampler": sampler.model_dump(),
        "crystals_per_round": n,
        "decoded": made,
        "spread": {
            "paper_step_seconds": [rounded(s) for s in per_step],
            "crystal_seconds": [rounded(s) for s in per_crystal],
        },
    }


def untrained(config_path: Path, known: ModelInfo, device: torch.device) -> Model:
    """Return the model of a training file with random weights; `known` lends its elements."""
    config = load_train_config(config_path)
    torch.manual_seed(0)
    info = ModelInfo(
        name=config.name,
        architecture=config.architecture,
        schedule=config.schedule,
        composition=None,
        max_elements=3,
        max_sites=config.architecture.max_sites,
        elements=known.elements,
        conditions=["band_gap", "magnetic_ordering"],
        parameters=0,
        weights_sha256="",
        training={},
    )
    denoiser = build_denoiser(config.architecture).eval().to(device)
    log_snr = cosine_log_snr(config.schedule.steps, config.schedule.shift).float()
    return Model(
        info,
        denoiser,
        composition=None,
        symmetry=None,
        analogues=None,
        log_snr=log_snr,
        device=device,
    )


def requests(generate: Generate, n: int) -> list[SampleRequest]:
    """Return n requests for crystals of the campaign's elements, nothing else asked."""
    return [SampleRequest(i, draw_elements(generate, i), Conditions()) for i in range(n)]


def paper_step(model: Model, generate: Generate, batch: int, *, steps: int) -> None:
    """Run some steps of the seed's sampler on one batch."""
    sampler = Sampler(name="ddpm", steps=steps, guidance=SEED_GUIDANCE)
    sample_clouds(model, requests(generate, batch), seed=0, sampler=sampler)


def default_crystals(model: Model, generate: Generate, n: int, sampler: Sampler) -> None:
    """Make n crystals from nothing to structures."""
    sample_crystals(model, requests(generate, n), seed=0, sampler=sampler)


class Spent(NamedTuple):
    """Seconds of wall time, and of CPU time of all threads."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any], device: torch.device) -> Spent:
    """Return what a call takes, the GPU's work included."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(spent: Sequence[Spent]) -> Spent:
    """Return the medians of both clocks."""
    return Spent(*(statistics.median(column) for column in zip(*spent, strict=True)))


def rounded(spent: Spent) -> dict[str, float]:
    """Return both clocks to five digits."""
    return {name: float(f"{value:.5g}") for name, value in spent._asdict().items()}


def parameters(model: Model) -> int:
    """Return the number of weights."""
    return sum(t.numel() for t in model.state().values() if t.is_floating_point())


def device_name(device: torch.device) -> str:
    """Return what a reader calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"cpu: {models[0] if models else os.uname().machine}"


if __name__ == "__main__":
    run(main)
