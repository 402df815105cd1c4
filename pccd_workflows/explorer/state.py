"""What a page of the explorer shows, as its address says it: filters, order, page number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pccd_workflows.core.errors import InputError
from pccd_workflows.query import KINDS, PHONON_VERDICTS, CandidateFilter

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


def parse_state(query: str) -> ListState:
    """Return the state that a query string describes; fields with a wrong value filter nothing.

    Raises
    ------
    InputError
        A field is unknown or given twice, or the page is no number.
    """
    try:
        pairs = parse_qsl(query, max_num_fields=len(FIELDS) * 2, errors="strict")
    except ValueError:
        raise InputError("The address of this page is not readable.") from None
    values: dict[str, str] = {}
    for key, value in pairs:
        if key not in FIELDS:
            raise InputError(f"Unknown field {key!r}; use {', '.join(sorted(FIELDS))}.")
        if key in values:
            raise InputError(f"Field {key!r} is given twice.")
        if value.strip():
            values[key] = value.strip()
    page = _whole(values.pop("page", "1"))
    problems = {key: problem for key in values if (problem := _problem(key, values[key]))}
    right = {key: value for key, value in values.items() if key not in problems}
    return ListState(_filter(right), page, values, tuple(problems.values()))


def _problem(key: str, value: str) -> str:
    """Return what is wrong with a field's value; empty if nothing is."""
    try:
        _filter({key: value})
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
        chosen["max_ehull"] = _number(values["max_ehull"])
    return CandidateFilter(**chosen)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number of eV/atom.") from None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise InputError(f"{text!r} is not a page number.")
    return int(text)
