"""Public docstrings speak one dialect: numpy sections, types in the annotations alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pccd_workflows

PACKAGE = Path(pccd_workflows.__file__).parent
SECTION = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)
COMMAND_LINE = "cli"
"""The docstrings there are help texts, which say nothing of exceptions."""

Documented = ast.ClassDef | ast.FunctionDef


def public(body: list[ast.stmt]) -> Iterator[Documented]:
    for node in body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def sections(node: Documented) -> dict[str, str]:
    """Return the text of each numpy section of a docstring."""
    _, *parts = SECTION.split(ast.get_docstring(node) or "")
    return dict(zip(parts[::2], parts[1::2], strict=True))


def entries(node: Documented) -> list[str]:
    """Return the lines that name parameters or attributes."""
    found = sections(node)
    text = f"{found.get('Parameters', '')}\n{found.get('Attributes', '')}"
    return [line for line in text.splitlines() if line and not line[0].isspace()]


def names(node: Documented) -> set[str]:
    """Return the parameters of a function, the fields and constructor's parameters of a class."""
    if isinstance(node, ast.FunctionDef):
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        return {one.arg for one in every if one is not None}
    fields = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    return fields.union(*(names(one) for one in made))


def raised(node: ast.AST) -> Iterator[str]:
    """Yield the exceptions that a function raises itself."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            yield ast.unparse(child.exc.func)
        elif not isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            yield from raised(child)


def problems(source: str, *, command_line: bool = False) -> Iterator[str]:
    for node in public(ast.parse(source).body):
        if not ast.get_docstring(node):
            yield f"{node.name} has no docstring"
        for entry in entries(node):
            if " : " in entry:
                yield f"{node.name} repeats a type: {entry}"
            for name in entry.split(" : ")[0].split(","):
                if name.strip().lstrip("*") not in names(node):
                    yield f"{node.name} has no {name.strip()}"
        explained = sections(node).get("Raises", "")
        refuses = isinstance(node, ast.FunctionDef) and "InputError" in raised(node)
        if refuses and "InputError" not in explained and not command_line:
            yield f"{node.name} does not say when it raises InputError"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_docstrings_follow_the_dialect(path):
    command_line = path.relative_to(PACKAGE).parts[0] == COMMAND_LINE

    assert list(problems(path.read_text(encoding="utf-8"), command_line=command_line)) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def f(): ...", "f has no docstring"),
        ('class A:\n    """A."""\n    def f(self): ...', "f has no docstring"),
        ('def f(x):\n    """F.\n\n    Parameters\n    ----------\n    x : int\n    """', "repeats"),
        ('def f(x):\n    """F.\n\n    Parameters\n    ----------\n    y\n    """', "f has no y"),
        ('def f():\n    """F."""\n    if 1:\n        raise InputError("x")', "does not say when"),
    ],
)
def test_what_does_not_follow_it_is_found(source, problem):
    (found,) = problems(source)
    assert problem in found
