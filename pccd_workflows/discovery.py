"""A campaign in this process, without a server; results may outlive it in a folder."""

import logging
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
from pccd_workflows.core.files import Folder
from pccd_workflows.core.systems import chemical_system
from pccd_workflows.query import SUMMARY_FIELDS
from pccd_workflows.ranking import rank_candidate

if TYPE_CHECKING:
    import pandas as pd
    from jobflow import Maker
    from pymatgen.core import Structure

    from pccd_workflows.core.storage import Storage
    from pccd_workflows.kinds import KindCounts


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


class LostJobs(PccdError):  # noqa: N818
    """Jobs of a campaign in this process failed.

    Attributes
    ----------
    candidates
        What there is; crystals that the jobs hold back are ``failed``, with the reason.
    """

    def __init__(self, message: str, candidates: Candidates) -> None:
        super().__init__(message)
        self.candidates = candidates


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
    LostJobs
        A job failed; says what to do, and holds the candidates. What was computed is in `folder`.
    """
    from jobflow import run_locally

    from pccd_workflows.checks import preflight
    from pccd_workflows.core.progress import progress_bars, watched
    from pccd_workflows.execution.memory import FolderStorage, MemoryStorage
    from pccd_workflows.execution.storage import use_storage
    from pccd_workflows.execution.stores import memory_store
    from pccd_workflows.pipeline import DiscoveryMaker
    from pccd_workflows.settings import get_settings

    campaign = _campaign(what, samples, seed, level, energy_above_hull, references)
    versions = preflight(campaign, get_settings())
    storage = MemoryStorage() if folder is None else FolderStorage(Path(folder))
    flow = (maker or DiscoveryMaker()).make(campaign, versions)
    failures: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="pccd-") as scratch,
        _telling(failures, progress=progress),
        progress_bars(show=progress) as bars,
        watched(bars),
        use_storage(storage),
        chdir(scratch),
    ):
        run_locally(flow, store=memory_store(), log=False, create_folders=True)
    found = _folded(campaign, storage, failures)
    if failures:
        raise LostJobs(_what_failed(failures, found, folder), found)
    return found


def _folded(
    campaign: Campaign, storage: "Storage", failures: Sequence[dict[str, Any]]
) -> Candidates:
    """Return the candidates of what stages wrote and failed jobs hold back."""
    from pccd_workflows.collect import fold
    from pccd_workflows.losses import lost_candidates, name_candidates

    name_candidates(campaign.campaign_id, failures, storage)
    lost = lost_candidates(campaign, failures)
    ids, _ = storage.changed(campaign.campaign_id, None)
    return Candidates(campaign, list(fold(campaign, storage, sorted({*ids, *lost}), lost)))


def _what_failed(
    failures: Sequence[dict[str, Any]], found: Candidates, folder: Folder | None
) -> str:
    """Say what failed, what it costs and how to go on."""
    first, *others = failures
    more = f", and {len(others)} more" if others else ""
    held_back = sum(document.status == "failed" for document in found)
    how = (
        "the same folder, in which all that was computed is found again"
        if folder is not None
        else "folder=..., so that what is computed is kept should it fail again"
    )
    return (
        f"Job {first['name']!r} failed: {first['error'].rstrip('.')}{more}. This holds back "
        f"{held_back} of {len(found)} crystals (see the `candidates` of this exception). Mend the "
        f"cause and call discover again with {how}."
    )


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
def _telling(failures: list[dict[str, Any]], *, progress: bool) -> Iterator[None]:
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

    def __init__(self, failures: list[dict[str, Any]], *, progress: bool) -> None:
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
            self._failures.append(_failure(text.strip().splitlines()[-1].strip()))


def _failure(error: str) -> dict[str, Any]:
    """Return what is known of the job that has just failed: jobflow leaves it the current one."""
    from jobflow import CURRENT_JOB

    job = CURRENT_JOB.job
    if job is None:
        return {"name": "?", "error": error, "metadata": {}}
    return {"name": job.name, "error": error, "metadata": dict(job.metadata)}
