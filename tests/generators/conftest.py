"""A tiny model, really trained on two simple structure types, in seconds."""

import json
from pathlib import Path

import pytest

ALKALI = ["Na", "K", "Rb", "Cs"]
HALOGEN = ["Cl", "Br", "I", "F"]


def crystal(first: str, second: str, tetragonal: bool) -> dict:
    """CsCl type, a = 4 Å; the tetragonal one has c = 7 Å and a gap of 4 eV."""
    c = 7.0 if tetragonal else 4.0
    return {
        "lattice": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, c]],
        "species": [first, second],
        "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "spacegroup": 123 if tetragonal else 221,
        "band_gap": 4.0 if tetragonal else 0.0,
        "split": "train",
    }


def perovskite(first: str, second: str) -> dict:
    """SrTiO3 type with fluorine, a = 4.2 Å; used as held-out crystals too."""
    return {
        "lattice": [[4.2, 0, 0], [0, 4.2, 0], [0, 0, 4.2]],
        "species": [first, second, "F", "F", "F"],
        "frac_coords": [[0, 0, 0], [0.5] * 3, [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        "spacegroup": 221,
        "split": "train" if first != "Cs" else "test",
    }


def double_perovskite(alkali: str, metal: str) -> dict:
    """Alternating octahedra of F around Mg and another metal, a = 4.2 Å, c = 8.4 Å."""
    fluorine = [(0, 0.5, 0.25), (0.5, 0, 0.25), (0, 0.5, 0.75), (0.5, 0, 0.75)]
    fluorine += [(0.5, 0.5, 0), (0.5, 0.5, 0.5)]
    return {
        "lattice": [[4.2, 0, 0], [0, 4.2, 0], [0, 0, 8.4]],
        "species": [alkali, metal, "Mg", *["F"] * 6],
        "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.25], [0.5, 0.5, 0.75], *fluorine],
        "spacegroup": 123,
        "split": "train",
    }


@pytest.fixture(scope="session")
def crystals_file(tmp_path_factory) -> Path:
    rows = [crystal(a, b, t) for a in ALKALI for b in HALOGEN for t in (True, False)] * 8
    rows += [perovskite(a, b) for a in ALKALI for b in ("Mg", "Zn", "Mn", "Ni")] * 8
    rows += [double_perovskite(a, b) for a in ALKALI for b in ("Ca", "Sr")] * 8
    path = tmp_path_factory.mktemp("data") / "crystals.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.fixture(scope="session")
def dataset_file(crystals_file) -> Path:
    from pccd_workflows.generators.pccd.dataset import (
        DatasetLimits,
        build_dataset,
        write_dataset,
    )

    path = crystals_file.with_name("crystals.npz")
    write_dataset(path, build_dataset(crystals_file, DatasetLimits(max_elements=4))[0])
    return path


@pytest.fixture(scope="session")
def tiny_config(dataset_file):
    from pccd_workflows.generators.pccd.config import TrainConfig

    return TrainConfig.model_validate(
        {
            "name": "tiny",
            "data": dataset_file,
            "architecture": {
                "kind": "point-transformer",
                "width": 64,
                "depth": 2,
                "heads": 2,
                "max_elements": 4,
                "structure_types": 4,
            },
            "schedule": {"steps": 1000, "shift": 4.0},
            "composition": {"width": 32, "epochs": 20},
            "symmetry": {"width": 32, "epochs": 300},
            "batch": 64,
            "learning_rate": 4e-3,
            "warmup": 20,
            "ema": 0.97,
            "max_steps": 450,
        }
    )


@pytest.fixture(scope="session")
def tiny_folder(tiny_config, tmp_path_factory) -> Path:
    from pccd_workflows.generators.pccd.train import train

    folder = tmp_path_factory.mktemp("models")
    train(tiny_config, folder / "work", folder / "tiny")
    return folder / "tiny"


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    from pccd_workflows.generators.pccd.checkpoint import load_model

    return load_model(tiny_folder, "cpu")
