"""What every engine can do: a task of a crystal at a level, run by run, from storage or computed.

An engine is one file (or folder) beside this one and a row in `ENGINES`, or anybody's object that
a level names as ``module:attribute``; a level is one row in `levels`. Nothing else in the package
asks which engine a level has.
"""

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from pymatgen.core import Structure

from pccd_workflows.analysis.magnetism import MagneticOrdering
from pccd_workflows.core.cores import allocated_cores
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.records import Record
from pccd_workflows.core.storage import Document, Results, Storage
from pccd_workflows.engines.levels import IMPORTABLE, Level, TaskKind, get_level
from pccd_workflows.engines.records import Forces, Relaxation, SinglePoint

if TYPE_CHECKING:
    from pccd_workflows.settings import Settings

R = TypeVar("R", bound=Record)

Purpose = Literal["candidate", "reference", "phonons"]
"""``candidate``: stopped by a spent budget, its result is the candidate's record in a stage.
``reference``: a competing phase; ``phonons``: a step on the way to a verdict. Both go on whatever
was spent: without them, verdicts would be wrong."""
OPTIONAL: tuple[TaskKind, ...] = ("bands",)
"""Kinds of tasks whose loss holds no candidate back."""
Category = Literal["gpu", "cpu"]
"""Which workers an engine needs."""

ENGINES = {
    "potential": "pccd_workflows.engines.potential:ENGINE",
    "vasp": "pccd_workflows.engines.vasp:ENGINE",
    "gpaw": "pccd_workflows.engines.gpaw:ENGINE",
}
"""Where the engines are; imported when they are needed."""


@dataclass(frozen=True)
class Displacement:
    """Which displaced supercell of a cell at rest is meant.

    Attributes
    ----------
    number
        Of the displacement, from 0.
    min_length, distance
        As in the phonons' section: length of the supercell and of the displacement, Å.
    """

    number: int
    min_length: float
    distance: float


@dataclass(frozen=True)
class Task:
    """What is computed of a crystal.

    Attributes
    ----------
    kind
        ``relax``: cell and sites at rest. ``tight``: as close to rest as phonons need. ``static``:
        the energy as it is. ``forces``: the forces as it is, as exact as phonons need. ``bands``:
        the electronic bands of the cell as it is, moments as spins of its species.
    purpose
        What for; no part of a result's key.
    fmax, steps
        Largest force of a crystal at rest, eV/Å, and most steps; None leaves them to the level.
        DFT levels have their own.
    ordering
        Magnetic order to start from; None leaves it to the level.
    displacement
        With it the crystal is the primitive cell at rest, moments as site property ``magmom``, of
        which the task takes this displaced supercell.
    """

    kind: TaskKind
    purpose: Purpose = "candidate"
    fmax: float | None = None
    steps: int | None = None
    ordering: MagneticOrdering | None = None
    displacement: Displacement | None = None

    @property
    def label(self) -> str:
        """What the table of costs calls it."""
        return "reference" if self.purpose == "reference" else self.kind

    @property
    def optional(self) -> bool:
        """Whether a candidate goes on without it."""
        return self.kind in OPTIONAL

    def as_dict(self) -> Document:
        """Return the task as jobflow stores it."""
        return {"@module": type(self).__module__, "@class": type(self).__name__, **asdict(self)}

    @classmethod
    def from_dict(cls, document: Document) -> "Task":
        """Return the task that `as_dict` described."""
        fields = {name: value for name, value in document.items() if not name.startswith("@")}
        if isinstance(moved := fields.get("displacement"), dict):
            fields["displacement"] = Displacement(**moved)
        return cls(**fields)


