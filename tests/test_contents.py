"""Each package's table of contents: complete, true, and free until a name is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pccd_workflows

SOURCE = Path(pccd_workflows.__file__).parent
PACKAGES = sorted(
    ".".join(path.parent.relative_to(SOURCE.parent).parts) for path in SOURCE.rglob("__init__.py")
)
HEAVY = {"ase", "chgnet", "fireworks", "jobflow", "numpy", "pymatgen", "pymongo", "scipy", "torch"}


def folder(package: str) -> Path:
    return SOURCE.parent.joinpath(*package.split("."))


LAZY = [name for name in PACKAGES if (folder(name) / "__init__.pyi").exists()]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_the_contents_is_there(package):
    module = importlib.import_module(package)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_hides_a_module(package):
    """`from package import name` would give either, depending on what was imported before."""
    modules = {path.stem for path in folder(package).glob("*.py")}
    assert not modules & set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", LAZY)
def test_beside_a_stub_there_is_no_code(package):
    """Type checkers see the stub alone."""
    docstring, *rest = ast.parse((folder(package) / "__init__.py").read_text()).body
    assert ast.get_docstring(ast.Module([docstring], []))
    assert {ast.unparse(node).partition(" = ")[0] for node in rest} <= {
        "import lazy_loader",
        "__version__",
        "(__getattr__, __dir__, __all__)",
        "__getattr__, __dir__, __all__",
    }


@pytest.mark.parametrize("package", LAZY)
def test_importing_a_package_loads_nothing_heavy(package):
    code = f"import sys, {package}; print(sorted({HEAVY} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == "[]"


def test_a_name_loads_only_its_own_module():
    code = "import sys; from pccd_workflows import InputError; print('pymatgen' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
