"""A trained model on disk: model.json, weights.safetensors and what tells their story."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.files import make_folder, write_whole
from pccd_workflows.core.sections import NAME_PATTERN
from pccd_workflows.core.validation import explain
from pccd_workflows.generators.pccd.model_info import FORMAT_VERSION, ModelInfo
from pccd_workflows.settings import Settings

if TYPE_CHECKING:
    from pccd_workflows.generators.pccd.model import Model

INFO_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


def find_model(name_or_path: str, settings: Settings) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name_or_path
        A folder of `settings.model_dir`, or a path (anything with a slash).
    settings

    Raises
    ------
    InputError
        If there is no such model; the sentence lists those there are.
    """
    is_path = "/" in name_or_path or "\\" in name_or_path
    if is_path:
        folder = Path(name_or_path).expanduser()
    elif NAME_PATTERN.fullmatch(name_or_path) and ".." not in name_or_path:
        folder = settings.model_dir / name_or_path
    else:
        raise InputError(f"Model {name_or_path!r} is neither a name nor a path.")
    if not (folder / INFO_FILE).is_file():
        have = sorted(path.parent.name for path in settings.model_dir.glob(f"*/{INFO_FILE}"))
        raise InputError(
            f"There is no trained model {name_or_path!r}; {settings.model_dir} has "
            f"{', '.join(have) or 'none'}."
        )
    return folder


def read_model_info(folder: Path) -> ModelInfo:
    """Read model.json.

    Raises
    ------
    InputError
        If it is missing or malformed.
    """
    path = folder / INFO_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no {INFO_FILE}: it is not a trained model.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    try:
        info = ModelInfo.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, ModelInfo)}") from None
    if info.format_version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format {info.format_version}; this version reads {FORMAT_VERSION}."
        )
    return info


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(folder: Path, info: ModelInfo) -> Path:
    """Return the weights file of a model, after checking that it is the one model.json names.

    Raises
    ------
    InputError
        If it is missing, truncated or changed.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"Model {folder} has no {WEIGHTS_FILE}: it was configured, never trained.")
    if file_sha256(path) != info.weights_sha256:
        raise InputError(
            f"The weights of {folder} are truncated or changed: {WEIGHTS_FILE} does not have the "
            "sha256 that model.json names."
        )
    return path


def load_model(folder: Path, device: str = "auto") -> "Model":
    """Load a model whose weights are exactly those that its model.json names.

    Parameters
    ----------
    folder
        From `find_model`.
    device
        "auto" (a GPU if there is one), "cpu" or "cuda".

    Raises
    ------
    InputError
        If a file is missing, or the weights are truncated or changed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from pccd_workflows.generators.pccd.model import assemble, pick_device

    info = read_model_info(folder)
    path = check_weights(folder, info)
    try:
        return assemble(info, load_file(path), pick_device(device))
    except (SafetensorError, RuntimeError, KeyError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(
            f"The weights of {folder} do not fit its architecture: {first_line}"
        ) from None


def save_model(folder: Path, model: "Model") -> ModelInfo:
    """Write weights (float16) and model.json; return the info with its sha256."""
    import torch
    from safetensors.torch import save

    from pccd_workflows.generators.pccd.model import ANALOGUES, NEW_TYPES, TEMPLATES

    tensors = {
        name: (
            t.to(torch.float16)
            if t.is_floating_point() and not name.startswith(f"{TEMPLATES}.")
            else t
        )
        .contiguous()
        .cpu()
        for name, t in model.state().items()
    }
    make_folder(folder)
    content = save(tensors)
    no_weights = (f"{ANALOGUES}.", f"{TEMPLATES}.", f"{NEW_TYPES}.distances.")
    weights = [
        t
        for name, t in tensors.items()
        if t.is_floating_point() and not name.startswith(no_weights)
    ]
    info = model.info.model_copy(
        update={
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "parameters": sum(t.numel() for t in weights),
        }
    )
    write_whole(folder / WEIGHTS_FILE, content)
    write_whole(folder / INFO_FILE, info.model_dump_json(indent=2) + "\n")
    return info
