"""The pages of the Python interface: what the packages' tables of contents name."""

import ast
from pathlib import Path

import pccd_workflows

PACKAGE = Path(pccd_workflows.__file__).parent
PACKAGES = (
    "",
    "generators",
    "analysis",
    "matching",
    "engines",
    "known",
    "evaluation",
    "report",
    "execution",
    "core",
)
"""Packages in the order of the pages; the first is `pccd_workflows` itself."""


def pages() -> dict[str, str]:
    """Return each page in Markdown by its path."""
    return {f"api/{name or 'index'}.md": _page(name) for name in PACKAGES}


def _page(name: str) -> str:
    full = f"pccd_workflows.{name}".rstrip(".")
    about = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
    lines = [f"# {full}", "", about, ""]
    if not name:
        lines += ["How these are used: [In a notebook](../python.md).", ""]
    for target in _contents(PACKAGE / name / "__init__.pyi", full):
        lines += [f"::: {target}", ""]
    return "\n".join(lines)


def _contents(stub: Path, package: str) -> list[str]:
    """Return the full name of everything that a stub lists, where it is defined."""
    found = []
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found += [f"{package}.{node.module}.{alias.name}" for alias in node.names]
    return [_defined(name) for name in found]


def _defined(name: str) -> str:
    """Follow a name that a package lists to the module that defines it."""
    module, _, attribute = name.rpartition(".")
    stub = PACKAGE.parent.joinpath(*module.split("."), "__init__.pyi")
    if not stub.exists():
        return name
    targets = _contents(stub, module)
    return next(target for target in targets if target.endswith(f".{attribute}"))
