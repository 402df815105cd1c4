"""Campaign files: what is accepted, what is refused, and in which words."""

import contextlib
import json
import os
import re
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from pccd_workflows import stages
from pccd_workflows.campaign import Campaign, load_campaign, to_yaml
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.known.options import References

MINIMAL = {
    "name": "mg-mn-o",
    "generate": {"elements": ["Mg", "Mn", "O"]},
    "rungs": [{"level": "chgnet"}],
}


def changed(path: str, value) -> dict:
    """Return the minimal campaign with one dotted key set."""
    data = yaml.safe_load(yaml.safe_dump(MINIMAL))
    *parents, last = path.split(".")
    section = data
    for key in parents:
        section = section[int(key)] if key.isdigit() else section.setdefault(key, {})
    section[last] = value
    return data


def write(tmp_path: Path, data) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("path", sorted(resource("flows").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_campaign_is_valid_and_named_as_its_file(path):
    assert load_campaign(path).name == path.stem


def test_defaults_are_filled_in_and_part_of_the_hash():
    plain = Campaign.model_validate(MINIMAL)
    spelled_out = Campaign.model_validate(plain.resolved())
    assert spelled_out.hash == plain.hash
    assert plain.resolved()["screen"]["min_distance"] == 0.7
    other = Campaign.model_validate(changed("generate.seed", 1))
    assert other.hash != plain.hash
    assert other.candidate_id(3) != plain.candidate_id(3)


def test_a_band_structure_is_part_of_the_hash_only_where_it_is_asked_for():
    hashes = []
    for extra in ({}, {"band_structure": False}, {"band_structure": True}):
        whole = Campaign.model_validate(changed("rungs", [{"level": "vasp/mp-gga", **extra}]))
        assert ("band_structure" in whole.resolved()["rungs"][0]) == bool(
            extra.get("band_structure")
        )
        assert Campaign.model_validate(whole.resolved()) == whole
        hashes.append(whole.hash)
    assert hashes[0] == hashes[1] != hashes[2]
    assert stages.names(whole)[3:] == ["relax:vasp/mp-gga", "hull:vasp/mp-gga", "bands:vasp/mp-gga"]


def test_candidate_ids_name_campaign_hash_and_index():
    campaign = Campaign.model_validate(MINIMAL)
    assert re.fullmatch(r"mg-mn-o-[0-9a-f]{10}-000042", campaign.candidate_id(42))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("generate.elements", ["Mg", "Xx"], "'Xx' is not a chemical element"),
        ("generate.elements", ["Mg", "Mg"], "named twice"),
        ("generate.elements", [], "at least 1"),
        ("generate.element", ["Mg"], "unknown key 'generate.element'; did you mean 'elements'?"),
        ("generate.samples", 0, "greater than or equal to 1"),
        ("generate.samples", "many", "integer"),
        (
            "generate.draw",
            {"from": ["Mg"], "n_elements": [1, 1]},
            "exactly one of elements, element_sets and draw",
        ),
        ("generate.sampler", {"name": "euler"}, "'ddpm', 'ddim' or 'dpm-solver++'"),
        ("generate.conditions", {"magnetic_ordering": "up"}, "'NM', 'FM', 'AFM' or 'FiM'"),
        ("rungs.0.level", "chgnett", "Unknown level 'chgnett'"),
        ("rungs.0.keep", {"energy_above_hull": -0.1}, "rungs.0.keep.energy_above_hull"),
        ("rungs.0.budget", {"candidates": 0}, "rungs.0.budget.candidates"),
        ("rungs.0.band_structure", True, "needs the level vasp/mp-gga or vasp/mp-r2scan, not"),
        ("rungs", [], "at least 1"),
        ("rungs", [{"level": "chgnet"}, {"level": "chgnet"}], "used twice"),
        ("screen", {"min_distance": -1}, "screen.min_distance"),
        ("screen", {"density": [5, 1]}, "screen.density"),
        ("references", {"source": "file"}, "source: file needs a path"),
        ("phonons", {"tolerance_thz": -0.1}, "phonons.tolerance_thz"),
        ("name", "../etc/passwd", "name:"),
        ("name", "$where", "name:"),
        ("name", "a" * 80, "name:"),
        ("name", "", "name:"),
    ],
)
def test_bad_values_are_refused_in_one_sentence_with_the_key(tmp_path, path, value, message):
    file = write(tmp_path, changed(path, value))
    with pytest.raises(InputError) as caught:
        load_campaign(file)
    text = str(caught.value)
    assert message in text
    assert str(file) in text
    assert "\n" not in text


