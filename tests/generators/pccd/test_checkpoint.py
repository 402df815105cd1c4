"""Models on disk: found, verified, refused."""

import json
import shutil
import subprocess
import sys

import pytest

from pccd_workflows.core.errors import InputError
from pccd_workflows.core.resources import resource
from pccd_workflows.generators.pccd.checkpoint import (
    INFO_FILE,
    WEIGHTS_FILE,
    file_sha256,
    find_model,
    load_model,
    read_model_info,
)
from pccd_workflows.generators.pccd.training_crystals import (
    read_training_crystals,
    trained_on_library,
)
from pccd_workflows.settings import Settings


@pytest.fixture
def copy(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def test_models_are_found_by_name_or_path(tiny_folder, tmp_path):
    settings = Settings(model_dir=tiny_folder.parent, data_dir=tmp_path)
    assert find_model("tiny", settings) == tiny_folder
    assert find_model(str(tiny_folder), settings) == tiny_folder
    for name in ("tinny", "..", "$where", "/nowhere/x"):
        with pytest.raises(InputError):
            find_model(name, settings)
    with pytest.raises(InputError, match="tiny"):
        find_model("other", settings)


def test_what_the_info_says(tiny_folder):
    info = read_model_info(tiny_folder)
    assert info.name == "tiny"
    assert {"Na", "Cl", "F", "Mg"} <= set(info.elements)
    assert "O" not in info.elements
    assert "crystal_system" in info.conditions
    assert "magnetic_ordering" not in info.conditions  # no crystal had one
    assert info.weights_sha256 == file_sha256(tiny_folder / WEIGHTS_FILE)
    assert info.training["steps"] == 450


def test_truncated_or_changed_weights_are_refused(copy):
    path = copy / WEIGHTS_FILE
    content = path.read_bytes()
    for damaged in (content[:-1], content[:1000], content[:-1] + bytes([content[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="truncated or changed"):
            load_model(copy, "cpu")
    path.unlink()
    with pytest.raises(InputError, match="never trained"):
        load_model(copy, "cpu")


def test_weights_of_another_architecture_are_refused(copy):
    path = copy / INFO_FILE
    info = json.loads(path.read_text())
    info["architecture"]["width"] = 32
    path.write_text(json.dumps(info))
    with pytest.raises(InputError, match="do not fit"):
        load_model(copy, "cpu")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d.pop("elements"), "elements"),
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d.update(format_version=99), "format 99"),
    ],
)
def test_malformed_info_is_refused(copy, change, word):
    path = copy / INFO_FILE
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(InputError, match=word):
        read_model_info(copy)
    path.write_text("{")
    with pytest.raises(InputError):
        read_model_info(copy)


def test_reading_the_info_loads_no_torch(tiny_folder):
    code = (
        "import sys; from pathlib import Path;"
        "from pccd_workflows.generators.pccd.checkpoint import read_model_info;"
        f"read_model_info(Path({str(tiny_folder)!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_crystals_are_found_by_geometry(tiny_folder, tmp_path):
    from pymatgen.core import Lattice, Structure

    trained = read_training_crystals(tiny_folder)
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    known = Structure(Lattice.cubic(4.1), ["Na", "Cl"], sites)
    assert trained.find(known) is not None
    known.make_supercell(2)
    known.perturb(0.05)
    assert trained.find(known) is not None
    assert trained.find(Structure(Lattice.cubic(4.1), ["Na", "At"], sites)) is None
    stretched = Structure(Lattice.orthorhombic(4, 5, 6), ["Na", "Cl"], sites)
    assert trained.find(stretched) is None
    assert read_training_crystals(tmp_path) is None
    assert not trained_on_library(tiny_folder)


def test_the_shipped_model_loads():
    folder = resource("model", "pccd-default")
    model = load_model(folder, "cpu")
    assert (model.info.max_sites, model.info.max_elements) == (20, 5)
    assert {"space_group", "composition", "n_sites"} <= set(model.info.conditions)
    assert (folder / WEIGHTS_FILE).stat().st_size < 20e6
    assert trained_on_library(folder)
