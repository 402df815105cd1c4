"""Every source through the same contract; the funnel's first stage on several of them."""

import json
from dataclasses import replace

import pytest
from contract import check_contract
from pymatgen.core import Lattice, Structure

from pccd_workflows.campaign import Campaign, index_of
from pccd_workflows.core.errors import InputError, StaleResultError
from pccd_workflows.core.storage import load_crystals
from pccd_workflows.execution.memory import MemoryStorage
from pccd_workflows.generators import generator_type, sample, source_names
from pccd_workflows.generators.request import Generation
from pccd_workflows.generators.sampling import check_options, draw_into
from pccd_workflows.settings import get_settings
from pccd_workflows.stages import generate as stage

SAMPLER = {"steps": 5}


@pytest.fixture(autouse=True)
def models(tiny_folder, monkeypatch):
    monkeypatch.setenv("PCCD_MODEL_DIR", str(tiny_folder.parent))
    get_settings.cache_clear()


def rock_salt(a, b, length=4.2):
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(length), [a, b], [[0, 0, 0], [0.5] * 3]
    ).get_primitive_structure()


@pytest.fixture
def folder(tmp_path):
    """Five crystals, one of which cannot be read."""
    place = tmp_path / "from-elsewhere"
    place.mkdir()
    for number, pair in enumerate((("Na", "Cl"), ("K", "Br"), ("Mg", "O"), ("Ca", "O"))):
        rock_salt(*pair).to(str(place / f"gen_{number}.cif"), fmt="cif")
    (place / "gen_4.cif").write_text("data_x\n_cell_length_a 4\n")
    return place


def options_of(source, folder):
    return {
        "pccd": {"model": "tiny", "elements": ["Na", "Cl"], "samples": 6, "sampler": SAMPLER},
        "files": {"source": "files", "path": str(folder)},
        "substitution": {
            "source": "substitution",
            "crystals": str(folder),
            "element_sets": [["Rb", "I"], ["Ba", "S"]],
            "samples": 6,
        },
    }[source]


@pytest.mark.parametrize("source", ["pccd", "files", "substitution"])
def test_contract(source, folder):
    check_contract(options_of(source, folder))


def test_files_are_taken_as_they_are(folder):
    made = check_contract(options_of("files", folder), n=5)
    assert [g.structure and g.structure.composition.reduced_formula for g in made] == [
        "NaCl", "KBr", "MgO", "CaO", None,
    ]  # fmt: skip
    assert made[0].generation.origin == "gen_0.cif: gen_0"
    assert made[4].error_class == "unreadable"


def test_a_changed_folder_is_another_campaign(folder):
    given = {"name": "a", "generate": options_of("files", folder), "rungs": [{"level": "chgnet"}]}
    before = Campaign.model_validate(given)
    assert before.n_samples == 5
    assert before.elements == ["Br", "Ca", "Cl", "K", "Mg", "Na", "O"]
    assert Campaign.model_validate(given).hash == before.hash
    versions = stage.source_versions(before)
    (folder / "gen_0.cif").write_text(rock_salt("Na", "Cl", 4.3).to(fmt="cif"))
    assert Campaign.model_validate(given).hash != before.hash
    with pytest.raises(StaleResultError, match="'files' has changed since campaign"):
        stage.run(before, 0, 5, MemoryStorage(), versions=versions)
    # a stored campaign is read where its files are not
    for file in folder.iterdir():
        file.unlink()
    assert Campaign.model_validate(before.resolved()) == before


def test_substitution_takes_the_nearest_structure_and_fits_its_cell(folder):
    options = {**options_of("substitution", folder), "element_sets": [["K", "Cl"]]}
    made = check_contract({**options, "samples": 40}, n=40)
    origins = [g.generation.origin for g in made]
    assert all(g.structure.composition.reduced_formula == "KCl" for g in made)
    assert max(set(origins), key=origins.count) in ("gen_0", "gen_1")  # NaCl, KBr: not MgO
    of_salt = next(g.structure for g in made if g.generation.origin == "gen_0")
    assert of_salt.volume > rock_salt("Na", "Cl").volume  # K is larger than Na
    assert set(origins) <= {"gen_0", "gen_1", "gen_2", "gen_3"}


