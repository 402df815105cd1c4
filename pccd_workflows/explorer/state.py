"""What a page of the explorer shows, as its address says it: filters, order, page number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pccd_workflows.columns import quantities
from pccd_workflows.core.errors import InputError
from pccd_workflows.query import KINDS, PHONON_VERDICTS, CandidateFilter, Range

PER_PAGE = 50
MAX_PAGE = 100_000
TEXT_FIELDS = (
    "campaign",
    "chemsys",
    "formula",
    "kind",
    "phonons",
    "status",
    "stage",
    "reason_class",
    "sort",
)
VERDICTS = {"novel": ("new", "known"), "kind": KINDS, "phonons": PHONON_VERDICTS}
"""Filters with few answers: how an address says them."""
FIELDS = {*TEXT_FIELDS, *VERDICTS, "elements", "max_ehull", "page"}
BOUNDS = ("from", "to")
"""Before the dot and the key of a quantity: its bounds."""


@dataclass(frozen=True)
class ListState:
    """One page of the list.

    values: the non-empty fields of the address, as they were.
    problems: what is wrong with those that `which` leaves out, one sentence each.
    """

    which: CandidateFilter
    page: int = 1
    values: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def skip(self) -> int:
        """How many candidates come before this page."""
        return (self.page - 1) * PER_PAGE

    def url(self, path: str = "/", **changes: object) -> str:
        """Return the address of this page with some fields changed; None drops a field."""
        merged = {**self.values, **changes}
        kept = {key: str(value) for key, value in merged.items() if value not in (None, "")}
        return f"{path}?{urlencode(kept)}" if kept else path

    def sorted_by(self, key: str) -> str:
        """Return the address sorted by `key`, turned round if it is sorted so already."""
        turned = f"-{key}" if self.which.sort == key else key
        return self.url(sort=turned, page=None)


def parse_state(query: str, *, further: tuple[str, ...] = ()) -> ListState:
    """Return the state that a query string describes; fields with a wrong value filter nothing.

    further: fields of the page itself, which filter nothing.

    Raises
    ------
    InputError
        A field is unknown or given twice, or the page is no number.
    """
    bounds = [f"{bound}.{key}" for key in quantities() for bound in BOUNDS]
    values = parse_fields(query, {*FIELDS, *bounds, *further})
    page = page_number(values.pop("page", "1"))
    groups = _groups({key: value for key, value in values.items() if key not in further})
    problems = {name: problem for name in groups if (problem := _problem(groups[name]))}
    right = {k: v for name in groups if name not in problems for k, v in groups[name].items()}
    return ListState(_filter(right), page, values, tuple(problems.values()))


def parse_fields(query: str, known: set[str]) -> dict[str, str]:
    """Return the non-empty fields of a query string.

    Raises
    ------
    InputError
        One is unknown or given twice.
    """
    try:
        pairs = parse_qsl(query, max_num_fields=100, errors="strict")
    except ValueError:
        raise InputError("The address of this page is not readable.") from None
    values: dict[str, str] = {}
    for key, value in pairs:
        if key not in known:
            raise InputError(f"Unknown field {key!r}; use {', '.join(sorted(known))}.")
        if key in values:
            raise InputError(f"Field {key!r} is given twice.")
        if value.strip():
            values[key] = value.strip()
    return values


def _groups(values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the fields that are right or wrong together: both bounds of a quantity are."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        bound, dot, quantity = key.partition(".")
        name = quantity if dot and bound in BOUNDS else f"={key}"
        groups.setdefault(name, {})[key] = value
    return groups


def _problem(values: Mapping[str, str]) -> str:
    """Return what is wrong with fields; empty if nothing is."""
    try:
        _filter(values)
    except InputError as error:
        return str(error)
    return ""


def _filter(values: Mapping[str, str]) -> CandidateFilter:
    chosen: dict[str, Any] = {key: values[key] for key in TEXT_FIELDS if key in values}
    if "novel" in values:
        yes, no = VERDICTS["novel"]
        if values["novel"] not in (yes, no):
            raise InputError(f"novel is {yes!r} or {no!r}, not {values['novel']!r}.")
        chosen["novel"] = values["novel"] == yes
    if "elements" in values:
        symbols = values["elements"].replace("-", " ").replace(",", " ").split()
        chosen["elements"] = tuple(symbols)
    if "max_ehull" in values:
        chosen["max_ehull"] = _number(values["max_ehull"], "eV/atom")
    chosen["ranges"] = tuple(_ranges(values))
    return CandidateFilter(**chosen)


def _ranges(values: Mapping[str, str]) -> list[Range]:
    found = []
    for key, quantity in quantities().items():
        given = [values.get(f"{bound}.{key}") for bound in BOUNDS]
        if any(given):
            low, high = (None if x is None else _number(x, quantity.unit) for x in given)
            found.append(Range(key, low, high))
    return found


def _number(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number{' of ' if unit else ''}{unit}.") from None
    if not abs(value) < 1e12:
        raise InputError(f"{text!r} is not a number{' of ' if unit else ''}{unit}.")
    return value


def page_number(text: str) -> int:
    """Return the number of a page, from 1.

    Raises
    ------
    InputError
        It is none.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise InputError(f"{text!r} is not a page number.")
    return int(text)
