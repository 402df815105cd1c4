"""What `pccd model evaluate` measures: the parts of an evaluation, put together."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pccd_workflows.core.errors import InputError

if TYPE_CHECKING:
    from pccd_workflows.core.intervals import Estimate
    from pccd_workflows.evaluation.reconstruction import Reconstruction
    from pccd_workflows.generators.pccd.dataset import CrystalArrays
    from pccd_workflows.generators.pccd.model import Model
    from pccd_workflows.generators.pccd.model_info import ModelInfo
    from pccd_workflows.generators.pccd.sampler import Sampler
    from pccd_workflows.settings import Settings

DEFAULT_PARTS = (
    "reconstruction",
    "control",
    "inversion",
    "csp",
    "substitution",
    "copy",
    "overlap",
    "similarity",
    "generation",
    "symmetry",
    "conditions",
    "types",
)
IMPLIED = {"copy": ("csp", "overlap"), "generation": ("symmetry",)}
"""Parts that are shown with others."""
MAX_SIMILARITY = 64
"""Pairs that are compared by all six metrics: neighbours and potentials take a second a pair."""


@dataclass(frozen=True)
class Request:
    """What is to be measured, and how.

    Attributes
    ----------
    data
        Dataset, JSON lines or folder of CIFs.
    split
        Of the data.
    samples, seed
        Crystals of each part, and what draws them.
    sampler
    attempts
        Samples per crystal of structure prediction.
    csp_temperature
        Of the sampler, in structure prediction.
    level
        Potential that relaxes generated crystals; None leaves stability out.
    energy_level
        Potential of the energy distance.
    """

    data: Path
    split: str
    samples: int
    seed: int
    sampler: "Sampler"
    attempts: int
    csp_temperature: float
    level: str | None
    energy_level: str


@dataclass
class Evaluation:
    """A model on held-out crystals, part by part; parts share what they make.

    Attributes
    ----------
    folder
        Of the model.
    model
    crystals
    request
    settings
    report
        Told which part begins.
    parts
        What has been measured, as objects with a `summary()`, or as plain results.
    """

    folder: Path
    model: "Model"
    crystals: "CrystalArrays"
    request: Request
    settings: "Settings"
    report: Callable[[str], None]
    parts: dict[str, Any] = field(default_factory=dict)

    def measure(self, name: str) -> Any:
        """Return one part, measured if it has not been yet."""
        if name not in self.parts:
            self.report(name)
            self.parts[name] = getattr(self, f"_{name}")()
        return self.parts[name]

    def summary(self, names: list[str]) -> dict[str, Any]:
        """Return the figures of some parts by name."""
        measured = {name: self.measure(name) for name in names}
        return {n: p.summary() if hasattr(p, "summary") else p for n, p in measured.items()}

    def _common(self) -> dict[str, Any]:
        request = self.request
        return {"samples": request.samples, "seed": request.seed, "sampler": request.sampler}

    def _reconstruction(self) -> "Reconstruction":
        from pccd_workflows.evaluation.reconstruction import reconstruct

        return reconstruct(self.model, self.crystals, **self._common())

    def _control(self) -> "Reconstruction":
        from pccd_workflows.evaluation.reconstruction import reconstruct

        return reconstruct(self.model, self.crystals, **self._common(), control=True)

    def _inversion(self) -> Any:
        from pccd_workflows.evaluation.inversion import invert_structures

        samples, seed = self.request.samples, self.request.seed
        return invert_structures(self.model, self.crystals, samples=samples, seed=seed)

    def _csp(self) -> Any:
        from pccd_workflows.evaluation.prediction import predict_structures

        attempts = self.request.attempts
        cooled = {"temperature": self.request.csp_temperature}
        sampler = self.request.sampler.model_copy(update=cooled)
        options = {**self._common(), "sampler": sampler, "attempts": attempts}
        return predict_structures(self.model, self.crystals, **options)

    def _substitution(self) -> Any:
        from pccd_workflows.evaluation.substitution import predict_by_substitution

        csp = self.measure("csp")
        return predict_by_substitution(self.model, csp.targets, self.request.attempts, csp.facts)

    def _copy(self) -> Any:
        """Measure the control of the network: the analogue of the type aimed at, copied."""
        from pccd_workflows.evaluation.prediction import copy_structures

        cooled = {"temperature": self.request.csp_temperature}
        sampler = self.request.sampler.model_copy(update=cooled)
        return copy_structures(self.model, self.crystals, **{**self._common(), "sampler": sampler})

    def _overlap(self) -> dict[str, Any]:
        from pccd_workflows.evaluation.prediction import overlap

        csp = self.measure("csp")
        result = {"copy": overlap(csp.rmse[0], self.measure("copy").rmse[0])}
        if "substitution" in self.parts:
            control = self.parts["substitution"]
            result["substitution"] = overlap(csp.rmse[0], control.rmse[0])
            if self.request.attempts > 1:
                result["substitution_best_of"] = overlap(csp.best, control.best)
        return result

    def _symmetry(self) -> dict[str, Any]:
        from pccd_workflows.evaluation.symmetry import evaluate_symmetry

        return evaluate_symmetry(self.model, self.crystals, **self._common())

    def _conditions(self) -> dict[str, Any]:
        from pccd_workflows.evaluation.symmetry import evaluate_conditions

        return evaluate_conditions(self.model, self.crystals, **self._common())

    def _types(self) -> dict[str, Any]:
        from pccd_workflows.evaluation.types import evaluate_types

        return evaluate_types(self.model, self.crystals, **self._common())

    def _similarity(self) -> Any:
        from pccd_workflows.evaluation.similarity import compare_pairs
        from pccd_workflows.evaluation.stored_potential import stored_potential

        potential = stored_potential(self.request.energy_level, self.settings)
        pairs = self.measure("reconstruction").counted[:MAX_SIMILARITY]
        return compare_pairs(pairs, potential.energy_per_atom)

    def _generation(self) -> dict[str, Any]:
        from pccd_workflows.evaluation.generation import evaluate_generation
        from pccd_workflows.evaluation.judge import potential_judge
        from pccd_workflows.evaluation.samples import yardstick
        from pccd_workflows.evaluation.shares import protocol_card

        data, level = self.request.data, self.request.level
        judge = potential_judge(level, self.settings) if level else None
        # a data set holds no crystals by id that samples could be compared with
        known = yardstick(self.folder, None if data.suffix == ".npz" else data, judge=judge)
        found = evaluate_generation(self.model, self.crystals, known, **self._common())
        card = protocol_card(self.request.sampler, known.judge)
        return {**found, "protocol": card.as_json()}


def known_to_model(folder: Path, crystals: "CrystalArrays") -> "Estimate | None":
    """Return the share of crystals that the model was trained on; None if it does not say."""
    from pccd_workflows.core.intervals import share
    from pccd_workflows.matching.settings import MatcherSettings
    from pccd_workflows.stages.novelty import match_training

    named = {str(row): crystals.structure(row) for row in range(len(crystals))}
    found = match_training(named, folder, MatcherSettings()).values()
    told = [verdict.known for verdict in found if verdict.known is not None]
    return share(sum(told), len(told)) if told else None


def loss_curve(folder: Path) -> list[dict[str, float]]:
    """Return the training's loss by step, from the model's metrics.json; empty if unknown."""
    try:
        content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    curve = content.get("loss_curve", []) if isinstance(content, dict) else []
    return [dict(point) for point in curve if {"step", "loss"} <= set(point)]


def command_line() -> str:
    """Return the command that was typed, without the folder of the program."""
    return shlex.join(["pccd", *sys.argv[1:]])


def chosen_parts(only: str | None, info: "ModelInfo") -> list[str]:
    """Return the names of the parts that --only names; all that can be measured if left out.

    Raises
    ------
    InputError
        If there is no such part.
    """
    if only is None:
        left_out = set()
        if "composition" not in info.conditions:
            left_out |= {"csp", "substitution", "copy", "overlap"}
        if info.symmetry is None:
            left_out |= {"copy", "overlap", "substitution", "symmetry", "conditions"}
        if info.new_types is None:
            left_out.add("types")
        return [name for name in DEFAULT_PARTS if name not in left_out]
    names = [part.strip() for part in only.split(",") if part.strip()]
    if unknown := [name for name in names if name not in DEFAULT_PARTS]:
        raise InputError(f"--only: unknown part {unknown[0]!r}; use {', '.join(DEFAULT_PARTS)}.")
    shown = dict.fromkeys(names)
    for name in names:
        shown |= dict.fromkeys(IMPLIED.get(name, ()))
    return list(shown)


def lines(content: dict[str, Any], indent: int = 0) -> list[str]:
    """Return nested results as indented lines."""
    written: list[str] = []
    pad = "  " * indent
    for key, value in content.items():
        if isinstance(value, dict) and {"value", "interval", "n"} <= set(value):
            written.append(f"{pad}{key}: {_measured(value)}")
        elif isinstance(value, dict):
            written += [f"{pad}{key}:", *lines(value, indent + 1)]
        else:
            written.append(f"{pad}{key}: {value}")
    return written


def _measured(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "none"
    low, high = found["interval"]
    return f"{found['value']:.4g}  95 % [{low:.4g}, {high:.4g}]  of {found['n']}"
