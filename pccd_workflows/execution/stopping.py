"""SIGTERM and Ctrl-C as a request: they interrupt a job, never the book-keeping."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any


class WorkerStopped(BaseException):
    """SIGTERM or Ctrl-C reached a running job. No Exception: a job must not swallow it."""


@dataclass
class Stop:
    """Whether the worker was asked to end; interrupts only a job, never the book-keeping."""

    requested: str | None = None
    in_job: bool = False
    device_fault: str | None = None
    """Why this process is not to be trusted with another job."""

    @property
    def now(self) -> bool:
        """Whether to take no other job."""
        return self.requested is not None or self.device_fault is not None

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Note the first request, and interrupt the job; obey a second one at once."""
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(signum).name
        if self.in_job:
            self.in_job = False
            raise WorkerStopped(self.requested)

    def enter_job(self) -> None:
        """From here on a request interrupts; one that came just before does so now."""
        if self.requested is not None:
            raise RuntimeError(f"stopped by {self.requested} before the job began")
        self.in_job = True


@contextlib.contextmanager
def handling_signals(stop: Stop) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a request to stop (only the main thread may)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Callable[..., Any] | int | None] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, stop.handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
