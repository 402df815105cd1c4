"""Pages of crystals: one, or some side by side; scenes to turn, modes that move."""

from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np
from pymatgen.core import Structure

from pccd_workflows.candidate import CandidateDoc
from pccd_workflows.collect import stored_campaign
from pccd_workflows.columns import make_table
from pccd_workflows.core.errors import InputError
from pccd_workflows.engines.phonon_modes import Lattice, Mode, stored_lattice
from pccd_workflows.explorer.answers import Answer, NotFoundError, data, page
from pccd_workflows.explorer.state import parse_fields
from pccd_workflows.export import best_relaxation, cif_text, file_stem, properties
from pccd_workflows.query import find_candidate
from pccd_workflows.report.card import make_card, table_views
from pccd_workflows.report.panels import cell_caption
from pccd_workflows.report.structure_view import MAX_ATOMS, Scene, picture_cell, place_scene
from pccd_workflows.rescore import find_rescores

if TYPE_CHECKING:
    from pymongo.database import Database

CELLS = ("conventional", "primitive", "supercell")
MOST_COMPARED = 4
"""Crystals side by side."""
LARGEST_MOVE = 0.45
"""Å; how far the atom that moves most is drawn to move."""
MOST_CELLS = 4
"""Cells along an axis in which a mode is shown, at most."""
KEPT = 8
"""Crystals whose force constants are kept: making them takes a second."""

_lattices: dict[tuple[str, ...], Lattice] = {}
_one_at_a_time = Lock()
"""Phonopy's objects hold what they were asked last."""


def crystal_page(database: "Database[dict[str, Any]]", reference: str, _query: str) -> Answer:
    """Return everything about one crystal."""
    doc = find(database, reference)
    rescores = find_rescores(database, candidate_id=doc.candidate_id).get(doc.candidate_id, [])
    card = make_card(doc, "c0", rescores)
    has_bands = any(record.bands for record in doc.phonons)
    table = make_table([(vars(doc), doc.records)])
    return page(
        "candidate.html",
        card=card,
        has_cif=best_relaxation(doc) is not None,
        cells=CELLS,
        has_bands=has_bands,
        headings=table.headings,
        values=table_views(table)[0],
    )


def compare_page(database: "Database[dict[str, Any]]", query: str) -> Answer:
    """Return some crystals side by side: ``id=...`` up to four times.

    Raises
    ------
    InputError
        Fewer than two, or more than four are given.
    """
    given = [value for key, value in parse_qsl(query) if key == "id" and value]
    if not 2 <= len(given) <= MOST_COMPARED:
        raise InputError(f"Choose 2 to {MOST_COMPARED} crystals to compare, not {len(given)}.")
    docs = [find(database, reference) for reference in given]
    cards = [make_card(doc, f"c{number}") for number, doc in enumerate(docs)]
    told = [properties(doc) for doc in docs]
    columns = [(name, [one[name] for one in told]) for name in told[0]]
    rows = [
        (name.replace("_", " "), values, len({str(value) for value in values}) > 1)
        for name, values in columns
        if any(value is not None for value in values)
    ]
    titles = list(dict.fromkeys(panel.title for card in cards for panel in card.panels))
    pictures = [(title, [_panel(card, title) for card in cards]) for title in titles]
    return page("compare.html", cards=cards, rows=rows, pictures=pictures)


def _panel(card: Any, title: str) -> Any:
    return next((panel for panel in card.panels if panel.title == title), None)


def crystal_json(database: "Database[dict[str, Any]]", reference: str, _query: str) -> Answer:
    """Return the whole document."""
    return Answer(find(database, reference).model_dump_json(), "application/json")


def crystal_cif(database: "Database[dict[str, Any]]", reference: str, query: str) -> Answer:
    """Return the CIF, symmetrised; in P1 for ``p1=1``."""
    doc = find(database, reference)
    relaxation = best_relaxation(doc)
    if relaxation is None or relaxation.structure is None:
        raise NotFoundError(f"{doc.candidate_id} has no relaxed structure.")
    text = cif_text(doc, relaxation.structure, p1="p1" in parse_fields(query, {"p1"}))
    name = f"{file_stem(doc, relaxation.structure)}.cif"
    return Answer(text, "chemical/x-cif; charset=utf-8", filename=name)


