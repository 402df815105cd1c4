"""Named sets of known crystals: every source, streamed, resumable, named in the verdict."""

import bz2
import gzip
import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from urllib.parse import parse_qs, urlsplit

import pytest
from mp_server import caesium_chloride, rock_salt, serve
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.optimade import OptimadeStructureAdapter

from pccd_workflows import checks
from pccd_workflows.campaign import Campaign
from pccd_workflows.core import crystal_files
from pccd_workflows.core.crystal_files import read_crystals
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.plain_structures import Unreadable
from pccd_workflows.execution import mongo
from pccd_workflows.execution.mongo_storage import MongoStorage
from pccd_workflows.known.http import HttpError, Patience
from pccd_workflows.known.index import find_index
from pccd_workflows.known.providers import read_collection, read_optimade
from pccd_workflows.known.sets import (
    check_known_sets,
    find_known_set,
    import_known_set,
    known_structures,
    list_known_sets,
    pack,
    remove_known_set,
    stored_crystals,
    structures_in_system,
    unpack,
)
from pccd_workflows.matching.settings import MatcherSettings
from pccd_workflows.stages.novelty import Compared, judge_novelty

PATIENCE = Patience(timeout=0.5, attempts=3, first_wait=0.01, longest_wait=0.02)
CRYSTALS = {
    "a-1": rock_salt("Mg", "O", 4.21),
    "a-2": caesium_chloride("Mg", "O", 2.65),
    "a-3": rock_salt("Na", "Cl", 5.64),
}


def same(a: Structure, b: Structure) -> bool:
    return bool(StructureMatcher(scale=False).fit(a, b))


@pytest.fixture
def database(settings):
    return mongo.database(settings)


# --- files -------------------------------------------------------------------------------------