def test_known_compounds_of_the_very_elements_are_not_copied(folder):
    options = {**options_of("substitution", folder), "element_sets": [["Na", "Cl"]]}
    made = check_contract({**options, "samples": 20}, n=20)
    assert "gen_0" not in {g.generation.origin for g in made}
    lonely = check_contract({**options, "element_sets": [["Na"]]}, n=2)
    assert {g.error_class for g in lonely} == {"no_analogue"}


CAMPAIGN = {
    "name": "many",
    "rungs": [{"level": "chgnet"}],
}


def several(folder):
    sources = [options_of(name, folder) for name in ("pccd", "files", "substitution")]
    sources[2].pop("element_sets")  # those of the source before that names some
    return Campaign.model_validate({**CAMPAIGN, "generate": sources})


def test_one_numbering_across_sources(folder):
    campaign = several(folder)
    ranges = [(s.options.source, s.start, s.stop) for s in campaign.sources]
    assert ranges == [("pccd", 0, 6), ("files", 6, 11), ("substitution", 11, 17)]
    assert campaign.n_samples == 17
    assert campaign.shards == [(0, 6), (6, 11), (11, 17)]
    assert campaign.source_of(10).options.source == "files"
    assert campaign.sources[2].options.elements == ["Na", "Cl"]
    assert campaign.chemsys is None
    assert campaign.models == ["tiny"]
    with pytest.raises(IndexError):
        campaign.source_of(17)
    with pytest.raises(InputError, match="other sources than one model"):
        _ = campaign.generate


def test_conditions_are_those_of_the_sample_s_source(folder):
    sources = [
        {**options_of("pccd", folder), "conditions": {"magnetic_ordering": "FM"}},
        options_of("files", folder),
    ]
    campaign = Campaign.model_validate({**CAMPAIGN, "generate": sources})
    assert campaign.conditions(campaign.candidate_id(5)).magnetic_ordering == "FM"
    assert campaign.conditions(campaign.candidate_id(6)).magnetic_ordering is None
    assert index_of(campaign.candidate_id(6)) == 6


def test_the_stage_stores_every_sample_once(folder):
    campaign, storage = several(folder), MemoryStorage()
    versions = stage.source_versions(campaign)
    assert stage.run(campaign, 4, 12, storage, versions=versions) == 8
    assert stage.run(campaign, 0, 17, storage, versions=versions) == 9
    assert stage.run(campaign, 0, 17, storage, versions=versions) == 0
    rows = list(storage.rows(campaign.campaign_id, "generate"))
    assert [row.index for row in rows] == list(range(17))
    assert [row.candidate_id for row in rows] == [campaign.candidate_id(i) for i in range(17)]
    assert [row.formula for row in rows[6:11]] == ["NaCl", "KBr", "MgO", "CaO", None]
    records = [row.read(Generation) for row in rows]
    assert [r.source for r in records] == ["pccd"] * 6 + ["files"] * 5 + ["substitution"] * 6
    assert [r.index for r in records] == [*range(6), *range(5), *range(6)]
    assert not rows[10].goes_on
    assert rows[10].key is None
    kept = [row for row in rows if row.goes_on]
    crystals = load_crystals(storage, [row.ref for row in kept])
    assert crystals[[r.index for r in kept].index(6)].composition.reduced_formula == "NaCl"