def scene_json(database: "Database[dict[str, Any]]", reference: str, query: str) -> Answer:
    """Return another cell of a crystal to draw: ``cell=primitive``.

    Raises
    ------
    InputError
        There is no such cell.
    """
    doc = find(database, reference)
    asked = parse_fields(query, {"cell"}).get("cell", CELLS[0])
    if asked not in CELLS:
        raise InputError(f"Unknown cell {asked!r}; use one of {', '.join(CELLS)}.")
    if doc.structure is None:
        raise NotFoundError(f"{doc.candidate_id} has no structure.")
    cell, kind = picture_cell(doc.structure)
    if asked == "primitive":
        cell, kind = doc.structure.get_primitive_structure(), "primitive cell"
    elif asked == "supercell":
        times = 2 if 8 * len(cell) <= MAX_ATOMS else 1
        cell, kind = cell * (2, 2, times), f"2 × 2 × {times} supercell"
    scene, _ = place_scene(cell)
    return data({"scene": scene.as_dict(), "caption": cell_caption(cell, kind)})


def mode_json(database: "Database[dict[str, Any]]", reference: str, query: str) -> Answer:
    """Return how atoms move in the mode nearest to a place in the picture of the bands.

    ``distance``: along the path, 1/Å. ``frequency``: THz.

    Raises
    ------
    InputError
        They are not two numbers, or the forces are not stored any more.
    """
    asked = parse_fields(query, {"distance", "frequency"})
    try:
        distance, frequency = float(asked["distance"]), float(asked["frequency"])
    except (KeyError, ValueError):
        raise InputError("A mode is asked for by distance and frequency, two numbers.") from None
    doc = find(database, reference)
    with _one_at_a_time:
        lattice = _lattice(database, doc)
        mode = lattice.mode(lattice.nearest_qpoint(distance), frequency)
    scene = mode_scene(lattice.cell, mode)
    q = ", ".join(f"{value:.3g}" for value in mode.qpoint)
    caption = f"Mode {mode.band + 1} at q = ({q}): {mode.frequency:.2f} THz"
    if mode.frequency < 0:
        caption += ", imaginary: moved so, the crystal's energy falls"
    return data({"scene": scene.as_dict(), "caption": caption, "frequency": mode.frequency})


def mode_scene(cell: Structure, mode: Mode) -> Scene:
    """Return the smallest supercell that shows a mode, with the amplitude of each atom."""
    times = [_repeats(value) for value in mode.qpoint]
    while len(cell) * int(np.prod(times)) > MAX_ATOMS and max(times) > 1:
        times[int(np.argmax(times))] -= 1
    plain = Structure(cell.lattice, [s.specie.symbol for s in cell], cell.frac_coords)
    plain.add_site_property("number", list(range(len(plain))))
    whole = plain * times
    scene, copies = place_scene(whole)
    moves = []
    for site, image in copies:
        number = int(whole[site].properties["number"])
        reduced = (whole[site].frac_coords + image) * times  # in the primitive cell
        turned = LARGEST_MOVE * mode.amplitudes[number] * np.exp(2j * np.pi * mode.qpoint @ reduced)
        moves.append(tuple(np.round([*turned.real, *turned.imag], 4).tolist()))
    return Scene(**{**vars(scene), "moves": moves})


def _repeats(value: float) -> int:
    """Return the cells along an axis after which a wave repeats."""
    for count in range(1, MOST_CELLS):
        if abs(value * count - round(value * count)) < 1e-3:
            return count
    return MOST_CELLS


def _lattice(database: "Database[dict[str, Any]]", doc: CandidateDoc) -> Lattice:
    """Return a crystal with the force constants of the bands that its page shows."""
    record = next((one for one in reversed(doc.phonons) if one.bands), None)
    if record is None or doc.structure is None:
        raise NotFoundError(f"{doc.candidate_id} has no phonon bands.")
    key = (database.name, doc.candidate_id, record.level, str(doc.updated_at))
    if key not in _lattices:
        while len(_lattices) >= KEPT:
            del _lattices[next(iter(_lattices))]
        _lattices[key] = _make_lattice(database, doc, doc.structure, record.level)
    return _lattices[key]


def _make_lattice(
    database: "Database[dict[str, Any]]", doc: CandidateDoc, structure: Structure, level: str
) -> Lattice:
    from pccd_workflows.execution.mongo_storage import MongoStorage

    document = database["campaigns"].find_one({"_id": doc.campaign_id})
    campaign = None if document is None else stored_campaign(document)
    if campaign is None or campaign.phonons is None:
        raise NotFoundError("Its campaign is not stored, so its forces cannot be found.")
    settings = campaign.phonons.model_copy(update={"level": level})
    ordering = campaign.conditions(doc.candidate_id).magnetic_ordering
    return stored_lattice(structure, settings, MongoStorage(database), ordering)


def find(database: "Database[dict[str, Any]]", reference: str) -> CandidateDoc:
    """Return the candidate that a reference means; NotFoundError if none or several."""
    try:
        return find_candidate(database["candidates"], reference)
    except InputError as error:
        raise NotFoundError(str(error)) from None
