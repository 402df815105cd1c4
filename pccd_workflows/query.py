"""Which candidates: one validated filter, shared by every command and page, as a MongoDB query."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pymatgen.core import Composition, Element

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.core.errors import InputError
from pccd_workflows.stages.stage import Status

STATUSES: tuple[str, ...] = get_args(Status)
MAX_LIMIT = 1_000_000
MAX_EHULL = 10.0
"""eV/atom; a larger number was meant in meV/atom."""
SORT_KEYS = (
    "energy_above_hull",
    "index",
    "formula_pretty",
    "nsites",
    "spacegroup",
    "status",
    "updated_at",
)
"""Fields a list can be sorted by, all indexed; a leading '-' turns the order round."""

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
    "phonon_stable",
    "band_gap",
    "updated_at",
)
"""What a table row needs of a document (no structures, no bands)."""

# Everything a name, a stage or an id of ours can contain: neither '$' nor a quote nor NUL.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")
_STAGE = re.compile(r"[a-z]{1,20}(?::[A-Za-z0-9._/-]{1,60})?")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./:-]{0,60}")

Query = dict[str, Any]
Order = list[tuple[str, int]]


@dataclass(frozen=True)
class CandidateFilter:
    """Which candidates to take, and in which order; every value is checked when it is made.

    campaign: a campaign's name or its id.
    chemsys: exactly these elements, in any order ("O-Mg-Mn").
    formula: any multiple or order of the formula ("O2Mg2" finds MgO).
    elements: crystals that contain at least all of these.
    max_ehull: largest energy above hull, eV/atom; crystals without one are left out.
    novel, stable_phonons: the verdict asked for; crystals without one are left out.
    sort: one of `SORT_KEYS`, with '-' for descending; crystals without a value come last.

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
    stable_phonons: bool | None = None
    status: str | None = None
    stage: str | None = None
    reason_class: str | None = None
    limit: int | None = None
    sort: str = "energy_above_hull"

    def __post_init__(self) -> None:
        """Check every value and bring chemical systems and formulas into the stored form."""
        _match(_NAME, "campaign", self.campaign)
        _match(_STAGE, "stage", self.stage)
        _match(_WORD, "reason class", self.reason_class)
        _one_of("status", self.status, STATUSES)
        _one_of("sort key", self.sort.removeprefix("-"), SORT_KEYS)
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
            "phonon_stable": self.stable_phonons,
        }
        query: Query = {
            field: {"$eq": value} for field, value in conditions.items() if value is not None
        }
        if self.campaign is not None:
            query["$or"] = [{"campaign": self.campaign}, {"campaign_id": self.campaign}]
        if self.elements:
            query["elements"] = {"$all": list(self.elements)}
        if self.max_ehull is not None:
            query["energy_above_hull"] = {"$lte": self.max_ehull}
        return query

    def segments(self) -> list[tuple[Query, Order]]:
        """Return the queries whose results, one after the other, are the sorted answer.

        MongoDB sorts missing values first; a person wants them last. Two queries do that and
        still use the index, which a computed sort key could not.
        """
        field, direction = self.sort.removeprefix("-"), -1 if self.sort.startswith("-") else 1
        query = self.to_mongo()
        with_value = {"$and": [query, {field: {"$ne": None}}]}
        without_value = {"$and": [query, {field: None}]}
        # ties in the same direction as the field, so that one index serves both orders
        order = [(field, direction), ("_id", direction)]
        return [(with_value, order), (without_value, [("_id", 1)])]

    def describe(self) -> str:
        """Return the filter as the options that would repeat it; empty if it lets all pass."""
        parts = [
            f"--{name.replace('_', '-')} {value}"
            for name in ("campaign", "chemsys", "formula", "max_ehull", "status", "stage")
            if (value := getattr(self, name)) is not None
        ]
        parts += [f"--element {symbol}" for symbol in self.elements]
        if self.reason_class is not None:
            parts.append(f"--reason {self.reason_class}")
        if self.novel is not None:
            parts.append("--novel" if self.novel else "--known")
        if self.stable_phonons is not None:
            parts.append("--stable-phonons" if self.stable_phonons else "--unstable-phonons")
        return " ".join(parts)


def normalise_chemsys(text: str) -> str:
    """Return a chemical system as documents hold it: sorted symbols joined by '-'."""
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
    """Yield the documents of `which` in order, without their ``_id``.

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
            yield document
            if remaining is not None:
                remaining -= 1
        if remaining == 0:
            return


def count_documents(collection: Any, which: CandidateFilter) -> int:
    """Return how many candidates the filter lets pass, whatever its limit."""
    return int(collection.count_documents(which.to_mongo()))


def find_candidate(collection: Any, candidate_id: str) -> CandidateDoc:
    """Return the candidate with this id, or the only one whose id begins so.

    Raises
    ------
    InputError
        No candidate, or more than one.
    """
    _match(_NAME, "candidate id", candidate_id)
    document = collection.find_one({"_id": candidate_id}, {"_id": 0})
    if document is None:
        prefix = {"_id": {"$gte": candidate_id, "$lt": candidate_id + "\uffff"}}
        found = [row["_id"] for row in collection.find(prefix, {"_id": 1}).sort("_id", 1).limit(4)]
        if not found:
            raise InputError(
                f"There is no candidate {candidate_id!r}; `pccd candidate list` shows their ids."
            )
        if len(found) > 1:
            more = ", ..." if len(found) == 4 else ""
            raise InputError(
                f"{candidate_id!r} is the beginning of several ids: {', '.join(found[:3])}{more}."
            )
        document = collection.find_one({"_id": found[0]}, {"_id": 0})
    return to_candidate(document)


def to_candidate(document: Mapping[str, Any]) -> CandidateDoc:
    """Return a stored document as a CandidateDoc; a newer schema is refused."""
    from pccd_workflows.execution.mongo import check_schema_version

    fields = {key: value for key, value in document.items() if key != "_id"}
    check_schema_version(fields, f"Candidate {fields.get('candidate_id')}")
    return CandidateDoc.model_validate(fields)


def _check_element(symbol: str) -> None:
    if not isinstance(symbol, str) or symbol not in Element.__members__ or symbol in {"D", "T"}:
        raise InputError(f"{symbol!r} is not a chemical element.")


def _match(pattern: re.Pattern[str], what: str, value: str | None) -> None:
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise InputError(f"{value!r} cannot be a {what}.")


def _one_of(what: str, value: str | None, options: tuple[str, ...]) -> None:
    if value is not None and not (isinstance(value, str) and value in options):
        raise InputError(f"Unknown {what} {value!r}; use one of {', '.join(options)}.")
