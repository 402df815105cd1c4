"""Training: one script for a laptop, a GPU or several of them; killed at any moment, it goes on."""

import json
import math
import pickle
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import make_folder
from pccd_workflows.core.optional import optional_imports
from pccd_workflows.generators.pccd.analogues import find_analogues, measure
from pccd_workflows.generators.pccd.checkpoint import save_model
from pccd_workflows.generators.pccd.composition import train_composition_model
from pccd_workflows.generators.pccd.conditions import ConditionBatch, conditions_of
from pccd_workflows.generators.pccd.config import TrainConfig
from pccd_workflows.generators.pccd.dataset import CrystalArrays, content_hash, read_dataset
from pccd_workflows.generators.pccd.denoiser import Denoiser
from pccd_workflows.generators.pccd.model import Model
from pccd_workflows.generators.pccd.model_info import ModelInfo
from pccd_workflows.generators.pccd.networks import build_denoiser
from pccd_workflows.generators.pccd.new_types_training import train_new_types
from pccd_workflows.generators.pccd.pointcloud.elements import symbol
from pccd_workflows.generators.pccd.properties import train_properties
from pccd_workflows.generators.pccd.schedule import cosine_log_snr
from pccd_workflows.generators.pccd.symmetry import train_space_group_model
from pccd_workflows.generators.pccd.templates import find_templates
from pccd_workflows.generators.pccd.training_crystals import write_training_crystals

CHECKPOINT = "checkpoint.pt"
CURVE = "progress.jsonl"
"""Loss curve, a line about twice a minute."""
REPORT_SECONDS = 30.0


@dataclass(frozen=True)
class Progress:
    """Where a training run is."""

    step: int
    crystals: int
    minutes: float
    fraction: float
    loss: float


class Batches:
    """An endless, reproducible sequence of batches of crystals of similar size.

    Batch `step` depends only on (seed, step, rank), so that a run can go on at any step.
    """

    def __init__(self, n_sites: NDArray[np.int64], batch: int, seed: int) -> None:
        self.n_sites, self.batch, self.seed = n_sites, batch, seed
        self.per_epoch = max(1, len(n_sites) // batch)
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []

    def __call__(self, step: int) -> Tensor:
        """Return the rows of a batch."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffle(epoch)
        return torch.from_numpy(self._batches[place])

    def _shuffle(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.n_sites))
        order = order[: max(self.per_epoch * self.batch, 1)]
        order = order[np.argsort(self.n_sites[order], kind="stable")]
        batches = np.array_split(order, self.per_epoch)
        return [batches[i] for i in rng.permutation(len(batches))]


@dataclass
class Run:
    """The state of a training run; all of it goes into a checkpoint."""

    fabric: Any
    module: Any
    averaged: Denoiser
    optimizer: Any
    step: int = 0
    seconds: float = 0.0

    def agreed(self, value: float) -> float:
        """Return the value of the first process, so that all take the same decision."""
        if self.fabric.world_size == 1:
            return value
        return float(self.fabric.broadcast(value))

    def save(self, folder: Path) -> None:
        """Write a checkpoint so that a kill leaves the old one or the new one."""
        make_folder(folder)
        partial = folder / "checkpoint.partial"
        state = {
            "module": self.module,
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer,
            "step": self.step,
            "seconds": self.seconds,
        }
        self.fabric.save(partial, state)
        if self.fabric.is_global_zero:
            partial.replace(folder / CHECKPOINT)
        self.fabric.barrier()

    def resume(self, folder: Path) -> None:
        """Go back to the last checkpoint, if there is one.

        Raises
        ------
        InputError
            If it is of another network or damaged.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return
        try:
            rest = self.fabric.load(path, {"module": self.module, "optimizer": self.optimizer})
            self.averaged.load_state_dict(rest["averaged"])
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError):
            raise InputError(
                f"Checkpoint {path} is damaged or of another network; move it away to start anew."
            ) from None
        self.step, self.seconds = int(rest["step"]), float(rest["seconds"])


def start_run(config: TrainConfig, folder: Path) -> Run:
    """Return a new run, or the one that was interrupted."""
    with optional_imports("Training"):
        from lightning.fabric import Fabric

    fabric = Fabric(devices=config.devices or "auto", precision=config.precision)
    fabric.launch()
    torch.manual_seed(config.seed)
    denoiser = build_denoiser(config.architecture)
    if config.start_from is not None and not (folder / CHECKPOINT).exists():
        begin_with(denoiser, config.start_from)
    averaged = build_denoiser(config.architecture)
    averaged.load_state_dict(denoiser.state_dict())
    optimizer = torch.optim.AdamW(
        denoiser.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
    )
    module, optimizer = fabric.setup(denoiser, optimizer)
    module.mark_forward_method("loss")
    run = Run(fabric, module, averaged.to(fabric.device), optimizer)
    run.resume(folder)
    return run


