"""Worker processes of this machine, and the funnel that fills while they run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pccd_workflows import following, operations
from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import DatabaseError, Interrupted, PccdError
from pccd_workflows.core.files import make_private
from pccd_workflows.execution import mongod
from pccd_workflows.execution.launchpad import MAX_DEATHS
from pccd_workflows.execution.mongo import OUTAGE_SECONDS, explained
from pccd_workflows.following import LongJob, RunningJob
from pccd_workflows.operations import FunnelCount, Progress
from pccd_workflows.settings import Settings

T = TypeVar("T")

POLL_SECONDS = 2.0
GRACE_SECONDS = 20.0
"""How long workers may take to put their jobs back after SIGTERM."""
WORKER_COMMAND = (sys.executable, "-P", "-m", "pccd_workflows", "worker", "--campaign")
"""-P: a file of the current folder, named smact.py say, is not run as that package."""
BAR_WIDTH = 30
MOST_NEWS = 3
"""Steps of the funnel in one line of a log; of more, the first and the last."""
BEST = 8
"""Crystals in the closing table."""
MOST_RUNNING = 4
"""Running jobs that are named."""
WANTED = (0, *(code for stop in (signal.SIGTERM, signal.SIGINT) for code in (128 + stop, -stop)))
"""Exit statuses of workers that found nothing left to do, or that somebody stopped."""
MOST_IN_VAIN = MAX_DEATHS
"""Workers that take the place of others, one after the other, while no job is completed: as many
as one job may end before it is failed."""
LOG_SECONDS = 30.0
"""Between two lines of a log in which only the progress of a job has changed."""


@dataclass(frozen=True)
class View:
    """What the screen shows while workers run.

    seconds: since the beginning. left: s, in the present stage; None if it cannot be said.
    """

    steps: list[FunnelCount]
    progress: Progress
    seconds: float
    left: float | None
    long_jobs: list[LongJob] = field(default_factory=list)
    running: list[RunningJob] = field(default_factory=list)


@dataclass
class Workers:
    """Worker processes, each with a log file."""

    campaign_id: str
    log_dir: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _completed: int = -1
    _in_vain: int = 0

    def start(self, count: int) -> None:
        """Start `count` workers that end when the campaign has nothing left to run."""
        make_private(self.log_dir)
        self.processes += [self._start(number) for number in range(count)]

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        environment = os.environ | {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PYTHONSAFEPATH": "1",  # -P for the programs that a job starts
        }
        with self._log(number).open("ab") as stream:
            return subprocess.Popen(
                [*WORKER_COMMAND, self.campaign_id, "--parent", str(os.getpid())],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _log(self, number: int) -> Path:
        return self.log_dir / f"worker-{number + 1}.log"

    def replace(self, progress: Progress) -> list[str]:
        """Start workers in the place of those that retired or died; say of each why, in one line.

        Not for ever: MOST_IN_VAIN at most while no job is completed.
        """
        if progress.completed > self._completed:
            self._completed, self._in_vain = progress.completed, 0
        told = []
        for number, process in enumerate(self.processes):
            if process.poll() in (None, *WANTED) or not progress.unfinished:
                continue
            if self._in_vain < MOST_IN_VAIN:
                self._in_vain += 1
                told.append(f"A worker takes the place of one that ended: {self._why(number)}")
                self.processes[number] = self._start(number)
        return told

    def _why(self, number: int) -> str:
        """Return why a worker ended, as its log or its exit status says."""
        status = self.processes[number].returncode
        if status < 0:
            return f"{signal.Signals(-status).name} (often for want of memory)."
        lines = self._log(number).read_text(errors="replace").splitlines()
        said = lines[-1].removeprefix("pccd: ") if lines else f"exit status {status}."
        return said.removeprefix("This worker ends, because ")

    @property
    def alive(self) -> int:
        """Number of workers that still run."""
        return sum(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """End all workers at once; `resume` puts their jobs back."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def stop(self) -> None:
        """End all workers; jobs in flight are put back by them or, later, by `resume`."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def work(document: dict[str, Any], campaign: Campaign, settings: Settings, count: int) -> Progress:
    """Run a campaign's jobs with `count` local workers, showing the funnel, until none can run."""
    campaign_id = document["_id"]
    operations.release_dead(campaign_id, settings)
    collector = operations.collector(document, settings)
    workers = Workers(campaign_id, settings.data_dir / "logs" / campaign_id)
    began = time.monotonic()
    console = Console()

    def look() -> View:
        progress = operations.progress(campaign_id, settings)
        collector.update(operations.lost_candidates(campaign, progress.failures))
        return View(
            operations.funnel(campaign, settings),
            progress,
            time.monotonic() - began,
            operations.seconds_left(campaign, settings, max(1, workers.alive)),
            following.long_jobs(campaign_id, settings),
            following.running_jobs(campaign_id, settings),
        )

    with _stopping(workers), _screen(console) as show:
        progress = operations.progress(campaign_id, settings)
        if progress.unfinished:
            workers.start(count)
        while True:
            ended = not workers.alive
            view = waiting_out(look, settings)
            progress = view.progress
            show(view)
            for line in workers.replace(progress):
                console.print(line, style="yellow", markup=False, soft_wrap=True, highlight=False)
            if ended and not workers.alive:
                break
            time.sleep(POLL_SECONDS)
    if progress.unfinished:
        raise PccdError(
            f"The workers ended with {progress.unfinished} jobs unfinished; see their logs in "
            f"{workers.log_dir} and go on with `pccd campaign resume {campaign_id}`."
        )
    return progress


