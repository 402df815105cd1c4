"""Training: it learns, it resumes, it refuses."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from pccd_workflows.core.errors import InputError
from pccd_workflows.generators.pccd.checkpoint import load_model
from pccd_workflows.generators.pccd.conditions import conditions_of
from pccd_workflows.generators.pccd.config import load_train_config
from pccd_workflows.generators.pccd.dataset import read_dataset, write_dataset
from pccd_workflows.generators.pccd.networks import build_denoiser
from pccd_workflows.generators.pccd.schedule import cosine_log_snr
from pccd_workflows.generators.pccd.train import (
    CHECKPOINT,
    CURVE,
    Batches,
    Progress,
    begin_with,
    log_progress,
    read_progress,
    train_denoiser,
)


def test_an_interrupted_run_ends_with_the_same_weights(tiny_config, tmp_path, monkeypatch):
    arrays = read_dataset(tiny_config.data).of_split("train")
    config = tiny_config.model_copy(
        update={"max_steps": 12, "batch": 16, "checkpoint_minutes": 1e-9}
    )
    whole, progress = train_denoiser(config, arrays, tmp_path / "whole")
    assert progress.step == 12

    from pccd_workflows.generators.pccd import train as training

    take_step = training._step

    def dying(run, *arguments):
        if run.step == 7:
            raise KeyboardInterrupt
        return take_step(run, *arguments)

    monkeypatch.setattr(training, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(config, arrays, tmp_path / "cut")
    monkeypatch.setattr(training, "_step", take_step)
    steps = []
    monkeypatch.setattr(
        training, "_step", lambda run, *a: steps.append(run.step) or take_step(run, *a)
    )
    resumed, _ = train_denoiser(config, arrays, tmp_path / "cut")
    assert steps == [7, 8, 9, 10, 11]
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-6), name


def test_mixed_precision_learns_as_much(tiny_config, tmp_path):
    arrays = read_dataset(tiny_config.data).of_split("train")

    def losses(precision):
        config = tiny_config.model_copy(
            update={"max_steps": 40, "batch": 32, "precision": precision, "ema": 0.9}
        )
        denoiser, _ = train_denoiser(config, arrays, tmp_path / precision)
        assert {tensor.dtype for tensor in denoiser.parameters()} == {torch.float32}
        clean, given = denoiser.encode(arrays), conditions_of(arrays)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        levels = cosine_log_snr(1000, 4.0).float()[[5, 100, 400, 900]]
        with torch.no_grad():
            return [
                float(denoiser.loss(clean, noise, level.expand(len(clean)), given))
                for level in levels
            ]

    assert losses("bf16-mixed") == pytest.approx(losses("32-true"), rel=0.03)


def test_a_checkpoint_of_another_network_is_refused(tiny_config, tmp_path):
    arrays = read_dataset(tiny_config.data).of_split("train")
    config = tiny_config.model_copy(update={"max_steps": 1, "batch": 8})
    train_denoiser(config, arrays, tmp_path)
    wider = config.architecture.model_copy(update={"width": 32})
    with pytest.raises(InputError, match="another network"):
        train_denoiser(config.model_copy(update={"architecture": wider}), arrays, tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"cut")
    with pytest.raises(InputError, match="damaged"):
        train_denoiser(config, arrays, tmp_path)


def test_batches_hold_every_crystal_once_per_epoch():
    sizes = np.random.default_rng(0).integers(1, 17, 96)
    batches = Batches(sizes, 16, seed=3)
    rows = torch.cat([batches(step) for step in range(6)])
    assert sorted(rows.tolist()) == list(range(96))
    assert batches(7).tolist() == Batches(sizes, 16, seed=3)(7).tolist()
    spread = np.mean([np.ptp(sizes[batches(step).numpy()]) for step in range(6)])
    assert spread < 6


def test_training_files(tmp_path):
    path = tmp_path / "train.yaml"
    good = "name: x\ndata: a.npz\nmax_steps: 5\narchitecture: {kind: point-transformer}\n"
    path.write_text(good)
    config = load_train_config(path)
    assert config.data == tmp_path / "a.npz"
    for bad, word in [
        (good + "learning_rat: 1\n", "learning_rate"),
        (good.replace("max_steps: 5\n", ""), "max_steps"),
        (good.replace("point-transformer", "mlp"), "paper-unet"),
        ("name: [", "is not valid YAML"),
        ("", "key: value"),
    ]:
        path.write_text(bad)
        with pytest.raises(InputError, match=word):
            load_train_config(path)
    with pytest.raises(InputError, match="no training file"):
        load_train_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["pccd-default", "paper"])
def test_shipped_training_files_are_valid(name):
    from pccd_workflows.core.resources import resource

    assert load_train_config(resource("model", name, "train.yaml")).name == name


def test_training_can_begin_with_a_smaller_model(tiny_config, tiny_folder, tmp_path):
    architecture = tiny_config.architecture.model_copy(update={"max_sites": 20, "max_elements": 5})
    larger = build_denoiser(architecture)
    begin_with(larger, tiny_folder)
    trained = load_model(tiny_folder, "cpu").denoiser
    assert torch.equal(larger.count_table.weight[:17], trained.count_table.weight)
    assert torch.equal(larger.site_out.weight, trained.site_out.weight)
    assert larger.count_table.weight.shape[0] == 21
    with pytest.raises(InputError, match="not a trained model"):
        begin_with(larger, tmp_path)


def test_the_loss_curve_has_every_step_once_also_after_a_kill(tmp_path):
    for step in (100, 200, 300, 200, 300, 400):  # killed after 300, the checkpoint was of 100
        log_progress(tmp_path, Progress(step, step * 8, step / 60, step / 400, 1.0))
    with (tmp_path / CURVE).open("a") as file:
        file.write('{"step": 500, "crys')
    assert [point.step for point in read_progress(tmp_path)] == [100, 200, 300, 400]
    assert read_progress(tmp_path / "none") == []


def test_two_processes_train_one_model(tiny_config, tmp_path):
    config = {
        "name": "two",
        "data": "few.npz",
        "architecture": {"kind": "point-transformer", "width": 16, "depth": 1, "heads": 2},
        "composition": {"width": 8, "epochs": 1},
        "batch": 8,
        "devices": 2,
        "max_steps": 6,
        "checkpoint_minutes": 1e-9,
    }
    arrays = read_dataset(tiny_config.data)
    few = arrays.take(np.flatnonzero(arrays.n_sites < 9)[::4])
    write_dataset(tmp_path / "few.npz", few)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "pccd_workflows", "model", "train", "train.yaml"]
    for _ in range(2):  # the second time it goes on from the end: nothing is left to do
        done = subprocess.run(
            [*command, "--work", "work", "--out", "model"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Wrote model") == 1
    info = load_model(tmp_path / "model", "cpu").info
    assert info.training["steps"] == 6
    assert info.training["crystals_seen"] == 6 * 8 * 2


def test_a_network_does_not_offer_conditions_that_it_does_not_read(dataset_file):
    from pccd_workflows.generators.pccd.denoiser import PointTransformer
    from pccd_workflows.generators.pccd.paper import PaperUNet
    from pccd_workflows.generators.pccd.train import trained_conditions

    crystals = read_dataset(dataset_file).of_split("train")
    paper = trained_conditions(crystals, PaperUNet.conditions, with_composition=False)
    assert paper == ["band_gap"]
    default = trained_conditions(crystals, PointTransformer.conditions, with_composition=True)
    assert {"band_gap", "crystal_system", "space_group", "composition"} <= set(default)
    assert "magnetic_ordering" not in default  # no crystal has one
