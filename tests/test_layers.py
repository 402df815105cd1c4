"""The package's layers: who may import whom, and that importing costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pccd_workflows"
LAYERS = [
    {"core"},
    {"settings", "campaign", "candidate", "failures", "known", "matching", "analysis", "engines"}
    | {"generators", "execution", "stages"},
    {"evaluation"},
    {"jobs"},
    {"pipeline"},
    {"collect", "report", "explorer", "export", "query", "operations", "rescore", "cost"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
OWNERS = {
    "mp_api": {"known/mp_client.py"},
    "fireworks": {
        "execution/launchpad.py",
        "execution/atomic_launchpad.py",
        "execution/worker.py",
    },
    "maggma": {"execution/mongo.py", "execution/stores.py"},
    "chgnet": {"engines/potential.py", "engines/chgnet_calculator.py"},
    "sevenn": {"engines/potential.py", "engines/energy_only.py"},
    "custodian": {"engines/vasp.py"},
    "gpaw": {"engines/gpaw.py"},
}
VERSION = "pccd_workflows.__version__"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names a module imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "pccd_workflows":
                names |= {f"pccd_workflows.{alias.name}" for alias in node.names} - {VERSION}
    return names


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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_outside_system_has_one_owner(path):
    relative = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or relative in owners, f"{relative} must not import {name}"


@pytest.mark.parametrize("module", ["pccd_workflows", "pccd_workflows.cli"])
def test_importing_is_cheap(module):
    heavy = {"torch", "pymatgen", "fireworks"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == "[]"
