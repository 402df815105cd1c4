"""Which candidates: one validated filter, shared by every command and page, as a MongoDB query."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pymatgen.core import Composition, Element

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.columns import quantities, stage_columns
from pccd_workflows.core.errors import DatabaseError, InputError
from pccd_workflows.core.records import AS_STORED
from pccd_workflows.core.units import EV_TO_MEV
from pccd_workflows.engines.records import Phonons
from pccd_workflows.known.novelty import Kind
from pccd_workflows.stages import stage_of
from pccd_workflows.stages.stage import Status

STATUSES: tuple[str, ...] = get_args(Status)
PHONON_VERDICTS: tuple[str, ...] = get_args(Phonons.model_fields["verdict"].annotation)
KINDS: tuple[str, ...] = get_args(Kind)
MAX_LIMIT = 1_000_000
MAX_EHULL = 10.0
"""eV/atom; a larger number was meant in meV/atom."""
DOUBTFUL_EHULL = 1.0
"""eV/atom; so much lets nearly every crystal pass, and may be meant in meV/atom."""
SORT_KEYS = (
    "energy_above_hull",
    "index",
    "formula_pretty",
    "kind_of_new",
    "known_id",
    "novel",
    "nsites",
    "spacegroup",
    "status",
    "updated_at",
)
"""Fields a list can be sorted by, all indexed, beside the columns of stages (``values.<key>``); a
leading '-' turns the order round."""

SUMMARY_FIELDS = (
    "candidate_id",
    "campaign_id",
    "campaign",
    "index",
    "status",
    "stage",
    "reason_class",
    "reason",
    "formula_pretty",
    "chemsys",
    "nsites",
    "spacegroup",
    "energy_above_hull",
    "novel",
    "kind_of_new",
    "known_id",
    "phonon_stable",
    "band_gap",
    "updated_at",
)
"""What a table row needs of a document (no structures, no bands)."""

# Everything a name, a stage or an id of ours can contain: neither '$' nor a quote nor NUL.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")
_STAGE = re.compile(r"[a-z_]{1,40}(?::[A-Za-z0-9._/:-]{1,120})?")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./:-]{0,60}")

# an index, or one as ids hold it; other zeros in front are the beginning of an id that was cut
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}|[0-9]{6}")
SHORTEST_HASH = 4
"""Digits of a campaign's hash in short ids, at least."""

PLAIN = (str, int, bool, type(None))
"""Types of values that cannot hold a number that is none."""
NOTHING = [None, math.nan]
"""Values of a field that say nothing."""

Query = dict[str, Any]
Order = list[tuple[str, int]]


