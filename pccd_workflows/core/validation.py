"""What is wrong with a user's input: a sentence for each problem, with field and options."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the problems of a pydantic error with field and options, one to a line.

    A single one is a sentence that can go on one line with what it is about. Of several, mistyped
    keys come first; a key that is missing because it was mistyped is not named twice.
    """
    problems = sorted(error.errors(), key=lambda problem: PRIORITY.get(problem["type"], 1))
    meant = [_place(p, _closest(p, model)) for p in problems if p["type"] == "extra_forbidden"]
    found = [
        _sentence(problem, model)
        for problem in problems
        if problem["type"] != "missing" or problem["loc"] not in meant
    ]
    if len(found) == 1:
        return found[0]
    return "\n  ".join([f"{len(found)} problems:", *found])


PRIORITY = {"extra_forbidden": 0, "missing": 2}
"""Kinds of problems that come before or after all others."""


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = _closest(problem, model)
        hint = f"did you mean {close!r}?" if close else f"use one of {_options(problem, model)}."
        return f"unknown key {location!r}; {hint}"
    if problem["type"] == "missing":
        return f"{location!r} is missing."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    value = repr(problem["input"])
    obvious = isinstance(problem["input"], dict | list) or value in message
    return f"{location or 'the file'}: {message}{'' if obvious else f' (got {value})'}."


def _options(problem: Any, model: type[BaseModel]) -> list[str]:
    """Return the keys that are allowed where an unknown one stands."""
    known: dict[str, Any] = problem.get("ctx") or {}
    return known.get("options") or _keys_at(model, problem["loc"][:-1])


def _closest(problem: Any, model: type[BaseModel]) -> str | None:
    """Return the allowed key that is most like an unknown one; None if none is."""
    close = difflib.get_close_matches(str(problem["loc"][-1]), _options(problem, model), n=1)
    return close[0] if close else None


def _place(problem: Any, key: str | None) -> tuple[Any, ...]:
    """Return the place of a key beside the one that a problem is about."""
    return (*problem["loc"][:-1], key)


def with_options(error: ValidationError, model: type[BaseModel]) -> ValidationError:
    """Return an error whose unknown keys carry the keys that `model` allows.

    For sections whose type the enclosing model does not tell: `explain` takes the keys from the
    error.
    """
    details = []
    for problem in error.errors(include_url=False):
        kind: Any = problem["type"]
        if kind == "extra_forbidden":
            options = _keys_at(model, problem["loc"][:-1])
            kind = PydanticCustomError("extra_forbidden", "Unknown key", {"options": options})
        details.append(
            InitErrorDetails(
                type=kind,
                loc=problem["loc"],
                input=problem["input"],
                ctx=problem.get("ctx", {}),
            )
        )
    return ValidationError.from_exception_data(error.title, details)


def _keys_at(model: Any, location: tuple[str | int, ...]) -> list[str]:
    """Return the keys allowed at `location` of a (nested) model."""
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        annotation = next((f.annotation for n, f in fields.items() if part in (n, f.alias)), None)
        model = _model_in(annotation)
    return [f.alias or n for n, f in getattr(model, "model_fields", {}).items()]


def _model_in(annotation: Any) -> Any:
    """Return the pydantic model inside ``X``, ``X | None`` or ``list[X]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None
