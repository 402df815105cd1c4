"""How a benchmark ends: with its exit code, or with one sentence if its input is wrong."""

import sys
from collections.abc import Callable

from pccd_workflows.core.errors import PccdError


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit as it says; print what went wrong without a traceback."""
    try:
        code = main()
    except PccdError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    sys.exit(code)
