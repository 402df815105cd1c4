"""What can go wrong, as a user sees it: one sentence that names the thing and what to do."""


class PccdError(Exception):
    """A failure that is explained to the user in one sentence, without a traceback.

    The command line prints the message and exits with `exit_code`; ``--debug`` shows the traceback.
    """

    exit_code = 1


class InputError(PccdError, ValueError):
    """The user's input (a file, a field, an option) is wrong. Exit code 2."""

    exit_code = 2


class DatabaseError(PccdError):
    """MongoDB is down, read-only, full or refuses the credentials."""


class MissingDependencyError(PccdError):
    """An optional package, executable or weights file is not installed."""


class StaleResultError(PccdError):
    """Stored work belongs to other inputs than those asked for now."""


class Interrupted(PccdError):  # noqa: N818
    """A signal ended the command. Exit code 130 (SIGINT, Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class MachineFault(PccdError):  # noqa: N818
    """A device, memory, a disk or the database failed: never a verdict on a crystal.

    The job fails and can be run again, here or on another worker.
    """


class OutOfMemory(MachineFault):
    """Memory, of the machine or of its device, did not suffice."""


class DeviceFault(MachineFault):
    """A GPU failed; what this process holds on it is not to be trusted any more."""