def begin_with(denoiser: Denoiser, folder: Path) -> None:
    """Take over the weights of a trained model, as far as a network has them.

    Tables that have grown (more sites, more elements) keep their first rows; what the trained
    network lacks stays as initialised.

    Raises
    ------
    InputError
        If the folder holds no intact model.
    """
    from safetensors.torch import load_file

    from pccd_workflows.generators.pccd.checkpoint import check_weights, read_model_info

    trained = load_file(check_weights(folder, read_model_info(folder)))
    with torch.no_grad():
        for name, target in denoiser.named_parameters():
            source = trained.get(f"denoiser.{name}")
            if source is None or source.dim() != target.dim():
                continue
            sizes = zip(source.shape, target.shape, strict=True)
            common = tuple(slice(min(old, new)) for old, new in sizes)
            target[common] = source[common].float()


def train_denoiser(
    config: TrainConfig,
    arrays: CrystalArrays,
    folder: Path,
    *,
    report: Callable[[Progress], None] | None = None,
) -> tuple[Denoiser, Progress]:
    """Train the denoiser, going on from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    config
    arrays
        Training crystals.
    folder
        Where checkpoints go.
    report
        Called about twice a minute.

    Returns
    -------
    denoiser
        With the averaged (EMA) weights.
    progress
        At the end.
    """
    run = start_run(config, folder)
    log_snr = cosine_log_snr(config.schedule.steps, config.schedule.shift).float()
    known = conditions_of(arrays)
    batches = Batches(arrays.n_sites, config.batch * run.fabric.world_size, config.seed)
    started = time.monotonic() - run.seconds
    saved = reported = time.monotonic()
    losses: list[float] = []
    while (fraction := run.agreed(_fraction(config, run))) < 1:
        rate = config.learning_rate * min(1.0, (run.step + 1) / max(1, config.warmup))
        for group in run.optimizer.param_groups:
            group["lr"] = rate * (1 - fraction)
        rows = batches(run.step)[run.fabric.global_rank :: run.fabric.world_size]
        generator = torch.Generator().manual_seed(
            (config.seed * 1_000_003 + run.step) * 4096 + run.fabric.global_rank
        )
        clean = run.averaged.encode(arrays.take(rows.numpy()))
        noise = torch.randn(clean.shape, generator=generator)
        times = _stratified_times(len(rows), config.schedule.steps, generator)
        conditions = known.take(rows).drop(config.drop_properties, config.drop_elements, generator)
        losses.append(_step(run, config, (clean, noise, log_snr[times]), conditions))
        now = time.monotonic()
        run.seconds = now - started
        if now - reported > REPORT_SECONDS:
            if run.fabric.is_global_zero:
                progress = _progress(run, config, fraction, losses)
                log_progress(folder, progress)
                if report is not None:
                    report(progress)
            reported, losses = now, []
        if run.agreed(float(now - saved > 60 * config.checkpoint_minutes)):
            run.save(folder)
            saved = now
    run.save(folder)
    return run.averaged.eval().cpu(), _progress(run, config, 1.0, losses)


def _step(
    run: Run,
    config: TrainConfig,
    inputs: tuple[Tensor, Tensor, Tensor],
    conditions: ConditionBatch,
) -> float:
    """Take one step on clean clouds, noise and noise levels; return the loss."""
    device = run.fabric.device
    loss = run.module.loss(*(tensor.to(device) for tensor in inputs), conditions.to(device))
    run.fabric.backward(loss)
    run.fabric.clip_gradients(run.module, run.optimizer, max_norm=config.clip)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.step += 1
    _average(run.averaged, run.module, min(config.ema, (1 + run.step) / (10 + run.step)))
    return float(loss.detach())


def log_progress(folder: Path, progress: Progress) -> None:
    """Add a line to the loss curve of a run."""
    make_folder(folder)
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(progress)) + "\n")


def read_progress(folder: Path) -> list[Progress]:
    """Return the loss curve of a run; what was repeated after a kill is there once."""
    path = folder / CURVE
    if not path.exists():
        return []
    curve: list[Progress] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            point = Progress(**json.loads(line))
        except (ValueError, TypeError):  # the line that a kill cut off
            continue
        while curve and curve[-1].step >= point.step:
            curve.pop()
        curve.append(point)
    return curve


def _progress(run: Run, config: TrainConfig, fraction: float, losses: list[float]) -> Progress:
    return Progress(
        step=run.step,
        crystals=run.step * config.batch * run.fabric.world_size,
        minutes=run.seconds / 60,
        fraction=fraction,
        loss=float(np.mean(losses)) if losses else math.nan,
    )


