"""What is wrong with a user's input, in one sentence with the field and the options."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a pydantic error as one sentence with field and options."""
    problems = error.errors()
    first = problems[0]
    location = ".".join(str(part) for part in first["loc"])
    more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        options = _keys_at(model, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), options, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {options}."
        return f"unknown key {location!r}; {hint}{more}"
    if first["type"] == "missing":
        return f"{location!r} is missing.{more}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    value = repr(first["input"])
    obvious = isinstance(first["input"], dict | list) or value in message
    return f"{location or 'the file'}: {message}{'' if obvious else f' (got {value})'}.{more}"


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
