"""A model in memory: the denoiser, the small networks asked before it, what they are for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.analogues import Analogues
from pccd_workflows.generators.pccd.composition import CompositionModel
from pccd_workflows.generators.pccd.config import SmallNetwork
from pccd_workflows.generators.pccd.denoiser import Denoiser
from pccd_workflows.generators.pccd.model_info import ModelInfo
from pccd_workflows.generators.pccd.networks import build_denoiser
from pccd_workflows.generators.pccd.new_types import NewTypes
from pccd_workflows.generators.pccd.properties import Properties
from pccd_workflows.generators.pccd.schedule import cosine_log_snr
from pccd_workflows.generators.pccd.symmetry import SpaceGroupModel
from pccd_workflows.generators.pccd.templates import Coordinates, Templates

ANALOGUES = "analogues"
TEMPLATES = "templates"
NEW_TYPES = "new_types"
PROPERTIES = "properties"
Small = TypeVar("Small", CompositionModel, SpaceGroupModel)


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes
    ----------
    info
    denoiser
    composition
        None if the cloud decides how many atoms of each element there are.
    symmetry
        None if the cloud decides the space group.
    analogues
        Training crystals that vote with the two networks; None if there is no `symmetry`.
    templates
        Where the atoms of the analogues are, by their row; None if nothing knows: then no
        symmetry can be given to a crystal.
    new_types
        Proposes structure types that the analogues lack; None if nothing does.
    properties
        Choose among cells where a property is asked for; None if nothing does.
    log_snr
        Shape (T + 1,), float32. Noise schedule.
    device
        Of the denoiser. All else is asked for one crystal at a time and stays on the CPU.
    """

    info: ModelInfo
    denoiser: Denoiser
    composition: CompositionModel | None
    symmetry: SpaceGroupModel | None
    analogues: Analogues | None
    log_snr: Tensor
    device: torch.device
    templates: Coordinates | None = None
    new_types: NewTypes | None = None
    properties: Properties | None = None

    def state(self) -> dict[str, Tensor]:
        """Return all weights by name."""
        parts = {
            "denoiser": self.denoiser,
            "composition": self.composition,
            "symmetry": self.symmetry,
        }
        networks = {
            f"{part}.{name}": tensor
            for part, module in parts.items()
            if module is not None
            for name, tensor in module.state_dict().items()
        }
        voters = self.analogues.state() if self.analogues is not None else {}
        known = self.templates.state() if isinstance(self.templates, Templates) else {}
        new_types = self.new_types.state() if self.new_types is not None else {}
        estimating = self.properties.state() if self.properties is not None else {}
        return (
            networks
            | {f"{ANALOGUES}.{name}": column for name, column in voters.items()}
            | {f"{TEMPLATES}.{name}": column for name, column in known.items()}
            | {f"{NEW_TYPES}.{name}": column for name, column in new_types.items()}
            | {f"{PROPERTIES}.{name}": column for name, column in estimating.items()}
        )


def pick_device(name: str) -> torch.device:
    """Return the device that "auto", "cpu" or "cuda" means here.

    Raises
    ------
    InputError
        If a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("Device 'cuda' is asked for, but torch finds no GPU; use 'auto' or 'cpu'.")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def assemble(info: ModelInfo, state: Mapping[str, Tensor], device: torch.device) -> Model:
    """Return the model that `info` describes with the weights of `state`.

    Raises
    ------
    KeyError, RuntimeError
        If weights are missing or of another shape.
    """
    denoiser = build_denoiser(info.architecture)
    denoiser.load_state_dict(_part(state, "denoiser"))
    composition = _small_network(CompositionModel, info.composition, _part(state, "composition"))
    symmetry = _small_network(SpaceGroupModel, info.symmetry, _part(state, "symmetry"))
    analogues = None
    if info.symmetry is not None:
        analogues = Analogues.from_state(_part(state, ANALOGUES, keep_type=True))
    denoiser.eval().to(device)
    log_snr = cosine_log_snr(info.schedule.steps, info.schedule.shift).float()
    known = _part(state, TEMPLATES, keep_type=True)
    templates = Templates.from_state(known) if known else None
    new_types = None
    if info.new_types is not None:
        proposing = _part(state, NEW_TYPES, keep_type=True)
        new_types = NewTypes.from_state(proposing, info.new_types.width)
    properties = None
    if info.properties is not None:
        properties = Properties.from_state(_part(state, PROPERTIES), info.properties.width)
    return Model(
        info,
        denoiser,
        composition,
        symmetry,
        analogues,
        log_snr,
        device,
        templates,
        new_types,
        properties,
    )


def _part(state: Mapping[str, Tensor], part: str, *, keep_type: bool = False) -> dict[str, Tensor]:
    """Return the tensors of one part, those of networks in float32."""
    return {
        name.removeprefix(part + "."): t.float() if t.is_floating_point() and not keep_type else t
        for name, t in state.items()
        if name.startswith(part + ".")
    }


def _small_network(
    kind: type[Small], section: SmallNetwork | None, weights: Mapping[str, Tensor]
) -> Small | None:
    if section is None:
        return None
    network = kind(weights["cells"], width=section.width)
    network.load_state_dict(weights)
    network.eval()
    return network
