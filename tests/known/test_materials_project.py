"""The Materials Project: what is asked for, what is kept, and what a bad server does to us."""

import gzip
import json
import logging
from collections.abc import Iterator

import pytest
from mp_server import Fault, ProjectServer, caesium_chloride, serve, thermo_documents
from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

from pccd_workflows.campaign import Campaign
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.core.systems import subsystems
from pccd_workflows.engines.records import Relaxation
from pccd_workflows.execution import mongo
from pccd_workflows.execution.mongo_storage import mongo_storage
from pccd_workflows.known import materials_project, mp_client
from pccd_workflows.known.http import HttpError, Patience
from pccd_workflows.known.materials_project import (
    batches,
    build_reference_set,
    computed_entry,
    fetch_everything,
    fetch_reference_set,
    near_hull,
)
from pccd_workflows.known.mp_client import Client
from pccd_workflows.known.snapshots import (
    MemorySnapshot,
    MongoSnapshot,
    export_snapshot,
    import_snapshot,
    version_key,
)
from pccd_workflows.stages.novelty import Compared, judge_novelty
from pccd_workflows.stages.references import build

PATIENCE = Patience(timeout=0.4, attempts=4, first_wait=0.01, longest_wait=0.05)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectServer]:
    with serve(ProjectServer()) as running:
        monkeypatch.setenv("MP_API_KEY", running.key)
        yield running


@pytest.fixture
def client(server: ProjectServer) -> Client:
    return Client(endpoint=server.endpoint, patience=PATIENCE)


def energies(references):
    return {e.entry_id: round(e.energy_per_atom, 6) for e in references.entries}


# --- content -----------------------------------------------------------------------------------


def test_a_system_comes_with_its_subsystems_and_only_of_the_stated_thermo_type(server, client):
    server.documents.append({**server.documents[4], "thermo_type": "R2SCAN", "energy_per_atom": -9})
    references = fetch_reference_set("O-Mg", client=client)
    assert energies(references) == {
        "mp-110": -1.57,
        "mp-12957": -4.948,
        "mp-153": -1.6,
        "mp-1009129": round(-5.2 - 0.687 / 2, 6),
        "mp-1265": round(-5.977 - 0.687 / 2, 6),  # MP2020: -0.687 eV per oxide ion
    }
    assert [q["thermo_types"] for q in server.requests] == ["GGA_GGA+U"]
    assert server.asked_for() == ["Mg,O,Mg-O"]
    assert (references.chemsys, references.level) == ("Mg-O", "vasp/mp-gga")
    assert (references.convention, references.source_version) == ("mp2020", "2025.9.25")
    assert len(references.settings["content_sha256"]) == 64


def test_the_correction_can_be_done_again_from_what_is_kept(client):
    references = fetch_reference_set("Mn-O", client=client)
    entry = next(e for e in references.entries if e.entry_id == "mp-19006")
    assert entry.data["parameters"]["hubbards"] == {"Mn": 3.9, "O": 0.0}
    assert entry.data["data"]["oxidation_states"] == {"O": -2.0, "Mn": 2.0}
    assert entry.data["uncorrected_energy"] == pytest.approx(-15.6)
    again = MaterialsProject2020Compatibility(check_potcar=False).process_entry(
        computed_entry(entry)
    )
    assert again.energy == pytest.approx(entry.energy, abs=1e-6)
    assert again.correction == pytest.approx(entry.data["correction"], abs=1e-6)


def test_energies_above_the_hull_are_those_that_mp_publishes(client):
    references = fetch_reference_set("Mg-Mn-O", client=client)
    diagram = PhaseDiagram([PDEntry(e.composition, e.energy) for e in references.entries])
    for entry in references.entries:
        above = diagram.get_e_above_hull(PDEntry(entry.composition, entry.energy))
        assert entry.data["energy_above_hull"] == pytest.approx(above, abs=1e-6)


def test_compounds_that_were_never_relaxed_are_left_out_and_named(client):
    references = fetch_reference_set("Mg-Mn", client=client)
    assert set(energies(references)) == {"mp-110", "mp-153", "mp-35"}
    assert references.settings["left_out"] == ["mp-1094961"]


def test_a_material_that_comes_twice_counts_once_with_its_lower_energy(server, client):
    oxide = next(d for d in server.documents if d["material_id"] == "mp-1265")
    server.documents.append({**oxide, "material_id": "mp-aaaaabwr", "energy_per_atom": -6.0})
    references = fetch_reference_set("Mg-O", client=client)
    ids = [e.entry_id for e in references.entries]
    assert ids == sorted(set(ids))
    assert energies(references)["mp-1265"] == round(-5.977 - 0.687 / 2, 6)