@dataclass(frozen=True)
class Range:
    """Bounds of a quantity (see `columns.quantities`), both included; None: no bound.

    Raises
    ------
    InputError
        The quantity is unknown, or the bounds exclude each other.
    """

    key: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Check the quantity and the order of the bounds."""
        _one_of("quantity", self.key, tuple(quantities()))
        if self.low is not None and self.high is not None and self.low > self.high:
            label = quantities()[self.key].label
            raise InputError(f"{label}: {self.low:g} is larger than {self.high:g}.")

    def to_mongo(self) -> Query:
        """Return the condition on stored documents."""
        bounds = {"$gte": self.low, "$lte": self.high}
        asked = {operator: bound for operator, bound in bounds.items() if bound is not None}
        return {quantities()[self.key].field: asked}

    @property
    def doubt(self) -> str:
        """A question about an energy above hull that was meant in meV/atom."""
        doubtful = self.key == "energy_above_hull" and (self.high or 0.0) >= DOUBTFUL_EHULL
        return _doubt("Energies above hull are", self.high or 0.0) if doubtful else ""


@dataclass(frozen=True)
class CandidateFilter:
    """Which candidates to take, and in which order; every value is checked when it is made.

    campaign: a campaign's name or its id.
    chemsys: exactly these elements, in any order ("O-Mg-Mn").
    formula: any multiple or order of the formula ("O2Mg2" finds MgO).
    elements: crystals that contain at least all of these.
    max_ehull: largest energy above hull, eV/atom; crystals without one are left out.
    novel: the verdict asked for; crystals without one are left out.
    kind: one of `KINDS`; crystals of which it was not asked are left out.
    phonons: the last verdict; one of `PHONON_VERDICTS`.
    ranges: crystals whose quantities lie inside; those without a value are left out.
    sort: one of `SORT_KEYS` or ``values.<key>``, with '-' for descending; crystals without a value
    come last.

    Raises
    ------
    InputError
        A value is not what its field can hold.
    """

    campaign: str | None = None
    chemsys: str | None = None
    formula: str | None = None
    elements: tuple[str, ...] = ()
    max_ehull: float | None = None
    novel: bool | None = None
    kind: str | None = None
    phonons: str | None = None
    status: str | None = None
    stage: str | None = None
    reason_class: str | None = None
    limit: int | None = None
    sort: str = "energy_above_hull"
    ranges: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        """Check every value and bring chemical systems and formulas into the stored form."""
        _match(_NAME, "campaign", self.campaign)
        _check_stage(self.stage)
        _match(_WORD, "reason class", self.reason_class)
        _one_of("status", self.status, STATUSES)
        _one_of("kind", self.kind, KINDS)
        _one_of("phonon verdict", self.phonons, PHONON_VERDICTS)
        key = self.sort.removeprefix("-")
        if key.removeprefix("values.") not in {c.key for _, c in stage_columns()}:
            _one_of("sort key", key, SORT_KEYS)
        for symbol in self.elements:
            _check_element(symbol)
        if self.max_ehull is not None and not abs(self.max_ehull) <= MAX_EHULL:
            raise InputError(
                f"The energy above hull is in eV/atom, at most {MAX_EHULL:g}, not "
                f"{self.max_ehull:g} (80 meV/atom is 0.08)."
            )
        if self.limit is not None and not 1 <= self.limit <= MAX_LIMIT:
            raise InputError(f"The limit must be between 1 and {MAX_LIMIT}, not {self.limit}.")
        if self.chemsys is not None:
            object.__setattr__(self, "chemsys", normalise_chemsys(self.chemsys))
        if self.formula is not None:
            object.__setattr__(self, "formula", normalise_formula(self.formula))

    def to_mongo(self) -> Query:
        """Return the filter document; values are only ever compared, never interpreted."""
        conditions: Query = {
            "chemsys": self.chemsys,
            "formula_pretty": self.formula,
            "status": self.status,
            "stage": self.stage,
            "reason_class": self.reason_class,
            "novel": self.novel,
            "kind_of_new": self.kind,
            "phonon_stable": {"stable": True, "unstable": False}.get(self.phonons or ""),
        }
        query: Query = {
            field: {"$eq": value} for field, value in conditions.items() if value is not None
        }
        if self.phonons in ("ambiguous", "error"):
            query |= {"phonons.verdict": self.phonons, "phonon_stable": None}
        if self.campaign is not None:
            query["$or"] = [{"campaign": self.campaign}, {"campaign_id": self.campaign}]
        if self.elements:
            query["elements"] = {"$all": list(self.elements)}
        if self.max_ehull is not None:
            query["energy_above_hull"] = {"$lte": self.max_ehull}
        if self.ranges:
            query["$and"] = [one.to_mongo() for one in self.ranges]
        return query

    def segments(self) -> list[tuple[Query, Order]]:
        """Return the queries whose results, one after the other, are the sorted answer.

        MongoDB sorts missing values first; a person wants them last. Two queries do that and
        still use the index, which a computed sort key could not.
        """
        field, direction = self.sort.removeprefix("-"), -1 if self.sort.startswith("-") else 1
        query = self.to_mongo()
        with_value = {"$and": [query, {field: {"$nin": NOTHING}}]}
        without_value = {"$and": [query, {field: {"$in": NOTHING}}]}
        # ties in the same direction as the field, so that one index serves both orders
        order = [(field, direction), ("_id", direction)]
        return [(with_value, order), (without_value, [("_id", 1)])]

    def describe(self) -> str:
        """Return the filter as the options that would repeat it; empty if it lets all pass."""
        parts = [
            f"--{name.replace('_', '-')} {value}"
            for name in (
                "campaign",
                "chemsys",
                "formula",
                "max_ehull",
                "kind",
                "phonons",
                "status",
                "stage",
            )
            if (value := getattr(self, name)) is not None
        ]
        parts += [f"--element {symbol}" for symbol in self.elements]
        if self.reason_class is not None:
            parts.append(f"--reason {self.reason_class}")
        if self.novel is not None:
            parts.append("--novel" if self.novel else "--known")
        return " ".join(parts)

    @property
    def doubt(self) -> str:
        """A question about a value that is possible, but hardly meant; empty if there is none."""
        if self.max_ehull is not None and self.max_ehull >= DOUBTFUL_EHULL:
            return _doubt("Energies above hull are", self.max_ehull)
        return next((found for one in self.ranges if (found := one.doubt)), "")


def _doubt(subject: str, value: float) -> str:
    return (
        f"{subject} in eV/atom here: {value:g} lets nearly every crystal pass. "
        f"Did you mean {value:g} meV/atom, that is {value / EV_TO_MEV:g}?"
    )


def normalise_chemsys(text: str) -> str:
    """Return a chemical system as documents hold it: sorted symbols joined by '-'.

    Raises
    ------
    InputError
        A symbol is unknown or named twice.
    """
    symbols = [symbol.strip() for symbol in text.split("-")]
    for symbol in symbols:
        _check_element(symbol)
    if len(set(symbols)) != len(symbols):
        raise InputError(f"Chemical system {text!r} names an element twice.")
    return "-".join(sorted(symbols))


def normalise_formula(text: str) -> str:
    """Return the reduced formula as documents hold it ("O2Mg2" -> "MgO")."""
    problem = InputError(f"{text!r} is not a chemical formula such as MgMn2O4.")
    if not re.fullmatch(r"[A-Za-z0-9().]{1,80}", text):
        raise problem
    try:
        composition = Composition(text, strict=True)
        formula = str(composition.reduced_formula)
    except (ValueError, KeyError, ArithmeticError):
        raise problem from None
    if not composition:
        raise problem
    return formula


def find_documents(
    collection: Any,
    which: CandidateFilter,
    *,
    fields: Iterable[str] | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the documents of `which` in order, without their ``_id`` and numbers that are none.

    collection: a pymongo collection of candidates.
    fields: fields to fetch; None fetches whole documents.
    skip: how many to leave out at the start (for pages).
    limit: at most so many; None takes the filter's own limit.
    """
    projection: dict[str, int] = {"_id": 0, **dict.fromkeys(fields or (), 1)}
    remaining = limit if limit is not None else which.limit
    for query, order in which.segments():
        if skip and skip >= (available := collection.count_documents(query)):
            skip -= available
            continue
        cursor = collection.find(query, projection).sort(order).skip(skip)
        skip = 0
        if remaining is not None:
            cursor = cursor.limit(remaining)
        for document in cursor:
            yield without_nan(document)
            if remaining is not None:
                remaining -= 1
        if remaining == 0:
            return