def test_a_kill_costs_the_batch_in_flight(folder, monkeypatch):
    monkeypatch.setattr(stage, "BATCH", 2)
    campaign, storage = several(folder), MemoryStorage()
    real, calls = storage.put_rows, []

    def dies(rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(rows)

    monkeypatch.setattr(storage, "put_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        stage.run(campaign, 6, 17, storage)
    monkeypatch.setattr(storage, "put_rows", real)
    before = list(storage.rows(campaign.campaign_id, "generate"))
    assert [row.index for row in before] == [6, 7, 8, 9]
    assert stage.run(campaign, 6, 17, storage) == 7
    assert list(storage.rows(campaign.campaign_id, "generate"))[:4] == before


def test_other_weights_are_refused(folder):
    campaign = Campaign.model_validate({**CAMPAIGN, "generate": options_of("pccd", folder)})
    with pytest.raises(StaleResultError, match="'tiny' has changed since campaign many-"):
        stage.run(campaign, 0, 2, MemoryStorage(), versions=["0" * 64])


def test_samples_of_earlier_versions_are_rows(folder):
    campaign = Campaign.model_validate({**CAMPAIGN, "generate": options_of("pccd", folder)})
    crystal = rock_salt("Na", "Cl")
    generation = {
        "model": "tiny", "weights_sha256": "0", "seed": 7, "index": 3, "elements": ["Na", "Cl"],
        "conditions": {}, "sampler": {}, "error_class": None, "reason": None, "seconds": 1.0,
    }  # fmt: skip
    old = {
        "_id": campaign.candidate_id(3), "schema_version": 1, "campaign_id": campaign.campaign_id,
        "index": 3, "generation": generation, "structure": crystal.as_dict(),
    }  # fmt: skip
    row, structure = stage.row_of_sample(old)
    assert structure == crystal
    assert row.goes_on
    assert row.read(Generation).source == "pccd"
    dead, none = stage.row_of_sample({**old, "structure": None})
    assert none is None
    assert not dead.goes_on
    assert replace(dead, key=row.key, goes_on=True, formula="NaCl", at=row.at) == row


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "filez"}, "no source 'filez'; use one of pccd, files, substitution"),
        ({"source": "os:path"}, "'os:path' is no generator: it lacks options_type"),
        ({"source": "no_such_module:X"}, "cannot be loaded (No module named"),
        ({"source": "files", "path": "absent"}, "There is no file or folder"),
        ({"source": "files", "pth": "x"}, "unknown key 'pth'; did you mean 'path'?"),
        ({"source": "files", "path": "{}", "samples": 9}, "holds 5 crystals only"),
        ({"source": "files", "path": "{}", "elements": ["O"]}, "leave them out"),
        ({"elements": ["Na"], "sampler": {"stps": 2}}, "'sampler.stps'; did you mean 'steps'?"),
        ({"elements": ["Na"], "temperature": 2}, "unknown key 'temperature'; use one of"),
    ],
)
def test_bad_options_are_one_sentence(folder, given, message):
    given = {k: v.format(folder) if isinstance(v, str) else v for k, v in given.items()}
    with pytest.raises(InputError) as caught:
        check_options(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "tiny", "elements": ["Na", "O"]}, "'tiny' was not trained on O"),
        ({"model": "tiny", "elements": ["Na", "K", "Rb", "Cs", "Cl"]}, "at most 4 elements"),
        ({"model": "absent", "elements": ["Na"]}, "no trained model 'absent'"),
        (
            {"model": "tiny", "elements": ["Na"], "conditions": {"magnetic_ordering": "FM"}},
            "was not trained on magnetic_ordering",
        ),
    ],
)
def test_what_a_model_cannot_do_is_said_before_it_runs(given, message):
    with pytest.raises(InputError, match=message):
        sample(**given)


def test_sample_for_a_notebook(folder):
    told = []
    made = sample("Na-Cl", 3, model="tiny", sampler=SAMPLER, progress=lambda *n: told.append(n))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all({e.symbol for e in s.elements} == {"Na", "Cl"} for s in made)
    assert len(sample(source="files", samples=5, path=folder)) == 4
    assert {"pccd", "files", "substitution"} <= set(source_names())
    assert generator_type("files").__name__ == "FilesGenerator"


def test_sampling_into_a_folder_goes_on_where_it_was_stopped(tmp_path):
    asked = check_options(
        {"model": "tiny", "elements": ["Na", "Cl"], "samples": 40, "sampler": SAMPLER}
    )
    whole = list(draw_into(tmp_path / "whole", asked))
    rows = draw_into(tmp_path / "cut", asked)
    for _ in range(33):
        next(rows)
    rows.close()
    ledger = tmp_path / "cut" / "samples.jsonl"
    assert len(ledger.read_text().splitlines()) == 33
    ledger.write_text(ledger.read_text() + '{"index": 33, "form')
    again = list(draw_into(tmp_path / "cut", asked))
    without = [{k: v for k, v in row.items() if k != "file"} for row in again]
    assert without == [{k: v for k, v in row.items() if k != "file"} for row in whole]
    assert [json.loads(line) for line in ledger.read_text().splitlines()] == again
    assert len(list((tmp_path / "cut").glob("*.cif"))) == sum(bool(r["formula"]) for r in again)
    other = asked.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match="holds samples of other options"):
        next(draw_into(tmp_path / "cut", other))
