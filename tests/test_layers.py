"""The package's layers: who may import whom, and that importing costs nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pccd_workflows"
LAYERS = [
    {"core"},
    {"settings"},
    {"execution", "analysis", "matching"},
    {"engines", "known", "generators"},
    {"stages"},
    {"campaign", "candidate", "columns"},
    {"jobs"},
    {"pipeline"},
    {"collect", "query", "evaluation", "cost"},
    {"checks", "losses", "operations", "following", "rescore", "export", "ranking", "kinds"},
    {"discovery", "migrate", "api"},
    {"report", "explorer", "figures"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
OWNERS = {
    "atomate2": {"engines/vasp/inputs.py", "engines/vasp/run.py"},
    "mp_api": {"known/mp_client.py"},
    "pymongo": {
        *(f"execution/{name}.py" for name in ("atomic_launchpad", "backup", "inspection")),
        *(f"execution/{name}.py" for name in ("launchpad", "mongo", "mongo_storage", "mongod")),
        *(f"execution/{name}.py" for name in ("reruns", "worker")),
        "explorer/server.py",
    },
    "fireworks": {
        "execution/launchpad.py",
        "execution/atomic_launchpad.py",
        "execution/worker.py",
        "execution/workflow_part.py",
    },
    "maggma": {"execution/stores.py", "execution/storage.py"},
    "chgnet": {"engines/potential.py", "engines/chgnet_calculator.py"},
    "sevenn": {"engines/potential.py", "engines/energy_only.py"},
    "custodian": {"engines/vasp/run.py"},
    "gpaw": {"engines/gpaw.py"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in MODULES
}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is executed at some time: everything but blocks for type checkers."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from statements(child)


def imports(path: Path) -> set[str]:
    """Return the dotted names a module imports, wherever in the file; modules where it can."""
    names = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in NAMES else node.module for name in found}
    return names


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    own = layer(path)
    if own == "__init__":
        return
    assert own in RANK, f"{own} is in no layer"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "pccd_workflows" and len(parts) > 1 and parts[1] != own:
            assert RANK[parts[1]] <= RANK[own], f"{own} must not import {name}"


def test_no_module_imports_itself_in_a_circle():
    """Inside packages and inside functions, too."""
    graph = {module_name(path): imports(path) & NAMES for path in MODULES}
    assert [" -> ".join(circle) for circle in cycles(graph)] == []


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield a circle for each edge that closes one."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            yield [*trail[trail.index(name) :], name]
        elif name not in done:
            for other in sorted(graph[name] - {name}):
                yield from visit(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def test_a_circle_would_be_seen():
    assert next(cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == ["a", "b", "c", "a"]
    assert list(cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()})) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_outside_system_has_one_owner(path):
    relative = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or relative in owners, f"{relative} must not import {name}"


@pytest.mark.parametrize("module", ["pccd_workflows", "pccd_workflows.cli"])
def test_importing_is_cheap(module):
    heavy = {"torch", "pymatgen", "pymongo", "fireworks"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == "[]"


def test_the_document_says_the_same_of_layers():
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("```layers\n")
    lines, _, _ = rest.partition("\n```")
    assert [set(line.split(", ")) for line in lines.splitlines()] == LAYERS
