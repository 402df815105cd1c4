"""What stages read and write, wherever it lies: in memory, in a folder or in MongoDB.

Jobs hand crystals over by reference: a crystal is stored once under the hash of its content, and
what a stage finds out about a candidate is one small document. Nothing here grows with a campaign.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import ValidationError
from pymatgen.core import Structure

from pccd_workflows.core.errors import DatabaseError
from pccd_workflows.core.records import AS_STORED, Record
from pccd_workflows.core.reference_set import ReferenceSet

if TYPE_CHECKING:
    from pymongo.database import Database

Document = dict[str, Any]
R = TypeVar("R", bound=Record)
WRITER: ContextVar[str | None] = ContextVar("writer", default=None)
"""uuid of the job that is running: the author of the rows that are written."""


@dataclass(frozen=True)
class CrystalRef:
    """A crystal by reference.

    Attributes
    ----------
    id
        Of the candidate, or of the competing phase.
    key
        Where its structure is stored (see `structure_key`).
    """

    id: str
    key: str

    def as_dict(self) -> Document:
        """Return the reference as jobflow stores it."""
        return {
            "@module": type(self).__module__,
            "@class": type(self).__name__,
            "id": self.id,
            "key": self.key,
        }

    @classmethod
    def from_dict(cls, document: Document) -> "CrystalRef":
        """Return the reference that `as_dict` described."""
        return cls(document["id"], document["key"])


@dataclass(frozen=True)
class Share:
    """A share of the crystals that go on after a stage: what one job takes.

    Attributes
    ----------
    formulas
        Only crystals with reduced formulas from the first to the last, both among them, in the
        order of their text. Equal crystals have one formula, so what compares crystals takes whole
        formulas.
    places
        Only those from the first to the last but one in the order of rank and index, from 0.
    after
        Rank and index of the crystal before the first place, so that nobody has to count up to it
        (see `Storage.located`); None: from the beginning, or it is not known.
    """

    formulas: tuple[str, str] | None = None
    places: tuple[int, int] | None = None
    after: tuple[float, int] | None = None

    def as_dict(self) -> Document:
        """Return the share as jobflow stores it."""
        return {"@module": type(self).__module__, "@class": type(self).__name__, **asdict(self)}

    @classmethod
    def from_dict(cls, document: Document) -> "Share":
        """Return the share that `as_dict` described."""
        pairs = {name: document.get(name) for name in ("formulas", "places", "after")}
        return cls(**{name: pair and (pair[0], pair[1]) for name, pair in pairs.items()})

    def holds(self, formula: str | None) -> bool:
        """Return whether crystals of a formula may belong to it."""
        if self.formulas is None:
            return True
        return formula is not None and self.formulas[0] <= formula <= self.formulas[1]


ALL = Share()
"""All crystals that go on after a stage."""


@dataclass(frozen=True)
class StageRow:
    """What one stage says about one candidate.

    Attributes
    ----------
    campaign_id, candidate_id, index
        Whose it is; `index` is the number of the sample.
    stage
        As `CandidateDoc.stage`, e.g. ``relax:chgnet``.
    record
        The stage's record, as JSON values (see `read`).
    key
        Of the structure that the candidate leaves the stage with; None if it has none.
    goes_on
        Whether the next stage gets it.
    rank
        Lower ones come first in the next stage; ties by index.
    formula
        Reduced formula of that structure.
    job
        uuid of the job.
    at
        When it was written, by the clock of the storage.
    """

    campaign_id: str
    candidate_id: str
    index: int
    stage: str
    record: Document
    key: str | None = None
    goes_on: bool = False
    rank: float = 0.0
    formula: str | None = None
    job: str | None = field(default_factory=WRITER.get)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def read(self, kind: type[R], *, as_stored: bool = False) -> R:
        """Return the record as the stage's own type.

        as_stored: whether its structures stay dictionaries (see `records.AS_STORED`).

        Raises
        ------
        DatabaseError
            It is damaged.
        """
        try:
            return kind.model_validate(self.record, context=AS_STORED if as_stored else None)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DatabaseError(
                f"What stage {self.stage} says of {self.candidate_id} is damaged ({where}: "
                f"{first['msg']}): restore the database from a backup."
            ) from None

    def following(
        self,
        stage: str,
        record: Record,
        *,
        goes_on: bool,
        rank: float = 0.0,
        structure: Structure | None = None,
    ) -> "StageRow":
        """Return what the next stage says about the same candidate.

        structure: what it leaves that stage with; the one it came with if left out.
        """
        return replace(
            self,
            key=self.key if structure is None else structure_key(structure),
            stage=stage,
            record=record.model_dump(mode="json"),
            goes_on=goes_on,
            rank=rank,
            job=WRITER.get(),
            at=datetime.now(UTC),
        )

    @property
    def ref(self) -> CrystalRef:
        """The candidate's crystal, by reference.

        Raises
        ------
        ValueError
            If it left the stage without one.
        """
        if self.key is None:
            raise ValueError(f"{self.candidate_id} left {self.stage} without a structure")
        return CrystalRef(self.candidate_id, self.key)


class Results(Protocol):
    """Expensive results under content addresses: the first one written stays."""

    def get_result(self, key: str) -> Document | None:
        """Return the result stored under `key`; None if there is none that can be read."""

    def put_result(self, key: str, kind: str, result: Document) -> None:
        """Store a result of some kind (relaxation, single_point, phonons, ...) under its key."""

    def drop_results(self, keys: Sequence[str]) -> None:
        """Forget results, so that they are computed again."""


class Costs(Protocol):
    """What runs cost, by campaign and level."""

    def note_cost(self, row: Document) -> None:
        """Add one run to the costs."""

    def spent(self, campaign_id: str, level: str) -> float:
        """Return the core-hours that a campaign has spent at a level."""

    def budget(self, campaign_id: str, level: str) -> float | None:
        """Return the core-hours a rung may spend by a later decision; None: none was taken."""

    def note_skipped(self, campaign_id: str | None, level: str, job: str) -> None:
        """Remember a job that did nothing for want of budget."""


class Checkpoints(Protocol):
    """Attempts of long runs, by the content address of the run."""

    def get_checkpoint(self, key: str) -> Document | None:
        """Return what the latest unfinished attempt left."""

    def put_checkpoint(self, key: str, document: Document) -> None:
        """Note an attempt, or what became of it."""

    def drop_checkpoint(self, key: str) -> None:
        """Forget the attempts of a run that is done."""


class Watched(Protocol):
    """How far long jobs are, for those who watch."""

    def note_progress(self, campaign_id: str, what: str, done: int, total: int) -> None:
        """Say how far a job of a campaign is; `what` it does, with chemical system and level."""


class Storage(Results, Costs, Checkpoints, Watched, Protocol):
    """Everything the stages of a campaign read and write.

    database: with imported sets of known crystals and snapshots of the Materials Project; None
    where there are none.
    """

    @property
    def database(self) -> "Database[Document] | None":
        """The campaign database, if results are kept in one."""

    def expect_results(self, keys: Sequence[str]) -> None:
        """Prepare for questions for these results, which may be read all at once.

        What others store under them afterwards may not be seen by the first question for each.
        """

    def put_structures(self, structures: Mapping[str, Structure]) -> None:
        """Store structures under their keys (`structure_key`)."""

    def get_structures(self, keys: Iterable[str]) -> dict[str, Structure]:
        """Return stored structures by key; unknown keys are left out."""

    def structure_documents(self, keys: Iterable[str]) -> dict[str, Document]:
        """Return the same as the dictionaries that they are stored as."""

    def put_rows(self, rows: Sequence[StageRow]) -> None:
        """Store what a stage says; a row of the same candidate and stage is replaced."""

    def rows(
        self,
        campaign_id: str,
        stage: str,
        *,
        goes_on: bool | None = None,
        indices: tuple[int, int] | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[StageRow]:
        """Yield what a stage said, by rank and index.

        Parameters
        ----------
        goes_on
            Only those that go on, or do not.
        indices
            Only samples from the first to the last but one.
        ids
            Only these candidates.
        limit
            At most so many.
        """

    def going_on(self, campaign_id: str, stage: str, share: Share = ALL) -> Iterator[StageRow]:
        """Yield what goes on after a stage, by rank and index; the rows' records are left out."""

    def located(
        self, campaign_id: str, stage: str, shares: Sequence[Share], whole: Share = ALL
    ) -> list[Share]:
        """Return shares by places, one following the other, each with the crystal before it.

        whole: what they are shares of.
        """

    def formulas(self, campaign_id: str, stage: str, share: Share = ALL) -> list[tuple[str, int]]:
        """Return the reduced formulas of what goes on after a stage, sorted, and how many have it.

        share: by formulas; its places are not looked at.
        """

    def changed(
        self, campaign_id: str, since: datetime | None
    ) -> tuple[list[str], datetime | None]:
        """Return the candidates with rows written at or after `since`, and the latest time."""

    def find_references(
        self, source: str, chemsys: str, level: str, version: str | None = None
    ) -> ReferenceSet | None:
        """Return the latest stored set of this source, system and level.

        version: of the source it was made with; None takes any.
        """

    def settle_references(self, campaign_id: str, references: ReferenceSet) -> None:
        """Note that a campaign uses a stored set; the first one of its system and level stays."""

    def settled_references(self, campaign_id: str, level: str) -> dict[str, str]:
        """Return the ids of the sets that a campaign uses at a level, by chemical system."""

    def get_references(self, reference_id: str) -> ReferenceSet | None:
        """Return the stored set with this id."""

    def put_references(self, references: ReferenceSet) -> str:
        """Store a set; return its id."""

    def rows_of(self, campaign_id: str, ids: Sequence[str]) -> Iterator[StageRow]:
        """Yield what every stage said about these candidates."""

    def history(self, campaign_id: str, formulas: Sequence[str]) -> Iterator[tuple[str, Structure]]:
        """Yield the relaxed crystals of campaigns that had finished when this one was submitted.

        formulas: reduced; only crystals with one of them.
        """


def structure_key(structure: Structure) -> str:
    """Return the content address of a structure: sha256 of lattice, species, sites, properties."""
    content = [
        structure.lattice.matrix.tolist(),
        [site.species_string for site in structure],
        structure.frac_coords.tolist(),
        {name: list(values) for name, values in sorted(structure.site_properties.items())},
        structure.charge,
    ]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def store_crystals(storage: Storage, crystals: Iterable[tuple[str, Structure]]) -> list[CrystalRef]:
    """Store crystals given with their ids; return references to them, in their order."""
    pairs = [(name, structure, structure_key(structure)) for name, structure in crystals]
    storage.put_structures({key: structure for _, structure, key in pairs})
    return [CrystalRef(name, key) for name, _, key in pairs]


def load_crystals(storage: Storage, refs: Sequence[CrystalRef]) -> list[Structure]:
    """Return the crystals of references, in their order.

    Raises
    ------
    LookupError
        If one is not stored.
    """
    found = storage.get_structures({ref.key for ref in refs})
    if missing := [ref.id for ref in refs if ref.key not in found]:
        raise LookupError(f"The structures of {', '.join(missing)} are not stored any more.")
    return [found[ref.key] for ref in refs]
