"""The Materials Project's REST server, through mp-api, checked and with our own patience."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pymatgen.core import SETTINGS

from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.optional import optional_imports
from pccd_workflows.core.plain_structures import plain_structure
from pccd_workflows.core.reference_set import ReferenceEntry
from pccd_workflows.known.http import HttpError, Patience, PatientAdapter, mount

THERMO_TYPE = "GGA_GGA+U"
"""The hull that MP2020-corrected PBE and PBE+U energies belong to."""
FIELDS = [
    "material_id",
    "chemsys",
    "thermo_type",
    "energy_type",
    "energy_per_atom",
    "uncorrected_energy_per_atom",
    "energy_above_hull",
    "entries",
]
NO_KEY = (
    "The Materials Project needs an API key: get one at https://next-gen.materialsproject.org/api "
    "and set MP_API_KEY to it."
)
PAGE = 1000
"""Documents per answer: the most the server gives."""


def has_api_key() -> bool:
    """Return whether MP_API_KEY or pymatgen's configuration (where mp-api looks) holds a key."""
    return bool(os.environ.get("MP_API_KEY") or SETTINGS.get("PMG_MAPI_KEY"))


class Client:
    """MP's REST server, through mp-api, with this project's own patience.

    The key is what mp-api finds: MP_API_KEY or pymatgen's configuration. It is sent with each
    request and goes nowhere else.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        with optional_imports("Asking the Materials Project"):
            import mp_api  # noqa: F401
        self._endpoint = endpoint
        self._patience = patience or Patience()
        self._sleep = sleep
        self._total = 0
        self._pages = 0

    def version(self) -> str:
        """Return the database version that the server states now."""
        import requests
        from mp_api.client.core.utils import validate_endpoint

        adapter = PatientAdapter(self._patience, sleep=self._sleep)
        with mount(requests.Session(), adapter) as session:
            body = session.get(validate_endpoint(self._endpoint) + "heartbeat").json()
        return str(_field(body, "db_version", "its heartbeat"))

    def page(self, route: str, parameters: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
        """Return the documents of one page of a REST route and how many match in all.

        Raises
        ------
        InputError
            There is no API key.
        """
        import requests
        from mp_api.client.core.utils import validate_endpoint

        if not has_api_key():
            raise InputError(NO_KEY)
        key = str(os.environ.get("MP_API_KEY") or SETTINGS["PMG_MAPI_KEY"])
        adapter = PatientAdapter(self._patience, sleep=self._sleep)
        with _refusals_explained(), mount(requests.Session(), adapter) as session:
            answer = session.get(
                validate_endpoint(self._endpoint) + route,
                params=dict(parameters),
                headers={"x-api-key": key},
            )
        body = answer.json()
        documents = _field(body, "data", "a search")
        total = _field(_field(body, "meta", "a search"), "total_doc", "a search")
        return list(documents), int(total)

    def all_systems(self) -> list[str]:
        """Return every chemical system that MP has phases of."""
        documents = self._search(fields=["chemsys"])
        return sorted({_field(d, "chemsys", "a material") for d in documents})

    def entries(self, systems: Sequence[str]) -> dict[str, list[ReferenceEntry]]:
        """Return the phases of exactly each system's elements; of one without phases, none.

        A request that is too long for the server, or whose pages overlap, is split in two.
        """
        try:
            documents = self._search(chemsys=list(systems), fields=FIELDS)
        except HttpError as error:
            if error.status not in (413, 414) or len(systems) == 1:
                raise
            return self._entries_of_halves(systems)
        found: dict[str, dict[str, ReferenceEntry]] = {system: {} for system in systems}
        for document in documents:
            entry = reference_entry(document)
            system = entry.composition.chemical_system
            if system not in found:
                raise PccdError(
                    f"The Materials Project answers with {entry.entry_id} of {system}, which was "
                    "not asked for: its interface has changed."
                )
            same = found[system].get(entry.entry_id)
            if same is None or entry.energy_per_atom < same.energy_per_atom:
                found[system][entry.entry_id] = entry
        distinct = sum(len(entries) for entries in found.values())
        if self._pages > 1 and distinct < len(documents) and len(systems) > 1:
            return self._entries_of_halves(systems)
        return {system: list(entries.values()) for system, entries in found.items()}

    def _entries_of_halves(self, systems: Sequence[str]) -> dict[str, list[ReferenceEntry]]:
        middle = len(systems) // 2
        return self.entries(systems[:middle]) | self.entries(systems[middle:])

    def _search(self, *, fields: list[str], **criteria: Any) -> list[dict[str, Any]]:
        """Return the thermo documents that match, all pages; verified to be all there are."""
        from mp_api.client.core.exceptions import MPRestError

        self._total = self._pages = 0
        with _refusals_explained():
            try:
                documents = self._rester.search(
                    thermo_types=[THERMO_TYPE],
                    all_fields=False,
                    fields=fields,
                    chunk_size=PAGE,
                    **criteria,
                )
            except MPRestError as error:
                raise PccdError(f"mp-api: {' '.join(str(error).split())}") from None
        if len(documents) != self._total:
            raise PccdError(
                f"The Materials Project sent {len(documents)} of {self._total} documents: run it "
                "again, what is stored stays."
            )
        return list(documents)

    @cached_property
    def _rester(self) -> Any:
        """The client's thermo route, its session made patient."""
        if not has_api_key():
            raise InputError(NO_KEY)
        self.version()  # mp-api asks too, but would wait for ever
        from mp_api.client.core.exceptions import MPRestError
        from mp_api.client.routes.materials.thermo import ThermoRester

        try:
            rester = ThermoRester(
                endpoint=self._endpoint, use_document_model=False, mute_progress_bars=True
            )
        except MPRestError:
            raise InputError(
                "MP_API_KEY is no key of the Materials Project, which has 32 characters."
            ) from None
        except KeyError as error:
            raise _changed("its heartbeat", str(error.args[0])) from None
        adapter = PatientAdapter(self._patience, check=self._count_page, sleep=self._sleep)
        mount(rester.session, adapter)
        return rester

    def _count_page(self, body: dict[str, Any]) -> None:
        """Note how many documents there are; mp-api takes one for all if that is not stated."""
        _field(body, "data", "a search")
        self._total = int(_field(_field(body, "meta", "a search"), "total_doc", "a search"))
        self._pages += 1