def waiting_out(
    look: Callable[[], T], settings: Settings, *, patience: float = OUTAGE_SECONDS
) -> T:
    """Return `look()`, again and again while the database is away, as long as workers wait.

    An embedded server that died is started again; one that somebody stopped is not.

    Raises
    ------
    DatabaseError
        The database was away for `patience` seconds, or somebody stopped it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with explained(settings):
                return look()
        except DatabaseError:
            if time.monotonic() > deadline:
                raise
            if settings.mongodb_uri is None and mongod.died(settings):
                mongod.start(settings)
        time.sleep(POLL_SECONDS)


@contextmanager
def _stopping(workers: Workers) -> Iterator[None]:
    """Stop the workers whatever happens; say how to go on after an interruption.

    A second Ctrl-C does not wait for the workers to put their jobs back.
    """

    def interrupt(signum: int, _frame: Any) -> None:
        raise KeyboardInterrupt(signum)

    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    except KeyboardInterrupt as first:
        try:
            workers.stop()
        except KeyboardInterrupt:
            workers.kill()
        raise Interrupted(
            f"Interrupted; nothing is lost. Go on with `pccd campaign resume "
            f"{workers.campaign_id}`.",
            first.args[0] if first.args else signal.SIGINT,
        ) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        workers.stop()


@contextmanager
def _screen(console: Console) -> Iterator[Any]:
    """Yield a function that shows progress: redrawn on a terminal, line by line in a log."""
    if not console.is_terminal:
        yield _Log(console).write
        return
    with Live(console=console, refresh_per_second=4) as live:

        def draw(view: View) -> None:
            jobs = _jobs_line(view.progress, view.seconds, view.left)
            bars = map(_long_job_bar, view.long_jobs)
            live.update(Group(funnel_table(view.steps), jobs, running_line(view.running), *bars))

        yield draw


@dataclass
class _Log:
    """Writes what changed in the funnel and what runs, at once; of mere progress, now and then."""

    console: Console
    reached: dict[str, int] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    at: float | None = None

    def write(self, view: View) -> None:
        counts = {step.name: step.reached for step in view.steps}
        news = [f"{n} {name}" for name, n in counts.items() if n != self.reached.get(name, 0)]
        changed = news if len(news) <= MOST_NEWS else [news[0], news[-1]]
        running = [job.name for job in view.running[:MOST_RUNNING]]
        due = bool(view.long_jobs) and view.seconds - (self.at or 0.0) > LOG_SECONDS
        if self.at is not None and not changed and running == self.running and not due:
            return
        self.reached, self.running, self.at = counts, running, view.seconds
        now = [f"now {', '.join(running)}"] if running else []
        told = "; ".join([*changed, *now, *map(_long_job, view.long_jobs)]) or "nothing yet"
        text = f"[{view.seconds:5.0f} s] {told}"
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def funnel_table(steps: list[FunnelCount]) -> Table:
    """Return the funnel as a table with bars, relative to what was generated."""
    whole = max([steps[0].out_of or 0, *(step.reached for step in steps)]) or 1
    table = Table("step", "crystals", "", box=None, pad_edge=False)
    for step in steps:
        filled = round(BAR_WIDTH * step.reached / whole)
        bar = Text("█" * filled, style="green") + Text("·" * (BAR_WIDTH - filled), style="dim")
        total = f"/{step.out_of}" if step is steps[0] else ""
        table.add_row(step.name, f"{step.reached}{total}", bar)
    return table


def _jobs_line(progress: Progress, seconds: float, left: float | None) -> Text:
    total = sum(progress.states.values())
    parts = [f"{progress.completed}/{total} jobs", f"{_clock(seconds)} elapsed"]
    if left is not None:
        parts.append(f"about {_clock(left)} left in this stage")
    if progress.failures:
        parts.append(f"{len(progress.failures)} failed")
    return Text(" · ".join(parts), style="bold")


def running_line(running: list[RunningJob]) -> Text:
    """Return what workers do now and since when; nothing where none does anything."""
    shown = [f"{job.name} ({_clock(job.seconds)})" for job in running[:MOST_RUNNING]]
    if len(running) > MOST_RUNNING:
        shown.append(f"{len(running) - MOST_RUNNING} more")
    return Text(f"now: {', '.join(shown)}" if shown else "")


def _long_job(job: LongJob) -> str:
    left = "" if job.seconds_left is None else f", about {_clock(job.seconds_left)} left"
    return f"{job.what}: {job.done} of {job.total}{left}"


def _long_job_bar(job: LongJob) -> Text:
    filled = round(BAR_WIDTH * job.done / job.total)
    bar = Text("█" * filled, style="blue") + Text("·" * (BAR_WIDTH - filled), style="dim")
    return bar + Text(f" {_long_job(job)}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"


def status_view(campaign_id: str, view: View) -> Group:
    """Return what `pccd campaign status` shows."""
    progress = view.progress
    states = Table("jobs", "number", box=None, pad_edge=False)
    for state, number in sorted(progress.states.items()):
        states.add_row(state.lower(), str(number))
    parts: list[Any] = [Text(campaign_id, style="bold"), funnel_table(view.steps), Text(""), states]
    parts += [running_line(view.running)] if view.running else []
    parts += map(_long_job_bar, view.long_jobs)
    parts += [
        Text(f"failed: {failure['name']}: {failure['error']}", "red")
        for failure in progress.failures
    ]
    if progress.failures:
        parts.append(Text(f"Rerun them with: pccd campaign resume {campaign_id}"))
    return Group(*parts)


def print_outcome(campaign: Campaign, settings: Settings, report: Path, progress: Progress) -> None:
    """Print the funnel, the best crystals and where to look next."""
    from pccd_workflows.analysis.hull_words import missing_notes
    from pccd_workflows.cli.tables import print_candidates
    from pccd_workflows.execution import mongo
    from pccd_workflows.kinds import stored_kinds
    from pccd_workflows.query import campaign_ids, short_id
    from pccd_workflows.ranking import best_rows

    console = Console()
    console.print(funnel_table(operations.funnel(campaign, settings)))
    candidates = mongo.database(settings)["candidates"]
    best = best_rows(candidates, campaign.campaign_id, BEST)
    campaigns = campaign_ids(candidates)
    if best:
        print_candidates(best, campaigns)
        text = f"Kept:        {stored_kinds(candidates, campaign).sentence()}"
        console.print(text, soft_wrap=True, highlight=False)
    else:
        console.print("No crystal came near the hull; the report says why each was rejected.")
    for sentence in missing_notes(following.missing_phases(campaign.campaign_id, settings)):
        console.print(sentence, style="yellow", markup=False)
    for failure in progress.failures:
        text = f"failed: {failure['name']}: {failure['error']}"
        console.print(text, style="red", markup=False)
    if progress.failures:
        console.print(f"Rerun what failed: pccd campaign resume {campaign.campaign_id}")
    console.print(f"Report:      {report}", soft_wrap=True)
    index = best[0][0]["index"] if best else 0
    shown = short_id(campaign.campaign_id, index, campaigns)
    console.print(f"Show one:    pccd candidate show {shown}", soft_wrap=True)