def count_documents(collection: Any, which: CandidateFilter) -> int:
    """Return how many candidates the filter lets pass, whatever its limit."""
    query = which.to_mongo()
    # without a filter the server knows the number: counting would read every document
    return int(
        collection.count_documents(query) if query else collection.estimated_document_count()
    )


def find_candidate(collection: Any, reference: str) -> CandidateDoc:
    """Return the candidate that a reference means.

    Parameters
    ----------
    collection
        A pymongo collection of candidates.
    reference
        Its id; its index in the latest campaign (``11``); a campaign's name, or the beginning of
        its id or of its hash, and the index (``0f3a-11``, see `short_id`); or any beginning of its
        id that no other candidate has.

    Raises
    ------
    InputError
        No candidate, or more than one.
    """
    _match(_NAME, "candidate id", reference)
    found = _ids(collection, reference)
    if not found:
        raise InputError(
            f"There is no candidate {reference!r}; `pccd candidate list` shows their ids."
        )
    if len(found) > 1:
        more = ", ..." if len(found) > 3 else ""
        raise InputError(f"{reference!r} may mean {', '.join(found[:3])}{more}: say more of it.")
    return to_candidate(collection.find_one({"_id": found[0]}, {"_id": 0}))


def _ids(collection: Any, reference: str) -> list[str]:
    """Return the ids that a reference may mean, at most four."""
    if collection.find_one({"_id": reference}, {"_id": 1}) is not None:
        return [reference]
    part, _, number = reference.rpartition("-")
    beginning: Query = {"_id": {"$gte": reference, "$lt": reference + "\uffff"}}
    queries = [beginning]
    if _INDEX.fullmatch(number):
        campaigns = _campaigns(campaign_ids(collection), part)
        queries.insert(0, {"campaign_id": {"$in": campaigns}, "index": int(number)})
    for query in queries:
        cursor = collection.find(query, {"_id": 1}).sort("_id", 1).limit(4)
        if found := [row["_id"] for row in cursor]:
            return found
    return []