def test_an_element_without_a_phase_is_named(server, client):
    server.documents = [d for d in server.documents if d["chemsys"] != "Mg"]
    with pytest.raises(InputError, match=r"no elemental phase of Mg: there is no hull of Mg-O"):
        fetch_reference_set("Mg-O", client=client)


def test_many_pages_are_all_read(server, client, monkeypatch):
    monkeypatch.setattr(mp_client, "PAGE", 2)
    assert len(fetch_reference_set("Mg-O", client=client).entries) == 5
    assert [q.get("_skip", "0") for q in server.requests] == ["0", "2", "4"]


def test_subsystems_and_batches():
    parts = ["-".join(part) for part in subsystems(["O", "Mg", "Mn"])]
    assert parts == ["Mg", "Mn", "O", "Mg-Mn", "Mg-O", "Mn-O", "Mg-Mn-O"]
    names = [f"A{n}-B" for n in range(100)]
    groups = list(batches(names, budget=50))
    assert [name for group in groups for name in group] == names
    assert max(len("%2C".join(group)) for group in groups) <= 50
    assert list(batches(["x" * 99], budget=50)) == [["x" * 99]]


# --- what is kept ------------------------------------------------------------------------------


def test_only_what_is_missing_is_fetched(server, client, settings):
    snapshot = MongoSnapshot(mongo.database(settings))
    first = fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    again = fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    wider = fetch_reference_set("Mg-Mn-O", snapshot=snapshot, client=client)
    assert server.asked_for() == ["Mg,O,Mg-O", "Mn,Mg-Mn,Mn-O,Mg-Mn-O"]
    assert again.reference_id == first.reference_id
    assert len(wider.entries) == 7
    assert snapshot.versions() == {"2025.9.25": 7}


def test_a_complete_snapshot_needs_neither_network_nor_key(server, client, settings, monkeypatch):
    snapshot = MongoSnapshot(mongo.database(settings))
    online = fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    monkeypatch.delenv("MP_API_KEY")
    nowhere = Client(endpoint="http://127.0.0.1:9/", patience=PATIENCE)
    offline = fetch_reference_set("Mg-O", snapshot=snapshot, client=nowhere)
    assert offline.reference_id == online.reference_id
    assert offline.settings["content_sha256"] == online.settings["content_sha256"]


def test_versions_are_never_mixed(server, client):
    snapshot = MemorySnapshot()
    fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    server.heartbeat["db_version"] = "2025.11.1"
    server.documents = [d for d in server.documents if d["material_id"] != "mp-110"]
    wider = fetch_reference_set("Mg-Mn-O", snapshot=snapshot, client=client)
    assert wider.source_version == "2025.11.1"
    assert server.asked_for()[1] == "Mg,Mn,O,Mg-Mn,Mg-O,Mn-O,Mg-Mn-O"
    assert "mp-110" not in energies(wider)
    kept = fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    assert kept.source_version == "2025.11.1"
    assert max(["2025.9.25", "2025.11.1", "2025_10_2"], key=version_key) == "2025.11.1"


def test_a_release_during_the_fetch_stops_it(server, client, monkeypatch):
    monkeypatch.setattr(materials_project, "batches", lambda systems: [[s] for s in systems])

    def release(done, total):
        server.heartbeat["db_version"] = "2025.11.1"

    with pytest.raises(PccdError, match=r"a version after 2025.9.25"):
        fetch_reference_set("Mg-O", client=client, progress=release)


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(server, client, settings, monkeypatch):
    monkeypatch.setattr(materials_project, "URL_BUDGET", 1)
    monkeypatch.setattr(materials_project, "batches", lambda systems: ([s] for s in systems))
    snapshot = MongoSnapshot(mongo.database(settings))
    done = []

    def interrupt(count, total):
        done.append((count, total))
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_everything(snapshot, client=client, progress=interrupt)
    assert done == [(1, 6), (2, 6), (3, 6), (4, 6)]
    before = server.asked_for()
    assert fetch_everything(snapshot, client=client) == "2025.9.25"
    everything = ["Mg", "Mg-Mn", "Mg-O", "Mn", "Mn-O", "O"]
    assert before == ["*", *everything[:4]]
    assert server.asked_for()[len(before) :] == ["*", *everything[4:]]
    assert len(snapshot.entries("2025.9.25", everything)) == len(thermo_documents())
    # now that all is there, a system without phases is known to have none
    assert snapshot.missing("2025.9.25", ["Mg-Mn-O"]) == []
    assert (
        snapshot.complete_version(["-".join(p) for p in subsystems(["Mg", "Mn", "O"])])
        == "2025.9.25"
    )


