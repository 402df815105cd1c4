"""The options of the sampler on a command line: said once for every command that samples."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.sampler import Sampler

_DEFAULTS = Sampler()
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "sampler": (str, typer.Option(help="dpm-solver++, ddim or ddpm")),
    "steps": (int, typer.Option(min=1, max=1000, help="Network evaluations per crystal")),
    "guidance": (
        float,
        typer.Option(min=0, max=20, help="Weight of the conditions; 1 = as learned"),
    ),
    "temperature": (
        float,
        typer.Option(min=0, max=2, help="Of space group, type and noise; 0 = the likeliest"),
    ),
    "composition_temperature": (
        float,
        typer.Option(min=0, max=2, help="Of the composition; 0 = always the likeliest"),
    ),
    "new_types": (
        float,
        typer.Option(min=0, max=1, help="Share of samples that aim at structure types never seen"),
    ),
    "recall": (
        bool,
        typer.Option("--recall", help="Known compounds of the elements asked for come again"),
    ),
}
"""Type and option of each; defaults are those of campaign files."""


def takes_sampler(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command with a parameter `sampler` (a Sampler) take its options instead."""

    @wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _OPTIONS}
        command(**given, sampler=checked_sampler(**chosen))

    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "sampler":
            parameters += _parameters()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    vars(wrapped)["__signature__"] = inspect.Signature(parameters)
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _parameters() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(_DEFAULTS, "name" if name == "sampler" else name),
            annotation=Annotated[kind, option],
        )
        for name, (kind, option) in _OPTIONS.items()
    ]


def checked_sampler(sampler: str, **options: Any) -> Sampler:
    """Return a sampler; InputError if there is no such."""
    from pydantic import ValidationError

    from pccd_workflows.core.validation import explain

    try:
        return Sampler.model_validate({"name": sampler, **options})
    except ValidationError as error:
        raise InputError(f"Options of the sampler: {explain(error, Sampler)}") from None