def as_lines(path):
    rows = [{"id": i, "structure": s.as_dict()} for i, s in CRYSTALS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_flat_lines(path):
    rows = [
        {
            "id": i,
            "lattice": s.lattice.matrix.tolist(),
            "species": [site.specie.symbol for site in s],
            "frac_coords": s.frac_coords.tolist(),
        }
        for i, s in CRYSTALS.items()
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def as_alexandria(path):
    entries = [
        ComputedStructureEntry(s, -1.0, data={"mat_id": i}).as_dict() for i, s in CRYSTALS.items()
    ]
    path.write_bytes(bz2.compress(json.dumps({"entries": entries}).encode()))


def as_optimade(path):
    path.write_text(json.dumps({"meta": {}, "data": resources()}, indent=1))


def as_list(path):
    path.write_text(json.dumps([{"_id": i, **s.as_dict()} for i, s in CRYSTALS.items()]))


def as_folder(path):
    path.mkdir()
    for identifier, structure in CRYSTALS.items():
        structure.to(str(path / f"{identifier}.cif"), fmt="cif")


def as_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for identifier, structure in CRYSTALS.items():
            archive.writestr(f"by_id/{identifier}.cif", structure.to(fmt="cif"))
        archive.writestr("README", "not a crystal")


def resources():
    return [
        {"id": i, "type": "structures", **OptimadeStructureAdapter.get_optimade_structure(s)}
        for i, s in CRYSTALS.items()
    ]


WRITERS = {
    "lines.jsonl": as_lines,
    "flat.jsonl.gz": as_flat_lines,
    "alexandria_000.json.bz2": as_alexandria,
    "optimade.json": as_optimade,
    "list.json": as_list,
    "folder": as_folder,
    "by_id.zip": as_zip,
}


@pytest.mark.parametrize("chunk", [1 << 20, 97], ids=["one chunk", "many chunks"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_crystals(tmp_path, name, chunk, monkeypatch):
    monkeypatch.setattr(crystal_files, "CHUNK", chunk)
    WRITERS[name](tmp_path / name)
    found = dict(read_crystals(tmp_path / name))
    assert set(found) == set(CRYSTALS)
    assert all(same(found[i], CRYSTALS[i]) for i in CRYSTALS)


def test_a_folder_holds_a_database_that_comes_in_parts(tmp_path):
    """As Alexandria does: alexandria_000.json.bz2, alexandria_001.json.bz2, ..."""
    for number, identifier in enumerate(["a-1", "a-2"]):
        entry = ComputedStructureEntry(CRYSTALS[identifier], -1.0, data={"mat_id": identifier})
        text = json.dumps({"entries": [entry.as_dict()]})
        (tmp_path / f"alexandria_{number:03d}.json.bz2").write_bytes(bz2.compress(text.encode()))
    (tmp_path / "more").mkdir()
    latin = b"# \xe5ngstr\xf6m\n" + CRYSTALS["a-3"].to(fmt="cif").encode()
    (tmp_path / "more" / "a-3.cif.gz").write_bytes(gzip.compress(latin))
    (tmp_path / "more" / "b.cif.gz").write_bytes(gzip.compress(latin)[:-20])
    (tmp_path / "README.txt").write_text("not a crystal")
    found = dict(read_crystals(tmp_path))
    assert found.pop("more/b") == Unreadable("its file is damaged or cut off")
    assert list(found) == ["a-1", "a-2", "more/a-3"]
    assert all(same(crystal, CRYSTALS[i.split("/")[-1]]) for i, crystal in found.items())


def test_a_large_file_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(crystal_files, "CHUNK", 5_000)
    row = json.dumps({"structure": CRYSTALS["a-1"].as_dict()})
    path = tmp_path / "entries.json"
    path.write_text('{"entries": [' + ", ".join([row] * 50) + ', {"structure": {')
    assert [i for i, _ in islice(read_crystals(path), 3)] == [
        "entries.json-1",
        "entries.json-2",
        "entries.json-3",
    ]


@pytest.mark.parametrize("tail", ["", "{", '{"structure": '])
def test_a_file_that_is_cut_off_says_so_after_what_is_whole(tmp_path, tail):
    path = tmp_path / "cut.json"
    whole = json.dumps({"id": "a-1", "structure": CRYSTALS["a-1"].as_dict()})
    path.write_text(f"[{whole}, {tail}")
    rows = read_crystals(path)
    assert next(rows)[0] == "a-1"
    with pytest.raises(InputError, match="damaged or cut off"):
        next(rows)


def test_a_damaged_archive_says_so(tmp_path):
    for name in ("x.json.gz", "x.zip"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(InputError, match="damaged"):
            list(read_crystals(tmp_path / name))


def test_wrong_paths_are_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "absent.json", "no file or folder"),
        (tmp_path / "notes.txt", "of no known kind"),
        (tmp_path / "empty", "holds no .cif, .zip or .json files"),
        (tmp_path / "empty.jsonl", "holds no records"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_crystals(path))


def test_what_cannot_be_compared_is_a_reason_not_a_crash(tmp_path):
    disordered = Structure(Lattice.cubic(3), [{"Mg": 0.5, "Mn": 0.5}], [[0, 0, 0]])
    rows = [
        {"id": "ok", "structure": CRYSTALS["a-1"].as_dict()},
        {"id": "mixed", "structure": disordered.as_dict()},
        {"id": "empty"},
        {"id": "alien", "lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], "species": ["Zz"],
         "frac_coords": [[0, 0, 0]]},
        {"id": "flat", "lattice": [[3, 0, 0], [0, 3, 0], [3, 3, 0]], "species": ["Mg"],
         "frac_coords": [[0, 0, 0]]},
        {"id": "lost", "type": "structures", "attributes": {"species_at_sites": ["Mg"]}},
        {"id": "slab", "attributes": {**resources()[0]["attributes"],
                                      "dimension_types": [1, 1, 0]}},
        {"id": "hot", "attributes": {**resources()[0]["attributes"],
                                     "structure_features": ["disorder"]}},
    ]  # fmt: skip
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = dict(read_crystals(path))
    assert same(found.pop("ok"), CRYSTALS["a-1"])
    assert {i: f.reason for i, f in found.items() if i != "alien"} == {
        "mixed": "it has disorder",
        "empty": "it holds no structure",
        "flat": "its cell has no volume",
        "lost": "'lattice_vectors' is missing",
        "slab": "it is not periodic in three dimensions",
        "hot": "it has disorder",
    }
    assert isinstance(found["alien"], Unreadable)
    assert "Zz" in found["alien"].reason


def test_a_collection_of_another_database_user(database):
    database["tasks"].insert_many(
        [{"task_id": 1, "material_id": i, "output": {"structure": s.as_dict()}}
         for i, s in CRYSTALS.items()]
    )  # fmt: skip
    database["tasks"].insert_one({"material_id": "a-9", "output": {}})
    found = dict(read_collection(database["tasks"], structure="output.structure"))
    assert found.pop("a-9") == Unreadable("it holds no structure")
    assert all(same(found[i], CRYSTALS[i]) for i in CRYSTALS)


# --- OPTIMADE providers ------------------------------------------------------------------------


class Provider(ThreadingHTTPServer):
    """An OPTIMADE provider with pages; `link` makes the link to the next one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ProviderHandler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}/optimade"
        self.queries: list[dict[str, list[str]]] = []
        self.busy = 0
        self.link = lambda url: {"href": url}
        self.more = True


class _ProviderHandler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.server.queries.append(query)
        first, size = int(query.get("page_offset", ["0"])[0]), int(query["page_limit"][0])
        rows = resources()[first : first + size]
        last = first + size >= len(CRYSTALS)
        following = f"{self.server.base}/v1/structures?page_offset={first + size}&page_limit={size}"
        status = 200 if url.path == "/optimade/v1/structures" else 404
        if self.server.busy:
            self.server.busy -= 1
            status = 503
        body = {
            "data": rows,
            "links": {"next": None if last else self.server.link(following)},
            "meta": {"more_data_available": not last},
        }
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serve(Provider()) as running:
        yield running


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
@pytest.mark.parametrize("as_object", [True, False])
def test_a_provider_is_read_page_by_page(provider, suffix, as_object):
    provider.link = (lambda url: {"href": url}) if as_object else (lambda url: url)
    provider.busy = 1
    query = 'elements HAS "Mg"'
    rows = list(read_optimade(provider.base + suffix, query=query, page=2, patience=PATIENCE))
    assert [i for i, _ in rows] == list(CRYSTALS)
    assert all(same(found, CRYSTALS[i]) for i, found in rows)
    assert provider.queries[0]["filter"] == [query]
    assert len(provider.queries) == 3  # one 503, two pages


def test_a_provider_that_stops_short_is_an_error(provider):
    provider.link = lambda _: None
    with pytest.raises(PccdError, match="has more data but no link"):
        list(read_optimade(provider.base, page=2, patience=PATIENCE))


def test_a_provider_that_runs_in_circles_is_an_error(provider):
    provider.link = lambda url: url.replace("offset=2", "offset=0")
    with pytest.raises(PccdError, match="in a circle"):
        list(read_optimade(provider.base, page=2, patience=PATIENCE))


def test_a_wrong_address_is_one_sentence(provider):
    with pytest.raises(HttpError, match="refuses the request \\(404"):
        list(read_optimade(provider.base + "/elsewhere", patience=PATIENCE))


# --- the database ------------------------------------------------------------------------------


def test_a_set_is_imported_once_and_found_by_formula(database):
    rows = [*CRYSTALS.items(), ("bad", Unreadable("it has disorder")), ("a-1", CRYSTALS["a-1"])]
    known = import_known_set(database, "alexandria-2024", rows, source="alexandria.json")
    assert known.complete
    assert known.n_structures == 3
    assert known.unreadable == {"it has disorder": 1, "its id is that of another record": 1}
    assert len(known.content_sha256) == 64
    found = dict(known_structures(database, "alexandria-2024", ["MgO", "Fe2O3"]))
    assert sorted(found) == ["a-1", "a-2"]
    assert all(same(found[i], CRYSTALS[i]) for i in found)
    assert list_known_sets(database) == [known]


def test_bad_records_are_counted_and_the_rest_is_compared(database, tmp_path):
    """Partial occupancies, numbers that are none, ids that repeat: a reason each."""
    disordered = Structure(Lattice.cubic(3), [{"Mg": 0.5, "Mn": 0.5}], [[0, 0, 0]])
    cell = {"lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], "species": ["Mg"]}
    rows = [
        {"id": "ok", "structure": CRYSTALS["a-1"].as_dict(), "energy": float("nan")},
        {"id": "ok", "structure": CRYSTALS["a-2"].as_dict()},
        {"id": "mixed", "structure": disordered.as_dict()},
        {"id": "nowhere", **cell, "frac_coords": [[0, 0, float("nan")]]},
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    known = import_known_set(database, "bad", read_crystals(path), source="bad.jsonl")
    assert known.n_structures == 1
    assert known.unreadable.pop("it has disorder") == 1
    assert known.unreadable.pop("its id is that of another record") == 1
    assert sum(known.unreadable.values()) == 1
    moved = CRYSTALS["a-1"].copy().perturb(0.05)
    verdict = verdicts_of(database, campaign(sets=["bad"]), [("c-1", moved)])["c-1"]["bad"]
    assert (verdict.known, verdict.matched_id) == (True, "ok")


def test_the_crystals_of_a_chemical_system_are_found(database):
    """By whole symbols: none of C and O is in Co, none of Sn in S and N."""
    cells = {
        "a": ["C", "O"],
        "b": ["Co"],
        "c": ["C"],
        "d": ["C", "O", "O", "S"],
        "e": ["Sn"],
        "f": ["C", "N", "O", "N", "C"],
    }
    rows = [
        (name, Structure(Lattice.cubic(4), symbols, [[i / 7, 0, 0] for i in range(len(symbols))]))
        for name, symbols in cells.items()
    ]
    import_known_set(database, "mine", rows, source="tests")

    def found(chemsys: str) -> list[str]:
        return sorted(name for name, _ in structures_in_system(database, "mine", chemsys))

    assert found("C-O") == ["a", "c"]
    assert found("C-N-O") == ["a", "c", "f"]
    assert found("N-S") == []
    assert found("Co-O") == ["b"]


def test_a_complete_set_is_not_read_again_and_not_overwritten(database):
    first = import_known_set(database, "mine", CRYSTALS.items(), source="a.json")
    assert import_known_set(database, "mine", iter(pytest.fail, None), source="a.json") == first
    with pytest.raises(InputError, match=r"There is a set 'mine' from a.json already"):
        import_known_set(database, "mine", CRYSTALS.items(), source="b.json")


def test_an_import_that_was_cut_off_is_completed(database, monkeypatch):
    monkeypatch.setattr("pccd_workflows.known.sets.BATCH", 1)

    def interrupted():
        yield from islice(CRYSTALS.items(), 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_known_set(database, "mine", interrupted(), source="a.json")
    assert not find_known_set(database, "mine").complete
    with pytest.raises(InputError, match="import of 'mine' was cut off"):
        check_known_sets(database, ["mine"])
    inserted = []
    insert = type(database["known_structures"]).insert_many
    monkeypatch.setattr(
        type(database["known_structures"]),
        "insert_many",
        lambda self, rows, **kw: inserted.extend(r["id"] for r in rows) or insert(self, rows, **kw),
    )
    known = import_known_set(database, "mine", CRYSTALS.items(), source="a.json")
    assert inserted == ["a-3"]
    assert (known.complete, known.n_structures) == (True, 3)
    whole = import_known_set(database, "whole", CRYSTALS.items(), source="a.json")
    assert known.content_sha256 == whole.content_sha256


@pytest.mark.parametrize("name", ["training", "Has Space", "../up", "alex-1.2", ""])
def test_names_that_mean_something_else_are_refused(database, name):
    with pytest.raises(InputError, match="cannot name a set"):
        import_known_set(database, name, CRYSTALS.items(), source="x")


def test_a_source_without_crystals_leaves_nothing(database):
    with pytest.raises(InputError, match=r"no usable crystal \(it has disorder\)"):
        import_known_set(database, "none", [("x", Unreadable("it has disorder"))], source="x")
    assert list_known_sets(database) == []


def test_a_removed_set_is_gone(database):
    import_known_set(database, "mine", CRYSTALS.items(), source="x")
    import_known_set(database, "other", CRYSTALS.items(), source="x")
    assert remove_known_set(database, "mine") == 3
    assert [known.name for known in list_known_sets(database)] == ["other"]
    assert dict(known_structures(database, "mine", ["MgO"])) == {}
    assert len(dict(known_structures(database, "other", ["MgO"]))) == 2


def test_packing_keeps_the_geometry():
    for structure in CRYSTALS.values():
        again = unpack(pack(structure))
        assert again.lattice.matrix == pytest.approx(structure.lattice.matrix, abs=1e-12)
        assert again.frac_coords == pytest.approx(structure.frac_coords, abs=1e-12)
        assert again.species == structure.species


# --- in a campaign -----------------------------------------------------------------------------


def campaign(**novelty):
    return Campaign.model_validate(
        {
            "name": "mgo",
            "generate": {"elements": ["Mg", "O"]},
            "novelty": {"library": False, "against": [], **novelty},
            "rungs": [{"level": "chgnet"}],
        }
    )


def verdicts_of(database, asked: Campaign, crystals, *, kinds: bool = False) -> dict:
    """Return by crystal what each set says of it."""
    compared = Compared(asked, MongoStorage(database), kinds=kinds)
    return {key: found.sets for key, found in judge_novelty(dict(crystals), compared).items()}


def test_a_verdict_names_the_set_and_the_id(database):
    whose = {"attribution": "Alexandria, CC-BY-4.0"}
    import_known_set(database, "alexandria", CRYSTALS.items(), source="alexandria.json", **whose)
    other = {"w-7": caesium_chloride("Mg", "O", 2.66)}
    import_known_set(database, "wbm", other.items(), source="wbm.json")
    crystals = [
        ("c-1", rock_salt("Mg", "O", 4.3).copy() * (1, 1, 2)),
        ("c-2", caesium_chloride("Mg", "O", 2.7)),
        ("c-3", rock_salt("Mn", "O", 4.4)),
    ]
    verdicts = verdicts_of(database, campaign(sets=["alexandria", "wbm"]), crystals)
    ids = {key: {name: v.matched_id for name, v in sets.items()} for key, sets in verdicts.items()}
    assert ids == {
        "c-1": {"alexandria": "a-1", "wbm": None},
        "c-2": {"alexandria": "a-2", "wbm": "w-7"},
        "c-3": {"alexandria": None, "wbm": None},
    }
    assert verdicts["c-1"]["wbm"].known is False
    assert verdicts["c-1"]["alexandria"].note.startswith("3 crystals of alexandria.json, content ")
    assert verdicts["c-1"]["alexandria"].note.endswith(" (Alexandria, CC-BY-4.0)")


def test_a_new_composition_of_a_known_structure_type(database):
    import_known_set(database, "alexandria", CRYSTALS.items(), source="alexandria.json")
    crystals = [
        ("c-1", rock_salt("Mn", "O", 4.4)),
        ("c-2", CRYSTALS["a-1"]),
    ]
    asked = campaign(sets=["alexandria"])
    verdicts = verdicts_of(database, asked, crystals, kinds=True)
    said = {key: sets["alexandria"] for key, sets in verdicts.items()}
    assert (said["c-1"].known, said["c-1"].framework_id) == (False, "a-1")
    assert (said["c-2"].matched_id, said["c-2"].framework_id) == ("a-1", None)
    row = verdicts_of(database, asked, crystals)["c-1"]["alexandria"]
    assert row.framework_id is None


def test_an_index_is_built_once_for_each_content(database, tmp_path, monkeypatch):
    known = import_known_set(database, "alexandria", CRYSTALS.items(), source="alexandria.json")
    folder = tmp_path / "known"
    asked = [rock_salt("Na", "Cl", 5.5)]
    first = find_index(database, known, folder, MatcherSettings())
    (path,) = folder.iterdir()
    assert path.name == f"alexandria-{known.content_sha256[:16]}.npz"
    with monkeypatch.context() as patch:
        patch.setattr("pccd_workflows.known.index.stored_crystals", None)
        kept = find_index(database, known, folder, MatcherSettings(stol=0.2))
    assert first.find_all(asked) == kept.find_all(asked) == ["a-3"]
    path.write_bytes(path.read_bytes()[:-9])
    again = find_index(database, known, folder, MatcherSettings(stol=0.25))
    assert again.find_all(asked) == ["a-3"]
    remove_known_set(database, "alexandria")
    moved = {**CRYSTALS, "a-3": rock_salt("Na", "Cl", 5.65)}
    other = import_known_set(database, "alexandria", moved.items(), source="alexandria.json")
    assert other.content_sha256 != known.content_sha256, "the geometry is part of the content"
    monkeypatch.setattr("pccd_workflows.known.index.MOST_CRYSTALS", 2)
    assert find_index(database, other, folder, MatcherSettings()) is None
    crystal = ("c-1", asked[0])
    verdicts = verdicts_of(database, campaign(sets=["alexandria"]), [crystal], kinds=True)
    assert verdicts["c-1"]["alexandria"].matched_id == "a-3", "a large set is asked by formula"


def test_all_of_a_large_set_is_read_in_pieces(database, monkeypatch):
    crystals = {f"x-{n:02d}": rock_salt("Mg", "O", 4 + n / 100) for n in range(21)}
    for name in ("mine", "mine0", "mine-1"):
        import_known_set(database, name, crystals.items(), source=name)
    monkeypatch.setattr("pccd_workflows.known.sets.BATCH", 1)
    found = list(stored_crystals(database, "mine"))
    assert [identifier for identifier, _ in found] == sorted(crystals)


def test_a_set_that_is_gone_says_nothing_about_novelty(database):
    crystal = ("c-1", CRYSTALS["a-1"])
    verdict = verdicts_of(database, campaign(sets=["lost"]), [crystal])["c-1"]["lost"]
    assert verdict.known is None
    assert "no complete set 'lost'" in verdict.note


def test_an_unknown_set_is_refused_and_those_there_are_are_named(settings):
    import_known_set(mongo.database(settings), "alex", CRYSTALS.items(), source="x")
    checks.check_known_materials(campaign(sets=["alex"]), settings)
    with pytest.raises(InputError, match=r"no set 'alx' \(there are: alex\)"):
        checks.check_known_materials(campaign(sets=["alx"]), settings)


def test_a_key_is_asked_for_where_mp_is_needed(settings, monkeypatch):
    monkeypatch.setattr("pccd_workflows.known.mp_client.SETTINGS", {})
    monkeypatch.delenv("MP_API_KEY", raising=False)
    needs = campaign().model_copy(
        update={
            "references": campaign().references.model_copy(update={"source": "materials_project"})
        }
    )
    with pytest.raises(InputError, match="set MP_API_KEY"):
        checks.check_known_materials(needs, settings)
    monkeypatch.setenv("MP_API_KEY", "k" * 32)
    checks.check_known_materials(needs, settings)


@pytest.mark.parametrize("names", [["training"], ["a", "a"]])
def test_a_campaign_names_each_set_once_and_no_reserved_one(names):
    with pytest.raises(ValueError, match="must name each set once"):
        campaign(sets=names)
