"""The model and dataset commands, as a user types them."""

import json
import sys
from xml.etree import ElementTree as ET

import pytest
from pymatgen.core import Structure

from pccd_workflows.cli import main
from pccd_workflows.settings import get_settings


@pytest.fixture(autouse=True)
def models(tiny_folder, monkeypatch):
    monkeypatch.setenv("PCCD_MODEL_DIR", str(tiny_folder.parent))
    get_settings.cache_clear()


def run(capsys, *arguments):
    code = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_info(capsys):
    code, out, _ = run(capsys, "model", "info", "tiny", "--json")
    assert code == 0
    assert json.loads(out)["name"] == "tiny"
    code, out, _ = run(capsys, "model", "info", "tiny")
    assert code == 0
    assert "max_sites" in out


def test_sample_writes_cifs(capsys, tmp_path):
    options = ("--model", "tiny", "--elements", "Na,Cl", "--n", "3", "--steps", "10")
    code, out, _ = run(capsys, "model", "sample", *options, "--out", str(tmp_path), "--json")
    assert code == 0
    rows = json.loads(out)
    assert len(rows) == 3
    for row in rows:
        structure = Structure.from_file(row["file"])
        assert {e.symbol for e in structure.composition} == {"Na", "Cl"}


def test_what_can_be_had_of_a_gap_asked_for_is_said(capsys, monkeypatch):
    monkeypatch.delenv("PCCD_MODEL_DIR")
    get_settings.cache_clear()
    options = ("--elements", "Cu,Au", "--samples", "2", "--band-gap", "3")
    code, out, _ = run(capsys, "model", "sample", *options)
    assert code == 0
    assert "band_gap asked for: 3 eV, estimated: 0.0" in out
    assert "nothing likely of these elements is estimated nearer" in out
    assert max(map(len, out.splitlines()[-2:])) <= 80


def test_sampling_that_is_stopped_goes_on(capsys, tmp_path, monkeypatch):
    from pccd_workflows.generators.pccd import sample as sampling

    options = ("--model", "tiny", "--elements", "Na,Cl", "--n", "40", "--steps", "5")
    command = ("model", "sample", *options, "--out", str(tmp_path))
    real, drawn = sampling.sample_crystals, []

    def stops(model, requests, **keywords):
        drawn.append([request.index for request in requests])
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return real(model, requests, **keywords)

    monkeypatch.setattr(sampling, "sample_crystals", stops)
    code, out, _ = run(capsys, *command)
    assert code == 130
    assert len(out.splitlines()) == 32
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert drawn[2:] == [list(range(32, 40))]
    assert len(out.splitlines()) == 41
    assert f"CIF files in {tmp_path}" in out
    code, _, err = run(capsys, *command, "--seed", "1")
    assert code == 2
    assert "samples of other options" in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("model", "info", "tinny"), "no trained model"),
        (("model", "sample", "--model", "tiny", "--elements", "Na,Xx"), "Xx"),
        (("model", "sample", "--model", "tiny", "--elements", "Na,O"), "was not trained on O"),
        (("model", "sample", "--model", "tiny", "--elements", "Na", "--sampler", "x"), "sampler"),
        (("model", "train", "none.yaml"), "no training file"),
        (("model", "evaluate", "tiny", "--data", "none.npz"), "no dataset"),
        (("model", "evaluate", "tiny", "--data", "x.npz", "--only", "csp2"), "csp2"),
        (("dataset", "describe", "none.npz"), "no dataset"),
        (("dataset", "build", "--from", "none.jsonl", "--out", "x.npz"), "no file or folder"),
    ],
)
def test_one_sentence_and_exit_code_two(capsys, arguments, word):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert word in err
    assert "Traceback" not in err


def test_build_and_describe(capsys, crystals_file, tmp_path):
    target = tmp_path / "x.npz"
    code, out, _ = run(
        capsys, "dataset", "build", "--from", str(crystals_file), "--out", str(target), "--json"
    )
    assert code == 0
    built = json.loads(out)
    assert built["crystals"] == 384
    code, out, _ = run(capsys, "dataset", "describe", str(target), "--json")
    assert json.loads(out)["sha256"] == built["sha256"]


MEASURED = {"value", "interval", "n"}


def test_evaluate(capsys, dataset_file, tiny_folder, tmp_path, monkeypatch):
    from pccd_workflows.cli import evaluation
    from pccd_workflows.engines import potential
    from pccd_workflows.evaluation.stored_potential import StoredPotential

    monkeypatch.setattr(evaluation, "MAX_SIMILARITY", 1)
    monkeypatch.setattr(potential, "calculator_of", lambda _: None)
    monkeypatch.setattr(StoredPotential, "energy_per_atom", lambda _, structure: -structure.volume)
    page = tmp_path / "report"
    options = ("--data", str(dataset_file), "--samples", "4", "--steps", "10", "--attempts", "2")
    options += ("--report", str(page), "--json")
    monkeypatch.setattr(sys, "argv", ["pccd", "model", "evaluate", "tiny", "--json"])
    code, out, _ = run(capsys, "model", "evaluate", str(tiny_folder), *options)
    assert code == 0
    result = json.loads(out)
    for part in ("reconstruction", "control"):
        assert set(result[part]["atom_count_accuracy"]) == MEASURED
        assert set(result[part]["efficiency"]) == {"a", "b", "c", "x", "y", "z"}
        assert all(set(value) == MEASURED for value in result[part]["efficiency"].values())
    assert result["reconstruction"]["atom_count_accuracy"]["value"] == 1.0
    assert result["inversion"]["match_rate"]["value"] == 1.0
    assert set(result["csp"]["match_rate"]) == set(result["csp"]["rmse"]) == MEASURED
    assert len(result["similarity"]) == 6
    assert result["generation"]["valid"]["value"] > 0.8
    assert result["generation"]["obedience"]["composition"]["value"] == 1.0
    assert result["known_to_model"]["value"] == 0.0
    assert json.loads((page / "metrics.json").read_text()) == result
    text = (page / "evaluation.html").read_text()
    assert "<dt>Command</dt><dd>pccd model evaluate tiny --json</dd>" in text
    assert text.count("<svg") == len(list(page.glob("*.svg"))) > 15
    for figure in page.glob("*.svg"):
        assert ET.fromstring(figure.read_text()).tag.endswith("svg")  # noqa: S314  our own file


def test_evaluate_reads_json_lines_and_only_the_parts_asked_for(capsys, crystals_file):
    options = ("--data", str(crystals_file), "--samples", "4", "--steps", "5", "--only", "csp")
    code, out, _ = run(capsys, "model", "evaluate", "tiny", *options, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["csp"]["match_rate"]["n"] == 4
    assert "reconstruction" not in result
    code, out, _ = run(capsys, "model", "evaluate", "tiny", *options)
    assert "match_rate" in out