def test_a_snapshot_goes_out_to_a_file_and_back(client, settings, tmp_path, mongod_uri):
    database = mongo.database(settings)
    snapshot = MongoSnapshot(database)
    references = fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    path, again = tmp_path / "mp.jsonl.gz", tmp_path / "again.jsonl.gz"
    assert export_snapshot(snapshot, "2025.9.25", path) == 3
    export_snapshot(snapshot, "2025.9.25", again)
    assert path.read_bytes() == again.read_bytes()
    copy = MemorySnapshot()
    assert import_snapshot(copy, path) == "2025.9.25"
    nowhere = Client(endpoint="http://127.0.0.1:9/", patience=PATIENCE)
    imported = fetch_reference_set("Mg-O", snapshot=copy, client=nowhere)
    assert imported.reference_id == references.reference_id
    assert imported.settings == references.settings
    assert copy.missing("2025.9.25", ["Mg-Mn-O"]) == ["Mg-Mn-O"]
    snapshot.mark_whole("2025.9.25")
    export_snapshot(snapshot, "2025.9.25", path)
    import_snapshot(copy, path)
    assert copy.missing("2025.9.25", ["Mg-Mn-O"]) == []
    with pytest.raises(InputError, match=r"'2020' \(there are: 2025.9.25\)"):
        export_snapshot(snapshot, "2020", path)