def test_all_problems_of_a_file_come_at_once_the_mistyped_key_first(tmp_path):
    data = {"name": "Mg", "generate": {"elments": ["Mg"], "samples": 0}, "rungs": [{"lvl": "x"}]}
    with pytest.raises(InputError) as caught:
        load_campaign(write(tmp_path, {**data, "phonon": {}}))
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("5 problems:")
    assert [line.split(";")[0].strip() for line in lines[:3]] == [
        "unknown key 'generate.elments'",
        "unknown key 'rungs.0.lvl'",
        "unknown key 'phonon'",
    ]
    assert "did you mean 'elements'?" in lines[0]
    assert any("generate.samples" in line for line in lines)
    assert any("name:" in line for line in lines)
    assert not any("is missing" in line for line in lines)


def test_draw_needs_counts_it_can_satisfy():
    data = changed("generate", {"draw": {"from": ["Mg", "O"], "n_elements": [1, 3]}})
    with pytest.raises(ValueError, match="between 1 and the 2 elements"):
        Campaign.model_validate(data)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "name: [", "just words", "\x00"])
def test_files_that_are_no_campaign_are_refused(tmp_path, text):
    with pytest.raises(InputError, match="Campaign file"):
        load_campaign(write(tmp_path, text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"There is no campaign file .*nothing\.yaml"):
        load_campaign(tmp_path / "nothing.yaml")


def test_python_objects_in_yaml_are_not_made(tmp_path):
    path = write(tmp_path, "name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError):
        load_campaign(path)


def test_reference_path_is_taken_from_the_campaign_files_folder(tmp_path):
    data = changed("references", {"source": "file", "path": "known.jsonl"})
    campaign = load_campaign(write(tmp_path, data))
    assert campaign.references.path == (tmp_path / "known.jsonl").resolve()


HASHES = {
    "quickstart": "62d56a2abbb6a7f3185d8739ffc2782e4dff2fcaf87a9150bd77f733e283997e",
    "seed-batch-1": "dd1d4e9c5f460c2812bfb8b7c02c2ada235db34a7d75c6547b24b17e55e17c0c",
    "seed-batch-2": "265991d5c70501d00e4299608232ab921e68e2fa32b89af30a92d26ad0856682",
    "seed-batch-3": "16731e9eadbccbf74e4a87293da7a2539c2902b70274df4834e4efeb2946beba",
}
"""Of the shipped files as the first version that had them hashed them (c7e1b0f; the quickstart as
it is since it looks for new crystals only)."""


@pytest.mark.parametrize("name", HASHES)
def test_an_unchanged_file_keeps_its_hash(name):
    """The seed's batches took their competing phases from prototypes then."""
    shipped = load_campaign(resource("flows", f"{name}.yaml"))
    source = "known" if name == "quickstart" else "prototypes"
    then = shipped.model_copy(update={"references": References(source=source)})
    assert then.hash == HASHES[name]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["chgnet"], "chgnet"),
        (["chgnet", "7net-l3i5"], "7net-l3i5"),
        (["chgnet", "7net-0", "vasp/mp-gga"], "7net-0"),
        (["chgnet", "my_potential:emt"], "my_potential:emt"),
        (["vasp/mp-gga"], "7net-l3i5"),
    ],
)
def test_phonons_are_at_the_last_potentials_level(levels, expected):
    asked = {**MINIMAL, "rungs": [{"level": level} for level in levels], "phonons": {}}
    found = Campaign.model_validate(asked)
    assert found.phonons is not None
    assert found.phonons.level == expected
    # the same as if it had been written, and written whole
    written = Campaign.model_validate({**asked, "phonons": {"level": expected}})
    assert found.hash == written.hash
    assert Campaign.model_validate(found.resolved()) == found
    cheap = Campaign.model_validate({**asked, "phonons": {"level": "chgnet"}})
    assert cheap.phonons is not None
    assert cheap.phonons.level == "chgnet"


def test_other_unchanged_campaigns_keep_their_hash_too():
    assert Campaign.model_validate(MINIMAL).with_defaults(1).hash == (
        "972137e6784a7aa841ba05f38494ada2c84824a7558e4dfc5a95f6d6dddc8a5b"
    )
    several = {
        "name": "many",
        "generate": {
            "element_sets": [["Mg", "O"], ["Ca", "O"]],
            "conditions": {"magnetic_ordering": "FM"},
            "samples": 7,
            "shard": 3,
        },
        "rungs": [{"level": "chgnet"}, {"level": "vasp/mp-gga"}],
        "phonons": {"level": "chgnet"},
    }
    assert Campaign.model_validate(several).with_defaults(1).hash == (
        "ce267a510de6c776ac4937cf5c955be5a7c16a13b399a1d62aedc5e9b06430ec"
    )


