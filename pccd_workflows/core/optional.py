"""Packages that only some uses need, and the extra of this project that brings each."""

from collections.abc import Iterator
from contextlib import contextmanager

from pccd_workflows.core.errors import MissingDependencyError

EXTRAS = {
    "atomate2": "vasp",
    "custodian": "vasp",
    "emmet": "mp",
    "fireworks": "workflow",
    "gpaw": "gpaw",
    "lightning": "train",
    "mp_api": "mp",
}
"""Extra (pyproject.toml) that installs each package, by the name it is imported as."""


@contextmanager
def optional_imports(use: str) -> Iterator[None]:
    """Turn a failed import of an optional package into one sentence that says what to install.

    Parameters
    ----------
    use
        What needs the package, as the sentence's subject: "A campaign in MongoDB".

    Raises
    ------
    MissingDependencyError
        The block imports a package of EXTRAS that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingDependencyError(
            f"{use} needs {package}, which is not installed: "
            f"pip install 'pccd-workflows[{EXTRAS[package]}]'."
        ) from error
