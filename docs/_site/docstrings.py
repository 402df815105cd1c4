"""Docstrings of this project for griffe: their sections name no types, the annotations do."""

import re
from typing import Any

import griffe

RETURNS = re.compile(r"^(Returns|Yields)\n-+\n((?:.+\n?)+)", re.MULTILINE)
RAISES = re.compile(r"^Raises\n-+\n((?:.*\n?)+)", re.MULTILINE)


class OurDialect(griffe.Extension):
    """Gives each returned value the type of its annotation, as numpy's style wants it."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Rewrite a function's docstring, once."""
        if func.docstring is not None:
            func.docstring.value = rewritten(func.docstring.value, func.returns)


def rewritten(text: str, returns: Any) -> str:
    """Return a docstring whose Returns section begins with a type, and whose Raises are single."""

    def typed(match: re.Match[str]) -> str:
        described = "".join(f"    {line}\n" for line in match[2].splitlines())
        return f"{match[1]}\n{'-' * len(match[1])}\n{returns or 'object'}\n{described}"

    def single(match: re.Match[str]) -> str:
        entries = re.split(r"\n(?=\S)", match[1].rstrip())
        parted = []
        for entry in entries:
            names, _, about = entry.partition("\n")
            parted += [f"{name.strip()}\n{about}" for name in names.split(",")]
        return "Raises\n------\n" + "\n".join(parted) + "\n"

    return RAISES.sub(single, RETURNS.sub(typed, text))
