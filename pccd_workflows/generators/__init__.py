"""Sources of crystals: the project's model, files of other generators, substitution, your own."""

from importlib import import_module
from typing import Any

_HOME = {
    "Generated": "protocol",
    "Generator": "protocol",
    "GeneratorInfo": "protocol",
    "Generation": "request",
    "SourceOptions": "request",
    "generator_type": "registry",
    "open_generator": "registry",
    "source_names": "registry",
    "sample": "sampling",
}
__all__ = [
    "Generated",
    "Generation",
    "Generator",
    "GeneratorInfo",
    "SourceOptions",
    "generator_type",
    "open_generator",
    "sample",
    "source_names",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