def reference_entry(document: dict[str, Any]) -> ReferenceEntry:
    """Return the phase that a thermo document describes, its energy as on MP's hull.

    Raises
    ------
    PccdError
        A field is missing or the thermo type is another one than was asked for.
    """
    from emmet.core.mpid import validate_identifier

    # mp-aaaaabwr and mp-1265 are one material, in MP's new and old notation
    name = str(validate_identifier(_field(document, "material_id", "a material")).string)
    if (kind := _field(document, "thermo_type", name)) != THERMO_TYPE:
        raise PccdError(
            f"The Materials Project sends {name} with thermo type {kind!r} though {THERMO_TYPE!r} "
            "was asked for: energies of different functionals cannot share a hull."
        )
    computed = _field(document, "entries", name)
    # one entry per document so far; if there are several, the one whose energy the document states
    entry = computed.get(document.get("energy_type")) or next(iter(computed.values()), None)
    if entry is None:
        raise _changed(name, "entries")
    structure = plain_structure(_field(entry, "structure", name))
    per_atom = float(_field(document, "energy_per_atom", name))
    uncorrected = float(_field(document, "uncorrected_energy_per_atom", name))
    return ReferenceEntry(
        entry_id=name,
        formula=structure.composition.formula,
        energy=per_atom * len(structure),
        structure=structure,
        data={
            "uncorrected_energy": uncorrected * len(structure),
            "correction": (per_atom - uncorrected) * len(structure),
            "energy_above_hull": document.get("energy_above_hull"),
            "parameters": _field(entry, "parameters", name),
            "data": _field(entry, "data", name),
        },
    )


@contextmanager
def _refusals_explained() -> Iterator[None]:
    """Say what a refused key means."""
    try:
        yield
    except HttpError as error:
        if error.status in (401, 403):
            raise InputError(
                f"The Materials Project refuses the API key ({error.status}): check MP_API_KEY."
            ) from None
        raise


def _field(document: Any, name: str, what: str) -> Any:
    """Return a field of an answer; PccdError names what is missing where."""
    if not isinstance(document, dict) or document.get(name) is None:
        raise _changed(what, name)
    return document[name]


def _changed(what: str, field: str) -> PccdError:
    return PccdError(
        f"The Materials Project's answer for {what} lacks the field {field!r}: its interface has "
        "changed, update mp-api or pccd-workflows."
    )
