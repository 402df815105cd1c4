"""The folder in which a worker runs a job, and what the job prints."""

import contextlib
import io
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pccd_workflows.core.errors import MachineFault
from pccd_workflows.core.faults import FULL
from pccd_workflows.core.files import make_private
from pccd_workflows.execution.redaction import redacted


class _JobOutput(io.FileIO):
    """What a job prints; on a full disk it is dropped, for no job fails for want of its prints."""

    def write(self, data: Any) -> int:
        """Write what fits."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return memoryview(data).nbytes


def _job_output(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(_JobOutput(path, "w")), line_buffering=True)


@contextlib.contextmanager
def run_folder(runs: Path, firework: dict[str, Any], secrets: list[str]) -> Iterator[Path]:
    """Make a job's folder, work in it and send what is printed to ``job.out``; drop an empty one.

    Raises
    ------
    MachineFault
        The folder cannot be written.
    """
    campaign_id = str(firework.get("spec", {}).get("campaign_id", "other"))
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", firework["name"])[:60]
    base = runs / re.sub(r"[^A-Za-z0-9._-]", "-", campaign_id)
    try:
        folder = _new_folder(base, f"{firework['fw_id']:06d}-{slug}")
        stream = _job_output(folder / "job.out")
    except OSError as error:
        raise MachineFault(
            f"Run folders cannot be written below {base}: {error.strerror or error} "
            "(PCCD_DATA_DIR changes the place)."
        ) from None
    here = Path.cwd()
    try:
        with stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            os.chdir(folder)
            try:
                yield folder
            finally:
                os.chdir(here)
    finally:
        _tidy(folder, secrets)


def _tidy(folder: Path, secrets: list[str]) -> None:
    """Drop a folder in which nothing ran; blot out a password that a job printed."""
    printed = folder / "job.out"
    if printed.stat().st_size == 0:
        if not (folder / "FW.json").exists():
            printed.unlink()
            folder.rmdir()
    elif _holds(printed, secrets):
        printed.write_text(redacted(printed.read_text(errors="replace"), secrets))


def _holds(file: Path, secrets: list[str]) -> bool:
    """Return whether a file, which may be larger than the memory, holds a secret."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return any(text.find(secret.encode()) >= 0 for secret in secrets)


def _new_folder(base: Path, name: str) -> Path:
    make_private(base)
    attempt = 1
    while True:
        folder = base / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            attempt += 1
        else:
            return folder
