"""Campaign files: what is accepted, what is refused, and in which words."""

import re
from pathlib import Path

import pytest
import yaml

from pccd_workflows.campaign import Campaign, load_campaign
from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource

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
    assert whole.stages[3:] == ["relax:vasp/mp-gga", "hull:vasp/mp-gga", "bands:vasp/mp-gga"]


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
