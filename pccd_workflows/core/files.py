"""Files that are either whole or not there."""

import os
import tempfile
from pathlib import Path

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.faults import FULL, disk_is_full

Folder = str | os.PathLike[str]
"""A folder as people name it."""


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write `content` under a temporary name beside `path`, then rename it; return `path`.

    A full disk or a kill leaves the file that was there before, or none.

    Raises
    ------
    InputError
        The file cannot be written there.
    MachineFault
        The disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch: Path | None = None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        scratch = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644 & ~_umask())
        scratch.replace(path)
    except OSError as error:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        if error.errno in FULL:
            raise disk_is_full(error, path) from None
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    return path


def _umask() -> int:
    """Return the process's umask; mkstemp ignores it, other programs expect it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it that are missing, in which nobody else writes.

    A folder that is there keeps its mode; a umask of 000 opens none.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o755, exist_ok=True)


def make_private(folder: Path) -> None:
    """Make a folder, with those above it that are missing, for its owner alone.

    A folder that is there keeps its mode. No umask is asked: that of a login node may be 000.
    """
    if folder.exists():
        return
    make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
