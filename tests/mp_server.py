"""A stand-in for the Materials Project's server: the routes mp-api calls, on loopback, with faults.

Its documents are made by emmet, the code that builds MP's own.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pymatgen.core import Lattice, Structure

Document = dict[str, Any]


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], sites)
    return cell.get_primitive_structure()


def caesium_chloride(cation: str, anion: str, a: float) -> Structure:
    return Structure(Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


CRYSTALS: list[tuple[str, Structure, float, dict[str, float]]] = [
    # id, structure, uncorrected PBE(+U) energy in eV/atom (as in MP to some 0.1 eV), Hubbard U
    ("mp-153", Structure(Lattice.hexagonal(3.2, 5.2), ["Mg"] * 2, [[0, 0, 0], [1 / 3, 2 / 3, 0.5]]),
     -1.60, {}),
    ("mp-110", Structure(Lattice.cubic(3.57), ["Mg"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]]), -1.57, {}),
    ("mp-12957", Structure(Lattice.orthorhombic(3.5, 3.5, 4.5), ["O"] * 2,
                           [[0, 0, 0], [0, 0, 1.23 / 4.5]]), -4.948, {}),
    ("mp-35", Structure(Lattice.cubic(2.8), ["Mn"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]]), -9.16, {}),
    ("mp-1265", rock_salt("Mg", "O", 4.21), -5.977, {}),
    ("mp-1009129", caesium_chloride("Mg", "O", 2.65), -5.20, {}),
    ("mp-19006", rock_salt("Mn", "O", 4.44), -7.80, {"Mn": 3.9, "O": 0.0}),
    ("mp-1094961", rock_salt("Mg", "Mn", 11.0), -3.0, {}),  # never relaxed: 166 Å^3 per atom
]  # fmt: skip


@lru_cache(maxsize=1)
def thermo_documents() -> list[Document]:
    """Return thermo documents of CRYSTALS as the server sends them."""
    from emmet.core.thermo import ThermoDoc
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    entries = []
    for identifier, structure, energy, hubbards in CRYSTALS:
        run_type = "GGA+U" if hubbards else "GGA"
        ionic = "O" in structure.composition and len(structure.composition) > 1
        states = {e.symbol: -2.0 if e.symbol == "O" else 2.0 for e in structure.composition}
        data = {
            "material_id": identifier,
            "task_id": identifier,
            "run_type": run_type,
            "oxidation_states": states if ionic else {},
            "license": "BY-C",
        }
        parameters = {"run_type": run_type, "is_hubbard": bool(hubbards), "hubbards": hubbards}
        total = energy * len(structure)
        entries.append(
            ComputedStructureEntry(
                structure, total, parameters=parameters, data=data, entry_id=identifier
            )
        )
    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    corrected = scheme.process_entries(entries)
    documents = [
        document.model_dump(mode="json")
        for document in ThermoDoc.from_entries(corrected, "GGA_GGA+U")
    ]
    for document, entry in zip(documents, corrected, strict=True):
        document["material_id"] = entry.entry_id  # emmet writes the new notation
    return documents


@lru_cache(maxsize=1)
def summary_documents() -> list[Document]:
    """Return summaries of CRYSTALS, as far as a training set needs them."""
    return [
        {
            "material_id": identifier,
            "structure": structure.as_dict(),
            "band_gap": 4.4 if "O" in structure.composition else 0.0,
            "ordering": "AFM" if hubbards else "NM",
            "symmetry": {"number": structure.get_space_group_info()[1]},
            "energy_above_hull": 0.0 if energy < -5 else 0.3,
            "nsites": len(structure),
            "nelements": len(structure.composition),
        }
        for identifier, structure, energy, hubbards in CRYSTALS
    ]


@dataclass
class Fault:
    """What goes wrong with one answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut_connection: bool = False  # fewer bytes than announced
    cut_json: bool = False  # as many bytes as announced, but half a document


class ProjectServer(ThreadingHTTPServer):
    """Answers as MP does; `faults` are used up one per request of a thermo page."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents: list[Document] = [dict(d) for d in thermo_documents()]
        self.heartbeat: Document = {"db_version": "2025.9.25", "access_controlled_batch_ids": []}
        self.key = "k" * 32
        self.faults: list[Fault] = []
        self.longest_url = 8000
        self.longest_page = 1000
        self.without_total = False
        self.requests: list[dict[str, str]] = []
        self.headers_seen: list[dict[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def asked_for(self) -> list[str]:
        """Return the chemical systems of each request, in order."""
        return [query.get("chemsys", "*") for query in self.requests]

    def summaries(self, query: dict[str, str]) -> Document:
        """Answer a search of materials/summary."""
        found = [
            document
            for document in summary_documents()
            if document["nsites"] <= int(query["nsites_max"])
            and document["nelements"] <= int(query["nelements_max"])
        ]
        first, limit = int(query["_skip"]), min(int(query["_limit"]), self.longest_page)
        page = found[first : first + limit]
        return {"data": page, "meta": {"total_doc": len(found)}}

    def search(self, query: dict[str, str]) -> Document:
        found = [
            document
            for document in self.documents
            if document["thermo_type"] in query["thermo_types"].split(",")
            and ("chemsys" not in query or document["chemsys"] in query["chemsys"].split(","))
        ]
        first, limit = int(query.get("_skip", 0)), int(query.get("_limit", 100))
        fields = query["_fields"].split(",")
        page = [{k: d[k] for k in fields if k in d} for d in found[first : first + limit]]
        meta = {} if self.without_total else {"total_doc": len(found)}
        return {"data": page, "meta": meta}


class _Handler(BaseHTTPRequestHandler):
    server: ProjectServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/heartbeat":
            self._answer(200, self.server.heartbeat, Fault())
            return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.requests.append(query)
        self.server.headers_seen.append(dict(self.headers))
        fault = self.server.faults.pop(0) if self.server.faults else Fault()
        time.sleep(fault.delay)
        if self.headers.get("x-api-key") != self.server.key:
            self._answer(401, {"detail": "Invalid authentication credentials"}, fault)
        elif len(self.path) > self.server.longest_url:
            self._answer(414, {"detail": "URI Too Long"}, fault)
        elif fault.status != 200:
            self._answer(fault.status, {"detail": "busy"}, fault)
        else:
            search = self.server.summaries if "summary" in url.path else self.server.search
            self._answer(200, search(query), fault)

    def _answer(self, status: int, content: Document, fault: Fault) -> None:
        body = json.dumps(content).encode()
        if fault.cut_json:
            body = body[: len(body) // 2]
        try:
            self.send_response(status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault.cut_connection else body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client has given up waiting, as it should

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@contextmanager
def serve(server: ThreadingHTTPServer) -> Iterator[Any]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
