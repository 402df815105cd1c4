"""What a notebook calls: discover, relax, place on a hull, ask whether crystals are known.

Nothing here needs a server. Results are kept in memory, or in a folder where they outlive the
process; `read_campaign` reads what workers wrote to MongoDB.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pccd_workflows.campaign import Campaign
from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.columns import summary
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.storage import Storage
from pccd_workflows.core.systems import chemical_system
from pccd_workflows.query import SUMMARY_FIELDS
from pccd_workflows.ranking import rank_candidate

if TYPE_CHECKING:
    import pandas as pd
    from jobflow import Maker
    from pymatgen.core import Structure

    from pccd_workflows.core.reference_set import ReferenceSet
    from pccd_workflows.engines.records import Relaxation
    from pccd_workflows.kinds import KindCounts
    from pccd_workflows.known.novelty import Novelty, SetNovelty
    from pccd_workflows.matching.known_crystals import KnownCrystals
    from pccd_workflows.stages.hull import Stability

Folder = str | os.PathLike[str]


class Candidates(Sequence[CandidateDoc]):
    """The candidates of a campaign, the best first: those that passed, new ones before others.

    Parameters
    ----------
    campaign
        Whose they are.
    documents
        One for each crystal that was generated.
    """

    def __init__(self, campaign: Campaign, documents: Sequence[CandidateDoc]) -> None:
        self.campaign = campaign
        self._documents = sorted(
            documents, key=lambda doc: (doc.status != "passed", rank_candidate(doc), doc.index)
        )

    @overload
    def __getitem__(self, index: int) -> CandidateDoc: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CandidateDoc]: ...
    def __getitem__(self, index: int | slice) -> CandidateDoc | Sequence[CandidateDoc]:
        return self._documents[index]

    def __len__(self) -> int:
        return len(self._documents)

    def __repr__(self) -> str:
        steps = ", ".join(f"{label} {count}" for label, count in self.funnel().items())
        return f"<Candidates of {self.campaign.campaign_id}: {steps}>"

    def funnel(self) -> dict[str, int]:
        """Return how many candidates reached each step, in order."""
        from pccd_workflows import stages

        return {
            step.label: sum(step.key in document.reached for document in self)
            for step in stages.funnel(self.campaign)
        }

    def kinds(self) -> "KindCounts":
        """Return how many crystals the last rung kept: new ones by kind, and known ones."""
        from pccd_workflows.kinds import kinds_of

        return kinds_of(self.campaign, self)

    @property
    def passed(self) -> list[CandidateDoc]:
        """Those that no stage rejected."""
        return [document for document in self if document.status == "passed"]

    def structures(self) -> dict[str, "Structure"]:
        """Return the latest structure of each candidate that passed, by its id."""
        return {
            document.candidate_id: document.structure
            for document in self.passed
            if document.structure is not None
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a table, a row per candidate; energies in eV/atom."""
        import pandas as pd

        rows = [
            summary({name: getattr(document, name) for name in SUMMARY_FIELDS}, document.records)
            for document in self
        ]
        return pd.DataFrame(rows).set_index("candidate_id")

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(max_rows=20))


def discover(  # noqa: PLR0913
    what: str | Sequence[str] | Mapping[str, Any] | Campaign,
    *,
    samples: int = 32,
    seed: int = 0,
    level: str = "chgnet",
    energy_above_hull: float = 0.25,
    references: str = "known",
    folder: Folder | None = None,
    maker: "Maker | None" = None,
    progress: bool = True,
) -> Candidates:
    """Run a campaign in this process, from generated crystals to their place on the hull.

    Parameters
    ----------
    what
        A chemical system ("Mg-Mn-O" or its elements); or a whole campaign, or the mapping that a
        campaign file holds: then the options below it are not looked at.
    samples
        Crystals to generate.
    seed
        Fixes them.
    level
        Level of theory that relaxes them and places them on its hull.
    energy_above_hull
        What is kept, eV/atom, at most.
    references
        Where the competing phases come from, as in a campaign file: ``known`` is the library that
        comes with the project, ``prototypes`` are decorated structure types.
    folder
        Where results outlive the process: a second call with the same folder goes on. In memory if
        left out.
    maker
        The graph to run, e.g. a `DiscoveryMaker` with another relaxing Maker.
    progress
        Whether to print what runs.

    Returns
    -------
    One document for every crystal, rejected ones with the reason.

    Raises
    ------
    InputError
        The campaign does not fit: an element, a level or a model.
    PccdError
        A job failed; what was computed before is in `folder`.
    """
    from jobflow import run_locally

    from pccd_workflows.collect import fold
    from pccd_workflows.core.progress import progress_bars, watched
    from pccd_workflows.execution.memory import FolderStorage, MemoryStorage
    from pccd_workflows.execution.storage import use_storage
    from pccd_workflows.execution.stores import memory_store
    from pccd_workflows.operations import preflight
    from pccd_workflows.pipeline import DiscoveryMaker
    from pccd_workflows.settings import get_settings

    campaign = _campaign(what, samples, seed, level, energy_above_hull, references)
    versions = preflight(campaign, get_settings())
    storage = MemoryStorage() if folder is None else FolderStorage(Path(folder))
    flow = (maker or DiscoveryMaker()).make(campaign, versions)
    failures: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="pccd-") as scratch,
        _telling(failures, progress=progress),
        progress_bars(show=progress) as bars,
        watched(bars),
        use_storage(storage),
        chdir(scratch),
    ):
        run_locally(flow, store=memory_store(), log=False, create_folders=True)
    if failures:
        raise PccdError(f"{failures[0]} ({len(failures)} jobs failed.)")
    ids, _ = storage.changed(campaign.campaign_id, None)
    return Candidates(campaign, list(fold(campaign, storage, ids)))