def test_a_damaged_snapshot_file_leaves_nothing(client, settings, tmp_path):
    snapshot = MongoSnapshot(mongo.database(settings))
    fetch_reference_set("Mg-O", snapshot=snapshot, client=client)
    path = tmp_path / "mp.jsonl.gz"
    export_snapshot(snapshot, "2025.9.25", path)
    whole = path.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    changed = [line.replace(b"mp-153", b"mp-154") for line in lines]
    damaged = {
        "cut": whole[: len(whole) // 2],
        "a line short": gzip.compress(b"".join(lines[:-1])),
        "changed": gzip.compress(b"".join(changed)),
        "another kind": gzip.compress(b'{"id": 1}\n'),
        "empty": b"",
    }
    for name, content in damaged.items():
        path.write_bytes(content)
        copy = MemorySnapshot()
        with pytest.raises(InputError, match="no snapshot of the Materials Project, or damaged"):
            import_snapshot(copy, path)
        assert copy.missing("2025.9.25", ["Mg"]) == ["Mg"], name
    with pytest.raises(InputError, match="There is no file"):
        import_snapshot(MemorySnapshot(), tmp_path / "absent")


# --- recomputed at a rung's level --------------------------------------------------------------


def relaxed(structure, *, shift=0.0):
    return Relaxation(
        level="chgnet",
        key=f"key-{structure.composition.reduced_formula}",
        verdict="converged",
        structure=structure,
        energy=-5.0 * len(structure) + shift,
        convention="mp2020",
    )


def test_phases_near_the_hull_are_recomputed_at_the_level_of_the_rung(client):
    asked = []

    def relax(structure):
        asked.append(structure.composition.reduced_formula)
        return relaxed(structure)

    progress = []
    built = build_reference_set(
        "Mg-O", "chgnet", relax=relax, client=client, progress=lambda *p: progress.append(p)
    )
    # the CsCl type lies 0.78 eV/atom above the hull, bcc Mg 0.03
    assert {e.entry_id for e in built.entries} == {"mp-110", "mp-12957", "mp-153", "mp-1265"}
    assert sorted(asked) == ["Mg", "Mg", "MgO", "O2"]
    assert (built.source, built.level, built.convention) == (
        "materials_project",
        "chgnet",
        "mp2020",
    )
    assert {e.energy_per_atom for e in built.entries} == {-5.0}
    assert progress[-1] == (4, 4)
    assert built.settings["structures_of"].startswith("materials_project-Mg-O-vasp.mp-gga-")


def test_at_mp_level_nothing_is_relaxed(client):
    built = build_reference_set("Mg-O", "vasp/mp-gga", relax=pytest.fail, client=client)
    assert energies(built)["mp-153"] == -1.6


def test_phases_that_cannot_be_relaxed_are_named_unless_an_element_is_lost(client):
    def fail(formula):
        broken = Relaxation(level="chgnet", key="x", verdict="diverged", reason="it collapsed")
        return lambda s: broken if s.composition.reduced_formula == formula else relaxed(s)

    built = build_reference_set("Mg-O", "chgnet", relax=fail("MgO"), client=client)
    assert built.settings["not_usable"] == {"mp-1265": "it collapsed"}
    with pytest.raises(InputError, match=r"No elemental phase of O .*mp-12957: it collapsed"):
        build_reference_set("Mg-O", "chgnet", relax=fail("O2"), client=client)


def test_near_hull_keeps_what_is_within_the_limit(client):
    references = fetch_reference_set("Mg-O", client=client)
    assert len(near_hull(references, 0.0)) == 3
    assert len(near_hull(references, 0.1)) == 4
    assert len(near_hull(references, 1.0)) == 5


def test_in_a_campaign_all_of_mp_is_known_and_what_is_near_its_hull_is_recomputed(
    server, settings, monkeypatch
):
    place = "mp_api.client.core.settings.MAPI_CLIENT_SETTINGS.ENDPOINT"
    monkeypatch.setattr(place, server.endpoint)
    monkeypatch.setattr(
        "pccd_workflows.stages.references._relax", lambda structure, **_: relaxed(structure)
    )
    campaign = Campaign.model_validate(
        {
            "name": "mgo",
            "generate": {"elements": ["Mg", "O"]},
            "references": {"source": "materials_project"},
            "novelty": {"against": ["references"]},
            "rungs": [{"level": "chgnet"}],
        }
    )
    storage = mongo_storage(settings)
    built = build(campaign, campaign.rungs[0], "Mg-O", storage)
    mongo.put_reference_set(mongo.database(settings), built)
    assert "mp-1009129" not in energies(built)  # CsCl type: too high to be recomputed
    crystals = {"c-1": caesium_chloride("Mg", "O", 2.7)}
    novelty = judge_novelty(crystals, Compared(campaign, storage, ["Mg-O"]))
    verdict = novelty["c-1"].sets["references"]
    assert (verdict.known, verdict.matched_id) == (True, "mp-1009129")


# --- a bad server ------------------------------------------------------------------------------

PASSING = {
    "429": [Fault(429, {"Retry-After": "0"})] * 2,
    "429 without a time": [Fault(429)],
    "504": [Fault(504), Fault(502), Fault(503)],
    "slow": [Fault(delay=0.8)],
    "cut connection": [Fault(cut_connection=True)],
    "half a document": [Fault(cut_json=True)],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_passing_faults_cost_only_time(server, client, faults):
    server.faults = list(faults)
    assert len(fetch_reference_set("Mg-O", client=client).entries) == 5
    assert len(server.requests) == len(faults) + 1


LASTING = {
    "429": (Fault(429), r"answers 429, also at try 4"),
    "500": (Fault(500), r"answers 500, also at try 4"),
    "slow": (Fault(delay=0.8), r"silent for 0.4 s, also at try 4"),
    "half a document": (Fault(cut_json=True), r"truncated answers, also at try 4"),
}


@pytest.mark.parametrize(("fault", "message"), LASTING.values(), ids=LASTING)
def test_lasting_faults_end_after_a_stated_number_of_tries(server, client, fault, message):
    server.faults = [fault] * 9
    with pytest.raises(HttpError, match=message):
        fetch_reference_set("Mg-O", client=client)
    assert len(server.requests) == 4


def test_the_server_may_say_how_long_to_wait(server):
    waits = []
    patience = Patience(attempts=3, first_wait=1.0, longest_wait=7.0)
    server.faults = [Fault(429, {"Retry-After": "5"}), Fault(429, {"Retry-After": "3600"})]
    slow = Client(endpoint=server.endpoint, patience=patience, sleep=waits.append)
    fetch_reference_set("Mg", client=slow)
    assert waits == [5.0, 7.0]


def test_waits_grow_with_jitter_up_to_the_longest():
    patience = Patience(first_wait=1.0, longest_wait=10.0)
    for attempt, base in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 10.0)):
        drawn = {patience.wait(attempt, None) for _ in range(50)}
        assert len(drawn) > 40
        assert base / 2 <= min(drawn) < max(drawn) <= base * 1.5


