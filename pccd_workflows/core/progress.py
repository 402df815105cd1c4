"""How far a long piece of work is, for whoever watches this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and the total."""


def _nobody(what: str, done: int, total: int) -> None:
    """Tell nobody."""


_WATCHER: ContextVar[Tell] = ContextVar("watcher", default=_nobody)


def tell(what: str, done: int, total: int) -> None:
    """Tell whoever watches how far something is."""
    _WATCHER.get()(what, done, total)


@contextmanager
def watched(watcher: Tell) -> Iterator[None]:
    """Have progress told to `watcher` while the context lasts."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@contextmanager
def progress_bars(*, show: bool = True) -> Iterator[Tell]:
    """Yield what draws a bar for each piece of work, with the time left; on a terminal only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, disable=not (show and console.is_terminal))
    tasks: dict[str, TaskID] = {}

    def draw(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield draw