@dataclass(frozen=True)
class Restart:
    """How the next run differs from a plain one (`pccd job rerun` sets it).

    Attributes
    ----------
    from_last
        Whether it starts from the geometry that an earlier attempt left, if that is sane.
    incar
        INCAR tags set by hand, e.g. {"ALGO": "All"}.
    """

    from_last: bool = False
    incar: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Where an engine reads and writes while it works.

    Attributes
    ----------
    campaign_id
        Whose costs these are.
    """

    storage: Storage
    campaign_id: str | None = None
    restart: Restart = Restart()

    def note_progress(self, what: str, done: int, total: int) -> None:
        """Tell whoever watches the campaign how far a long piece of work is."""
        if self.campaign_id is not None:
            self.storage.note_progress(self.campaign_id, what, done, total)

    def note_cost(self, level: Level, task: Task, *, seconds: float, **facts: Any) -> None:
        """Add a run to the table of costs.

        Parameters
        ----------
        seconds
            Wall time, s.
        facts
            ``run`` (its name), ``cores`` (those of the queue if left out), ``gpus``, ``outcome``
            (``done``, ``failed``, ``killed``) and what the level's model of costs needs.
        """
        cores = facts.get("cores") or allocated_cores()
        row = {
            "outcome": "done",
            **facts,
            "campaign_id": self.campaign_id,
            "level": level.name,
            "plan": task.label,
            "seconds": seconds,
            "cores": cores,
            "core_hours": seconds * cores / 3600,
            "gpu_hours": seconds * facts.get("gpus", 0) / 3600,
            "at": datetime.now(UTC),
        }
        self.storage.note_cost(row)


class WalltimeReached(PccdError):  # noqa: N818
    """A run was stopped in time and can go on from where it was."""


class Engine(Protocol):
    """A program that computes tasks. Stateless: everything of a level is in its row."""

    category: Category
    batched: bool
    """Whether a task is quick enough to share a job with others, or to be done in this process."""
    restartable: bool
    """Whether `Restart` means anything to it."""

    def check(self, level: Level, elements: Sequence[str], settings: "Settings") -> None:
        """See that program, package, weights or pseudopotentials are there.

        Raises
        ------
        InputError, MissingDependencyError
            One sentence that names what is missing and how to get it.
        """

    def key(self, level: Level, structure: Structure, task: Task) -> str:
        """Return the content address of the result: structure, level and settings."""

    def runs(self, level: Level, task: Task) -> tuple[str, ...]:
        """Return the names of the task's runs, in order."""

    def next_run(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> str | None:
        """Return the name of the first run that is not stored yet; None if all are."""

    def finished(
        self, level: Level, structure: Structure, task: Task, results: Results
    ) -> Record | None:
        """Return the result, from what is stored; None if a run is missing.

        A Relaxation (``relax``, ``tight``), SinglePoint, Forces or Bands. What was assembled is
        stored under the task's key. A stored result that cannot be read is forgotten.
        """

    def run_next(self, level: Level, structure: Structure, task: Task, work: Work) -> Any:
        """Do the first run that is not stored yet, store it and note its cost.

        Returns what the job store should keep of it (atomate2's TaskDoc), or None.

        Raises
        ------
        WalltimeReached
            It was stopped in time; calling again goes on from there.
        MachineFault
            The machine failed, not the crystal.
        PccdError
            The run left no result.
        """


def engine_of(level: Level | str) -> Engine:
    """Return the engine that computes a level.

    Raises
    ------
    InputError
        The level or its engine is unknown, or cannot be imported.
    """
    of = get_level(level) if isinstance(level, str) else level
    if of.engine not in ENGINES and not IMPORTABLE.fullmatch(of.engine):
        raise InputError(
            f"Level {of.name!r}: unknown engine {of.engine!r}; use {sorted(ENGINES)}, or "
            "module:attribute for one of your own."
        )
    module, _, name = ENGINES.get(of.engine, of.engine).partition(":")
    try:
        return cast("Engine", getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Level {of.name!r}: its engine {of.engine!r} cannot be imported ({error})."
        ) from error


def compute(structure: Structure, level: str, task: Task, work: Work) -> Record:
    """Return what a task finds of a crystal: stored already, or computed now in this process.

    Raises
    ------
    InputError
        The level is unknown or does not compute such tasks.
    MachineFault, PccdError
        As `Engine.run_next`.
    """
    of = level_for(level, task)
    engine = engine_of(of)
    for _ in engine.runs(of, task):
        if engine.next_run(of, structure, task, work.storage) is None:
            break
        engine.run_next(of, structure, task, work)
    record = engine.finished(of, structure, task, work.storage)
    if record is None:
        raise PccdError(f"{level}: what was computed cannot be read back from where it is stored.")
    return record


def level_for(name: str, task: Task) -> Level:
    """Return the level that is to compute a task.

    Raises
    ------
    InputError
        It is unknown or does not compute such tasks.
    """
    level = get_level(name)
    if not level.computes(task.kind):
        raise InputError(f"Level {name!r} does not compute {task.kind}; it does {[*level.runs]}.")
    return level


def relax(structure: Structure, level: str, work: Work, task: Task) -> Relaxation:
    """Return a crystal at rest; as `compute`, for tasks ``relax`` and ``tight``."""
    return _of_kind(Relaxation, compute(structure, level, task, work))


def static(structure: Structure, level: str, work: Work) -> SinglePoint:
    """Return the energy of a crystal as it is; as `compute`."""
    return _of_kind(SinglePoint, compute(structure, level, Task("static"), work))


def forces(structure: Structure, level: str, work: Work) -> Forces:
    """Return the forces in a crystal as it is; as `compute`."""
    return _of_kind(Forces, compute(structure, level, Task("forces", "phonons"), work))


def _of_kind(kind: type[R], record: Record) -> R:
    if not isinstance(record, kind):
        raise TypeError(f"{type(record).__name__} is not a {kind.__name__}")
    return record
