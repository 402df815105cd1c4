"""A program that ends with the process that started it.

Called as ``python bound_process.py <parent> <command...>``.

custodian starts VASP in a session of its own, so that a worker killed with SIGKILL would leave it
running. This script stands between the two, in VASP's process group: when the worker is gone it
ends the group, ranks of MPI included. Only the standard library, for it starts with every run.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from types import FrameType

GRACE_SECONDS = 5.0
"""How long the program may take to end after SIGTERM."""
CHECK_SECONDS = 0.2
"""Between looks at the parent."""
ENDED_BY = "The program was ended by"
"""Followed by the name of a signal, on stderr."""
SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux' prctl."""


def bound_command(command: str) -> str:
    """Return the command line under which `command` ends when this process does."""
    words = (sys.executable, "-S", "-E", __file__, str(os.getpid()))
    return f"{shlex.join(words)} {command}"


def main(parent: int, command: list[str]) -> int:
    """Run `command` until it ends or `parent` does; return its exit status, as a shell would."""
    told: list[int] = []
    with subprocess.Popen(command, preexec_fn=_die_with_parent) as child:  # noqa: PLW1509

        def pass_on(signum: int, _frame: FrameType | None) -> None:
            told.append(signum)
            child.terminate()

        signal.signal(signal.SIGTERM, pass_on)
        while os.getppid() == parent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = child.wait(CHECK_SECONDS)
                if status >= 0:
                    return status
                if not told:  # a crash leaves no other trace
                    sys.stderr.write(f"{ENDED_BY} {signal.Signals(-status).name}\n")
                return 128 - status
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
        os.killpg(0, signal.SIGKILL)  # what is left of the group, this process included
    return 1


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent, this script, is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, int(signal.SIGKILL))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
