"""Which errors are the machine's (memory, device, disk, database), and the sentence for each."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from pccd_workflows.core.errors import DeviceFault, MachineFault, OutOfMemory

NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""In the texts of torch's and C++'s errors."""
DEVICE = ("cuda", "cudnn", "cublas", "cusolver", "cusparse", "nccl", "hip error", "device-side")
"""In the texts of a GPU's errors, which torch raises as RuntimeError."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk, or of a user's share of it, that is full."""


def machine_fault(error: BaseException) -> MachineFault | None:
    """Return the machine's fault that an error is a sign of; None if it is no such sign."""
    if isinstance(error, MachineFault):
        return error
    name, text = type(error).__name__, str(error).lower()
    # torch without CUDA asserts
    runtime = isinstance(error, RuntimeError | AssertionError)
    if isinstance(error, MemoryError) or (
        runtime and (name == "OutOfMemoryError" or any(sign in text for sign in NO_MEMORY))
    ):
        return OutOfMemory(_sentence(error))
    if runtime and (name == "AcceleratorError" or any(sign in text for sign in DEVICE)):
        return DeviceFault(_sentence(error))
    if isinstance(error, OSError) and error.errno in FULL:
        return disk_is_full(error)
    database = any(kind.__module__.startswith("pymongo") for kind in type(error).__mro__)
    if database or isinstance(error, OSError | ImportError | SystemError):
        return MachineFault(_sentence(error))
    return None


def disk_is_full(error: OSError, place: Path | None = None) -> MachineFault:
    """Return the fault that names the disk that is full.

    place: a file or folder on it; if left out, the error's file, else the fullest disk in use.
    """
    if place is None and error.filename is not None:
        place = Path(os.fsdecode(error.filename))
    if place is None:  # a failed write does not say where; jobs write to these
        used = [path for path in (_here(), Path(tempfile.gettempdir())) if path is not None]
        place = min(used, key=lambda path: shutil.disk_usage(path).free)
    return MachineFault(
        f"MachineFault: The disk of {place} is full ({error.strerror}): free some space."
    )


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


def first_line(error: BaseException) -> str:
    """Return kind and first line of an error, without the full stop."""
    text = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unexplained(error: BaseException) -> MachineFault:
    """Return the machine's fault that an error is taken for."""
    return MachineFault(_sentence(error))


def _sentence(error: BaseException) -> str:
    return f"MachineFault: {first_line(error)}: this is no verdict, run the job again."