def test_one_source_is_the_same_however_it_is_written():
    plain = Campaign.model_validate(MINIMAL)
    for generate in (
        [MINIMAL["generate"]],
        {"source": "pccd", **MINIMAL["generate"]},
        [{"source": "pccd", **MINIMAL["generate"]}],
    ):
        assert Campaign.model_validate({**MINIMAL, "generate": generate}).hash == plain.hash


def test_several_models_are_several_sources(tmp_path):
    sources = [{"elements": ["Mg", "O"], "samples": 5}, {"seed": 2, "samples": 3, "shard": 2}]
    campaign = Campaign.model_validate({**MINIMAL, "generate": sources})
    assert campaign.shards == [(0, 5), (5, 7), (7, 8)]
    assert campaign.chemsys == "Mg-O"
    assert campaign.elements == ["Mg", "O"]
    assert Campaign.model_validate(campaign.resolved()) == campaign
    spoken = json.dumps(campaign, cls=MontyEncoder)  # as jobflow stores it
    assert json.loads(spoken, cls=MontyDecoder) == campaign


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ([], "generate: List should have at least 1 item"),
        ("pccd", "generate: Input should be a valid list"),
        ([3], "generate.0: a source of crystals is a mapping"),
        ([{"elements": ["Mg"], "sed": 3}], "unknown key 'generate.0.sed'; did you mean 'seed'?"),
        ({"elements": ["Mg"], "sampler": {"stps": 3}}, "'generate.sampler.stps'; did you mean"),
        ([{"elements": ["Mg"]}, {"source": "filez"}], "generate.1: There is no source 'filez'"),
        ([{"elements": ["Mg"]}, {"elements": ["Mg"]}], "two sources 'pccd' are the same"),
        ([{"elements": ["Mg"]}, {"source": "files"}], "'generate.1.path' is missing"),
        ([{"samples": 3}], "generate.0: give exactly one of elements, element_sets and draw"),
    ],
)
def test_bad_sources_are_one_sentence(tmp_path, generate, message):
    with pytest.raises(InputError) as caught:
        load_campaign(write(tmp_path, {**MINIMAL, "generate": generate}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_s_path_is_taken_from_the_campaign_files_folder(tmp_path):
    crystal = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])
    (tmp_path / "made").mkdir()
    crystal.to(str(tmp_path / "made" / "a.cif"), fmt="cif")
    data = {**MINIMAL, "generate": {"source": "files", "path": "made"}}
    (source,) = load_campaign(write(tmp_path, data)).sources
    assert source.options.path == (tmp_path / "made").resolve()
    assert (source.start, source.stop) == (0, 1)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}]\n" for before, name in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x" * (1 << 20) + "x", "has more than 1 MB"),
        (BOMB, "uses YAML aliases"),
        ("name: " + "[" * 20_000, "(nests its brackets too deeply|is not valid YAML)"),
    ],
    ids=["size", "aliases", "brackets"],
)
def test_a_file_that_would_take_all_memory_is_refused(tmp_path, content, sentence):
    with pytest.raises(InputError, match=sentence):
        load_campaign(write(tmp_path, content))


def test_a_device_is_not_read_to_its_end(tmp_path):
    with pytest.raises(InputError, match="has more than 1 MB"):
        load_campaign("/dev/zero")
    pipe, taken = tmp_path / "pipe.yaml", []
    os.mkfifo(pipe)

    def feed():
        with contextlib.suppress(BrokenPipeError), pipe.open("wb", buffering=0) as stream:
            while len(taken) < 200:
                taken.append(stream.write(bytes(100_000)))

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    with pytest.raises(InputError, match="has more than 1 MB"):
        load_campaign(pipe)
    feeding.join(timeout=10)
    assert sum(taken) < 2_000_000


@pytest.mark.parametrize("name", ["quickstart", "seed-batch-1", "seed-batch-2", "seed-batch-3"])
def test_a_file_with_all_defaults_fits_eighty_columns_and_is_the_same_campaign(tmp_path, name):
    campaign = load_campaign(resource("flows", f"{name}.yaml"))
    written = to_yaml(campaign)
    assert max(map(len, written.splitlines())) <= 80
    (tmp_path / "again.yaml").write_text(written)
    assert load_campaign(tmp_path / "again.yaml").campaign_id == campaign.campaign_id