def campaign_ids(collection: Any) -> list[str]:
    """Return the ids of all campaigns, the latest first.

    collection: a pymongo collection of candidates.
    """
    submitted = collection.database["campaigns"].find({}, {"_id": 1}).sort("submitted_at", -1)
    others = sorted(collection.distinct("campaign_id"))
    return list(dict.fromkeys([*(row["_id"] for row in submitted), *others]))


def _campaigns(campaigns: Sequence[str], part: str) -> list[str]:
    """Return the campaigns that `part` may mean: the latest of a name, or of beginnings all."""
    if not part:
        return list(campaigns[:1])
    named = [one for one in campaigns if one.rpartition("-")[0] == part]
    if named:
        return named[:1]
    return [
        one for one in campaigns if one.startswith(part) or one.rpartition("-")[2].startswith(part)
    ]


def short_id(campaign_id: str, index: int, campaigns: Sequence[str]) -> str:
    """Return the shortest ``hash-index`` that means one candidate among all campaigns.

    campaigns: ids of all campaigns (see `campaign_ids`). Two of them with one hash keep their ids.
    """
    digest = campaign_id.rpartition("-")[2]
    for length in range(SHORTEST_HASH, len(digest) + 1):
        if _campaigns(campaigns, digest[:length]) == [campaign_id]:
            return f"{digest[:length]}-{index}"
    return f"{campaign_id}-{index}"


def to_candidate(document: Mapping[str, Any], *, as_stored: bool = False) -> CandidateDoc:
    """Return a stored document as a CandidateDoc.

    as_stored: whether its structures stay dictionaries (see `records.AS_STORED`).

    Raises
    ------
    DatabaseError
        It is damaged, or a newer version wrote it.
    """
    from pccd_workflows.execution.mongo import check_schema_version

    fields = without_nan({key: value for key, value in document.items() if key != "_id"})
    check_schema_version(fields, f"Candidate {fields.get('candidate_id')}")
    try:
        return CandidateDoc.model_validate(fields, context=AS_STORED if as_stored else None)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DatabaseError(
            f"Candidate {document.get('_id', fields.get('candidate_id'))} is damaged ({where}: "
            f"{first['msg']}): restore the database from a backup."
        ) from None


def without_nan(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with None for every field that holds a number that is none.

    Structures and lists of numbers stay as they are.
    """
    return {
        key: value if type(value) in PLAIN or key == "structure" else _known(value)
        for key, value in document.items()
    }


def _known(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return without_nan(value) if value else value
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_known(one) for one in value]
    return value


def _check_element(symbol: str) -> None:
    if not isinstance(symbol, str) or symbol not in Element.__members__ or symbol in {"D", "T"}:
        raise InputError(f"{symbol!r} is not a chemical element.")


def _check_stage(name: str | None) -> None:
    _match(_STAGE, "stage", name)
    if name is not None:
        stage_of(name)


def _match(pattern: re.Pattern[str], what: str, value: str | None) -> None:
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise InputError(f"{value!r} cannot be a {what}.")


def _one_of(what: str, value: str | None, options: tuple[str, ...]) -> None:
    if value is not None and not (isinstance(value, str) and value in options):
        raise InputError(f"Unknown {what} {value!r}; use one of {', '.join(options)}.")
