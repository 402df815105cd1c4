"""A worker that dies by SIGKILL at a chosen point: `killed_worker.py CAMPAIGN POINT LOG`.

POINT is `module:function:when:n`: the n-th call of that function (of a class, `Class.function`)
kills the process right `before` or `after` it. `none` kills nothing. Calls of the expensive
functions are appended to LOG as JSON lines, so that a test can see what was computed twice.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pccd_workflows.execution.worker import run_worker
from pccd_workflows.settings import get_settings


def owner_of(module: str, path: str) -> tuple[Any, str]:
    *classes, name = path.split(".")
    owner = importlib.import_module(module)
    for part in classes:
        owner = getattr(owner, part)
    return owner, name


def kill_at(module: str, path: str, when: str, number: int) -> None:
    owner, name = owner_of(module, path)
    original = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def log_calls(module: str, name: str, log: Path, key: Callable[..., list[Any]]) -> None:
    owner = importlib.import_module(module)
    original = getattr(owner, name)

    def logged(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        with log.open("a") as stream:
            for item in key(*args, **kwargs):
                stream.write(json.dumps([name, item]) + "\n")
        return result

    setattr(owner, name, logged)


def main(campaign_id: str, point: str, log: Path) -> None:
    from pccd_workflows.engines.potential import relaxation_key

    def relaxation(structure: Any, level: str, *, fmax: float, steps: int) -> list[str]:
        return [relaxation_key(structure, level, fmax=fmax, steps=steps)]

    def samples(_model: Any, requests: Any, **_: Any) -> list[int]:
        return [request.index for request in requests]

    log_calls("pccd_workflows.engines.potential", "relax", log, relaxation)
    log_calls("pccd_workflows.generators.pccd.sample", "sample_crystals", log, samples)
    if point != "none":
        module, path, when, number = point.split(":")
        kill_at(module, path, when, int(number))
    run_worker(get_settings(), campaign_id=campaign_id)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