def train(
    config: TrainConfig,
    work: Path,
    out: Path,
    *,
    report: Callable[[Progress], None] | None = None,
) -> ModelInfo | None:
    """Train a model and write it as a folder that `load_model` reads.

    Of several processes (GPUs) the first writes the model; the others return None.

    Parameters
    ----------
    config
    work
        Folder of the checkpoints; training goes on from the last one.
    out
        Folder of the finished model.
    report
        Called about twice a minute.
    """
    data = read_dataset(config.data)
    denoiser, progress = train_denoiser(config, data.of_split("train"), work, report=report)
    if not is_first_process():
        return None
    return write_model(config, data, denoiser, progress, out)


def is_first_process() -> bool:
    """Return whether this is the only or the first process of a training run."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0


def write_model(
    config: TrainConfig, data: CrystalArrays, denoiser: Denoiser, progress: Progress, out: Path
) -> ModelInfo:
    """Fit the small networks, find analogues; write weights, model.json and training index.

    Parameters
    ----------
    data
        The whole dataset.
    denoiser
        Trained.
    progress
        What the training took.
    """
    crystals, held_out = data.of_split("train"), data.of_split("val")
    known = conditions_of(crystals)
    measured_on = (held_out, conditions_of(held_out)) if len(held_out) else None
    composition = symmetry = analogues = None
    losses: dict[str, float] = {}
    if config.composition is not None:
        composition, figures = train_composition_model(
            crystals, known, measured_on, **config.composition.model_dump(), seed=config.seed
        )
        losses |= {f"composition_{name}": value for name, value in figures.items()}
    if config.symmetry is not None:
        symmetry, figures = train_space_group_model(
            crystals, known, measured_on, **config.symmetry.model_dump(), seed=config.seed
        )
        losses |= {f"space_group_{name}": value for name, value in figures.items()}
        analogues = find_analogues(crystals, symmetry)
        if composition is not None and len(held_out):
            voted = measure(analogues, symmetry, composition, held_out)
            losses |= {f"voted_{name}": value for name, value in voted.items()}
    templates = find_templates(crystals, config.setting) if analogues is not None else None
    new_types = None
    if config.new_types is not None and analogues is not None and templates is not None:
        options = config.new_types.model_dump()
        new_types = train_new_types(analogues, templates, **options, seed=config.seed)
    properties = None
    if config.properties is not None and analogues is not None:
        options = config.properties.model_dump()
        properties = train_properties(analogues, **options, seed=config.seed)
    numbers = np.unique(crystals.numbers)
    info = ModelInfo(
        name=config.name,
        description=config.description,
        architecture=config.architecture,
        schedule=config.schedule,
        composition=config.composition,
        symmetry=config.symmetry,
        new_types=config.new_types if new_types is not None else None,
        properties=config.properties if properties is not None else None,
        setting=config.setting,
        max_elements=config.architecture.max_elements,
        max_sites=config.architecture.max_sites,
        elements=[symbol(int(z)) for z in numbers if z > 0],
        conditions=trained_conditions(
            crystals, denoiser.conditions, with_composition=composition is not None
        ),
        parameters=0,
        weights_sha256="",
        training={
            "crystals": len(crystals),
            "dataset_sha256": content_hash(data),
            "steps": progress.step,
            "crystals_seen": progress.crystals,
            "minutes": round(progress.minutes, 1),
            "hardware": hardware(),
            "loss": round(progress.loss, 4),
            "small_networks": {name: round(value, 4) for name, value in losses.items()},
        },
    )
    log_snr = cosine_log_snr(config.schedule.steps, config.schedule.shift).float()
    cpu = torch.device("cpu")
    small = (composition, symmetry, analogues)
    added = (new_types, properties)
    model = Model(info, denoiser, *small, log_snr, cpu, templates, *added)
    make_folder(out)
    write_training_crystals(out, crystals)
    return save_model(out, model)


def trained_conditions(
    crystals: CrystalArrays, read: Collection[str], *, with_composition: bool
) -> list[str]:
    """Return the names of the conditions that a network reads and at least 50 crystals have."""
    known = {
        "band_gap": np.isfinite(crystals.band_gap),
        "magnetic_ordering": crystals.ordering >= 0,
        "energy_above_hull": np.isfinite(crystals.energy_above_hull),
        "crystal_system": crystals.space_group > 0,
        "space_group": crystals.space_group > 0,
    }
    names = [name for name, has in known.items() if name in read and has.sum() >= 50]
    return [*names, "n_sites", "composition"] if with_composition else names


def hardware() -> str:
    """Return the device and number of threads that a training ran on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread"


def _fraction(config: TrainConfig, run: Run) -> float:
    """Return how much of the run is done: the further of steps and time."""
    by_steps = run.step / config.max_steps if config.max_steps else 0.0
    by_time = run.seconds / 60 / config.max_minutes if config.max_minutes else 0.0
    return max(by_steps, by_time)


def _stratified_times(n: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return n times in 1..steps that cover the range evenly, in random order."""
    places = torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)
    return (places / n * steps).long().clamp(max=steps - 1) + 1


@torch.no_grad()
def _average(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(
        list(averaged.parameters()), [p.detach() for p in current.parameters()], 1 - decay
    )