def _campaign(
    what: str | Sequence[str] | Mapping[str, Any] | Campaign,
    samples: int,
    seed: int,
    level: str,
    energy_above_hull: float,
    references: str,
) -> Campaign:
    from pydantic import ValidationError

    from pccd_workflows.core.validation import explain

    if isinstance(what, Campaign):
        return what
    if not isinstance(what, Mapping):
        elements = what.split("-") if isinstance(what, str) else list(what)
        rung = {"level": level, "keep": {"energy_above_hull": energy_above_hull}}
        what = {
            "name": chemical_system(elements).lower(),
            "generate": {"elements": elements, "samples": samples, "seed": seed},
            "references": {"source": references},
            "rungs": [rung],
        }
    try:
        return Campaign.model_validate(what)
    except ValidationError as error:
        raise InputError(explain(error, Campaign)) from None


@contextmanager
def _telling(failures: list[str], *, progress: bool) -> Iterator[None]:
    """Print the names of jobs as they start, and collect what failed."""
    handler = _JobLog(failures, progress=progress)
    logger = logging.getLogger("jobflow")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _JobLog(logging.Handler):
    """Reads jobflow's log: which job starts, which one failed and why."""

    def __init__(self, failures: list[str], *, progress: bool) -> None:
        super().__init__(logging.INFO)
        self._failures = failures
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line of the log."""
        text = record.getMessage()
        if (started := re.match(r"Starting job - (.*) \(", text)) and self._progress:
            if started[1] != "store_inputs":
                print(f"{started[1]} ...", flush=True)  # noqa: T201
        elif "failed with exception" in text:
            self._failures.append(f"{text.splitlines()[0]} {text.strip().splitlines()[-1]}")


def relax(
    structures: "Sequence[Structure]",
    *,
    level: str = "chgnet",
    fmax: float = 0.05,
    steps: int = 300,
    folder: Folder | None = None,
) -> "list[Relaxation]":
    """Relax cells and sites of crystals at a level of theory that runs in this process.

    Parameters
    ----------
    structures
        Ordered crystals.
    fmax
        Largest force of a converged one, eV/Å.
    steps
        Most steps of each.
    folder
        Where relaxations outlive the process and are found again.

    Returns
    -------
    In their order; what could not be relaxed has a verdict and a reason.

    Raises
    ------
    InputError, MissingDependencyError
        The level is unknown, no potential, or its package is missing.
    """
    from pccd_workflows.engines.engine import Task, Work, compute
    from pccd_workflows.engines.records import Relaxation

    work = Work(_storage(folder))
    task = Task("relax", "reference", fmax=fmax, steps=steps)
    found = [compute(structure, level, task, work) for structure in structures]
    return [record for record in found if isinstance(record, Relaxation)]


def _storage(folder: Folder | None) -> Storage:
    from pccd_workflows.execution.memory import FolderStorage, MemoryStorage

    return MemoryStorage() if folder is None else FolderStorage(Path(folder))


def references(
    chemsys: str,
    *,
    source: str = "known",
    level: str = "chgnet",
    folder: Folder | None = None,
    progress: bool = True,
) -> "ReferenceSet":
    """Return the competing phases of a chemical system at a level, computed where missing.

    Parameters
    ----------
    source
        As in a campaign file (`references.source`), of those that need no database.
    folder
        Where what is computed outlives the process and is found again.
    progress
        Whether to draw how far it is, on a terminal.
    """
    from pccd_workflows.core.progress import progress_bars, watched
    from pccd_workflows.stages.references import build

    campaign = Campaign.model_validate(
        {
            "name": "references",
            "generate": {"elements": chemsys.split("-")},
            "references": {"source": source},
            "rungs": [{"level": level}],
        }
    )
    system = chemical_system(chemsys.split("-"))
    with progress_bars(show=progress) as bars, watched(bars):
        return build(campaign, campaign.rungs[0], system, _storage(folder))


def place_on_hull(
    relaxations: "Sequence[Relaxation]",
    phases: "ReferenceSet | None" = None,
    *,
    folder: Folder | None = None,
) -> "list[Stability]":
    """Return where relaxed crystals lie on the hull of competing phases of the same level.

    Energies that lack the MP2020 corrections get them here, once.

    Parameters
    ----------
    relaxations
        All of one level.
    phases
        What competes; the known crystals of their chemical systems if left out.
    folder
        Where what is computed of them outlives the process and is found again.
    """
    from pccd_workflows.stages.hull import judge_stability
    from pccd_workflows.stages.rung import Keep, Rung

    named = {str(number): relaxation for number, relaxation in enumerate(relaxations)}
    sets = _known_phases(relaxations, folder) if phases is None else [phases]
    if not relaxations:
        return []
    level = sets[0].level if sets else relaxations[0].level
    everything = Rung(level=level, keep=Keep(energy_above_hull=10.0))
    found = judge_stability(named, everything, sets)
    return [found[name] for name in named]


def _known_phases(
    relaxations: "Sequence[Relaxation]", folder: Folder | None
) -> "list[ReferenceSet]":
    """Return the known phases of the chemical systems of relaxed crystals, at their level."""
    from pccd_workflows.core.systems import maximal_systems

    usable = [r for r in relaxations if r.usable]
    levels = sorted({r.level for r in usable})
    if len(levels) > 1:
        raise InputError(
            f"The crystals have several levels ({', '.join(levels)}): place each alone."
        )
    systems = maximal_systems(
        r.structure.chemical_system for r in usable if r.structure is not None
    )
    return [references(system, level=levels[0], folder=folder) for system in systems]


def is_known(
    structures: "Sequence[Structure]",
    known: "Sequence[Structure] | ReferenceSet | None" = None,
) -> "list[Novelty]":
    """Return for each crystal whether it repeats an earlier one of them, and whether it is known.

    The verdicts name the known crystal, and of what is new the kind: a substitution (of which
    known crystal) or a new structure type.

    known: crystals to compare with, by structure, whatever their cell; the library of known
    crystals that comes with the project by default.
    """
    from pccd_workflows.known.novelty import LIBRARY
    from pccd_workflows.matching.groups import DEFAULT_SETTINGS
    from pccd_workflows.stages import novelty

    def look_up(crystals: novelty.Crystals) -> Mapping[str, "SetNovelty"]:
        if known is None:
            return novelty.in_library(crystals, settings=DEFAULT_SETTINGS, kinds=True)
        return novelty.match_known(crystals, _index(known), frameworks=True)

    name = LIBRARY if known is None else "known"
    crystals = {str(number): structure for number, structure in enumerate(structures)}
    duplicates = novelty.find_duplicates(crystals, DEFAULT_SETTINGS)
    found = novelty.look_up(crystals, {name: look_up}, kinds=True)
    return [
        verdict.model_copy(update={"duplicate_of": duplicates.get(number)})
        for number, verdict in found.items()
    ]


def _index(known: "Sequence[Structure] | ReferenceSet") -> "KnownCrystals":
    from pccd_workflows.core.reference_set import ReferenceSet
    from pccd_workflows.matching.known_crystals import KnownCrystals

    if isinstance(known, ReferenceSet):
        entries = ((entry.entry_id, entry.structure) for entry in known.entries)
        return KnownCrystals((i, structure) for i, structure in entries if structure is not None)
    return KnownCrystals((str(number), structure) for number, structure in enumerate(known))


def read_campaign(name: str) -> Candidates:
    """Return the candidates of a campaign in MongoDB, by its name or id, as last collected.

    Raises
    ------
    InputError
        There is no such campaign; the message names those that exist.
    DatabaseError
        The database is not there.
    """
    from pccd_workflows import operations, query
    from pccd_workflows.execution.mongo import database
    from pccd_workflows.settings import get_settings

    settings = get_settings()
    document = operations.campaign_document(operations.check_reference(name), settings)
    rows = database(settings)["candidates"].find({"campaign_id": document["_id"]}, {"_id": 0})
    found = [query.to_candidate(row) for row in rows]
    return Candidates(operations.stored_campaign(document), found)