def test_an_unreachable_server_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "k" * 32)
    with pytest.raises(HttpError, match=r"127.0.0.1:9 cannot be reached.*also at try 4"):
        fetch_reference_set("Mg", client=Client(endpoint="http://127.0.0.1:9/", patience=PATIENCE))


def test_a_request_that_is_too_long_is_split(server, client):
    server.longest_url = 235
    assert len(fetch_reference_set("Mg-Mn-O", client=client).entries) == 7
    halves = ["Mg,Mn,O", "Mg-Mn,Mg-O,Mn-O,Mg-Mn-O"]
    assert server.asked_for() == [",".join(halves), *halves]


def test_one_system_too_long_is_an_error_not_a_loop(server, client):
    server.longest_url = 20
    with pytest.raises(HttpError, match="414"):
        fetch_reference_set("Mg", client=client)


@pytest.mark.parametrize(
    "field", ["material_id", "thermo_type", "energy_per_atom", "entries", "structure", "parameters"]
)
def test_a_changed_schema_names_the_missing_field(server, client, field):
    def without(value):
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k != field}
        return value

    search = server.search
    server.search = lambda query: {
        **search(query),
        "data": [without(d) for d in search(query)["data"]],
    }
    with pytest.raises(PccdError, match=rf"lacks the field '{field}': its interface has changed"):
        fetch_reference_set("Mg", client=client)


def test_a_search_without_total_is_not_taken_for_complete(server, client):
    server.without_total = True
    with pytest.raises(PccdError, match="lacks the field 'total_doc'"):
        fetch_reference_set("Mg", client=client)


def test_fewer_documents_than_announced_are_not_taken_for_all(server, client):
    search = server.search
    server.search = lambda query: {"data": search(query)["data"][:1], "meta": {"total_doc": 2}}
    server.search = lambda query, original=server.search: (
        {"data": [], "meta": {"total_doc": 2}} if "_skip" in query else original(query)
    )
    with pytest.raises(PccdError, match="sent 1 of 2 documents"):
        fetch_reference_set("Mg", client=client)


def test_another_thermo_type_is_refused(server, client):
    search = server.search

    def mixed(query):
        answer = search(query)
        answer["data"][0]["thermo_type"] = "GGA_GGA+U_R2SCAN"
        return answer

    server.search = mixed
    with pytest.raises(PccdError, match=r"'GGA_GGA\+U_R2SCAN' though 'GGA_GGA\+U' was asked for"):
        fetch_reference_set("Mg", client=client)


@pytest.mark.parametrize("name", ["db_version", "access_controlled_batch_ids"])
def test_a_changed_heartbeat_names_the_missing_field(server, client, name):
    del server.heartbeat[name]
    with pytest.raises(PccdError, match=f"heartbeat lacks the field '{name}'"):
        fetch_reference_set("Mg", client=client)


# --- the key -----------------------------------------------------------------------------------


def test_without_a_key_nothing_is_asked(server, client, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setattr(mp_client, "SETTINGS", {})
    with pytest.raises(InputError, match="set MP_API_KEY"):
        fetch_reference_set("Mg", client=client)
    assert server.requests == []


@pytest.mark.parametrize(
    ("key", "message"),
    [("w" * 32, r"refuses the API key \(401\): check MP_API_KEY"), ("short", "32 characters")],
)
def test_a_wrong_key_is_named_but_not_shown(server, client, monkeypatch, key, message):
    monkeypatch.setenv("MP_API_KEY", key)
    with pytest.raises(InputError, match=message) as caught:
        fetch_reference_set("Mg", client=client)
    assert key not in str(caught.value)


def test_a_key_without_the_right_is_refused_at_once(server, client):
    server.faults = [Fault(403)] * 3
    with pytest.raises(InputError, match=r"refuses the API key \(403\)"):
        fetch_reference_set("Mg", client=client)
    assert len(server.requests) == 1


def test_the_key_is_sent_but_never_stored_or_logged(server, client, settings, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    database = mongo.database(settings)
    references = fetch_reference_set("Mg-O", snapshot=MongoSnapshot(database), client=client)
    mongo.put_reference_set(database, references)
    stored = [row for name in database.list_collection_names() for row in database[name].find()]
    assert server.headers_seen[0]["x-api-key"] == server.key
    assert len(stored) > 10
    seen = json.dumps(stored, default=str) + caplog.text + "".join(capfd.readouterr())
    assert server.key not in seen
    assert server.key not in repr(client)
