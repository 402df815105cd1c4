"""Files that come with the project: models, campaign files, templates of a cluster.

In a clone they are the folders beside the package, for people to read and change; a wheel holds
copies of them below the package (``tool.hatch.build`` in pyproject.toml).
"""

from importlib.resources import files
from pathlib import Path
from typing import Literal

from pccd_workflows.core.errors import MissingDependencyError

Folder = Literal["db_config", "flows", "model"]


def resource(folder: Folder, *parts: str) -> Path:
    """Return the path of a folder that comes with the project, or of a file in it.

    Parameters
    ----------
    folder, parts
        As in a clone: ``resource("flows", "references")`` is its ``flows/references``.

    Raises
    ------
    MissingDependencyError
        There is no such file: the installation is incomplete.
    """
    # pip unpacks wheels, so that package data are files and their paths can be handed on
    package = Path(str(files("pccd_workflows")))
    packaged = package / "resources"
    path = (packaged if packaged.is_dir() else package.parent).joinpath(folder, *parts)
    if not path.exists():
        raise MissingDependencyError(
            f"This installation of pccd_workflows is incomplete: {path} is missing. Install the "
            "wheel again, or take a whole clone of the repository."
        )
    return path


def campaign_file(path: str | Path) -> Path:
    """Return a campaign file: `path`, or the file of that name that comes with the project.

    The project's own is meant only where `path` names no folder and no such file is here.
    """
    path = Path(path)
    if path.name == str(path) and not path.exists() and path.name in shipped_campaigns():
        return resource("flows", path.name)
    return path


def shipped_campaigns() -> list[str]:
    """Return the names of the campaign files that come with the project."""
    return sorted(path.name for path in resource("flows").glob("*.yaml"))
